/**
 * What passes in a while, by flow and by VTEP: packets are recorded as for a capture and added up here, so that nothing is counted per flow
 * while nobody looks. What is sent is taken on the inner side, where it is known which next hop each frame went to; what arrives
 * on the outer side, where the sending VTEP stands in the packet. What was dropped has not passed.
 */
import {
  allocateRing,
  RECORD_COPIES,
  RECORD_DEVICE,
  RECORD_DROP,
  RECORD_DROPPED,
  RECORD_FLAGS,
  RECORD_GSO,
  RECORD_GSO_SIZE,
  RECORD_HEADER_LENGTH,
  RECORD_LENGTH,
  RECORD_NEXT_HOP,
  RECORD_OUTER,
  RECORD_RECEIVED,
  RECORD_UPLINK,
  RingReader,
} from '../../dataplane/record/ring.ts';
import type { TapSpec } from '../../dataplane/record/tap.ts';
import { GSO_TYPE_MASK } from '../../system/vnet.ts';
import { outerOf } from '../capture/outer.ts';
import { type Flow, flowOf } from './flow.ts';

export interface TrafficRequest {
  /** null: all devices. */
  readonly dev: string | null;
  /** How long to look. */
  readonly milliseconds: number;
  /** Flows and VTEPs that are told of, those with most bytes. */
  readonly limit: number;
}

export interface TrafficCount {
  readonly packets: number;
  /** Of inner frames; a super-frame has its headers once. */
  readonly bytes: number;
  /** Reads and writes that brought them: the smaller their number, the less a rate tells. */
  readonly seen: number;
}

export interface FlowCount extends TrafficCount, Flow {
  readonly dev: string;
  readonly direction: 'tx' | 'rx';
  /** The VTEP at the other end; '' where the frame was sent nowhere, '*' where it was flooded. */
  readonly peer: string;
}

export interface PeerCount {
  readonly dev: string;
  readonly dst: string;
  readonly tx: TrafficCount;
  readonly rx: TrafficCount;
}

export interface TrafficSample {
  /** How long it was looked. */
  readonly milliseconds: number;
  /** Packets that were seen: reads and writes, of which a super-frame is one. */
  readonly seen: number;
  /** Records that found no room: the sums are too low by them. */
  readonly lost: number;
  /** Of all flows and VTEPs that there were. */
  readonly flows: readonly FlowCount[];
  readonly peers: readonly PeerCount[];
  readonly flowCount: number;
  readonly peerCount: number;
  /** Of all flows of each device together. */
  readonly totals: readonly { readonly dev: string; readonly tx: TrafficCount; readonly rx: TrafficCount }[];
}

/** What the numbers in records stand for; undefined: it is gone. */
export interface TrafficNames {
  device(index: number): string | undefined;
  deviceOf(uplink: number, vni: number): string | undefined;
  peer(nextHop: number): string | undefined;
}

/** Bytes of a ring, of each worker, and of a packet: the outer and inner headers, with VLAN tags or extension headers. */
const RING = 1 << 20;
const SNAP_LENGTH = 192;
/** Flows, and VTEPs, that are told apart: what comes later is added up as one. */
const MOST = 8192;
const MANY: Flow = { protocol: 'others', src: '', dst: '' };

interface Sum {
  packets: number;
  bytes: number;
  seen: number;
}

export class TrafficSampler {
  readonly specs: readonly TapSpec[];
  readonly #readers: readonly RingReader[];
  readonly #names: TrafficNames;
  readonly #flows = new Map<string, Omit<FlowCount, keyof TrafficCount> & Sum>();
  readonly #peers = new Map<string, { dev: string; dst: string; tx: Sum; rx: Sum }>();
  readonly #totals = new Map<string, { dev: string; tx: Sum; rx: Sum }>();
  /** Milliseconds since 1970, as in records: only what passed between them counts, when all workers recorded. */
  #begun = Number.POSITIVE_INFINITY;
  #ended = Number.POSITIVE_INFINITY;
  #seen = 0;

  /** `workers`: rings to fill; `device`: the only one to look at. */
  constructor(
    id: number,
    workers: number,
    device: { readonly index: number; readonly vni: number } | undefined,
    names: TrafficNames,
  ) {
    const { index, vni } = device ?? { index: -1, vni: -1 };
    this.specs = Array.from({ length: workers }, () => ({
      ...{ id, ring: allocateRing(RING), device: index, vni, filter: '', outerFilter: '', snapLength: SNAP_LENGTH },
    }));
    this.#readers = this.specs.map(({ ring }) => new RingReader(ring));
    this.#names = names;
  }

  /** All workers record from now on. */
  begin(): void {
    this.#begun = now();
  }

  /** Until now they did. */
  end(): void {
    this.#ended = now();
  }

