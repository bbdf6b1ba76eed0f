/** The comparison as a self-contained HTML page: charts, histograms of round trips, the whole table. */
import type { Quantity } from '../measures/measure.ts';
import { BASE, cellOf, histogramOf, type Result } from '../result.ts';
import { type Bar, barChart, escaped, lineChart, type Series } from './chart.ts';
import { list, page, table } from './page.ts';
import { figure, headLines, rows, tailLines } from './text.ts';

const HISTOGRAMS: Readonly<Record<string, string>> = {
  rtt: 'Round trips, idle',
  'rtt-loaded': 'Round trips beside a TCP stream',
};

export function htmlReport(result: Result): string {
  const [title, ...about] = headLines(result) as [string, ...string[]];
  const charts = result.quantities.map((quantity) => chartOf(result, quantity)).filter((chart) => chart !== '');
  const histograms = Object.entries(HISTOGRAMS).flatMap(
    ([name, heading]) => histogramChart(result, name, heading) || [],
  );
  return page(title, [
    `<h1>${escaped(title)}</h1>`,
    ...about.map((line) => `<p>${escaped(line)}</p>`),
    `<p><code>${escaped(result.command)}</code></p>`,
    '<h2>Medians, and from where to where</h2>',
    `<div class="charts">${charts.join('\n')}</div>`,
    ...(histograms.length > 0 ? ['<h2>Round trips</h2>', `<div class="charts">${histograms.join('\n')}</div>`] : []),
    '<h2>All figures</h2>',
    table(rows(result, true)),
    '<h2>Notes</h2>',
    list(tailLines(result)),
    '<h2>Peers</h2>',
    list(result.peers.map(({ name, about: what }) => `${name}: ${what}`)),
  ]);
}

function chartOf(result: Result, quantity: Quantity): string {
  const bars = result.peers.flatMap(({ name }): Bar[] => {
    const { value, ratio } = cellOf(result, quantity, name);
    if (!value) return [];
    const note = ratio ? `${figure(ratio.median)} x` : '';
    return [{ ...value, label: name, note, isBase: name === BASE }];
  });
  const better = quantity.better === 'more' ? 'more is better' : 'less is better';
  return bars.length > 0 ? barChart(`${quantity.title}${quantity.unit && `, ${quantity.unit}`} (${better})`, bars) : '';
}

function histogramChart(result: Result, name: string, title: string): string {
  const series = result.peers.flatMap(({ name: peer }): Series[] => {
    const found = histogramOf(result, name, peer);
    if (!found) return [];
    const total = found.counts.reduce((sum, count) => sum + count, 0);
    // A point in the middle of each bucket, on the logarithmic axis; from the first to the last that hold any.
    const points = found.counts.map(
      (count, i) => [Math.sqrt(found.edges[i]! * found.edges[i + 1]!), (count / total) * 100] as const,
    );
    return [{ name: peer, points: points.filter(([, share]) => share > 0) }];
  });
  return lineChart(
    { title, x: 'microseconds, eight buckets a factor of ten', y: '% of round trips', logY: true },
    series,
  );
}
