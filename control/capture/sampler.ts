/**
 * Looks at a little of what passes, for as long as somebody asks. Few packets are all looked at. Of many a window of some milliseconds is,
 * so that the workers do what they always do for the rest of the time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { allocateRing, RingReader } from '../../dataplane/record/ring.ts';
import type { TapSpec } from '../../dataplane/record/tap.ts';
import type { PeerRate, SampleRecord } from '../protocol.ts';
import { type SampleNames, Samples } from './samples.ts';

/** What passed since the daemon began, by the workers' counters. */
export interface Passed {
  readonly name: string;
  readonly tx: number;
  readonly rx: number;
  readonly drops: number;
}

export interface SamplerOptions {
  /** Rings: one a worker. */
  readonly workers: number;
  readonly names: SampleNames;
  passed(): readonly Passed[];
  /** A number that no other listener has. */
  nextId(): number;
  /** Throws when there are too many listeners. */
  listen(specs: readonly TapSpec[]): Promise<void>;
  unlisten(id: number): Promise<void>;
  /** The process's own when not given: milliseconds. */
  readonly clock?: Clock;
}

export interface Clock {
  now(): number;
  sleep(milliseconds: number): Promise<unknown>;
}

const CLOCK: Clock = { now: () => performance.now(), sleep };

/** Milliseconds for which it goes on after it was asked last. */
const LEASE = 3_000;
/** Packets a second up to which all are looked at. */
const QUIET = 5_000;
/** Milliseconds between two looks at the rings then. */
const REST = 100;
/** Else it looks for so long, every so often; longer where drops are counted. */
const WINDOW = 4;
const DROP_WINDOW = 40;
const EVERY = 250;
/** Milliseconds over which rates are taken. */
const PERIOD = 1_000;
/** Of each worker, for about 700 packets. */
const RING = 1 << 18;
/** Bytes of a packet: all headers, and the beginning of what they carry. */
const SNAP_LENGTH = 192;

export class Sampler {
  readonly #options: SamplerOptions;
  readonly #clock: Clock;
  readonly #samples: Samples;
  readonly #rings: readonly SharedArrayBuffer[];
  readonly #readers: readonly RingReader[];
  #until = 0;
  #running: Promise<void> | undefined;
  #listening: number | undefined;
  #peers: PeerRate[] = [];
  #before: readonly Passed[] = [];
  /** When `#before` was. */
  #since = 0;
  #rate = 0;
  #dropping = false;

  constructor(options: SamplerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? CLOCK;
    this.#samples = new Samples(options.names);
    this.#rings = Array.from({ length: options.workers }, () => allocateRing(RING));
    this.#readers = this.#rings.map((ring) => new RingReader(ring));
  }

  /** What has been seen. Goes on looking for a while. */
  ask(): SampleRecord {
    this.#until = this.#clock.now() + LEASE;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return { drops: this.#samples.drops, peers: this.#peers };
  }

  async close(): Promise<void> {
    this.#until = 0;
    await this.#running;
  }

  async #run(): Promise<void> {
    this.#before = this.#options.passed();
    this.#since = this.#clock.now();
    this.#rate = Number.POSITIVE_INFINITY; // not known yet
    try {
      while (this.#clock.now() < this.#until) {
        const isQuiet = this.#rate < QUIET;
        await this.#listen();
        await this.#clock.sleep(isQuiet ? REST : this.#dropping ? DROP_WINDOW : WINDOW);
        if (!isQuiet) await this.#unlisten();
        this.#drain();
        if (!isQuiet) await this.#clock.sleep(EVERY);
        this.#endPeriod();
      }
    } finally {
      await this.#unlisten();
      this.#drain();
      this.#peers = [];
    }
  }

  #drain(): void {
    for (const reader of this.#readers) this.#samples.take(reader);
  }

  #endPeriod(): void {
    const now = this.#clock.now();
    const milliseconds = now - this.#since;
    // The first one tells only how much there is to look at.
    if (milliseconds < PERIOD && this.#rate !== Number.POSITIVE_INFINITY) return;
    const passed = this.#options.passed();
    const before = new Map(this.#before.map((each) => [each.name, each]));
    const rates = new Map<string, { tx: number; rx: number }>();
    let [packets, drops] = [0, 0];
    for (const device of passed) {
      const last = before.get(device.name) ?? device;
      const rate = (value: number, old: number): number => (Math.max(0, value - old) / milliseconds) * 1000;
      rates.set(device.name, { tx: rate(device.tx, last.tx), rx: rate(device.rx, last.rx) });
      packets += rate(device.tx + device.rx + device.drops, last.tx + last.rx + last.drops);
      drops += rate(device.drops, last.drops);
    }
    this.#peers = this.#samples.rates(rates);
    this.#rate = packets;
    this.#dropping = drops > 0;
    this.#before = passed;
    this.#since = now;
  }

  async #listen(): Promise<void> {
    if (this.#listening !== undefined) return;
    const id = this.#options.nextId();
    const specs = this.#rings.map((ring) => ({
      ...{ id, ring, device: -1, vni: -1, filter: '', outerFilter: '', snapLength: SNAP_LENGTH },
    }));
    try {
      await this.#options.listen(specs);
      this.#listening = id;
    } catch {
      // Others listen, as many as may: later, then.
    }
  }

  async #unlisten(): Promise<void> {
    if (this.#listening === undefined) return;
    const id = this.#listening;
    this.#listening = undefined;
    await this.#options.unlisten(id);
  }
}
