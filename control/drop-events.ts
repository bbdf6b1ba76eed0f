/** Drops above a rate, as events: the counters are compared once a second, and only while somebody listens. */
import type { EventListener } from './events.ts';
import type { StatsRecord } from './protocol.ts';

/** Packets a second of one reason, when a listener does not say. */
export const DROP_RATE = 10;
const PERIOD = 1_000;
/** Milliseconds between two events of drops that go on. */
const AGAIN = 10_000;

/** Drops of one reason that are above the rate. */
interface Burst {
  readonly since: number;
  /** What the counter was before it. */
  readonly base: number;
  told: number;
}

/** What one listener is told, from counters as they were at times in milliseconds. Pure. */
export class DropRates {
  readonly #rate: number;
  readonly #tell: EventListener;
  #counts = new Map<string, number>();
  #bursts = new Map<string, Burst>();
  #time = 0;

  constructor(rate: number, tell: EventListener) {
    this.#rate = rate;
    this.#tell = tell;
  }

  /** The first look is what the others are compared with. */
  take(records: readonly StatsRecord[], time: number): void {
    const seconds = (time - this.#time) / 1000;
    const counts = new Map<string, number>();
    const bursts = new Map<string, Burst>();
    for (const { ifname, tx, rx } of records) {
      for (const [reason, count] of [...Object.entries(tx.drops), ...Object.entries(rx.drops)]) {
        const key = `${ifname} ${reason}`;
        counts.set(key, count);
        const before = this.#counts.get(key);
        if (before === undefined || count < before) continue; // new, or made anew
        const rate = Math.round((count - before) / seconds);
        const burst = this.#bursts.get(key);
        const tell = (event: string, fields: object): void =>
          this.#tell({ group: 'drop', event, time, ifname, reason, ...fields });
        if (rate >= this.#rate) {
          const now = burst ?? { since: this.#time, base: before, told: Number.NEGATIVE_INFINITY };
          bursts.set(key, now);
          if (time - now.told < AGAIN) continue;
          now.told = time;
          tell('drops', { rate, count: count - now.base });
        } else if (burst) {
          tell('drops-ended', { count: count - burst.base, seconds: Math.round((time - burst.since) / 1000) });
        }
      }
    }
    this.#counts = counts;
    this.#bursts = bursts;
    this.#time = time;
  }
}

/** All who listen to drops: the counters are read once for them, however many they are. */
export class DropEvents {
  readonly #stats: () => Promise<readonly StatsRecord[]>;
  readonly #listeners = new Set<DropRates>();
  #timer: NodeJS.Timeout | undefined;
  #isReading = false;

  constructor(stats: () => Promise<readonly StatsRecord[]>) {
    this.#stats = stats;
  }

  /** Tells of reasons that reach `rate` packets a second, until what it returns is called. */
  listen(rate: number, listener: EventListener): () => void {
    const rates = new DropRates(rate, listener);
    this.#listeners.add(rates);
    this.#timer ??= setInterval(() => void this.#look(), PERIOD).unref();
    void this.#look();
    return () => {
      this.#listeners.delete(rates);
      if (this.#listeners.size === 0) this.stop();
    };
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #look(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      const records = await this.#stats();
      for (const rates of this.#listeners) rates.take(records, Date.now());
    } catch {
      // A device that has just gone, or a daemon that is not ready: the next look tells.
    }
    this.#isReading = false;
  }
}
