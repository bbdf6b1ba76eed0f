/** Interleaved rounds: A B C A B C, so that a machine whose speed drifts treats all alike. */
import { iperf3, ping } from '../cli/lab/measure.ts';
import { background, cpuTime } from './machine.ts';
import type { Failure, Histogram, Measure, Pace } from './measures/measure.ts';
import { build, type Pair, type Peer } from './peers/peers.ts';
import type { Run } from './result.ts';
import { setCongestion } from './sockets.ts';

/** Round trips of the warm-up. */
const PINGS = 3000;

export interface RoundsOptions {
  readonly peers: readonly Peer[];
  readonly measures: readonly Measure[];
  readonly rounds: number;
  readonly pace: Pace;
  /** Seconds after which no round is begun that is not likely to end in time. */
  readonly limit: number;
  /** The TCP congestion control of the runs; undefined: what the machine has. */
  readonly congestion?: string | undefined;
  /** Told what is done now, with the share of all that is done. */
  readonly progress: (what: string, done: number) => void;
}

/** Runs the rounds; `cutShort` says why there are fewer than asked for. */
export async function runRounds(options: RoundsOptions): Promise<{ runs: Run[]; cutShort?: string }> {
  const { peers, rounds, limit, measures, progress } = options;
  const runs: Run[] = [];
  const start = performance.now();
  const elapsed = () => (performance.now() - start) / 1000;
  for (let round = 1; round <= rounds; round++) {
    const expected = (elapsed() / (round - 1)) * round;
    if (round > 1 && expected > limit) {
      const why = `${round - 1} of ${rounds} rounds: another one would not have ended within ${limit} s`;
      return { runs, cutShort: why };
    }
    for (const [i, peer] of peers.entries()) {
      const steps = rounds * peers.length * measures.length;
      const before = ((round - 1) * peers.length + i) * measures.length;
      const say = (measure: string, step: number) =>
        progress(`round ${round} of ${rounds}, ${peer.name}: ${measure}`, (before + step) / steps);
      runs.push(await runPeer(round, peer, options, say));
    }
  }
  return { runs };
}

async function runPeer(
  round: number,
  peer: Peer,
  { measures, pace, congestion }: RoundsOptions,
  say: (measure: string, step: number) => void,
): Promise<Run> {
  const share = await background();
  const begin = cpuTime();
  const values: Record<string, number> = {};
  const histograms: Record<string, Histogram> = {};
  const failures: Failure[] = [];
  const fail = (failed: readonly Measure[], error: unknown) =>
    failures.push({ keys: failed.flatMap(({ quantities }) => quantities.map(({ key }) => key)), why: sentence(error) });

  for (const mtu of new Set(measures.map((measure) => measure.mtu))) {
    const here = measures.filter((measure) => measure.mtu === mtu);
    try {
      const pair = await build(peer, mtu);
      try {
        if (congestion !== undefined) setCongestion(pair, congestion);
        // Caches fill, learning ends, V8 compiles what is hot.
        const { host } = pair.left;
        const [address] = pair.right.addresses as [string];
        await iperf3(host, pair.right.host, address, { seconds: 1, extra: ['--bidir'] });
        await ping(host, address, { count: PINGS, flood: true });
        for (const measure of here) measure.begin?.(pair);
        for (const measure of here) {
          say(measure.name, measures.indexOf(measure));
          try {
            const sample = await measure.run(pair, pace);
            checkDaemons(pair);
            Object.assign(values, sample.values);
            Object.assign(histograms, sample.histograms);
            failures.push(...(sample.failures ?? []));
          } catch (error) {
            fail([measure], error);
          }
        }
      } finally {
        pair.remove();
      }
    } catch (error) {
      // It did not come up, or did not carry the warm-up: nothing of it can be measured.
      fail(here, error);
    }
  }
  const end = cpuTime();
  const stolen = (end.stolen - begin.stolen) / Math.max(end.total - begin.total, 0.01);
  return { round, peer: peer.name, background: share, stolen, values, histograms, failures };
}

/** What a daemon did that has failed meanwhile is no result, whatever the program that measures says. */
function checkDaemons({ left, right }: Pair): void {
  for (const { argv, exit, output } of [...left.daemons, ...right.daemons]) {
    const failed = exit ? 'it has ended' : /worker \d+ failed.*/.exec(output)?.[0];
    if (failed) throw new Error(`${argv.join(' ')}: ${failed}`);
  }
}

const LONGEST_REASON = 400;

/** An error in a line. Of a long one the middle is left out: it begins with the command, and ends with the cause. */
export function sentence(error: unknown): string {
  const text = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').trim();
  if (text.length <= LONGEST_REASON) return text;
  return `${text.slice(0, LONGEST_REASON / 4)} ... ${text.slice((-3 * LONGEST_REASON) / 4)}`;
}
