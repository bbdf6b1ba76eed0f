/** One listener: what it wants to see, and the ring that takes it to the main thread. */
import { compileFilter, type Filter } from '../../packets/filter/filter.ts';
import { copyBytes } from '../../wire/bytes.ts';
import { ETHER_TYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../wire/ethernet.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6, VXLAN_HEADER, vxlanVni } from '../../wire/vxlan.ts';
import type { PacketMemory } from '../memory.ts';
import type { Pieces } from './pieces.ts';
import {
  dataOf,
  RECORD_CAPTURED,
  RECORD_CHECKSUM,
  RECORD_DEVICE,
  RECORD_DROP,
  RECORD_DROPPED,
  RECORD_GSO,
  RECORD_GSO_SIZE,
  RECORD_HEADER_LENGTH,
  RECORD_LENGTH,
  RECORD_OUTER,
  RECORD_TIME,
  RECORD_UPLINK,
  RingWriter,
} from './ring.ts';

export interface TapSpec {
  readonly id: number;
  /** See allocateRing(). */
  readonly ring: SharedArrayBuffer;
  /** The device to listen to and its VNI; -1 for all. */
  readonly device: number;
  readonly vni: number;
  /** Of the inner frame, and of the outer packet; '' for all. */
  readonly filter: string;
  readonly outerFilter: string;
  /** Bytes of a packet that are kept. */
  readonly snapLength: number;
}

/** Shorter packets are copied by words, which takes less than making a view of them, and leaves no garbage. */
const SHORT = 512;

export class Tap {
  readonly id: number;
  /** Whether it may want an inner frame, and not the outer packet that it came in. */
  readonly isDivided: boolean;
  readonly #memory: PacketMemory;
  /** Of the batch. */
  readonly #time: Float64Array;
  readonly #ring: RingWriter;
  readonly #device: number;
  readonly #vni: number;
  readonly #filter: Filter | undefined;
  readonly #outerFilter: Filter | undefined;
  readonly #snapLength: number;
  readonly #to: DataView;

  /** Throws FilterError. `time`: one number, which changes. */
  constructor(spec: TapSpec, memory: PacketMemory, time: Float64Array) {
    this.id = spec.id;
    this.#memory = memory;
    this.#time = time;
    this.#ring = new RingWriter(spec.ring);
    this.#device = spec.device;
    this.#vni = spec.vni;
    this.#filter = compileFilter(spec.filter);
    this.#outerFilter = compileFilter(spec.outerFilter);
    this.#snapLength = spec.snapLength;
    this.#to = new DataView(spec.ring);
    this.isDivided = this.#outerFilter !== undefined;
  }

