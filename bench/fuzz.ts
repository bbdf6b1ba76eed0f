/**
 * Hostile packets by the million through encapsulation, suppression, decapsulation and coalescing, in memory: see test/dataplane/hostile.ts.
 * Ends with status 1 and the packet's bytes when one does what none may.
 *
 *     npm run build && node dist/bench/fuzz.js [PACKETS] [SEED]     10,000,000 of them, from any seed
 */
import { performance } from 'node:perf_hooks';
import { Hostility } from '../test/dataplane/hostile.ts';

const packets = Number(process.argv[2] ?? 10_000_000);
const seed = Number(process.argv[3] ?? Date.now() & 0x7fffffff);
/** Told of this often. */
const REPORT = 1_000_000;

console.log(`${packets} hostile packets, seed ${seed}`);
const hostility = new Hostility(seed);
const begin = performance.now();
for (let reported = 0; hostility.packets < packets; ) {
  hostility.round();
  if (hostility.packets < reported + REPORT && hostility.packets < packets) continue;
  reported = hostility.packets;
  hostility.assertAddsUp();
  console.log(`${reported} after ${((performance.now() - begin) / 1000).toFixed(0)} s`);
}
for (const [name, count] of hostility.fates()) console.log(name.padEnd(26), String(count).padStart(12));
