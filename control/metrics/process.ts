/** What this process knows of itself, for one scrape after the other. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { MetricsView } from './text.ts';

const NANOSECONDS = 1e9;

export class ProcessMeter {
  readonly #delay = monitorEventLoopDelay({ resolution: 20 });

  constructor() {
    this.#delay.enable();
  }

  /** Delays are those since it was asked last. */
  take(): Pick<MetricsView, 'delay' | 'memoryBytes' | 'cpuSeconds'> {
    const { user, system } = process.cpuUsage();
    const delay = { max: this.#delay.max / NANOSECONDS, p99: this.#delay.percentile(99) / NANOSECONDS };
    this.#delay.reset();
    return { delay, memoryBytes: process.memoryUsage.rss(), cpuSeconds: (user + system) / 1e6 };
  }

  stop(): void {
    this.#delay.disable();
  }
}
