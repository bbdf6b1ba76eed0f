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

  /** What comes before the next line feed, which is taken as well; undefined when the stream ends before. */
  async line(): Promise<Buffer | undefined> {
    for (let length = 1; ; length++) {
      if (!(await this.fill(length))) return undefined;
      const end = this.peek(this.#length).indexOf(10);
      if (end < 0) {
        length = this.#length;
        continue;
      }
      return this.take(end + 1).subarray(0, end);
    }
  }

  /** All that follows, as it comes. */
  async *rest(): AsyncGenerator<Uint8Array, void> {
    while (await this.fill(1)) yield this.take(this.#length);
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
