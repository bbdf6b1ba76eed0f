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

/** Reads of one round: as many as a batch holds. */
const MOST_READS = 64;

/** The packets that an uplink's port has read for one batch, and the drops that its checks have counted. */
export class Reads {
  count = 0;
  /** One more, which stays empty, for a packet that no read has brought. */
  readonly handles = new Handles(MOST_READS + 1);
  readonly #recorder: Recorder;
  readonly #drops: DropWatch;
  readonly #scope: number;
  readonly #uplink: number;
  readonly #at = new Int32Array(MOST_READS);
  readonly #end = new Int32Array(MOST_READS);
  #isOpen = false;
  /** Whether somebody wants to know what becomes of the last one. */
  #isWatched = false;

  constructor(recorder: Recorder, counters: Float64Array, scope: number, uplink: number) {
    this.#recorder = recorder;
    this.#drops = new DropWatch(counters, 'rx');
    this.#scope = scope;
    this.#uplink = uplink;
  }

  /** After each read: what rose since the one before is the reason of that one's packet. */
  arrived(at: number, size: number): void {
    if (this.#isWatched) this.#settle();
    if (!this.#isOpen) this.#open();
    if (size <= VNET_TUNNEL || this.count >= MOST_READS) return;
    this.#recorder.pieces.behindVnet(this.#recorder.memory, at, size, VNET_TUNNEL);
    const isWanted = this.#recorder.record(RECORD_OUTER | RECORD_RECEIVED, -1, this.#uplink, this.handles, this.count);
    if (isWanted && !this.#isWatched) this.#drops.start(this.#scope);
    this.#isWatched = isWanted;
    this.#at[this.count] = at;
    this.#end[this.count++] = at + size;
  }

  /** The round is over. */
  close(): void {
    if (this.#isWatched) this.#settle();
    this.#isOpen = this.#isWatched = false;
  }

  /** The number of the read that brought the packet at `at`, from `first` on; that of an empty handle when none has. */
  find(at: number, first: number): number {
    let read = first;
    while (read < this.count && (at < this.#at[read] || at >= this.#end[read])) read++;
    return read < this.count ? read : MOST_READS;
  }

  #open(): void {
    this.#isOpen = true;
    this.count = 0;
    this.#recorder.begin();
  }

  #settle(): void {
    const counter = this.#drops.risen();
    if (counter >= 0) this.#recorder.drop(this.handles, this.count - 1, counter, this.#drops.rise);
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
  readonly decap: Decap;
  readonly #recorder: Recorder;
  readonly #devices: readonly Device[];
  /** Of an uplink of whole frames; a socket's packets have lost their outer headers. */
  readonly #reads: Reads | undefined;
  readonly #uplink: number;
  readonly #scope: number;
  readonly #uplinkDrops: DropWatch;
  readonly #deviceDrops: DropWatch;
  readonly #headers: HostHeaders | undefined;
  /** Of a packet that no read has brought. */
  readonly #bare = new Handles(1);
  /** The number of the read that the packet at hand came with. */
  #read = 0;

  constructor(
    decap: Decap,
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
  detach(): Decap {
    this.#headers?.close();
    return this.decap;
  }

  run(batch: Batch): void {
    const recorder = this.#recorder;
    if (this.#reads) this.#reads.close();
    else recorder.begin();
    this.#read = 0;
    this.decap.begin();
    // Packets that nobody wants, up to the first one that somebody does, go on together.
    let i = 0;
    if (!recorder.isDivided) while (i < batch.count && !this.#record(batch, i)) i++;
    this.decap.deliver(batch, 0, i);
    recorder.failed = 0;
    const isWatched = i < batch.count;
    if (isWatched) this.#deliverEach(batch, i);
    for (const device of this.#devices) {
      if (isWatched) this.#deviceDrops.start(device.scope);
      device.coalescer.flush();
      if (isWatched) this.#settle(this.#deviceDrops, this.#bare, 0);
      recorder.failed = 0;
    }
    recorder.end();
  }

  /** One by one, to know what became of each. */
  #deliverEach(batch: Batch, first: number): void {
    const recorder = this.#recorder;
    const handles = this.#reads ? this.#reads.handles : this.#bare;
    this.#uplinkDrops.start(this.#scope);
    let last: Device | undefined;
    for (let i = first; i < batch.count; i++) {
      if (i > first || recorder.isDivided) this.#record(batch, i);
      const device = this.#deviceOf(batch.at[i], batch.length[i]);
      // What rose for the same device before has been told.
      if (device && device !== last) this.#deviceDrops.start(device.scope);
      last = device ?? last;
      this.decap.deliver(batch, i, i + 1);
      this.#settle(this.#uplinkDrops, handles, this.#read);
      if (device) this.#settle(this.#deviceDrops, handles, this.#read);
      recorder.failed = 0;
    }
  }

  /** Whether somebody wants packet `index`. One that was read has been recorded. */
  #record(batch: Batch, index: number): boolean {
    const reads = this.#reads;
    if (reads) {
      this.#read = reads.find(batch.at[index], this.#read);
      return this.#recorder.isWanted(reads.handles, this.#read);
    }
    const { pieces } = this.#recorder;
    pieces.ofBatch(batch, index);
    pieces.behind(this.#headers!.from(batch.source[index]), this.#headers!.length);
    return this.#recorder.record(RECORD_OUTER | RECORD_RECEIVED | RECORD_VIA_HOST, -1, this.#uplink, this.#bare, 0);
  }

  #settle(drops: DropWatch, handles: Handles, index: number): void {
    for (let counter = drops.risen(); counter >= 0; counter = drops.risen()) {
      if (this.#recorder.failed > 0) this.#recorder.dropFailed(counter, drops.rise);
      else this.#recorder.drop(handles, index, counter, drops.rise);
    }
  }

  #deviceOf(at: number, length: number): Device | undefined {
    if (length < VXLAN_HEADER) return undefined;
    const vni = vxlanVni(this.#recorder.memory.u8, at);
    const devices = this.#devices;
    for (let i = 0; i < devices.length; i++) if (devices[i].vni === vni) return devices[i];
    return undefined;
  }
}
