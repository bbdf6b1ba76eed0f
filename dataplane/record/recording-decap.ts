/** Decap with a recorder: every outer packet with the reason for which it was dropped, by the uplink or here. */
import { VNET_TUNNEL } from '../../system/vnet.ts';
import { VXLAN_HEADER, vxlanVni } from '../../wire/vxlan.ts';
import type { Batch } from '../batch.ts';
import type { Decap } from '../decap.ts';
import type { Device } from '../device.ts';
import { DropWatch } from './drop-watch.ts';
import { Handles, type Recorder } from './recorder.ts';
import { RECORD_OUTER, RECORD_RECEIVED, RECORD_VIA_HOST } from './ring.ts';
import type { RecordingCoalescer } from './stand-ins.ts';
import { Windows } from './windows.ts';

/** Reads of one round: as many as a batch holds. */
const MOST_READS = 64;

/** The packets that an uplink's port has read for one batch, and the drops that its checks have counted. */
export class Reads {
  count = 0;
  readonly handles = new Handles(MOST_READS);
  readonly #recorder: Recorder;
  readonly #drops: DropWatch;
  readonly #scope: number;
  readonly #uplink: number;
  readonly #at = new Int32Array(MOST_READS);
  readonly #end = new Int32Array(MOST_READS);
  #isOpen = false;

  constructor(recorder: Recorder, counters: Float64Array, scope: number, uplink: number) {
    this.#recorder = recorder;
    this.#drops = new DropWatch(counters, 'rx');
    this.#scope = scope;
    this.#uplink = uplink;
  }

  /** After each read: what rose since the one before is the reason of that one's packet. */
  arrived(at: number, size: number): void {
    if (this.#isOpen) this.#settle();
    else this.#open();
    if (size <= VNET_TUNNEL || this.count >= MOST_READS) return;
    this.#recorder.pieces.behindVnet(this.#recorder.memory, at, size, VNET_TUNNEL);
    this.#recorder.record(RECORD_OUTER | RECORD_RECEIVED, -1, this.#uplink, this.handles, this.count);
    this.#at[this.count] = at;
    this.#end[this.count++] = at + size;
  }

  /** The round is over. */
  close(): void {
    if (this.#isOpen) this.#settle();
    this.#isOpen = false;
  }

  /** The number of the read that brought the packet at `at`, from `first` on; `count` when none has. */
  find(at: number, first: number): number {
    let read = first;
    while (read < this.count && (at < this.#at[read] || at >= this.#end[read])) read++;
    return read;
  }

  #open(): void {
    this.#isOpen = true;
    this.count = 0;
    this.#recorder.begin();
    this.#drops.start(this.#scope);
  }

  #settle(): void {
    const counter = this.#drops.risen();
    if (counter >= 0 && this.count > 0) this.#recorder.drop(this.handles, this.count - 1, counter, this.#drops.rise);
  }
}

export class RecordingDecap implements Pick<Decap, 'run'> {
  readonly decap: Pick<Decap, 'run'>;
  readonly #recorder: Recorder;
  readonly #devices: readonly Device[];
  /** Of an uplink of whole frames; a socket's packets have lost their outer headers. */
  readonly #reads: Reads | undefined;
  readonly #uplink: number;
  readonly #scope: number;
  readonly #uplinkDrops: DropWatch;
  readonly #deviceDrops: DropWatch;
  readonly #windows = new Windows();
  readonly #bare = new Handles(1);

  constructor(
    decap: Pick<Decap, 'run'>,
    recorder: Recorder,
    counters: Float64Array,
    { devices, index, scope, reads }: { devices: readonly Device[]; index: number; scope: number; reads?: Reads },
  ) {
    this.decap = decap;
    this.#recorder = recorder;
    this.#devices = devices;
    this.#uplink = index;
    this.#scope = scope;
    this.#reads = reads;
    this.#uplinkDrops = new DropWatch(counters, 'rx');
    this.#deviceDrops = new DropWatch(counters, 'rx');
  }

  run(batch: Batch): void {
    const recorder = this.#recorder;
    const reads = this.#reads;
    if (reads) reads.close();
    else recorder.begin();
    this.#uplinkDrops.start(this.#scope);
    const windows = this.#windows.of(batch);
    this.#hold(true);
    for (let i = 0, read = 0; i < batch.count; i++) {
      if (reads) read = reads.find(batch.at[i], read);
      const handles = reads ? reads.handles : this.#bare;
      if (!reads) {
        recorder.pieces.ofBatch(batch, i);
        recorder.record(RECORD_OUTER | RECORD_RECEIVED | RECORD_VIA_HOST, -1, this.#uplink, handles, 0);
      }
      const device = this.#deviceOf(batch.at[i], batch.length[i]);
      if (device) this.#deviceDrops.start(device.scope);
      this.decap.run(windows[i]);
      this.#settle(this.#uplinkDrops, handles, read);
      if (device) this.#settle(this.#deviceDrops, handles, read);
      recorder.failed = 0;
    }
    this.#hold(false);
    for (const device of this.#devices) {
      this.#deviceDrops.start(device.scope);
      device.coalescer.flush();
      this.#settle(this.#deviceDrops, this.#bare, 0);
      recorder.failed = 0;
    }
    recorder.end();
  }

  #settle(drops: DropWatch, handles: Handles, index: number): void {
    for (let counter = drops.risen(); counter >= 0; counter = drops.risen()) {
      if (this.#recorder.failed > 0) this.#recorder.dropFailed(counter, drops.rise);
      else this.#recorder.drop(handles, index, counter, drops.rise);
    }
  }

  #hold(isHolding: boolean): void {
    for (const { coalescer } of this.#devices) (coalescer as RecordingCoalescer).isHolding = isHolding;
  }

  #deviceOf(at: number, length: number): Device | undefined {
    if (length < VXLAN_HEADER) return undefined;
    const vni = vxlanVni(this.#recorder.memory.u8, at);
    return this.#devices.find((device) => device.vni === vni);
  }
}
