/**
 * The offload's maps at scale: entries in, changed and out, through the same calls that the FDB's writer makes.
 *
 *     node dist/bench/offload.js [ENTRIES]
 *
 * Needs root (CAP_BPF). Prints updates a second and the kernel's memory for an entry.
 */
import { readFileSync } from 'node:fs';
import { OffloadMirror } from '../control/offload/mirror.ts';

const entries = Number(process.argv[2] ?? 1_000_000);
const mirror = new OffloadMirror({ entries, nextHops: 1, devices: 1 });

/** Bytes that the map of the entries takes, as the kernel counts them. */
function bytes(): number {
  return Number(readFileSync(`/proc/self/fdinfo/${mirror.maps.fdb}`, 'latin1').match(/^memlock:\s*(\d+)/m)![1]);
}

function timed(what: string, change: (low: number) => void): void {
  const start = performance.now();
  for (let low = 0; low < entries; low++) change(low);
  const seconds = (performance.now() - start) / 1000;
  console.log(`${what}: ${Math.round(entries / seconds)} a second (${entries} in ${seconds.toFixed(2)} s)`);
}

const empty = bytes();
timed('insert', (low) => mirror.setEntry(0, 0x0200, low, 1));
console.log(
  `memory: ${((bytes() - empty) / entries).toFixed(0)} bytes an entry, and ${(empty / 1e6).toFixed(0)} MB for the table`,
);
timed('replace', (low) => mirror.setEntry(0, 0x0200, low, 2));
timed('remove', (low) => mirror.removeEntry(0, 0x0200, low));
mirror.close();
