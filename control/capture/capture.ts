/** A capture that is under way: empties the workers' rings and writes what they hold as pcapng. */
import { allocateRing, RingReader } from '../../dataplane/record/ring.ts';
import type { TapSpec } from '../../dataplane/record/tap.ts';
import { interfaceStatistics, sectionHeader } from '../../packets/pcapng.ts';
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
  write(bytes: Uint8Array): void;
}

/** Of each worker: some milliseconds of full speed. */
const RING = 1 << 22;
/** Milliseconds between two looks at the rings. */
const REST = 10;
/** Milliseconds of one look: the main thread has other work. */
const PATIENCE = 10;

export class Capture {
  readonly specs: readonly TapSpec[];
  readonly #readers: readonly RingReader[];
  readonly #blocks: BlockWriter;
  readonly #version: string;
  #sink: Sink | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Packets that were written, and records that were thrown away because the client reads too slowly. */
  #written = 0;
  #refused = 0;
  /** Lost records that a packet has told of. */
  #told = 0;

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
    this.#sink = sink;
    sink.write(sectionHeader(`uvxlan ${this.#version}`));
    for (const index of devices) for (const block of this.#blocks.describe(false, index)) sink.write(block);
    for (const index of uplinks) for (const block of this.#blocks.describe(true, index)) sink.write(block);
    this.#rest();
  }

  /** Writes what has come until now, and how much there was. The workers have to be quiet. */
  finish(): void {
    if (!this.#sink) return;
    clearTimeout(this.#timer);
    this.#drain(this.#sink, Number.POSITIVE_INFINITY);
    const { lost } = this;
    const counts = { received: this.#written + lost, lost, delivered: this.#written };
    // Which interface a lost record was of is not known: the first has them all.
    if (this.#blocks.interfaces > 0) {
      this.#sink.write(interfaceStatistics(0, performance.timeOrigin + performance.now(), counts));
    }
    this.#sink = undefined;
  }

  /** Ends it where nobody reads any more. */
  abandon(): void {
    clearTimeout(this.#timer);
    this.#sink = undefined;
  }

  #rest(): void {
    this.#timer = setTimeout(() => {
      if (!this.#sink) return;
      this.#drain(this.#sink, performance.now() + PATIENCE);
      this.#rest();
    }, REST);
  }

  /** Packets of several workers in the order of their times. */
  #drain(sink: Sink, until: number): void {
    for (;;) {
      const next = this.#oldest();
      if (!next || performance.now() > until) return;
      const { reader, record } = next;
      if (sink.hasRoom()) {
        const { lost } = this;
        for (const block of this.#blocks.blocks(reader, record, lost - this.#told)) sink.write(block);
        this.#told = lost;
        this.#written++;
      } else {
        this.#refused++;
      }
      reader.release(record);
    }
  }

  #oldest(): { reader: RingReader; record: number } | undefined {
    let oldest: { reader: RingReader; record: number } | undefined;
    for (const reader of this.#readers) {
      const record = reader.next();
      if (record >= 0 && (!oldest || reader.time(record) < oldest.reader.time(oldest.record)))
        oldest = { reader, record };
    }
    return oldest;
  }
}
