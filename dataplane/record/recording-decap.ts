/** Decap with a recorder: every outer packet with the reason for which it was dropped, by the uplink or here. */
import { VNET_TUNNEL } from '../../system/vnet.ts';
import { put16 } from '../../wire/bytes.ts';
import { ETHER_HEADER, ETHER_TYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../wire/ethernet.ts';
import { IPV4_PROTOCOL, IPV4_SOURCE, PROTOCOL_UDP } from '../../wire/ipv4.ts';
import { IPV6_NEXT_HEADER, IPV6_SOURCE } from '../../wire/ipv6.ts';
import { UDP_DESTINATION, UDP_HEADER } from '../../wire/udp.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6, VXLAN_HEADER, vxlanVni } from '../../wire/vxlan.ts';
import type { Batch } from '../batch.ts';
import type { Decap } from '../decap.ts';
import type { Device } from '../device.ts';
import type { PacketMemory } from '../memory.ts';
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

/** Where a Decap works. */
export interface DecapPlace {
  readonly devices: readonly Device[];
  /** The uplink's number, and its block of counters. */
  readonly index: number;
  readonly scope: number;
  readonly port: number;
  readonly family: 4 | 6;
  readonly reads?: Reads;
}

/**
 * What stands in the place of the outer headers that the host's stack has taken off: the source address and the port are known, lengths
 * and the destination address are the reader's to fill in.
 */
class HostHeaders {
  readonly length: number;
  readonly #memory: PacketMemory;
  readonly #at: number;
  readonly #source: number;
  readonly #addressLength: number;

  constructor(memory: PacketMemory, port: number, family: 4 | 6) {
    this.length = (family === 4 ? OUTER_LENGTH_IPV4 : OUTER_LENGTH_IPV6) - VXLAN_HEADER;
    this.#memory = memory;
    this.#addressLength = family === 4 ? 4 : 16;
    this.#at = memory.take(this.length);
    const { u8 } = memory;
    const ip = this.#at + ETHER_HEADER;
    put16(u8, this.#at + ETHER_TYPE, family === 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    u8[ip] = family === 4 ? 0x45 : 0x60;
    u8[ip + (family === 4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER)] = PROTOCOL_UDP;
    this.#source = ip + (family === 4 ? IPV4_SOURCE : IPV6_SOURCE);
    put16(u8, this.#at + this.length - UDP_HEADER + UDP_DESTINATION, port);
  }

  /** Where the headers are, for a packet whose source address lies at `source`. */
  from(source: number): number {
    this.#memory.u8.copyWithin(this.#source, source, source + this.#addressLength);
    return this.#at;
  }

  close(): void {
    this.#memory.give(this.#at, this.length);
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
  readonly #headers: HostHeaders | undefined;
  readonly #bare = new Handles(1);

  constructor(
    decap: Pick<Decap, 'run'>,
    recorder: Recorder,
    counters: Float64Array,
    { devices, index, scope, port, family, reads }: DecapPlace,
  ) {
    this.decap = decap;
    this.#recorder = recorder;
    this.#devices = devices;
    this.#uplink = index;
    this.#scope = scope;
    this.#reads = reads;
    this.#headers = reads ? undefined : new HostHeaders(recorder.memory, port, family);
    this.#uplinkDrops = new DropWatch(counters, 'rx');
    this.#deviceDrops = new DropWatch(counters, 'rx');
  }

  /** Gives back what it took; returns what it stood in front of. */
  detach(): Pick<Decap, 'run'> {
    this.#headers?.close();
    return this.decap;
  }

  run(batch: Batch): void {
    const recorder = this.#recorder;
    const reads = this.#reads;
    if (reads) reads.close();
    else recorder.begin();
    this.#uplinkDrops.start(this.#scope);
    const windows = this.#windows.of(batch);
    this.#hold(true);
    let last: Device | undefined;
    for (let i = 0, read = 0; i < batch.count; i++) {
      if (reads) read = reads.find(batch.at[i], read);
      const handles = reads ? reads.handles : this.#bare;
      if (this.#headers) {
        recorder.pieces.ofBatch(batch, i);
        recorder.pieces.behind(this.#headers.from(batch.source[i]), this.#headers.length);
        recorder.record(RECORD_OUTER | RECORD_RECEIVED | RECORD_VIA_HOST, -1, this.#uplink, handles, 0);
      }
      const device = this.#deviceOf(batch.at[i], batch.length[i]);
      // What rose for the same device before has been told.
      if (device && device !== last) this.#deviceDrops.start(device.scope);
      last = device ?? last;
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
    const devices = this.#devices;
    for (let i = 0; i < devices.length; i++) if (devices[i].vni === vni) return devices[i];
    return undefined;
  }
}
