/** A capture that is under way: empties the workers' rings and writes what they hold as pcapng. */
import { allocateRing, RingReader } from '../../dataplane/record/ring.ts';
import type { TapSpec } from '../../dataplane/record/tap.ts';
import { interfaceStatistics, sectionHeader } from '../../packets/pcapng.ts';
import { BlockBuffer } from './block-buffer.ts';
import { BlockWriter } from './blocks.ts';
import type { CaptureNames } from './comments.ts';

export interface CaptureRequest {
  /** null: all devices. */
  readonly dev: string | null;
  readonly filter: string;
  readonly outerFilter: string;
  readonly snapLength: number;
  /** Whether super-frames and runs are cut up, and checksums finished, as they come onto the wire. */
  readonly segments: boolean;
}

/** Takes blocks. Without room packets are lost and counted: nobody waits for a client. */
export interface Sink {
  hasRoom(): boolean;
  /** `done` is called when it needs the bytes no more: then others are put there. */
  write(bytes: Uint8Array, done: () => void): void;
}

/** Of each worker: some milliseconds of full speed. */
const RING = 1 << 22;
/** Milliseconds between two looks at the rings: each costs the same again, whatever it finds. Less where much comes, before a ring is full. */
const REST = 20;
const SHORT_REST = 5;
const MUCH = RING / 8;
/** Milliseconds of one look: the main thread has other work. Records between two looks at the clock. */
const PATIENCE = 10;
const RECORDS = 64;

export class Capture {
  readonly specs: readonly TapSpec[];
  readonly #readers: readonly RingReader[];
  readonly #blocks: BlockWriter;
  readonly #version: string;
  /** While it is under way. */
  #buffer: BlockBuffer | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Packets that were written, and records that were thrown away at the end because the client reads too slowly. */
  #written = 0;
  #refused = 0;
  /** Lost records that a packet has told of. */
  #told = 0;
  #others = 0;

  constructor(
    id: number,
    workers: number,
    request: CaptureRequest,
    device: { readonly index: number; readonly vni: number } | undefined,
    names: CaptureNames,
    version: string,
  ) {
    const { filter, outerFilter, snapLength } = request;
    const { index, vni } = device ?? { index: -1, vni: -1 };
    this.specs = Array.from({ length: workers }, () => ({
      ...{ id, ring: allocateRing(RING), device: index, vni, filter, outerFilter, snapLength },
    }));
    this.#readers = this.specs.map(({ ring }) => new RingReader(ring));
    this.#blocks = new BlockWriter(names, request);
    this.#version = version;
  }

  /** Records lost so far, in the rings or here. */
  get lost(): number {
    return this.#readers.reduce((total, { lost }) => total + lost, this.#refused);
  }

  /** Begins writing: a header, the interfaces that there are, then packets as they come. */
  start(sink: Sink, devices: readonly number[], uplinks: readonly number[]): void {
    const buffer = new BlockBuffer(sink);
    buffer.block(sectionHeader(`uvxlan ${this.#version}`));
    for (const index of devices) this.#blocks.interface(buffer, false, index);
    for (const index of uplinks) this.#blocks.interface(buffer, true, index);
    buffer.flush();
    this.#buffer = buffer;
    this.#rest(REST);
  }

  /** Writes what has come until now, and how much there was. The workers have to be quiet. */
  finish(): void {
    const buffer = this.#buffer;
    if (!buffer) return;
    clearTimeout(this.#timer);
    this.#drain(buffer, Number.POSITIVE_INFINITY);
    for (let reader = this.#oldest(); reader; reader = this.#oldest(), this.#refused++) reader.release(reader.next());
    const { lost } = this;
    const counts = { received: this.#written + lost, lost, delivered: this.#written };
    // Which interface a lost record was of is not known: the first has them all.
    if (this.#blocks.interfaces > 0) {
      buffer.block(interfaceStatistics(0, performance.timeOrigin + performance.now(), counts));
      buffer.flush();
    }
    this.#buffer = undefined;
  }

  /** Ends it where nobody reads any more. */
  abandon(): void {
    clearTimeout(this.#timer);
    this.#buffer = undefined;
  }

  #rest(milliseconds: number): void {
    this.#timer = setTimeout(() => {
      if (!this.#buffer) return;
      const bytes = this.#drain(this.#buffer, performance.now() + PATIENCE);
      this.#rest(bytes > MUCH ? SHORT_REST : REST);
    }, milliseconds);
  }

  /**
   * Writes packets of several workers in the order of their times, and tells how many bytes there were. While the client has no room they stay where
   * they are: once the rings are full, workers lose them at no cost.
   */
  #drain(buffer: BlockBuffer, until: number): number {
    const { lost } = this;
    let written = 0;
    this.#blocks.begin();
    buffer.begin();
    for (let reader = this.#oldest(); reader; reader = this.#oldest()) {
      // All of it that is older than what the other rings have.
      let record = reader.next();
      do {
        if (!buffer.hasRoom || (written % RECORDS === RECORDS - 1 && performance.now() > until)) {
          return buffer.flush();
        }
        this.#blocks.write(buffer, reader, record, lost - this.#told);
        this.#told = lost;
        this.#written++;
        written++;
        reader.release(record);
        record = reader.next();
      } while (record >= 0 && reader.time(record) <= this.#others);
    }
    return buffer.flush();
  }

  /** The ring with the oldest record; `#others` is the time of the oldest of the others. */
  #oldest(): RingReader | undefined {
    let oldest: RingReader | undefined;
    let time = Number.POSITIVE_INFINITY;
    this.#others = Number.POSITIVE_INFINITY;
    for (const reader of this.#readers) {
      const record = reader.next();
      if (record < 0) continue;
      const its = reader.time(record);
      this.#others = Math.min(this.#others, Math.max(time, its));
      if (its >= time && oldest) continue;
      oldest = reader;
      time = its;
    }
    return oldest;
  }
}
