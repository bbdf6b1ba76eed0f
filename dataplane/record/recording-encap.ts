/** Encap with a recorder: every frame with where it was sent to, and why it was dropped. */
import { OUTER_LENGTH, RECORD, TEMPLATE, TEMPLATE_HEADROOM } from '../../fdb/nexthops.ts';
import type { Batch } from '../batch.ts';
import type { Device } from '../device.ts';
import type { Encap } from '../encap.ts';
import type { PacketMemory } from '../memory.ts';
import { DropWatch } from './drop-watch.ts';
import { Handles, type Recorder } from './recorder.ts';
import { RECORD_COPIES, RECORD_NEXT_HOP, RECORD_OUTER, RECORD_VIA_HOST } from './ring.ts';

/** Longer than the longest outer header. */
const SCRATCH = 128;

export class RecordingEncap implements Pick<Encap, 'run'> {
  readonly encap: Encap;
  readonly #recorder: Recorder;
  readonly #drops: DropWatch;
  readonly #frame = new Handles(1);
  readonly #outer = new Handles(1);
  readonly #nextHops: Int32Array;
  readonly #templates: Uint8Array;
  /** In packet memory: the outer headers of a packet that the host's stack writes. */
  readonly #scratch: number;
  #copies = 0;

  constructor(encap: Encap, recorder: Recorder, counters: Float64Array, nextHops: Int32Array) {
    this.encap = encap;
    this.#recorder = recorder;
    this.#drops = new DropWatch(counters, 'tx');
    this.#nextHops = nextHops;
    this.#templates = new Uint8Array(nextHops.buffer, nextHops.byteOffset);
    this.#scratch = recorder.memory.take(SCRATCH);
  }

  run(batch: Batch, device: Device): void {
    const recorder = this.#recorder;
    recorder.begin();
    // Frames that nobody wants, up to the first one that somebody does, go on together.
    let i = 0;
    while (i < batch.count && !this.#record(batch, i, device)) i++;
    this.encap.forward(batch, device, 0, i);
    recorder.failed = 0;
    if (i < batch.count) this.#forwardEach(batch, device, i);
    device.uplink.flush();
    this.#settle();
    recorder.end();
  }

  /** One by one from `first` on, which is recorded, to know what became of each. */
  #forwardEach(batch: Batch, device: Device, first: number): void {
    this.#drops.start(device.scope);
    for (let i = first; i < batch.count; i++) {
      if (i > first) this.#record(batch, i, device);
      this.#copies = 0;
      this.encap.forward(batch, device, i, i + 1);
      this.#settle();
    }
  }

  #record(batch: Batch, index: number, device: Device): boolean {
    this.#recorder.pieces.ofBatch(batch, index);
    return this.#recorder.record(0, device.index, -1, this.#frame, 0);
  }

  /** Gives back what it took; returns what it stood in front of. */
  detach(memory: PacketMemory): Encap {
    memory.give(this.#scratch, SCRATCH);
    return this.encap;
  }

  /** The uplink was given a copy of the frame. */
  sent(nextHop: number): void {
    if (this.#copies++ === 0) this.#recorder.set(this.#frame, 0, RECORD_NEXT_HOP, nextHop);
    this.#recorder.set(this.#frame, 0, RECORD_COPIES, this.#copies);
  }

  /** The same where the host's stack writes the outer headers: the template is recorded in their place. */
  sentViaHost(batch: Batch, index: number, nextHop: number, uplink: number): void {
    this.sent(nextHop);
    const record = nextHop * RECORD;
    const { pieces, memory } = this.#recorder;
    const from = (record + TEMPLATE) * 4 + TEMPLATE_HEADROOM;
    const length = this.#nextHops[record + OUTER_LENGTH];
    for (let i = 0; i < length; i++) memory.u8[this.#scratch + i] = this.#templates[from + i];
    pieces.ofBatch(batch, index);
    pieces.behind(this.#scratch, length);
    this.#recorder.record(RECORD_OUTER | RECORD_VIA_HOST, -1, uplink, this.#outer, 0);
  }

  /** What rose is the reason of a packet that the port did not take, else of the frame itself. */
  #settle(): void {
    const recorder = this.#recorder;
    for (let counter = this.#drops.risen(); counter >= 0; counter = this.#drops.risen()) {
      if (recorder.failed > 0) recorder.dropFailed(counter, this.#drops.rise);
      else recorder.drop(this.#frame, 0, counter, this.#drops.rise);
    }
    recorder.failed = 0;
  }
}
