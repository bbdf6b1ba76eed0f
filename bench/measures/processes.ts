/** What the processes of an overlay hold, and how often and how long the garbage collector has stopped them. */
import type { Process } from '../../cli/lab/process.ts';
import { residentBytes } from '../machine.ts';
import type { Pair } from '../peers/peers.ts';
import type { Measure, Sample } from './measure.ts';

/** Milliseconds that V8 says (--trace-gc) the program was stopped, one a collection, of all of its threads. */
export function parsePauses(output: string): number[] {
  // [PID:0xISOLATE]   1234 ms: Scavenge 4.1 (5.0) -> 3.9 (6.0) MB, pooled: 0 MB, 0.52 / 0.00 ms  (average mu = ...) ...
  return [...output.matchAll(/^\[\d+:0x[0-9a-f]+\].* MB, .*?([\d.]+) \/ [\d.]+ ms/gm)].map(([, pause]) =>
    Number(pause),
  );
}

function daemons({ left, right }: Pair) {
  return [...left.daemons, ...right.daemons];
}

/** Where each program's output ended when it was warm. */
const warm = new WeakMap<Process, number>();

export const processes: Measure = {
  name: 'processes',
  about: 'after all else at this MTU: memory of the processes, and garbage collections since they were warm',
  mtu: 1500,
  quantities: [
    { key: 'memory', title: 'resident memory, both ends', unit: 'MB', better: 'less', noRatio: true },
    { key: 'gc.count', title: 'garbage collections, both ends', unit: '', better: 'less', noRatio: true },
    { key: 'gc.longest', title: 'longest pause for garbage collection', unit: 'ms', better: 'less', noRatio: true },
  ],
  begin(pair) {
    for (const daemon of daemons(pair)) warm.set(daemon, daemon.output.length);
  },
  async run(pair): Promise<Sample> {
    const all = daemons(pair);
    if (all.length === 0) return { values: {} };
    const memory = all.reduce((sum, { pid }) => sum + residentBytes(pid!), 0) / 1e6;
    const isNode = all.some(({ argv }) => argv.includes('--trace-gc'));
    if (!isNode) return { values: { memory } };
    const pauses = all.flatMap((daemon) => parsePauses(daemon.output.slice(warm.get(daemon))));
    return { values: { memory, 'gc.count': pauses.length, 'gc.longest': Math.max(0, ...pauses) } };
  },
};
