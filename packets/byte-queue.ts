/** Bytes from a stream, taken in pieces of the reader's own sizes. Holds no more than one chunk beyond what was asked for. */
export class ByteQueue {
  /** Bytes taken so far. */
  position = 0;
  readonly #chunks: AsyncIterator<Uint8Array>;
  #parts: Uint8Array[] = [];
  #length = 0;

  constructor(chunks: AsyncIterable<Uint8Array>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** Bytes that are there. */
  get length(): number {
    return this.#length;
  }

  /** Reads until `bytes` are there; false when the stream ends before. */
  async fill(bytes: number): Promise<boolean> {
    while (this.#length < bytes) {
      const { value, done } = await this.#chunks.next();
      if (done) return false;
      this.#parts.push(value);
      this.#length += value.length;
    }
    return true;
  }

  /** The next `bytes`, which have to be there, without taking them. */
  peek(bytes: number): Buffer {
    if (this.#parts.length > 1 && this.#parts[0].length < bytes) this.#parts = [Buffer.concat(this.#parts)];
    const [first] = this.#parts;
    return Buffer.from(first.buffer, first.byteOffset, bytes);
  }

  take(bytes: number): Buffer {
    if (bytes === 0) return Buffer.alloc(0);
    const taken = this.peek(bytes);
    const [first] = this.#parts;
    if (first.length === bytes) this.#parts.shift();
    else this.#parts[0] = first.subarray(bytes);
    this.#length -= bytes;
    this.position += bytes;
    return taken;
  }
}
