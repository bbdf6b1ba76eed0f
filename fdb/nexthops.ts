/**
 * Next hops: who a frame goes to, and the outer headers that take it there, ready to copy. Records in a SharedArrayBuffer, written by
 * NextHops in the main thread, read by the workers without locks:
 *
 *     record i, at word i * 32 (record 0 is nobody's, so that no destination is 0):
 *        0 SEQUENCE       odd while the record is written
 *        1 STATE          UNRESOLVED, RESOLVED or VIA_HOST; 0 before its first use
 *        2 OUTER_LENGTH   bytes: 50 (IPv4 outside) or 70 (IPv6)
 *        3 IP_SUM         folded little-endian sum of the IPv4 header, its total length, id and checksum zero; 0 for IPv6
 *        4 PSEUDO_SUM     folded little-endian sum of source, destination and protocol 17, without the UDP length
 *        5 UPLINK         index of the uplink that carries it
 *        6 FLAGS          UDP_CHECKSUM
 *        7 MTU            largest outer IP packet on the path, in bytes
 *     8-31 TEMPLATE       24 zero bytes (virtio-net header room), the outer headers, zeros
 */
import { parseIp } from '../wire/address.ts';
import { get16, swap16 } from '../wire/bytes.ts';
import { ETHER_HEADER } from '../wire/ethernet.ts';
import { IPV4_DESTINATION } from '../wire/ipv4.ts';
import { IPV6_DESTINATION } from '../wire/ipv6.ts';
import { answer } from './error.ts';
import type { FdbMirror } from './mirror.ts';
import { Peers } from './peers.ts';
import { ORDERED_LOADS } from './table.ts';

/** Words of a record: index * RECORD is its first. */
export const RECORD = 32;

// Words of a record.
export const SEQUENCE = 0;
export const STATE = 1;
export const OUTER_LENGTH = 2;
export const IP_SUM = 3;
export const PSEUDO_SUM = 4;
export const UPLINK = 5;
export const FLAGS = 6;
export const MTU = 7;
export const TEMPLATE = 8;
export const TEMPLATE_WORDS = RECORD - TEMPLATE;
/** Zero bytes in front of the outer headers: room for a virtio-net header. */
export const TEMPLATE_HEADROOM = 24;

// STATE: no headers yet, may be sent to.
const UNRESOLVED = 1;
export const RESOLVED = 2;
/** STATE: the headers are complete but for the MAC addresses, so that only the host's own stack can find the way. */
export const VIA_HOST = 3;

/** Bit of FLAGS: compute the outer UDP checksum. */
export const UDP_CHECKSUM = 1;

const DEFAULT_NEXTHOPS = 1 << 18;

/** How long a worker may hold on to what it found, in milliseconds: a batch takes well under one, a worker off the CPU longer. */
export const DEFAULT_GRACE = 2000;

/** Who a next hop is. */
export interface NextHopKey {
  /** The VXLAN device's number. */
  readonly device: number;
  /** The remote VTEP, as formatIp() writes it. */
  readonly ip: string;
  readonly port: number;
  readonly vni: number;
  /** The NIC to leave through; '' when the route decides. */
  readonly via: string;
}

/** What publish() writes: the words of the record under these names. */
export interface Template {
  readonly outerLength: number;
  readonly ipSum: number;
  readonly pseudoSum: number;
  readonly uplink: number;
  readonly flags: number;
  readonly mtu: number;
  /** TEMPLATE_WORDS of them. */
  readonly words: Int32Array;
}

/** What the resolver hears of. */
export interface NextHopEvents {
  /** A next hop is wanted: the record waits for publish(). */
  onNextHop(index: number, key: NextHopKey): void;
  /** It is not any more. */
  onRelease(index: number): void;
}

export class NextHops {
  readonly buffer: SharedArrayBuffer;
  mirror: FdbMirror | undefined;
  /** Who is a next hop of which device. */
  readonly peers: Peers;
  readonly #words: Int32Array;
  /** Records that there may be. */
  readonly limit: number;
  readonly #grace: number;
  readonly #events: NextHopEvents;
  readonly #keys: NextHopKey[] = [];
  readonly #references: number[] = [];
  /** Index by key, of records in use and of retired ones. */
  readonly #indexes = new Map<string, number>();
  /** When each unused record was released, oldest first. */
  readonly #retired = new Map<number, number>();
  #end = 1;
  #size = 0;

  /**
   * @param limit records, 128 bytes each; the kernel takes memory for those that are written.
   * @param grace milliseconds before a record is given to another VTEP, since a worker may just be about to read it.
   * @param seed see Peers.
   */
  constructor(events: NextHopEvents, limit: number = DEFAULT_NEXTHOPS, grace: number = DEFAULT_GRACE, seed = 0) {
    this.#events = events;
    this.limit = limit;
    this.#grace = grace;
    this.peers = new Peers(limit, seed);
    this.buffer = new SharedArrayBuffer((limit + 1) * RECORD * 4);
    this.#words = new Int32Array(this.buffer);
  }

  /** Next hops in use. */
  get size(): number {
    return this.#size;
  }

