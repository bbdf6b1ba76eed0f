/** The view of `uvxlan top` as lines, for a terminal of any size or for a file. Pure, but for colours. */
import { bold, dim, yellow } from '../output.ts';
import type { Rate, Sort, TopView } from './view.ts';

export interface Size {
  readonly columns: number;
  /** Lines to fill at most. */
  readonly rows: number;
}

/** Rows of the parts that are not to crowd out the others. */
const MOST = { devices: 8, drops: 6, threads: 9 } as const;
const LEFT_FOR_NAMES = 8;

/** A line: cells as wide as given, negative: flush left. What is longer is cut off, and shows that it was. */
function line(cells: readonly (readonly [text: string, width: number])[]): string {
  return cells
    .map(([text, width]) => {
      const cut = text.length > Math.abs(width) ? `${text.slice(0, Math.abs(width) - 1)}…` : text;
      return width < 0 ? cut.padEnd(-width) : cut.padStart(width);
    })
    .join(' ')
    .trimEnd();
}

export function topText(view: TopView, sort: Sort, { columns, rows }: Size): string[] {
  const lines = [
    heading(view, sort, columns),
    ...devices(view, columns),
    ...drops(view, columns),
    ...threads(view, columns),
  ];
  const left = rows - lines.length - 4;
  const peerRows = Math.max(1, Math.min(view.peers.length, Math.floor(left / 3)));
  lines.push(...sampled(view, columns));
  if (typeof view.sample !== 'string') {
    lines.push(...peers(view, columns, peerRows), ...flows(view, columns, Math.max(1, left - peerRows)));
  }
  return lines.slice(0, rows);
}

function heading({ time, seconds }: TopView, sort: Sort, columns: number): string {
  const clock = new Date(time).toTimeString().slice(0, 8);
  return bold(line([[`uvxlan top  ${clock}  rates of the last ${seconds.toFixed(1)} s, by ${sort}`, -columns]]));
}

const RATES = [
  ['TX pkt/s', 8],
  ['TX bit/s', 8],
  ['RX pkt/s', 8],
  ['RX bit/s', 8],
] as const;
/** Of the cells of RATES with the blanks in front of them. */
const RATES_WIDTH = 36;

function rateCells(tx: Rate, rx: Rate): [string, number][] {
  return [tx.packets, tx.bits, rx.packets, rx.bits].map((rate) => [short(rate), 8]);
}

function devices(view: TopView, columns: number): string[] {
  const name = -Math.max(LEFT_FOR_NAMES, columns - RATES_WIDTH - 18);
  const shown = view.devices.slice(0, MOST.devices);
  return [
    dim(line([[`DEVICE${of(shown, view.devices.length)}`, name], ...RATES, ['DROPS/s', 8], ['OFFLOAD', 8]])),
    ...shown.map(({ ifname, tx, rx, drops, offloaded }) => {
      const text = line([[ifname, name], ...rateCells(tx, rx), [short(drops), 8], [percent(offloaded), 8]]);
      return drops > 0 ? yellow(text) : text;
    }),
  ];
}

function drops(view: TopView, columns: number): string[] {
  const shown = view.drops.slice(0, MOST.drops);
  if (shown.length === 0) return [];
  const name = -Math.max(LEFT_FOR_NAMES, columns - 50);
  return [
    dim(
      line([
        ['DROPS/s', 8],
        ['IN ALL', 12],
        [`REASON${of(shown, view.drops.length)}`, -27],
        ['WHERE', name],
      ]),
    ),
    ...shown.map(({ ifname, reason, rate, count }) =>
      yellow(
        line([
          [short(rate), 8],
          [`${count}`, 12],
          [reason, -27],
          [ifname, name],
        ]),
      ),
    ),
  ];
}

