/** Blocks on their way to a client, put together so that many go in one write. */
import { dataOf, RECORD_CAPTURED, RECORD_LENGTH, type RingReader } from '../../dataplane/record/ring.ts';
import { enhancedPacketLength, putEnhancedPacket } from '../../packets/pcapng.ts';
import { copyBytes } from '../../wire/bytes.ts';
import type { Sink } from './capture.ts';

/** Bytes that go at once; a block may be longer. */
const CHUNK = 65536;
/** Packets up to this length are copied by words. */
const SHORT = 512;

export class BlockBuffer {
  readonly #sink: Sink;
  #bytes = new Uint8Array(CHUNK);
  #words = new Int32Array(this.#bytes.buffer);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;
  #sent = 0;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  /** Whether the client takes more. */
  get hasRoom(): boolean {
    return this.#sink.hasRoom();
  }

  /** Puts the block of a recorded packet. `options`: see packetOptions(). Returns where its bytes are, until something else is put. */
  record(index: number, ring: RingReader, record: number, options: Uint8Array): number {
    const { words } = ring;
    const captured = words[record + RECORD_CAPTURED];
    const to = this.#begin(index, ring.time(record), captured, words[record + RECORD_LENGTH], options);
    if (captured > SHORT) this.#bytes.set(ring.packet(record), to);
    else copyBytes(ring.view, dataOf(words, record), this.#view, to, captured);
    return to;
  }

  /** Puts the block of a whole packet. */
  packet(index: number, time: number, bytes: Uint8Array, options: Uint8Array): void {
    this.#bytes.set(bytes, this.#begin(index, time, bytes.length, bytes.length, options));
  }

  block(block: Uint8Array): void {
    this.#bytes.set(block, this.#reserve(block.length));
  }

  /** A part of what has been put. */
  view(at: number, length: number): Uint8Array {
    return this.#bytes.subarray(at, at + length);
  }

  /** Sends what there is, and tells how many bytes have been put since it was called last. */
  flush(): number {
    this.#send();
    const bytes = this.#sent;
    this.#sent = 0;
    return bytes;
  }

  #send(): void {
    if (this.#length > 0) this.#sink.write(this.#bytes.slice(0, this.#length));
    this.#sent += this.#length;
    this.#length = 0;
  }

  #begin(index: number, time: number, captured: number, length: number, options: Uint8Array): number {
    const at = this.#reserve(enhancedPacketLength(captured, options));
    return putEnhancedPacket(this.#words, this.#bytes, at, index, time, captured, length, options);
  }

  #reserve(bytes: number): number {
    if (this.#length + bytes > this.#bytes.length) this.#send();
    if (bytes > this.#bytes.length) {
      this.#bytes = new Uint8Array((bytes + 3) & ~3);
      this.#words = new Int32Array(this.#bytes.buffer);
      this.#view = new DataView(this.#bytes.buffer);
    }
    const at = this.#length;
    this.#length += bytes;
    return at;
  }
}
