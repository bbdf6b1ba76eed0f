/** What a large cluster costs one of its nodes, on paper: from the curves. */
import type { Point } from './curves.ts';

const DAY = 86_400;
/**
 * Seconds of a write that sends one packet over `redirect`, with what the kernel does in it, here up to the other host's stack behind a veth: of a
 * broadcast to 1,000 VTEPs a copy took 5.9 us of the daemon's CPU time, headers included (Linux 6.18, Node 20.20, AMD EPYC, three runs of 185,000 copies).
 */
const WRITE = 5.7e-6;

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
  const writes = nodes * WRITE;
  const join = nodes * insert;
  return [
    `Memory: one FDB entry and one next hop for each of ${nodes.toLocaleString('en')} nodes, ${vteps['resident MB']!.toFixed(1)} MB.`,
    `Updates: all of them at once (this node starts) take ${(join * 1000).toFixed(0)} ms in the writer, ${(insert * 1e6).toFixed(1)} us each. ` +
      `Should every node be replaced once a day, that is ${((2 * nodes) / DAY).toFixed(2)} changes a second, ` +
      `${(((2 * nodes * insert) / DAY) * 100).toPrecision(1)} % of one CPU. The main thread, the program that asks and resolving neighbours come on top.`,
    `Flood: with an all-zeros entry for every node a broadcast is ${nodes.toLocaleString('en')} packets, ${(copies * 1000).toFixed(1)} ms of a worker, ` +
      `and a write each, ${(writes * 1000).toFixed(0)} ms more at ${(WRITE * 1e6).toFixed(1)} us with the kernel's work in it: ${Math.floor(1 / (copies + writes))} broadcasts a second fill a CPU. ` +
      "flannel floods nothing; whoever does wants few broadcasts (the word proxy, or the bridge's neigh_suppress).",
  ];
}
