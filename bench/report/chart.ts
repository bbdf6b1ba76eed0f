/** Charts as SVG, made without a library so that a report is one file that shows offline. Colours are classes, see page.ts. */
import { figure } from './text.ts';

export interface Bar {
  readonly label: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Behind the figure: "0.85 x". */
  readonly note: string;
  /** Drawn in the base's colour. */
  readonly isBase: boolean;
}

export interface Series {
  readonly name: string;
  /** x ascending. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface Axes {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  /** The y axis, too, is logarithmic; it begins at zero otherwise. */
  readonly logY?: boolean;
}

const WIDTH = 520;
/** Classes of lines in the style of page.ts; after those dashed ones. */
const COLORS = 8;

/** Horizontal bars from zero, a whisker from the smallest to the largest value. */
export function barChart(title: string, bars: readonly Bar[]): string {
  const row = 24;
  const left = 150;
  const right = 110;
  const top = 30;
  const most = Math.max(...bars.map(({ max }) => max), Number.MIN_VALUE);
  const x = (value: number) => left + (value / most) * (WIDTH - left - right);
  const parts = bars.map(({ label, median, min, max, note, isBase }, i) => {
    const y = top + i * row;
    const middle = y + row / 2;
    return [
      text(left - 8, middle + 4, label, 'end'),
      `<rect class="${isBase ? 'base' : 'bar'}" x="${left}" y="${y + 3}" width="${round(x(median) - left)}" height="${row - 6}"/>`,
      `<path class="whisker" d="M${round(x(min))} ${middle}H${round(x(max))}M${round(x(min))} ${middle - 4}v8M${round(x(max))} ${middle - 4}v8"/>`,
      text(x(max) + 6, middle + 4, `${figure(median)}${note && `, ${note}`}`),
    ].join('');
  });
  return svg(title, top + bars.length * row + 8, parts);
}

/** Lines over a logarithmic x axis. Points that such an axis does not have (0 and less) are left out. */
export function lineChart({ title, x: xTitle, y: yTitle, logY = false }: Axes, series: readonly Series[]): string {
  const [left, right, top, bottom] = [64, 16, 34, 248];
  const shown = series.map(({ name, points }) => ({
    name,
    points: points.filter(([x, y]) => x > 0 && (y > 0 || !logY) && Number.isFinite(y)),
  }));
  const all = shown.flatMap(({ points }) => points);
  if (all.length === 0) return '';
  const xs = decades(all.map(([x]) => x));
  const ys = logY ? decades(all.map(([, y]) => y)) : ([0, niceCeiling(Math.max(...all.map(([, y]) => y)))] as const);
  const x = (value: number) => left + share(Math.log10(value), xs) * (WIDTH - left - right);
  const y = (value: number) => bottom - share(logY ? Math.log10(value) : value, ys) * (bottom - top);
  const parts: string[] = [];
  for (let power = xs[0]; power <= xs[1]; power++) {
    const at = round(x(10 ** power));
    parts.push(
      `<path class="grid" d="M${at} ${top}V${bottom}"/>`,
      text(at, bottom + 16, amount(10 ** power), 'middle'),
    );
  }
  const ticks = logY
    ? Array.from({ length: ys[1] - ys[0] + 1 }, (_, i) => 10 ** (ys[0] + i))
    : Array.from({ length: 5 }, (_, i) => (ys[1] * i) / 4);
  for (const tick of ticks) {
    const at = round(y(tick));
    parts.push(`<path class="grid" d="M${left} ${at}H${WIDTH - right}"/>`, text(left - 6, at + 4, amount(tick), 'end'));
  }
  parts.push(text((left + WIDTH - right) / 2, bottom + 34, xTitle, 'middle'), text(left, top - 6, yTitle));
  shown.forEach(({ name, points }, i) => {
    const path = points.map(([px, py], k) => `${k === 0 ? 'M' : 'L'}${round(x(px))} ${round(y(py))}`).join('');
    const line = `line c${i % COLORS}${i < COLORS ? '' : ' dashed'}`;
    parts.push(`<path class="${line}" d="${path}"><title>${escaped(name)}</title></path>`);
    const legend = bottom + 54 + Math.floor(i / 3) * 18;
    const at = left + (i % 3) * 150;
    parts.push(`<path class="${line}" d="M${at} ${legend - 4}h18"/>`, text(at + 24, legend, name));
  });
  return svg(title, bottom + 48 + Math.ceil(series.length / 3) * 18, parts);
}

/** Powers of ten around the values. */
function decades(values: readonly number[]): readonly [number, number] {
  const low = Math.floor(Math.log10(Math.min(...values)));
  return [low, Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))))];
}

function share(value: number, [low, high]: readonly [number, number]): number {
  return (value - low) / (high - low);
}

/** 1, 2 or 5 times a power of ten. */
function niceCeiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value)!;
}

function amount(value: number): string {
  if (value >= 1e6) return `${value / 1e6} M`;
  if (value >= 1e3) return `${value / 1e3} k`;
  return `${Math.round(value * 1000) / 1000}`;
}

function svg(title: string, height: number, parts: readonly string[]): string {
  const name = escaped(title);
  return `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${name}"><text class="title" x="0" y="14">${name}</text>${parts.join('')}</svg>`;
}

function text(x: number, y: number, content: string, anchor = 'start'): string {
  return `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

export function escaped(content: string): string {
  return content.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;');
}
