/**
 * Recorded packets on their way from a worker to the main thread: a byte ring in shared memory, one writer, one reader. What finds no
 * room is lost and counted; nobody waits.
 *
 *     word 0 HEAD (bytes written) | word 16 TAIL (bytes read) | word 32 LOST (records)      each on a cache line of its own
 *     byte 256..  records, 8-aligned, each a header of 64 bytes, as many as the packet lay behind a multiple of 8, and the packet's bytes; none
 *                 goes around the end
 */

const HEAD = 0;
const TAIL = 16;
const LOST = 32;
const DATA = 256;
const ALIGN = 8;
/** Bytes of a record's header. */
const RECORD_HEADER = 64;

// Words of a record's header.
/** Of the whole record, in bytes; negative: nothing up to the ring's end. */
const SIZE = 0;
/** Bits RECORD_*; put there by begin(). */
export const RECORD_FLAGS = 1;
/** Index of the device, -1 when only its VNI could tell. */
export const RECORD_DEVICE = 2;
/** Index of the uplink, -1 on the inner side. */
export const RECORD_UPLINK = 3;
/** Bytes that follow, and bytes that there were. */
export const RECORD_CAPTURED = 4;
export const RECORD_LENGTH = 5;
/** Two words, a float64: milliseconds since 1970. */
export const RECORD_TIME = 6;
/** The next hop that it was sent to, the first of several; 0 without one. */
export const RECORD_NEXT_HOP = 8;
/** To how many next hops. */
export const RECORD_COPIES = 9;
/** The counter of its drop, plus 1; 0: it was not dropped. */
export const RECORD_DROP = 10;
/** How many of its packets were dropped. */
export const RECORD_DROPPED = 11;
// Offload metadata as in a virtio header; offsets count from the first byte.
/** Flags | GSO type << 8. */
export const RECORD_GSO = 12;
export const RECORD_GSO_SIZE = 13;
export const RECORD_HEADER_LENGTH = 14;
/** Start | offset << 16. */
export const RECORD_CHECKSUM = 15;

/** An outer packet; else an inner frame. */
export const RECORD_OUTER = 1;
/** From the network; else to it. */
export const RECORD_RECEIVED = 2;
/** The host's stack writes the outer headers, or has taken them off: the template, or nothing, stands in their place. */
export const RECORD_VIA_HOST = 4;
/** Above these bits: bytes between the header and the packet's, 0 to 7. */
const LEAD_SHIFT = 8;

/** `bytes`: a power of two. */
export function allocateRing(bytes: number): SharedArrayBuffer {
  return new SharedArrayBuffer(DATA + bytes);
}

/** The first of a record's packet bytes in the ring. */
export function dataOf(words: Int32Array, record: number): number {
  return record * 4 + RECORD_HEADER + (words[record + RECORD_FLAGS] >> LEAD_SHIFT);
}

/** The worker's side. Records are written behind HEAD and show when it is moved. */
export class RingWriter {
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly bytes: Uint8Array;
  readonly #size: number;
  #head: number;
  /** What the reader had read when it was looked for last. */
  #tail: number;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.floats = new Float64Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.#size = buffer.byteLength - DATA;
    this.#head = this.words[HEAD]; // goes on where a worker that failed has ended
    this.#tail = Atomics.load(this.words, TAIL);
  }

  /**
   * Room for a record with `captured` bytes of a packet that lies at `from`: the first word of its header, without next hop and drop; -1 when
   * it is lost. The bytes go to dataOf(): as far from a multiple of 8 as they are from one, so that they can be copied by words.
   */
  reserve(flags: number, captured: number, from: number): number {
    const { words } = this;
    const lead = from & (ALIGN - 1);
    const size = RECORD_HEADER + ((lead + captured + ALIGN - 1) & -ALIGN);
    let at = this.#head & (this.#size - 1);
    const left = this.#size - at;
    const skipped = size > left ? left : 0;
    const needed = skipped + size;
    if (((this.#head - this.#tail) | 0) + needed > this.#size && !this.#hasRoom(needed)) return -1;
    if (skipped > 0) {
      words[(DATA + at) >> 2] = -skipped;
      at = 0;
    }
    this.#head = (this.#head + skipped + size) | 0;
    const record = (DATA + at) >> 2;
    words[record + SIZE] = size;
    words[record + RECORD_FLAGS] = flags | (lead << LEAD_SHIFT);
    // The rest record() sets always.
    words[record + RECORD_NEXT_HOP] = words[record + RECORD_COPIES] = 0;
    words[record + RECORD_DROP] = words[record + RECORD_DROPPED] = 0;
    return record;
  }

  #hasRoom(needed: number): boolean {
    this.#tail = Atomics.load(this.words, TAIL);
    if (((this.#head - this.#tail) | 0) + needed <= this.#size) return true;
    Atomics.add(this.words, LOST, 1);
    return false;
  }

  publish(): void {
    Atomics.store(this.words, HEAD, this.#head);
  }
}

/** The main thread's side. It looks at what the writer has written, and says what may be written anew, once for many records. */
export class RingReader {
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #size: number;
  /** What the writer had written when it was looked for last, what has been read, and of that what the writer knows of. */
  #head: number;
  #tail: number;
  #told: number;

  constructor(buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
    this.floats = new Float64Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.#size = buffer.byteLength - DATA;
    this.#head = this.#tail = this.#told = this.words[TAIL];
  }

  /** Records lost so far. */
  get lost(): number {
    return Atomics.load(this.words, LOST) >>> 0;
  }

  /** The first word of the oldest record's header, -1 when there is none. It stays until release(). */
  next(): number {
    for (;;) {
      if (this.#tail === this.#head && !this.#look()) return -1;
      const record = (DATA + (this.#tail & (this.#size - 1))) >> 2;
      const size = this.words[record + SIZE];
      if (size > 0) return record;
      this.#tail = (this.#tail - size) | 0;
    }
  }

  release(record: number): void {
    this.#tail = (this.#tail + this.words[record + SIZE]) | 0;
    if (((this.#tail - this.#told) | 0) > this.#size >> 3) this.#tell();
  }

  #look(): boolean {
    if (this.#told !== this.#tail) this.#tell();
    this.#head = Atomics.load(this.words, HEAD);
    return this.#head !== this.#tail;
  }

  #tell(): void {
    this.#told = this.#tail;
    Atomics.store(this.words, TAIL, this.#tail);
  }

  time(record: number): number {
    return this.floats[(record + RECORD_TIME) >> 1];
  }

  /** The packet's bytes; they change after release(). */
  packet(record: number): Uint8Array {
    const at = dataOf(this.words, record);
    return this.bytes.subarray(at, at + this.words[record + RECORD_CAPTURED]);
  }
}