function threads(view: TopView, columns: number): string[] {
  const shown = view.threads.slice(0, MOST.threads);
  const name = -Math.max(LEFT_FOR_NAMES, columns - 48);
  return [
    dim(
      line([
        [`THREAD${of(shown, view.threads.length)}`, name],
        ['BUSY', 8],
        ['NO CPU', 8],
        ['WAKES/s', 9],
        ['TURN', 10],
      ]),
    ),
    ...shown.map(({ name: thread, busy, wait, sleeps, turn }) =>
      line([
        [thread, name],
        [percent(busy), 8],
        [percent(wait), 8],
        [short(sleeps), 9],
        [duration(turn), 10],
      ]),
    ),
  ];
}

/** How much is known of VTEPs and flows. */
function sampled({ sample }: TopView, columns: number): string[] {
  const cut = (text: string): string => dim(line([[text, -columns]]));
  if (typeof sample === 'string') return [cut(`no VTEPs and flows: ${sample}`)];
  const part = sample.isWhole ? 'all of the time' : `sampled for ${sample.seconds.toFixed(2)} s, ± standard error`;
  // What is lost makes the rates too low.
  const lost = sample.lost > 0 ? `, ${sample.lost} lost` : '';
  return [cut(`VTEPs and flows ${part}: ${sample.seen} packets${lost}`)];
}

function peers(view: TopView, columns: number, rows: number): string[] {
  const shown = view.peers.slice(0, rows);
  const name = -Math.max(LEFT_FOR_NAMES, columns - RATES_WIDTH - 6 - 14);
  return [
    dim(line([['DEVICE', -13], [`VTEP${of(shown, countOf(view, 'peers'))}`, name], ...RATES, ['±', 5]])),
    ...shown.map(({ dev, dst, tx, rx, error }) =>
      line([[dev, -13], [dst, name], ...rateCells(tx, rx), [errorText(error), 5]]),
    ),
  ];
}

function flows(view: TopView, columns: number, rows: number): string[] {
  const shown = view.flows.slice(0, rows);
  const name = -Math.max(LEFT_FOR_NAMES, columns - 8 - 8 - 5 - 2 - 8 - 5);
  return [
    dim(
      line([
        ...([
          ['bit/s', 8],
          ['pkt/s', 8],
          ['±', 5],
          ['', -2],
          ['PROTOCOL', -8],
        ] as const),
        [`FLOW, VTEP${of(shown, countOf(view, 'flows'))}`, name],
      ]),
    ),
    ...shown.map(({ direction, protocol, src, dst, peer, packets, bits, error }) => {
      const ends = src === '' ? '' : `${src} > ${dst}`;
      const via = peer === '' ? '' : peer === '*' ? ', flooded' : `, ${peer}`;
      return line([
        [short(bits), 8],
        [short(packets), 8],
        [errorText(error), 5],
        [direction, -2],
        [protocol, -8],
        [`${ends}${via}`, name],
      ]);
    }),
  ];
}

function countOf({ sample }: TopView, what: 'peers' | 'flows'): number {
  return typeof sample === 'string' ? 0 : sample[what];
}

function of(shown: readonly unknown[], all: number): string {
  return shown.length < all ? ` (${shown.length} of ${all})` : '';
}

/** Three digits and a unit: '987', '12.3k', '1.20G'. */
export function short(value: number): string {
  let unit = 0;
  while (value >= 999.5 && unit < 4) {
    value /= 1000;
    unit++;
  }
  const suffix = ['', 'k', 'M', 'G', 'T'][unit];
  if (unit === 0) return value > 0 && value < 10 ? value.toFixed(1) : `${Math.round(value)}`;
  return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)}${suffix}`;
}

function percent(part: number): string {
  return `${(100 * part).toFixed(part < 0.0995 && part > 0 ? 1 : 0)} %`;
}

function duration(seconds: number): string {
  return seconds < 1e-3 ? `${(seconds * 1e6).toFixed(0)} us` : `${(seconds * 1e3).toFixed(seconds < 1e-2 ? 2 : 0)} ms`;
}

function errorText(error: number): string {
  return error === 0 ? '' : `${Math.min(999, Math.ceil(100 * error))} %`;
}
