/**
 * The FDB from 10 to 1,000,000 entries: nanoseconds a lookup (random keys, so that caches miss as they do with many flows) and an insert,
 * bytes an entry. Fails when lookups allocate.
 *
 *     npm run build && node dist/bench/fdb.js
 */
import Benchmark from 'benchmark';
import { FdbReader, FdbTable } from '../fdb/table.ts';

const DEVICE = 1;
const MAC_HIGH = 0x0200;
/** Lookups in one timed call. */
const CALL = 1 << 16;
const CELL_BYTES = 32;

let found = 0;

/** Nanoseconds of one of the CALL lookups that `call` does. */
function nanoseconds(call: () => void): number {
  const benchmark = new Benchmark(call, { maxTime: 0.3, minSamples: 5 }).run({ async: false });
  return (benchmark.stats.mean / CALL) * 1e9;
}

/** Bytes of heap that 50 calls left behind. */
function allocated(call: () => void): number {
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 50; i++) call();
  return process.memoryUsage().heapUsed - before;
}

function measure(entries: number) {
  const lows = Int32Array.from({ length: entries }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
  const keys = Int32Array.from({ length: CALL }, () => lows[Math.floor(Math.random() * entries)]);
  const table = new FdbTable(1 << 20, 12345);
  const rss = process.memoryUsage.rss();
  const start = process.hrtime.bigint();
  for (let i = 0; i < entries; i++) table.insert(DEVICE, MAC_HIGH, lows[i], (i + 1) << 1, 0x80, 0);
  const insert = Number(process.hrtime.bigint() - start) / entries;
  const resident = process.memoryUsage.rss() - rss;

  const reader = new FdbReader(table.buffer);
  const lookUp = (device: number, random: boolean) => () => {
    let sum = 0;
    for (let i = 0; i < CALL; i++) sum = (sum + reader.lookup(device, MAC_HIGH, keys[random ? i : i & 15])) | 0;
    found |= sum;
  };
  const hit = lookUp(DEVICE, true);
  const row = {
    entries,
    'same 16 keys, ns': nanoseconds(lookUp(DEVICE, false)).toFixed(1),
    'random hit, ns': nanoseconds(hit).toFixed(1),
    'random miss, ns': nanoseconds(lookUp(DEVICE + 1, true)).toFixed(1),
    // Below, page faults of a new table are most of it.
    'insert, ns': entries < 10_000 ? '' : insert.toFixed(0),
    'bytes an entry': ((table.capacity * CELL_BYTES) / entries).toFixed(0),
    'resident MB': (resident / 1e6).toFixed(1),
  };
  const garbage = allocated(hit);
  if (garbage > 16_384) {
    console.error(`${entries} entries: ${garbage} bytes allocated in ${50 * CALL} lookups`);
    process.exitCode = 1;
  }
  return row;
}

measure(1000); // the compiler's turn
console.log(`Node ${process.version}, ${process.arch}`);
console.table([10, 100, 1000, 10_000, 100_000, 1_000_000].map(measure));
if (found === 0) process.exitCode = 1;
