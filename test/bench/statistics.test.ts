import assert from 'node:assert/strict';
import test from 'node:test';
import { addHistograms, histogram, percentile, summarize } from '../../bench/statistics.ts';

test('median and spread', () => {
  assert.deepEqual(summarize([3, 1, 2]), { median: 2, min: 1, max: 3, count: 3 });
  assert.deepEqual(summarize([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4, count: 4 });
  assert.equal(summarize([]), undefined);
});

test('percentiles by nearest rank', () => {
  const hundred = Float64Array.from({ length: 100 }, (_, i) => i + 1);
  assert.deepEqual(
    [0, 0.5, 0.99, 0.999, 1].map((share) => percentile(hundred, share)),
    [1, 50, 99, 100, 100],
  );
  assert.ok(Number.isNaN(percentile([], 0.5)));
});

test('a histogram counts every value once, also what lies outside', () => {
  const { edges, counts } = histogram([0.1, 1, 9.99, 10, 99_999, 5e6]);
  assert.equal(
    counts.reduce((sum, count) => sum + count, 0),
    6,
  );
  const at = (value: number) => counts[edges.indexOf(value)];
  assert.equal(at(1), 2);
  assert.equal(at(10), 1);
  assert.equal(counts.at(-1), 2);
  assert.deepEqual(edges.slice(0, 9), [1, 1.33, 1.78, 2.37, 3.16, 4.22, 5.62, 7.5, 10]);
});

test('histograms add up', () => {
  const sum = addHistograms([histogram([1, 10]), histogram([10, 100])])!;
  assert.deepEqual(
    sum.edges.flatMap((edge, i) => (sum.counts[i] ? [[edge, sum.counts[i]]] : [])),
    [
      [1, 1],
      [10, 2],
      [100, 1],
    ],
  );
  assert.equal(addHistograms([]), undefined);
});