  /** Adds a reference to a next hop and returns its index. `now` in milliseconds. Throws FdbError ENOBUFS when there is no record. */
  acquire(key: NextHopKey, now: number): number {
    const name = nameOf(key);
    let index = this.#indexes.get(name);
    if (index !== undefined && this.#references[index] > 0) {
      this.#references[index]++;
      return index;
    }
    // One that was released lately comes back to its own record, whatever the grace: its readers want the same VTEP.
    if (index === undefined) {
      index = this.#unused(now);
      this.#indexes.set(name, index);
      this.#keys[index] = key;
    } else {
      this.#retired.delete(index);
    }
    this.#references[index] = 1;
    this.#size++;
    this.peers.add(key.device, parseIp(key.ip)!);
    this.#setState(index, UNRESOLVED);
    this.#events.onNextHop(index, key);
    return index;
  }

  /** Takes a reference away. After the last one the record stays as it is until its next use: a worker may be about to send to it. */
  release(index: number, now: number): void {
    if (--this.#references[index] > 0) return;
    this.#retired.set(index, now);
    this.mirror?.setNextHop(index);
    this.#size--;
    const { device, ip } = this.#keys[index];
    this.peers.remove(device, parseIp(ip)!);
    this.#events.onRelease(index);
  }

  /** The index of a next hop that is in use, 0 when there is none. */
  find(key: NextHopKey): number {
    const index = this.#indexes.get(nameOf(key));
    return index !== undefined && this.#references[index] > 0 ? index : 0;
  }

  key(index: number): NextHopKey {
    return this.#keys[index];
  }

  /** Frames may go there from now on. Nothing happens when the next hop has been released meanwhile. */
  publish(index: number, template: Template, state: typeof RESOLVED | typeof VIA_HOST = RESOLVED): void {
    if (!this.#references[index]) return;
    const at = index * RECORD;
    this.#write(index, () => {
      this.#put(at + OUTER_LENGTH, template.outerLength);
      this.#put(at + IP_SUM, template.ipSum);
      this.#put(at + PSEUDO_SUM, template.pseudoSum);
      this.#put(at + UPLINK, template.uplink);
      this.#put(at + FLAGS, template.flags);
      this.#put(at + MTU, template.mtu);
      for (let i = 0; i < TEMPLATE_WORDS; i++) this.#put(at + TEMPLATE + i, template.words[i]);
      this.#put(at + STATE, state);
    });
  }

  /** Frames to it are dropped from now on. Nothing happens when the next hop has been released meanwhile. */
  withhold(index: number): void {
    if (this.#references[index]) this.#setState(index, UNRESOLVED);
  }

  /** What takes whole frames there; undefined when it is not in use, or is not resolved. */
  resolved(index: number): Template | undefined {
    const at = index * RECORD;
    const words = this.#words;
    if (!this.#references[index] || words[at + STATE] !== RESOLVED) return undefined;
    return {
      outerLength: words[at + OUTER_LENGTH],
      ipSum: words[at + IP_SUM],
      pseudoSum: words[at + PSEUDO_SUM],
      uplink: words[at + UPLINK],
      flags: words[at + FLAGS],
      mtu: words[at + MTU],
      words: words.slice(at + TEMPLATE, at + TEMPLATE + TEMPLATE_WORDS),
    };
  }

  #setState(index: number, state: number): void {
    this.#write(index, () => this.#put(index * RECORD + STATE, state));
  }

  #write(index: number, change: () => void): void {
    const at = index * RECORD + SEQUENCE;
    this.#put(at, this.#words[at] + 1);
    change();
    this.#put(at, this.#words[at] + 1);
    this.mirror?.setNextHop(index);
  }

  /** All stores are atomic: these stay in order on every processor. */
  #put(at: number, value: number): void {
    Atomics.store(this.#words, at, value);
  }

  /** A record that nobody uses and no worker can be reading. */
  #unused(now: number): number {
    for (const [index, released] of this.#retired) {
      if (now - released < this.#grace) break;
      this.#retired.delete(index);
      this.#indexes.delete(nameOf(this.#keys[index]));
      return index;
    }
    if (this.#end > this.limit) throw answer('ENOBUFS');
    return this.#end++;
  }
}

function nameOf({ device, ip, port, vni, via }: NextHopKey): string {
  return `${device} ${ip} ${port} ${vni} ${via}`;
}

/**
 * One word of a record that a worker copies. The copy is whole when SEQUENCE was even before and is the same after: plain loads stay
 * between these two atomic ones on x86; on ARM they may be late, so there each is atomic.
 */
export function loadWord(words: Int32Array, at: number): number {
  return ORDERED_LOADS ? words[at] : Atomics.load(words, at);
}

/**
 * Whether a next hop's VTEP has the address whose bytes stand at `at`, of a family that is the device's: its template tells. A record
 * that is being written may say no, which makes whoever asks look closer.
 */
export function isRemote(words: Int32Array, index: number, bytes: Uint8Array, at: number, family: 4 | 6): boolean {
  const outerIp = index * RECORD * 4 + TEMPLATE * 4 + TEMPLATE_HEADROOM + ETHER_HEADER;
  const destination = outerIp + (family === 4 ? IPV4_DESTINATION : IPV6_DESTINATION);
  const size = family === 4 ? 4 : 16;
  // Bytes of the template lie in little-endian words.
  for (let i = 0; i < size; i += 2) {
    const halves = words[(destination + i) >> 2] >>> (((destination + i) & 2) << 3);
    if ((halves & 0xffff) !== swap16(get16(bytes, at + i))) return false;
  }
  return true;
}