  /** Writes a record when the packet is wanted; returns the first word of its header, -1 when it is not, or is lost. */
  record(pieces: Pieces, flags: number, device: number, uplink: number): number {
    const outer = (flags & RECORD_OUTER) !== 0;
    if (!(outer ? this.#wantsPacket(pieces) : this.#wantsFrame(pieces, device))) return -1;
    const { words, floats } = this.#ring;
    const captured = Math.min(pieces.total, this.#snapLength);
    const record = this.#ring.reserve(flags, captured, pieces.at[0]);
    if (record < 0) return -1;
    words[record + RECORD_DEVICE] = device;
    words[record + RECORD_UPLINK] = uplink;
    words[record + RECORD_CAPTURED] = captured;
    words[record + RECORD_LENGTH] = pieces.total;
    floats[(record + RECORD_TIME) >> 1] = this.#time[0];
    words[record + RECORD_GSO] = pieces.flags | (pieces.gsoType << 8);
    words[record + RECORD_GSO_SIZE] = pieces.gsoSize;
    words[record + RECORD_HEADER_LENGTH] = pieces.headerLength;
    words[record + RECORD_CHECKSUM] = pieces.checksumStart | (pieces.checksumOffset << 16);
    this.#copy(pieces, dataOf(words, record), captured);
    return record;
  }

  /** Sets a word of a record that is not published yet; nothing happens for -1. */
  set(record: number, word: number, value: number): void {
    if (record >= 0) this.#ring.words[record + word] = value;
  }

  drop(record: number, counter: number, count: number): void {
    if (record < 0) return;
    this.#ring.words[record + RECORD_DROP] = counter + 1;
    this.#ring.words[record + RECORD_DROPPED] += count;
  }

  publish(): void {
    this.#ring.publish();
  }

  #wantsFrame({ at, length, total }: Pieces, device: number): boolean {
    if (this.#device >= 0 && device !== this.#device) return false;
    return this.#filter === undefined || this.#filter(this.#memory.u8, at[0], length[0], total);
  }

  /** A packet in which no inner frame can be found is wanted by those who want all frames. */
  #wantsPacket(pieces: Pieces): boolean {
    if (this.#outerFilter === undefined && this.#filter === undefined && this.#device < 0) return true;
    const { u8 } = this.#memory;
    const at = pieces.at[0];
    const length = pieces.length[0];
    if (this.#outerFilter && !this.#outerFilter(u8, at, length, pieces.total)) return false;
    if (this.#device < 0 && this.#filter === undefined) return true;
    const inner = innerOffset(u8, at, length);
    // Of packets that the host's stack carries the outer headers are the first piece, all or all but VXLAN.
    const frame = inner > length ? pieces.at[1] + inner - length : inner === length ? pieces.at[1] : at + inner;
    const frameLength = inner >= length ? pieces.length[1] - (inner - length) : length - inner;
    const hasFrame = inner > 0 && frameLength > 0;
    if (hasFrame && this.#device >= 0 && this.#vniOf(u8, frame, inner, pieces) !== this.#vni) return false;
    return this.#filter === undefined || this.#filter(u8, frame, hasFrame ? frameLength : 0, pieces.total - inner);
  }

  /** The VXLAN header stands before the frame, or at the end of the first piece. */
  #vniOf(u8: Uint8Array, frame: number, inner: number, pieces: Pieces): number {
    const vxlan = inner === pieces.length[0] ? pieces.at[0] + inner - VXLAN_HEADER : frame - VXLAN_HEADER;
    return vxlanVni(u8, vxlan);
  }

  #copy({ at, length }: Pieces, to: number, captured: number): void {
    const first = Math.min(captured, length[0]);
    if (first <= SHORT) copyWords(this.#memory.i32, at[0], this.#ring.words, to, first);
    else this.#copyView(at[0], to, first);
    // Further pieces lie as they happen to.
    for (let i = 1, left = captured - first, next = to + first; left > 0; i++) {
      const count = Math.min(left, length[i]);
      if (count <= SHORT) copyBytes(this.#memory.view, at[i], this.#to, next, count);
      else this.#copyView(at[i], next, count);
      next += count;
      left -= count;
    }
  }

  #copyView(from: number, to: number, count: number): void {
    this.#ring.bytes.set(this.#memory.u8.subarray(from, from + count), to);
  }
}

/** Both lie equally far from a multiple of 4: whole words are copied, and with them up to three bytes in front and behind. */
function copyWords(source: Int32Array, from: number, target: Int32Array, to: number, count: number): void {
  const end = (from + count + 3) >> 2;
  for (let i = from >> 2, k = to >> 2; i < end; i++, k++) target[k] = source[i];
}

/** Where the inner frame of an outer one begins, as uvxlan and the redirect filter have it: no options; 0 when there is none. */
function innerOffset(bytes: Uint8Array, at: number, length: number): number {
  if (length < OUTER_LENGTH_IPV4 - VXLAN_HEADER) return 0;
  const type = (bytes[at + ETHER_TYPE] << 8) | bytes[at + ETHER_TYPE + 1];
  if (type === ETHERTYPE_IPV4) return OUTER_LENGTH_IPV4;
  return type === ETHERTYPE_IPV6 && length >= OUTER_LENGTH_IPV6 - VXLAN_HEADER ? OUTER_LENGTH_IPV6 : 0;
}
