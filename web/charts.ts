/** Throughput, packets and the workers' latency over the last minutes. */
import type uPlot from 'uplot';
import { bitRate, element, short } from './dom.js';
import type { DeviceRates, Latency } from './rates.js';

/** uplot.js, which the page loads before. */
const Plot = (globalThis as unknown as { uPlot: typeof uPlot }).uPlot;

const SECONDS = 180;
const HEIGHT = 170;

interface Chart {
  readonly plot: uPlot;
  readonly data: number[][];
}

export class Charts {
  readonly #parent: HTMLElement;
  readonly #charts: Chart[] = [];

  constructor(parent: HTMLElement) {
    this.#parent = parent;
    this.#add('Throughput', ['out', 'in'], bitRate);
    this.#add('Packets a second', ['out', 'in', 'dropped'], (value) => short(value));
    this.#add('Workers, µs a time that they wake up', ['working', 'waiting for a CPU'], (value) => short(value));
    new ResizeObserver(() => this.#resize()).observe(parent);
  }

  /** One second more: the sums over all devices. `time` in milliseconds since 1970. */
  add(time: number, rates: Iterable<DeviceRates>, { work, wait }: Latency): void {
    let [out, into, sent, received, dropped] = [0, 0, 0, 0, 0];
    for (const { tx, rx } of rates) {
      out += tx.bytes;
      into += rx.bytes;
      sent += tx.packets;
      received += rx.packets;
      dropped += tx.drops + rx.drops;
    }
    const rows = [
      [out, into],
      [sent, received, dropped],
      [work, wait],
    ];
    for (const [i, { plot, data }] of this.#charts.entries()) {
      for (const [series, value] of [time / 1000, ...rows[i]].entries()) {
        data[series].push(value);
        if (data[series].length > SECONDS) data[series].shift();
      }
      plot.setData(data as unknown as uPlot.AlignedData);
      plot.root.dataset.points = `${data[0].length}`;
    }
  }

  #add(title: string, names: readonly string[], format: (value: number) => string): void {
    const figure = element('figure', {}, element('figcaption', {}, title));
    this.#parent.append(figure);
    const colours = ['--out', '--in', '--drop'].map((name) =>
      getComputedStyle(document.documentElement).getPropertyValue(name),
    );
    const axis = {
      stroke: getComputedStyle(document.documentElement).getPropertyValue('--quiet'),
      grid: { stroke: '#8883' },
    };
    const data: number[][] = [[], ...names.map(() => [])];
    const plot = new Plot(
      {
        width: 320,
        height: HEIGHT,
        cursor: { drag: { x: false, y: false } },
        scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
        axes: [axis, { ...axis, size: 92, values: (_, ticks) => ticks.map(format) }],
        series: [
          { value: (_, at) => (at === null ? '' : new Date(at * 1000).toLocaleTimeString()) },
          ...names.map((label, i) => ({
            label,
            stroke: colours[i],
            width: 2,
            value: (_: uPlot, value: number | null) => (value === null ? '' : format(value)),
          })),
        ],
      },
      data as unknown as uPlot.AlignedData,
      figure,
    );
    this.#charts.push({ plot, data });
  }

  #resize(): void {
    for (const { plot } of this.#charts) {
      const width = plot.root.parentElement!.clientWidth;
      if (width > 0 && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}
