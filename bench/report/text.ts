/** Reports as text: for a terminal, and as Markdown. */
import { environmentText } from '../environment.ts';
import type { Pace } from '../measures/measure.ts';
import { judge, ROUNDS_TO_TELL } from '../noise.ts';
import { type Cell, cellOf, type Result } from '../result.ts';

/** Three digits. */
export function figure(value: number): string {
  const size = Math.abs(value);
  if (size >= 99.95 || size === 0) return value.toFixed(0);
  return value.toFixed(size >= 9.995 ? 1 : 2);
}

/** Median and ratio; with `spread` also from where to where. */
export function cellText({ value, ratio, failures }: Cell, spread: boolean): string {
  if (!value) return failures.length > 0 ? 'failed' : '-';
  const range = spread && value.count > 1 ? ` (${figure(value.min)}-${figure(value.max)})` : '';
  const toKernel = ratio ? ` ${figure(ratio.median)} x` : '';
  const failed = failures.length > 0 ? ` [${failures.length} failed]` : '';
  return `${figure(value.median)}${range}${toKernel}${failed}`;
}

/** A heading and a cell for each peer; then a row for each quantity. */
export function rows(result: Result, spread: boolean): string[][] {
  const names = result.peers.map(({ name }) => name);
  return [
    ['', ...names],
    ...result.quantities.map((quantity) => [
      `${quantity.title}${quantity.unit && `, ${quantity.unit}`}`,
      ...names.map((peer) => cellText(cellOf(result, quantity, peer), spread)),
    ]),
  ];
}

export function terminalReport(result: Result): string {
  const table = rows(result, false);
  const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  const lines = table.map((row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '),
  );
  return [...headLines(result), '', ...lines, '', ...tailLines(result)].join('\n');
}

export function markdownReport(result: Result): string {
  const [head, ...body] = rows(result, true).map((row) => `| ${row.join(' | ')} |`);
  const [first, ...rest] = headLines(result);
  return [
    `# ${first}`,
    '',
    ...rest,
    '',
    `    ${result.command}`,
    '',
    head,
    `|---|${'---|'.repeat(result.peers.length)}`,
    ...body,
    '',
    ...tailLines(result).map((line) => `- ${line}`),
    '',
    ...result.peers.map(({ name, about }) => `- \`${name}\`: ${about}`),
    '',
  ].join('\n');
}

export function headLines(result: Result): string[] {
  const rounds = roundsOf(result);
  return [
    `uvxlan beside the kernel's VXLAN, ${result.started.slice(0, 16).replace('T', ' ')} UTC`,
    `${environmentText(result.environment)}.`,
    'Two hosts on this machine, a veth between them; both ends and the programs that measure share its CPUs. ' +
      `Medians of ${rounds} interleaved ${rounds === 1 ? 'round' : 'rounds'} (from-to), and the median of the ` +
      "ratios to the kernel's of the same round. Only ratios say something about another machine.",
    paceText(result.pace),
  ];
}

function paceText({ seconds, trialSeconds, trials }: Pace): string {
  return (
    `A run of streams, round trips, connections or packets at a fixed rate lasts ${seconds} s (--seconds). A search for a rate has at most ${trials} trials: ` +
    `a flood of ${Math.ceil(trialSeconds)} s, then rates of ${trialSeconds} s each, where RFC 2544 wants 60; one more is made at twice the rate found.`
  );
}

function roundsOf({ runs }: Result): number {
  return new Set(runs.map(({ round }) => round)).size;
}

/** What one has to know to read the figures. */
export function tailLines(result: Result): string[] {
  const { noisy, reasons, undecided } = judge(result);
  const failed = result.runs.flatMap(({ peer, round, failures }) =>
    failures.map(({ keys, why }) => {
      const what = keys.length === result.quantities.length ? 'everything' : keys.join(' ');
      return `failed: ${peer}, round ${round}, ${what}: ${why}`;
    }),
  );
  const alike = new Map<string, string[]>();
  for (const { title, peers } of undecided) {
    alike.set(peers.join(' and '), [...(alike.get(peers.join(' and ')) ?? []), title]);
  }
  return [
    noisy ? `noise: ${reasons.join('; ')}` : 'noise: the machine was quiet',
    ...(roundsOf(result) < ROUNDS_TO_TELL
      ? [`fewer than ${ROUNDS_TO_TELL} rounds: the order of any two may be chance`]
      : []),
    ...(result.cutShort ? [`cut short after ${result.cutShort}`] : []),
    ...result.skipped.map(({ what, why }) => `skipped: ${what}: ${why}`),
    ...failed,
    ...[...alike].map(([pair, titles]) => `not told apart: ${pair} in ${titles.join('; ')}`),
  ];
}
