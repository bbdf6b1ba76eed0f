/** What a large cluster costs one of its nodes, on paper: from the curves. */
import type { Point } from './curves.ts';

const DAY = 86_400;
/** Seconds of a system call that sends one packet, without the kernel's way to the NIC. */
const CALL = 0.5e-6;

export interface Cluster {
  readonly nodes: number;
  /** Of the curve over VTEPs, at so many. */
  readonly vteps: Point;
  /** Of the curve over flood lists: the longest. */
  readonly flood: Point;
}

/** Sentences. */
export function clusterText({ nodes, vteps, flood }: Cluster): string[] {
  const insert = vteps.insert! / 1e9;
  const copies = (nodes * flood['a copy']!) / 1e9;
  const calls = nodes * CALL;
  const join = nodes * insert;
  return [
    `Memory: one FDB entry and one next hop for each of ${nodes.toLocaleString('en')} nodes, ${vteps['resident MB']!.toFixed(1)} MB.`,
    `Updates: all of them at once (this node starts) take ${(join * 1000).toFixed(0)} ms in the writer, ${(insert * 1e6).toFixed(1)} us each. ` +
      `Should every node be replaced once a day, that is ${((2 * nodes) / DAY).toFixed(2)} changes a second, ` +
      `${(((2 * nodes * insert) / DAY) * 100).toPrecision(1)} % of one CPU. The main thread, the program that asks and resolving neighbours come on top.`,
    `Flood: with an all-zeros entry for every node a broadcast is ${nodes.toLocaleString('en')} packets, ${(copies * 1000).toFixed(1)} ms of a worker, ` +
      `and a system call each, ${(calls * 1000).toFixed(0)} ms more at ${CALL * 1e6} us: ${Math.floor(1 / (copies + calls))} broadcasts a second fill a CPU. ` +
      "flannel floods nothing; whoever does wants few broadcasts (the word proxy, or the bridge's neigh_suppress).",
  ];
}