  /** Takes what is in the rings. */
  drain(): void {
    for (const reader of this.#readers) {
      for (let record = reader.next(); record >= 0; record = reader.next()) {
        this.#take(reader, record);
        reader.release(record);
      }
    }
  }

  result(limit: number): TrafficSample {
    const flows = [...this.#flows.values()].sort((a, b) => b.bytes - a.bytes);
    const peers = [...this.#peers.values()].sort((a, b) => b.tx.bytes + b.rx.bytes - a.tx.bytes - a.rx.bytes);
    return {
      milliseconds: Math.round(this.#ended - this.#begun),
      seen: this.#seen,
      lost: this.#readers.reduce((sum, { lost }) => sum + lost, 0),
      flows: flows.slice(0, limit),
      peers: peers.slice(0, limit),
      flowCount: flows.length,
      peerCount: peers.length,
      totals: [...this.#totals.values()],
    };
  }

  #take(reader: RingReader, record: number): void {
    const { words } = reader;
    const time = reader.time(record);
    if (!(time >= this.#begun && time <= this.#ended)) return;
    const flags = words[record + RECORD_FLAGS] & (RECORD_OUTER | RECORD_RECEIVED);
    if (flags === 0) this.#takeSent(words, record, reader.packet(record));
    else if (flags === (RECORD_OUTER | RECORD_RECEIVED)) this.#takeReceived(words, record, reader.packet(record));
  }

  #takeSent(words: Int32Array, record: number, frame: Uint8Array): void {
    const dev = this.#names.device(words[record + RECORD_DEVICE]);
    if (dev === undefined || (words[record + RECORD_DROP] > 0 && words[record + RECORD_COPIES] === 0)) return;
    const bytes = words[record + RECORD_LENGTH];
    const nextHop = words[record + RECORD_NEXT_HOP];
    const isFlooded = words[record + RECORD_COPIES] > 1;
    const dst = nextHop === 0 ? '' : isFlooded ? '*' : (this.#names.peer(nextHop) ?? '');
    this.#add(dev, 'tx', dst, flowOf(frame, 0, frame.length), packetsOf(words, record), bytes);
  }

  #takeReceived(words: Int32Array, record: number, packet: Uint8Array): void {
    const outer = outerOf(words, record, packet, true);
    const dev = outer && this.#names.deviceOf(words[record + RECORD_UPLINK], outer.vni);
    if (!outer || dev === undefined) return;
    const { address, length, packets, bytes } = outer;
    // Of a run some packets may have been dropped, and the others not.
    const passed = Math.max(0, 1 - words[record + RECORD_DROPPED] / packets);
    if (passed === 0) return;
    const flow = flowOf(packet, length, packet.length - length);
    this.#add(dev, 'rx', address, flow, Math.round(packetsOf(words, record) * passed), Math.round(bytes * passed));
  }

  #add(dev: string, direction: 'tx' | 'rx', peer: string, flow: Flow, packets: number, bytes: number): void {
    this.#seen++;
    const key = `${dev} ${direction} ${peer} ${flow.protocol} ${flow.src} ${flow.dst}`;
    const known = this.#flows.get(key);
    const isMore = !known && this.#flows.size >= MOST;
    const told = isMore ? { key: `${dev} ${direction}`, peer: '', flow: MANY } : { key, peer, flow };
    const sum = known ?? this.#flows.get(told.key) ?? { dev, direction, peer: told.peer, ...told.flow, ...none() };
    this.#flows.set(told.key, sum);
    addTo(sum, packets, bytes);
    const total = this.#totals.get(dev) ?? { dev, tx: none(), rx: none() };
    this.#totals.set(dev, total);
    addTo(total[direction], packets, bytes);
    if (peer === '') return;
    const name = `${dev} ${peer}`;
    const of = this.#peers.get(name) ?? { dev, dst: peer, tx: none(), rx: none() };
    if (!this.#peers.has(name) && this.#peers.size >= MOST) return;
    this.#peers.set(name, of);
    addTo(of[direction], packets, bytes);
  }
}

function now(): number {
  return performance.timeOrigin + performance.now();
}

function none(): Sum {
  return { packets: 0, bytes: 0, seen: 0 };
}

function addTo(sum: Sum, packets: number, bytes: number): void {
  sum.packets += packets;
  sum.bytes += bytes;
  sum.seen++;
}

/** The packets that a super-frame or a run stands for. */
function packetsOf(words: Int32Array, record: number): number {
  const size = words[record + RECORD_GSO_SIZE];
  if (((words[record + RECORD_GSO] >> 8) & GSO_TYPE_MASK) === 0 || size === 0) return 1;
  return Math.max(1, Math.ceil((words[record + RECORD_LENGTH] - words[record + RECORD_HEADER_LENGTH]) / size));
}
