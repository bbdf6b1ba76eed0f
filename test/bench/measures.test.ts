import assert from 'node:assert/strict';
import test from 'node:test';
import { MEASURES } from '../../bench/measures/measures.ts';
import { parsePauses } from '../../bench/measures/processes.ts';
import { sample } from '../../bench/measures/round-trip.ts';

test('no two measurements give the same quantity', () => {
  const keys = MEASURES.flatMap(({ quantities }) => quantities.map(({ key }) => key));
  assert.equal(new Set(keys).size, keys.length);
});

/** `answered` round trips of 1, 2, 3 ... microseconds. */
const trips = (answered: number, sent = answered) => ({
  ...{ sent, microseconds: Array.from({ length: answered }, (_, i) => answered - i) },
});

test('a percentile is told where something lies beyond it', () => {
  const keys = (count: number) => Object.keys(sample('rtt', trips(count)).values).slice(0, -2);
  assert.deepEqual(keys(1), []);
  assert.deepEqual(keys(99), ['rtt.p50']);
  assert.deepEqual(keys(101), ['rtt.p50', 'rtt.p99']);
  assert.deepEqual(keys(1001), ['rtt.p50', 'rtt.p99', 'rtt.p999']);
});

test('percentiles are of what was answered, and what was lost is told', () => {
  assert.deepEqual(sample('rtt', trips(190, 200)).values, {
    ...{ 'rtt.p50': 95, 'rtt.p99': 189, 'rtt.lost': 5, 'rtt.answered': 190 },
  });
});

test('of many losses the share alone is told', () => {
  const { values, histograms, failures } = sample('rtt', trips(150, 200));
  assert.deepEqual(values, { 'rtt.lost': 25, 'rtt.answered': 150 });
  assert.equal(histograms, undefined);
  assert.deepEqual(failures, [
    {
      keys: ['rtt.p50', 'rtt.p99', 'rtt.p999'],
      why: '25.0 % of 200 were not answered: percentiles of the others would flatter',
    },
  ]);
});

test("V8's trace of collections", () => {
  const trace = `uvxlan: flannel.1 is up
[4711:0x7f2c5c000000]       45 ms: Scavenge 4.4 (6.5) -> 3.8 (7.5) MB, 0.72 / 0.00 ms  (average mu = 1.000, current mu = 1.000) task;
[4711:0x7f2c5c000000]      123 ms: Mark-Compact 5.9 (8.8) -> 4.6 (9.1) MB, 3.58 / 0.01 ms  (average mu = 0.99) finalize incremental marking
`;
  assert.deepEqual(parsePauses(trace), [0.72, 3.58]);
});
