/** How long an answer takes: datagrams one after the other, idle and beside a TCP stream, and a flood ping. */
import { fileURLToPath } from 'node:url';
import { iperf3, ping } from '../../cli/lab/measure.ts';
import type { Pair } from '../peers/peers.ts';
import type { RoundTrips } from '../programs/round-trips.ts';
import { histogram, percentile } from '../statistics.ts';
import type { Measure, Quantity, Sample } from './measure.ts';

const PROGRAM = [process.execPath, fileURLToPath(new URL('../programs/round-trips.js', import.meta.url))];
const PINGS = 3000;
/** The lost share above which the percentiles of the rest would flatter. */
const MOST_LOST = 0.1;

async function roundTrips({ left, right }: Pair, seconds: number): Promise<RoundTrips> {
  const address = right.addresses[0]!;
  const server = right.host.spawn([...PROGRAM, 'serve', address]);
  try {
    const [, port] = await server.waitFor(/listening (\d+)/);
    const client = [...PROGRAM, 'measure', address, port!, `${seconds}`];
    const { stdout } = await left.host.run(client, { timeout: (seconds + 15) * 1000 });
    return JSON.parse(stdout) as RoundTrips;
  } finally {
    await server.stop('SIGKILL');
  }
}

const PERCENTILES = { p50: 0.5, p99: 0.99, p999: 0.999 };

function quantities(name: string, title: string): Quantity[] {
  const of = (key: string, what: string): Quantity => ({
    key: `${name}.${key}`,
    title: `${title}, ${what}`,
    unit: 'us',
    better: 'less',
  });
  return [
    ...[of('p50', 'p50'), of('p99', 'p99'), of('p999', 'p99.9')],
    { ...of('lost', 'lost'), unit: '%', noRatio: true },
    { ...of('answered', 'answered'), unit: '', better: 'more', noRatio: true },
  ];
}

/** Percentiles are of those that were answered. One that nothing lies beyond would be the maximum by another name: it is left out. */
export function sample(name: string, { sent, microseconds }: RoundTrips): Sample {
  const answered = microseconds.length;
  const loss = sent > 0 ? (sent - answered) / sent : 1;
  const counts = { [`${name}.lost`]: loss * 100, [`${name}.answered`]: answered };
  if (loss > MOST_LOST) {
    const keys = Object.keys(PERCENTILES).map((key) => `${name}.${key}`);
    const why = `${(loss * 100).toFixed(1)} % of ${sent} were not answered: percentiles of the others would flatter`;
    return { values: counts, failures: [{ keys, why }] };
  }
  const values = Float64Array.from(microseconds).sort();
  const told = Object.entries(PERCENTILES).filter(([, share]) => Math.ceil(share * answered) < answered);
  const percentiles = told.map(([key, share]) => [`${name}.${key}`, percentile(values, share)] as const);
  return { values: { ...Object.fromEntries(percentiles), ...counts }, histograms: { [name]: histogram(values) } };
}

const IDLE = 'rtt';
const LOADED = 'rtt-loaded';

export const roundTrip: Measure = {
  name: IDLE,
  about:
    'round trip of 64 bytes of UDP, one after the other, nothing else running; what is lost is counted, and the next sent',
  mtu: 1500,
  quantities: quantities(IDLE, 'round trip'),
  run: async (pair, { seconds }) => sample(IDLE, await roundTrips(pair, seconds)),
};

export const loadedRoundTrip: Measure = {
  name: LOADED,
  about: 'the same beside a TCP stream from left to right',
  mtu: 1500,
  quantities: quantities(LOADED, 'round trip beside a TCP stream'),
  async run(pair, { seconds }) {
    const { left, right } = pair;
    // The program takes its time to begin: the stream outlives what it counts.
    const load = iperf3(left.host, right.host, right.addresses[0]!, { seconds: seconds + 3 });
    const [found] = await Promise.all([roundTrips(pair, seconds), load]);
    return sample(LOADED, found);
  },
};

export const floodPing: Measure = {
  name: 'ping',
  about: `flood ping: the mean of ${PINGS} round trips`,
  mtu: 1500,
  quantities: [{ key: 'ping', title: 'flood ping, mean', unit: 'us', better: 'less' }],
  async run({ left, right }) {
    const { rtt, loss } = await ping(left.host, right.addresses[0]!, { count: PINGS, flood: true });
    if (!rtt || loss > 0.01) throw new Error(`${(loss * 100).toFixed(1)} % of the pings were not answered`);
    return { values: { ping: rtt.mean * 1000 } };
  },
};
