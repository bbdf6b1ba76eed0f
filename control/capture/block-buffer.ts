/** Blocks on their way to a client, put together so that many go in one write. */
import { dataOf, RECORD_CAPTURED, RECORD_LENGTH, type RingReader } from '../../dataplane/record/ring.ts';
import { enhancedPacketLength, putEnhancedPacket } from '../../packets/pcapng.ts';
import { copyBytes } from '../../wire/bytes.ts';
import type { Sink } from './capture.ts';

/** Bytes that go at once; a block may be longer. */
const CHUNK = 65536;
/** Chunks that are kept to be used again. */
const KEPT = 4;
/** Packets up to this length are copied by words. */
const SHORT = 512;

class Chunk {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly view: DataView;

  constructor(length: number) {
    this.bytes = new Uint8Array((length + 3) & ~3);
    this.words = new Int32Array(this.bytes.buffer);
    this.view = new DataView(this.bytes.buffer);
  }
}

export class BlockBuffer {
  readonly #sink: Sink;
  #chunk = new Chunk(CHUNK);
  readonly #free: Chunk[] = [];
  #length = 0;
  #sent = 0;
  /** Whether the client takes more, as of the last chunk. */
  hasRoom = true;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /** Some time has passed since something was put. */
  begin(): void {
    this.hasRoom = this.#sink.hasRoom();
  }

  /** Puts the block of a recorded packet. `options`: see packetOptions(). Returns where its bytes are, until something else is put. */
  record(index: number, ring: RingReader, record: number, options: Uint8Array): number {
    const { words } = ring;
    const captured = words[record + RECORD_CAPTURED];
    const to = this.#begin(index, ring.time(record), captured, words[record + RECORD_LENGTH], options);
    if (captured > SHORT) this.#chunk.bytes.set(ring.packet(record), to);
    else copyBytes(ring.view, dataOf(words, record), this.#chunk.view, to, captured);
    return to;
  }

  /** Puts the block of a whole packet. */
  packet(index: number, time: number, bytes: Uint8Array, options: Uint8Array): void {
    const to = this.#begin(index, time, bytes.length, bytes.length, options);
    this.#chunk.bytes.set(bytes, to);
  }

  block(block: Uint8Array): void {
    const to = this.#reserve(block.length);
    this.#chunk.bytes.set(block, to);
  }

  /** A part of what has been put. */
  view(at: number, length: number): Uint8Array {
    return this.#chunk.bytes.subarray(at, at + length);
  }

  /** Sends what there is, and tells how many bytes have been put since it was called last. */
  flush(): number {
    this.#send();
    const bytes = this.#sent;
    this.#sent = 0;
    return bytes;
  }

  #send(): void {
    if (this.#length === 0) return;
    const chunk = this.#chunk;
    this.#chunk = this.#free.pop() ?? new Chunk(CHUNK);
    this.#sink.write(chunk.bytes.subarray(0, this.#length), () => {
      if (chunk.bytes.length === CHUNK && this.#free.length < KEPT) this.#free.push(chunk);
    });
    this.#sent += this.#length;
    this.#length = 0;
    this.hasRoom = this.#sink.hasRoom();
  }

  #begin(index: number, time: number, captured: number, length: number, options: Uint8Array): number {
    const at = this.#reserve(enhancedPacketLength(captured, options));
    const { words, bytes } = this.#chunk;
    return putEnhancedPacket(words, bytes, at, index, time, captured, length, options);
  }

  #reserve(bytes: number): number {
    if (this.#length + bytes > this.#chunk.bytes.length) this.#send();
    if (bytes > this.#chunk.bytes.length) this.#chunk = new Chunk(bytes);
    const at = this.#length;
    this.#length += bytes;
    return at;
  }
}
