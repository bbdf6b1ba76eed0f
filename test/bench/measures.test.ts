import assert from 'node:assert/strict';
import test from 'node:test';
import { MEASURES } from '../../bench/measures/measures.ts';
import { parsePauses } from '../../bench/measures/processes.ts';
import { parseLog, sample } from '../../bench/measures/round-trip.ts';

test('no two measurements give the same quantity', () => {
  const keys = MEASURES.flatMap(({ quantities }) => quantities.map(({ key }) => key));
  assert.equal(new Set(keys).size, keys.length);
});

test("sockperf's log", () => {
  const log = `sockperf: Summary: Round trip is 14.0 usec
------------------------------
packet, txTime(sec), rxTime(sec), rtt(usec)
0, 2.424300580, 2.424315087, 14.507
1, 2.424315127, 2.424328793, 13.666
------------------------------
`;
  assert.deepEqual([...parseLog(log)], [13.666, 14.507]);
  assert.throws(() => parseLog('packet, txTime(sec), rxTime(sec), rtt(usec)\n'), /no round trips/);
});

test('a percentile is told where something lies beyond it', () => {
  const keys = (count: number) => Object.keys(sample('rtt', new Float64Array(count)).values);
  assert.deepEqual(keys(1), []);
  assert.deepEqual(keys(99), ['rtt.p50']);
  assert.deepEqual(keys(101), ['rtt.p50', 'rtt.p99']);
  assert.deepEqual(keys(1001), ['rtt.p50', 'rtt.p99', 'rtt.p999']);
});

test("V8's trace of collections", () => {
  const trace = `uvxlan: flannel.1 is up
[4711:0x7f2c5c000000]       45 ms: Scavenge 4.4 (6.5) -> 3.8 (7.5) MB, 0.72 / 0.00 ms  (average mu = 1.000, current mu = 1.000) task;
[4711:0x7f2c5c000000]      123 ms: Mark-Compact 5.9 (8.8) -> 4.6 (9.1) MB, 3.58 / 0.01 ms  (average mu = 0.99) finalize incremental marking
`;
  assert.deepEqual(parsePauses(trace), [0.72, 3.58]);
});
