import assert from 'node:assert/strict';
import test from 'node:test';
import type { Failure } from '../../bench/measures/measure.ts';
import { judge } from '../../bench/noise.ts';
import { lineChart } from '../../bench/report/chart.ts';
import { htmlReport } from '../../bench/report/html.ts';
import { figure, markdownReport, terminalReport } from '../../bench/report/text.ts';
import { cellOf, type Result, type Run } from '../../bench/result.ts';

const GBPS = { key: 'tcp', title: 'TCP', unit: 'Gbit/s', better: 'more' } as const;
const LOST = { key: 'lost', title: 'lost', unit: '%', better: 'less', noRatio: true } as const;

function run(round: number, peer: string, tcp?: number, more: Partial<Run> = {}): Run {
  const values: Record<string, number> = tcp === undefined ? {} : { tcp, lost: 0 };
  return { round, peer, background: 0.01, stolen: 0, histograms: {}, failures: [], values, ...more };
}

function result(runs: readonly Run[], more: Partial<Result> = {}): Result {
  const environment = {
    ...{ uvxlan: '0.1.0', node: 'v20.20.2', linux: '6.18', arch: 'x64', cpu: 'CPU <1>', cpus: 2, memoryGB: 25 },
    ...{ machine: 'bare metal', load: 0.1, tools: 'iperf3 3.12' },
  };
  return {
    ...{ format: 1, started: '2026-01-02T03:04:05Z', seconds: 60, command: 'npm run bench', environment },
    ...{ pace: { seconds: 1, trialSeconds: 0.5, trials: 8 }, quantities: [GBPS, LOST], skipped: [], runs },
    peers: [...new Set(runs.map(({ peer }) => peer))].map((name) => ({ name, about: `about ${name}` })),
    ...more,
  };
}

const THREE = result([
  ...[run(1, 'kernel', 10), run(1, 'redirect', 9), run(1, 'udp', 8)],
  ...[run(2, 'kernel', 12), run(2, 'redirect', 6), run(2, 'udp', 7)],
  ...[run(3, 'kernel', 11), run(3, 'redirect', 8.8), run(3, 'udp', 8)],
]);

const failure: Failure = { keys: ['tcp', 'lost'], why: 'iperf3 said no' };
const FAILED = result([
  ...[run(1, 'kernel', 10), run(1, 'redirect', undefined, { failures: [failure] })],
  ...[run(2, 'kernel', 10), run(2, 'redirect', 5)],
]);

test('ratios are to the kernel of the same round', () => {
  assert.deepEqual(cellOf(THREE, GBPS, 'redirect'), {
    value: { median: 8.8, min: 6, max: 9, count: 3 },
    ratio: { median: 8.8 / 11, min: 0.5, max: 0.9, count: 3 },
    failures: [],
  });
  assert.equal(cellOf(THREE, GBPS, 'kernel').ratio, undefined);
  assert.equal(cellOf(THREE, LOST, 'redirect').ratio, undefined);
});

test('a round that failed gives no figure, and the row says why', () => {
  const { value, ratio, failures } = cellOf(FAILED, GBPS, 'redirect');
  assert.deepEqual([value!.median, ratio!.median, failures], [5, 0.5, ['iperf3 said no']]);
  const text = terminalReport(FAILED);
  assert.match(text, /5\.00 0\.50 x \[1 failed\]/);
  assert.match(text, /failed: redirect, round 1, everything: iperf3 said no/);
  const all = result([run(1, 'kernel', 10), run(1, 'redirect', undefined, { failures: [failure] })]);
  assert.match(terminalReport(all), /TCP, Gbit\/s +10\.0 +failed\n/);
});

test('of a part that failed its quantities are named', () => {
  const part = result([run(1, 'kernel', 10), run(1, 'redirect', 9, { failures: [{ keys: ['lost'], why: 'no' }] })]);
  assert.match(terminalReport(part), /failed: redirect, round 1, lost: no/);
});

