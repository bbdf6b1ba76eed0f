/**
 * What the workers tell the main thread about packets: a MAC at an unknown place, a miss, an offender. A ring a worker in one
 * SharedArrayBuffer, bounded, so that no flood of packets costs more than a ring that is full:
 *
 *     word 0     WAITING   1 while the main thread sleeps until a report comes
 *     words 16.. a ring a worker:  HEAD (reports written) | ... | TAIL (reports read, a cache line apart) | ... | 256 records
 *     record     TYPE | DEVICE | MAC_HIGH | MAC_LOW | FAMILY | ADDRESS 4 | COUNT | LENGTH | - 5 | SAMPLE 16
 *
 * A report that waits in the ring already is not written again but counted in it, and no type takes more than half of a ring. The
 * main thread empties all rings at once and then rests: REST milliseconds bound how many reports it takes a second.
 */
import { get32 } from '../wire/bytes.ts';
import type { PacketMemory } from './memory.ts';

const WAITING = 0;
const HEADER_WORDS = 16;

// Words of a ring.
const HEAD = 0;
const TAIL = 16;
const RECORDS = 32;
const RING = 256;
const MOST_OF_TYPE = RING / 2;

// Words of a record.
export const REPORT_TYPE = 0;
export const REPORT_DEVICE = 1;
/** A MAC as two big-endian parts, 16 and 32 bits. */
export const REPORT_MAC_HIGH = 2;
export const REPORT_MAC_LOW = 3;
/** Of the address: 4 or 6; 0 when there is none. */
export const REPORT_FAMILY = 4;
/** Four big-endian words, of which IPv4 uses the first. */
export const REPORT_ADDRESS = 5;
/** How many packets said so while the report waited, about. */
export const REPORT_COUNT = 9;
/** Bytes of the packet that the sample is of; it may be shorter or longer than the sample. */
export const REPORT_LENGTH = 10;
/** First bytes of the packet. */
export const REPORT_SAMPLE = 16;
export const SAMPLE_BYTES = 64;
const RECORD = REPORT_SAMPLE + SAMPLE_BYTES / 4;
const RING_WORDS = RECORDS + RING * RECORD;

// TYPE.
/** Learning: the source MAC has no entry, or one for another VTEP than the address, the packet's outer source. */
export const REPORT_SOURCE = 1;
/** A packet that `vtep-filter` or a static entry has kept out, by reason: see drops.ts. */
export const REPORT_UNKNOWN_VTEP = 2;
export const REPORT_WRONG_VTEP = 3;
export const REPORT_STATIC_MAC = 4;
/** l2miss: no entry for the MAC, and no default one. l3miss: no neighbour of the address. */
export const REPORT_L2MISS = 5;
export const REPORT_L3MISS = 6;
/** As 2 to 4: the inner source address. */
export const REPORT_WRONG_SUBNET = 7;
const TYPES = 8;

/** Milliseconds between two rounds of the main thread: at most 25,600 reports a second and worker. */
const REST = 10;

export function allocateReports(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer((HEADER_WORDS + workers * RING_WORDS) * 4);
}

/** A worker's side. */
export class ReportWriter {
  readonly #words: Int32Array;
  readonly #memory: PacketMemory;
  readonly #ring: number;
  /** Position of the last report with this hash, to find one that still waits. */
  readonly #last = new Int32Array(RING).fill(-1);
  readonly #ofType = new Int32Array(TYPES);
  #tail = 0;

  constructor(buffer: SharedArrayBuffer, worker: number, memory: PacketMemory) {
    this.#words = new Int32Array(buffer);
    this.#memory = memory;
    this.#ring = HEADER_WORDS + worker * RING_WORDS;
  }

