/** Medians, spreads and percentiles. */
import type { Histogram } from './measures/measure.ts';

export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly count: number;
}

/** undefined when there are no values. */
export function summarize(values: readonly number[]): Summary | undefined {
  if (values.length === 0) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)!, count: sorted.length };
}

/** The smallest value that at least `share` (0 to 1) of the sorted values do not exceed (nearest rank). */
export function percentile(sorted: ArrayLike<number>, share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** Edges from 1 to 100,000, eight a factor of ten; what lies outside is counted in the outermost buckets. */
const EDGES = Array.from({ length: 41 }, (_, i) => Math.round(10 ** (i / 8) * 100) / 100);

export function histogram(values: Iterable<number>): Histogram {
  const counts = new Array<number>(EDGES.length - 1).fill(0);
  for (const value of values) {
    const after = EDGES.findIndex((edge) => value < edge);
    counts[after < 0 ? counts.length - 1 : Math.max(0, after - 1)]!++;
  }
  return { edges: EDGES, counts };
}

/** The sum of histograms of the same edges. */
export function addHistograms(all: readonly Histogram[]): Histogram | undefined {
  if (all.length === 0) return undefined;
  const counts = all[0]!.counts.map((_, i) => all.reduce((sum, each) => sum + each.counts[i]!, 0));
  return { edges: all[0]!.edges, counts };
}