test('three digits', () => {
  assert.deepEqual([0, 0.123, 1.5, 9.996, 12.34, 99.96, 455.6].map(figure), [
    '0',
    '0.12',
    '1.50',
    '10.0',
    '12.3',
    '100',
    '456',
  ]);
});

test('Markdown has the spread', () => {
  const text = markdownReport(THREE);
  assert.match(text, /\| {2}\| kernel \| redirect \| udp \|\n\|---\|---\|---\|---\|\n/);
  assert.match(text, /\| TCP, Gbit\/s \| 11\.0 \(10\.0-12\.0\) \| 8\.80 \(6\.00-9\.00\) 0\.80 x \|/);
  assert.match(text, /\n- noise: the machine was quiet\n/);
});

test('how long things took is said', () => {
  const text = terminalReport(result(THREE.runs, { pace: { seconds: 3, trialSeconds: 1.5, trials: 6 } }));
  assert.match(text, /lasts 3 s .* at most 6 trials: a flood of 2 s, then rates of 1\.5 s each/);
});

test('what was left out is said', () => {
  const text = terminalReport(
    result(THREE.runs, { skipped: [{ what: 'ovs', why: 'not installed' }], cutShort: '3 of 5 rounds: no time' }),
  );
  assert.match(text, /skipped: ovs: not installed/);
  assert.match(text, /cut short after 3 of 5 rounds: no time/);
});

test('two peers whose order changes from round to round are not told apart', () => {
  const { noisy, undecided } = judge(THREE);
  assert.equal(noisy, false);
  assert.deepEqual(undecided, [{ title: 'TCP', peers: ['redirect', 'udp'] }]);
  assert.match(terminalReport(THREE), /not told apart: redirect and udp in TCP/);
});

test('a machine that others use is noisy', () => {
  const [first, ...rest] = THREE.runs as [Run, ...Run[]];
  assert.match(judge(result([{ ...first, background: 0.4 }, ...rest])).reasons[0]!, /up to 40 %.* 1 of 9 runs/);
  assert.match(judge(result([{ ...first, stolen: 0.1 }, ...rest])).reasons[0]!, /hypervisor took up to 10 %/);
  assert.match(
    judge(result([run(1, 'kernel', 5), run(2, 'kernel', 10)])).reasons[0]!,
    /spread by more than 30 % in 1 of 1/,
  );
});

test('few rounds tell no order', () => {
  assert.match(terminalReport(FAILED), /fewer than 3 rounds/);
  assert.deepEqual(judge(result(THREE.runs.filter(({ round }) => round < 3))).undecided, []);
  assert.doesNotMatch(terminalReport(THREE), /fewer than/);
});

test('the HTML page is whole, escaped, and asks the network for nothing', () => {
  const histogram = { edges: [1, 10, 100], counts: [3, 1] };
  const html = htmlReport(result([run(1, 'kernel', 10, { histograms: { rtt: histogram } }), run(1, 'redirect', 5)]));
  assert.match(html, /^<!doctype html>/);
  assert.match(html, /CPU &lt;1&gt;/);
  assert.doesNotMatch(html, /CPU <1>|https?:|src=|@import|<script/);
  assert.equal(html.match(/<svg/g)?.length, html.match(/<\/svg>/g)?.length);
  // Half of the kernel's bar: widths are to scale.
  const [base, own] = ['base', 'bar'].map((name) =>
    Number(new RegExp(`<rect class="${name}" [^>]*width="([\\d.]+)"`).exec(html)![1]),
  );
  assert.ok(Math.abs(own! / base! - 0.5) < 0.01, `${own} of ${base}`);
  assert.match(html, /Round trips, idle/);
});

test('no two lines of a chart look alike, however many there are', () => {
  const series = Array.from({ length: 12 }, (_, i) => ({ name: `peer ${i}`, points: [[10, i + 1] as const] }));
  const chart = lineChart({ title: 'x', x: 'x', y: 'y', logY: true }, series);
  const classes = [...chart.matchAll(/<path class="(line [^"]*)" [^>]*><title>/g)].map(([, name]) => name);
  assert.equal(new Set(classes).size, 12);
});
