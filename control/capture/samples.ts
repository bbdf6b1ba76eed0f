/** What a few recorded packets tell of all: the last one that was dropped for each reason, and who has which part of the traffic. */
import { COUNTERS } from '../../dataplane/counters.ts';
import {
  RECORD_DEVICE,
  RECORD_DROP,
  RECORD_FLAGS,
  RECORD_LENGTH,
  RECORD_OUTER,
  RECORD_RECEIVED,
  RECORD_UPLINK,
  RECORD_VIA_HOST,
  type RingReader,
} from '../../dataplane/record/ring.ts';
import type { DropSample, PeerRate } from '../protocol.ts';
import { type CaptureNames, commentsOf } from './comments.ts';
import { fillHostHeaders } from './host-headers.ts';
import { type Outer, outerOf } from './outer.ts';

/** Samples of drops that are kept: some reasons of some devices. */
const MOST_DROPS = 256;
/** VTEPs that are told apart in a period; further ones are not counted. */
const MOST_PEERS = 8192;
/** VTEPs of a device that are told, those with the most bytes. */
const TOLD_PEERS = 32;

export interface SampleNames extends CaptureNames {
  /** The device with this VNI behind an uplink. */
  deviceOf(uplink: number, vni: number): { readonly index: number; readonly name: string } | undefined;
}

/** Sums since the period began. */
interface Sums {
  packets: number;
  bytes: number;
}

interface Peer {
  readonly dev: string;
  readonly address: string;
  readonly sent: Sums;
  readonly received: Sums;
}

export class Samples {
  readonly #names: SampleNames;
  readonly #drops = new Map<string, DropSample>();
  readonly #peers = new Map<string, Peer>();

  constructor(names: SampleNames) {
    this.#names = names;
  }

  /** The last drop of each reason and device. */
  get drops(): DropSample[] {
    return [...this.#drops.values()];
  }

  /** Takes all that a ring holds. */
  take(ring: RingReader): void {
    for (let record = ring.next(); record >= 0; record = ring.next()) {
      this.#take(ring, record);
      ring.release(record);
    }
  }

  #take(ring: RingReader, record: number): void {
    const { words } = ring;
    const flags = words[record + RECORD_FLAGS];
    const isOuter = (flags & RECORD_OUTER) !== 0;
    const isDropped = words[record + RECORD_DROP] > 0;
    if (!isOuter && !isDropped) return;
    const bytes = ring.packet(record);
    const isReceived = (flags & RECORD_RECEIVED) !== 0;
    const outer = isOuter ? outerOf(words, record, bytes, isReceived) : undefined;
    const device = outer && this.#names.deviceOf(words[record + RECORD_UPLINK], outer.vni);
    if (isDropped) this.#keepDrop(ring, record, device?.name);
    else if (outer && device) this.#count(outer, isReceived, device.name);
  }

  #keepDrop(ring: RingReader, record: number, outerDevice: string | undefined): void {
    const { words } = ring;
    const flags = words[record + RECORD_FLAGS];
    const isOuter = (flags & RECORD_OUTER) !== 0;
    const reason = COUNTERS[words[record + RECORD_DROP] - 1];
    const inner = this.#names.device(words[record + RECORD_DEVICE]);
    const dev = (isOuter ? outerDevice : inner) ?? null;
    const key = `${dev} ${reason}`;
    if (!this.#drops.has(key) && this.#drops.size >= MOST_DROPS) return;
    const bytes = Buffer.from(ring.packet(record));
    const length = words[record + RECORD_LENGTH];
    const uplink = this.#names.uplink(words[record + RECORD_UPLINK]);
    const isReceived = (flags & RECORD_RECEIVED) !== 0;
    if (flags & RECORD_VIA_HOST) fillHostHeaders(bytes, length, isReceived ? uplink?.local : undefined);
    this.#drops.set(key, {
      ...{ dev, reason, time: ring.time(record), length, hex: bytes.toString('hex') },
      interface: (isOuter ? uplink?.name : inner) ?? '',
      direction: isReceived ? 'in' : 'out',
      comments: commentsOf(this.#names, words, record, bytes),
    });
  }

  #count({ address, packets, bytes }: Outer, isReceived: boolean, dev: string): void {
    const key = `${dev} ${address}`;
    let peer = this.#peers.get(key);
    if (!peer) {
      if (this.#peers.size >= MOST_PEERS) return;
      peer = { dev, address, sent: { packets: 0, bytes: 0 }, received: { packets: 0, bytes: 0 } };
      this.#peers.set(key, peer);
    }
    const sums = isReceived ? peer.received : peer.sent;
    sums.packets += packets;
    sums.bytes += bytes;
  }

  /**
   * Ends a period: what each VTEP has sent and received, a second. `passed`: packets a second of a device, by the workers' counters,
   * of which the samples are a part.
   */
  rates(passed: ReadonlyMap<string, { readonly tx: number; readonly rx: number }>): PeerRate[] {
    const totals = new Map<string, { tx: number; rx: number }>();
    for (const { dev, sent, received } of this.#peers.values()) {
      const total = totals.get(dev) ?? { tx: 0, rx: 0 };
      totals.set(dev, { tx: total.tx + sent.packets, rx: total.rx + received.packets });
    }
    const rates: PeerRate[] = [];
    for (const { dev, address, sent, received } of this.#peers.values()) {
      const total = totals.get(dev)!;
      const all = passed.get(dev) ?? { tx: 0, rx: 0 };
      const scaled = ({ packets, bytes }: Sums, part: number, whole: number) => {
        const scale = part === 0 ? 0 : whole / part;
        return { packets: packets * scale, bytes: bytes * scale };
      };
      rates.push({ dev, address, tx: scaled(sent, total.tx, all.tx), rx: scaled(received, total.rx, all.rx) });
    }
    this.#peers.clear();
    return busiest(rates);
  }
}

/** TOLD_PEERS of each device. */
function busiest(rates: PeerRate[]): PeerRate[] {
  const told = new Map<string, number>();
  return rates
    .sort((a, b) => b.tx.bytes + b.rx.bytes - a.tx.bytes - a.rx.bytes)
    .filter(({ dev }) => {
      const count = (told.get(dev) ?? 0) + 1;
      told.set(dev, count);
      return count <= TOLD_PEERS;
    });
}