  /**
   * Reports a MAC and an address for a packet. `address` is the offset of its bytes in packet memory, `family` 4 or 6, or 0 when
   * there is none; `at` and `length` are the packet that a sample is taken of.
   */
  report(
    type: number,
    device: number,
    macHigh: number,
    macLow: number,
    family: number,
    address: number,
    at: number,
    length: number,
  ): void {
    const words = this.#words;
    const ring = this.#ring;
    const { u8 } = this.#memory;
    const head = words[ring + HEAD];
    const tail = Atomics.load(words, ring + TAIL);
    if (tail !== this.#tail) {
      this.#tail = tail;
      this.#ofType.fill(0);
    }
    const first = family === 0 ? 0 : get32(u8, address);
    const second = family === 6 ? get32(u8, address + 4) : 0;
    const third = family === 6 ? get32(u8, address + 8) : 0;
    const fourth = family === 6 ? get32(u8, address + 12) : 0;
    const mixed = Math.imul(macLow ^ (macHigh << 16) ^ type, 0x85ebca6b) ^ Math.imul(first ^ fourth, 0xc2b2ae35);
    const slot = (mixed ^ (mixed >>> 15)) & (RING - 1);
    const waiting = this.#last[slot];
    if (waiting >= 0 && ((waiting - tail) | 0) >= 0) {
      const record = ring + RECORDS + (waiting & (RING - 1)) * RECORD;
      if (
        words[record + REPORT_MAC_LOW] === macLow &&
        words[record + REPORT_MAC_HIGH] === macHigh &&
        words[record + REPORT_TYPE] === type &&
        words[record + REPORT_DEVICE] === device &&
        words[record + REPORT_ADDRESS] === first &&
        words[record + REPORT_ADDRESS + 1] === second &&
        words[record + REPORT_ADDRESS + 2] === third &&
        words[record + REPORT_ADDRESS + 3] === fourth
      ) {
        words[record + REPORT_COUNT]++;
        return;
      }
    }
    if (((head - tail) | 0) >= RING || this.#ofType[type] >= MOST_OF_TYPE) return;
    const record = ring + RECORDS + (head & (RING - 1)) * RECORD;
    words[record + REPORT_TYPE] = type;
    words[record + REPORT_DEVICE] = device;
    words[record + REPORT_MAC_HIGH] = macHigh;
    words[record + REPORT_MAC_LOW] = macLow;
    words[record + REPORT_FAMILY] = family;
    words[record + REPORT_ADDRESS] = first;
    words[record + REPORT_ADDRESS + 1] = second;
    words[record + REPORT_ADDRESS + 2] = third;
    words[record + REPORT_ADDRESS + 3] = fourth;
    words[record + REPORT_COUNT] = 1;
    words[record + REPORT_LENGTH] = length;
    const sampled = Math.min(length, SAMPLE_BYTES) >> 2;
    for (let i = 0; i < sampled; i++) words[record + REPORT_SAMPLE + i] = get32(u8, at + i * 4);
    this.#last[slot] = head;
    this.#ofType[type]++;
    Atomics.store(words, ring + HEAD, (head + 1) | 0);
    if (Atomics.exchange(words, WAITING, 0) === 1) Atomics.notify(words, WAITING);
  }
}

/** The main thread's side: calls `take` for each report with the words and the first word of its record. */
export class ReportReader {
  readonly #words: Int32Array;
  readonly #take: (words: Int32Array, record: number) => void;
  #stopped = false;

  constructor(buffer: SharedArrayBuffer, take: (words: Int32Array, record: number) => void) {
    this.#words = new Int32Array(buffer);
    this.#take = take;
  }

  /** Takes reports as they come, until stop(). */
  async run(): Promise<void> {
    const words = this.#words;
    while (!this.#stopped) {
      Atomics.store(words, WAITING, 1);
      // One that came before it waited is found now, one that comes later wakes it.
      if (this.drain() === 0) await Atomics.waitAsync(words, WAITING, 1).value;
      this.drain();
      await new Promise((resolve) => setTimeout(resolve, REST).unref());
    }
  }

  stop(): void {
    this.#stopped = true;
    Atomics.store(this.#words, WAITING, 0);
    Atomics.notify(this.#words, WAITING);
  }

  /** Takes all reports that wait; returns how many there were. */
  drain(): number {
    const words = this.#words;
    let taken = 0;
    for (let ring = HEADER_WORDS; ring < words.length; ring += RING_WORDS) {
      const head = Atomics.load(words, ring + HEAD);
      const tail = words[ring + TAIL];
      for (let position = tail; position !== head; position = (position + 1) | 0, taken++) {
        this.#take(words, ring + RECORDS + (position & (RING - 1)) * RECORD);
      }
      if (head !== tail) Atomics.store(words, ring + TAIL, head);
    }
    return taken;
  }
}

/** The address of a report as bytes; none when it has none. */
export function reportAddress(words: Int32Array, record: number): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(16));
  for (let i = 0; i < 4; i++) bytes.setInt32(i * 4, words[record + REPORT_ADDRESS + i]);
  const family = words[record + REPORT_FAMILY];
  return new Uint8Array(bytes.buffer, 0, family === 6 ? 16 : family);
}

/** The first bytes of a report's packet. */
export function reportSample(words: Int32Array, record: number): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(SAMPLE_BYTES));
  for (let i = 0; i < SAMPLE_BYTES / 4; i++) bytes.setInt32(i * 4, words[record + REPORT_SAMPLE + i]);
  return new Uint8Array(bytes.buffer, 0, Math.min(SAMPLE_BYTES, words[record + REPORT_LENGTH] & ~3));
}
