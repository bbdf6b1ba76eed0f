/** How cost grows with the size of a network: each function gives one point of its curves. Nanoseconds, unless it says otherwise. */
import { FdbReader } from '../../fdb/table.ts';
import { measure } from '../micro/case.ts';
import { drawn, macs, ScaleNode, vtepText } from './node.ts';

/** Packets a turn, as many as a worker reads. */
const BATCH = 64;
const LOOKUPS = 1 << 16;
const SECONDS = 0.2;
/** A column that is not nanoseconds. */
export const PAGE_FAULTS = 'page faults of an insert';
const ZEROS = '00:00:00:00:00:00';

export type Point = Readonly<Record<string, number>>;

/** Nanoseconds of one of the `operations` that `turn` does. */
function nanoseconds(operations: number, turn: () => void): number {
  return (measure({ name: '', operations, bytes: 0, turn }, SECONDS) / operations) * 1e9;
}

function encapsulation({ taps, worker }: ScaleNode): number {
  return nanoseconds(BATCH, () => {
    taps[0]!.refill(BATCH);
    worker.turn();
  });
}

/** What `insert` costs for each of so many entries, as a program would ask for them: in text. */
function writing(count: number, insert: (i: number) => void) {
  const { rss } = process.memoryUsage();
  const { minorPageFault } = process.resourceUsage();
  const start = performance.now();
  for (let i = 0; i < count; i++) insert(i);
  return {
    insert: ((performance.now() - start) * 1e6) / count,
    [PAGE_FAULTS]: (process.resourceUsage().minorPageFault - minorPageFault) / count,
    'resident MB': (process.memoryUsage().rss - rss) / 1e6,
  };
}

/** Keeps the compiler from leaving lookups out. */
export let found = 0;

/** An FDB of so many entries, all behind 100 VTEPs: writing it, what it holds, lookups and frames to random ones of them. */
export function fdb(entries: number): Point {
  const lows = macs(entries);
  const node = new ScaleNode(lows);
  const written = writing(entries, (i) => node.add(0, lows[i]!, 1 + (i % 100)));
  const reader = new FdbReader(node.writer.table.buffer);
  const keys = drawn(lows);
  const lookup = nanoseconds(LOOKUPS, () => {
    let sum = 0;
    for (let i = 0; i < LOOKUPS; i++) sum = (sum + reader.lookup(0, 0x0200, keys[i]!)) | 0;
    found ^= sum;
  });
  return { entries, lookup, 'encap, random destinations': encapsulation(node), ...written };
}

/** So many VTEPs, a MAC behind each, as flannel has it: frames to random ones of them cannot share a write. */
export function vteps(count: number): Point {
  const lows = macs(count);
  const node = new ScaleNode(lows);
  const written = writing(count, (i) => node.add(0, lows[i]!, i + 1));
  return { VTEPs: count, 'encap, random destinations': encapsulation(node), ...written };
}

/** A broadcast to so many VTEPs. */
export function flood(members: number): Point {
  const node = new ScaleNode(macs(1));
  for (let i = 0; i < members; i++) node.writer.append(0, { mac: ZEROS, dst: vtepText(i + 1) }, 0);
  const frame = encapsulation(node);
  return { members, 'a frame': frame, 'a copy': frame / members };
}

/** So many devices, each with its own VNI and TAP: frames in turn from each, packets in for random ones. */
export function vnis(devices: number): Point {
  const node = new ScaleNode(macs(1), devices);
  for (let device = 0; device < devices; device++) node.add(device, macs(1)[0]!, 1);
  const each = Math.max(1, BATCH / devices);
  const encap = nanoseconds(each * devices, () => {
    for (let i = 0; i < devices; i++) node.taps[i]!.refill(each);
    node.worker.turn();
  });
  const decap = nanoseconds(BATCH, () => {
    node.uplink.refill(BATCH);
    node.worker.turn();
  });
  const idle = nanoseconds(1, () => node.worker.turn());
  return { VNIs: devices, encap, decap, 'an empty round': idle };
}

/** How large each gets. */
export const SIZES = {
  fdb: [10, 100, 1000, 10_000, 100_000, 1_000_000],
  vteps: [1, 10, 100, 1000, 10_000],
  flood: [1, 10, 100, 1000],
  vnis: [1, 2, 4, 8, 16, 32, 64],
};
