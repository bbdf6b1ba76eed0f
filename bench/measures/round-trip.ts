/** How long an answer takes: sockperf's ping-pong, idle and beside a TCP stream, and a flood ping. */
import { readFileSync, rmSync } from 'node:fs';
import { iperf3, ping } from '../../cli/lab/measure.ts';
import { missing } from '../../cli/lab/programs.ts';
import type { Pair } from '../peers/peers.ts';
import { histogram, percentile } from '../statistics.ts';
import type { Measure, Quantity, Sample } from './measure.ts';

/** Bytes of UDP payload. */
const SIZE = 64;
const PINGS = 3000;

/** Microseconds, one a round trip, ascending. */
async function pingPong({ left, right }: Pair, seconds: number): Promise<Float64Array> {
  const address = right.addresses[0]!;
  const log = `${left.host.directory}/sockperf.csv`;
  const server = right.host.spawn(`sockperf server -i ${address} -p 11111`);
  try {
    await server.waitFor(/to block on socket/);
    await left.host.run(
      `sockperf ping-pong -i ${address} -p 11111 -t ${seconds} -m ${SIZE} --full-rtt --dontwarmup --full-log ${log}`,
      { timeout: (seconds + 15) * 1000 },
    );
    return parseLog(readFileSync(log, 'latin1'));
  } finally {
    rmSync(log, { force: true });
    await server.stop('SIGKILL');
  }
}

/** The last column of sockperf's log, ascending. Throws when there is none. */
export function parseLog(text: string): Float64Array {
  // packet, txTime(sec), rxTime(sec), rtt(usec)
  const values = Float64Array.from(text.matchAll(/^\d+, [\d.]+, [\d.]+, ([\d.]+)$/gm), ([, rtt]) => Number(rtt));
  if (values.length === 0) throw new Error('sockperf logged no round trips');
  return values.sort();
}

function quantities(name: string, title: string): Quantity[] {
  const of = (key: string, what: string): Quantity => ({
    key: `${name}.${key}`,
    title: `${title}, ${what}`,
    unit: 'us',
    better: 'less',
  });
  return [of('p50', 'p50'), of('p99', 'p99'), of('p999', 'p99.9')];
}

/** Of `values`, ascending. A percentile that nothing lies beyond would be the maximum by another name: it is left out. */
export function sample(name: string, values: Float64Array): Sample {
  const shares = { p50: 0.5, p99: 0.99, p999: 0.999 };
  const told = Object.entries(shares).filter(([, share]) => Math.ceil(share * values.length) < values.length);
  return {
    values: Object.fromEntries(told.map(([key, share]) => [`${name}.${key}`, percentile(values, share)])),
    histograms: { [name]: histogram(values) },
  };
}

const IDLE = 'rtt';
const LOADED = 'rtt-loaded';

export const roundTrip: Measure = {
  name: IDLE,
  about: `round trip of ${SIZE} bytes of UDP, one after the other, nothing else running`,
  mtu: 1500,
  quantities: quantities(IDLE, 'round trip'),
  lacks: () => missing('sockperf'),
  run: async (pair, { seconds }) => sample(IDLE, await pingPong(pair, seconds)),
};

export const loadedRoundTrip: Measure = {
  name: LOADED,
  about: 'the same beside a TCP stream from left to right',
  mtu: 1500,
  quantities: quantities(LOADED, 'round trip beside a TCP stream'),
  lacks: () => missing('sockperf'),
  async run(pair, { seconds }) {
    const { left, right } = pair;
    // sockperf takes its time to begin and to end: the stream outlives it.
    const load = iperf3(left.host, right.host, right.addresses[0]!, { seconds: seconds + 4 });
    const [values] = await Promise.all([pingPong(pair, seconds), load]);
    return sample(LOADED, values);
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
