/** Writes the blocks of a capture to standard output, a file, or a ring of files, each of which begins with what a reader needs. */
import { closeSync, openSync, writeSync } from 'node:fs';
import {
  ENHANCED_PACKET,
  INTERFACE_DESCRIPTION,
  INTERFACE_STATISTICS,
  lostOf,
  SECTION_HEADER,
} from '../../packets/pcapng.ts';

export interface CaptureLimits {
  readonly count?: number;
  /** Megabytes (10^6) of a file. */
  readonly size?: number;
  readonly files?: number;
}

export interface CaptureOutcome {
  readonly written: number;
  readonly lost: number;
  /** Whether it ended with its statistics. */
  readonly isWhole: boolean;
}

export class CaptureWriter {
  readonly #name: string | undefined;
  readonly #limits: CaptureLimits;
  readonly #onEnough: () => void;
  /** What every file begins with: the section's header and the interfaces. */
  #head: Buffer[] = [];
  #fd = -1;
  #file = 0;
  #size = 0;

  /** `name`: of the file; undefined for standard output. `onEnough` is called when the limit of packets is reached. */
  constructor(name: string | undefined, limits: CaptureLimits, onEnough: () => void) {
    this.#name = name;
    this.#limits = limits;
    this.#onEnough = onEnough;
    if (name !== undefined) this.#open();
  }

  async take(chunks: AsyncIterable<Uint8Array>): Promise<CaptureOutcome> {
    const { count = Number.POSITIVE_INFINITY, size = Number.POSITIVE_INFINITY } = this.#limits;
    let [written, lost, isWhole] = [0, 0, false];
    let bytes: Buffer = Buffer.alloc(0);
    for await (const chunk of chunks) {
      bytes =
        bytes.length === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length) : Buffer.concat([bytes, chunk]);
      // Whole blocks from `first` on go into one write.
      let [first, at] = [0, 0];
      for (let next = endOf(bytes, 0); next > 0; at = next, next = endOf(bytes, at)) {
        const type = bytes.readUInt32LE(at);
        if (type === ENHANCED_PACKET && written >= count) {
          await this.#write(bytes.subarray(first, at));
          first = next;
          continue;
        }
        if (type === ENHANCED_PACKET && ++written === count) this.#onEnough();
        if (type === INTERFACE_STATISTICS) {
          isWhole = true;
          lost = lostOf(bytes.subarray(at, next));
        }
        const held = this.#size + at - first;
        if (held > 0 && held + next - at > size * 1e6) {
          await this.#write(bytes.subarray(first, at));
          first = at;
          this.#turnOver();
        }
        if (type === SECTION_HEADER || type === INTERFACE_DESCRIPTION)
          this.#head.push(Buffer.from(bytes.subarray(at, next)));
      }
      await this.#write(bytes.subarray(first, at));
      bytes = bytes.subarray(at);
    }
    if (this.#fd >= 0) closeSync(this.#fd);
    return { written, lost, isWhole };
  }

  async #write(blocks: Buffer): Promise<void> {
    if (blocks.length === 0) return;
    if (this.#name === undefined) {
      if (process.stdout.write(blocks)) return;
      await new Promise((resolve) => process.stdout.once('drain', resolve));
      return;
    }
    for (let done = 0; done < blocks.length; ) done += writeSync(this.#fd, blocks, done);
    this.#size += blocks.length;
  }

  #turnOver(): void {
    closeSync(this.#fd);
    this.#file++;
    this.#open();
    for (const block of this.#head) writeSync(this.#fd, block);
  }

  #open(): void {
    const { size, files = Number.POSITIVE_INFINITY } = this.#limits;
    const name = size === undefined ? this.#name! : `${this.#name}${this.#file % files}`;
    this.#fd = openSync(name, 'w', 0o600);
    this.#size = 0;
  }
}

/** Where the block at `at` ends; 0 when not all of it is there. */
function endOf(bytes: Buffer, at: number): number {
  if (at + 8 > bytes.length) return 0;
  const length = bytes.readUInt32LE(at + 4);
  if (length < 12) throw new Error(`the daemon sent a block of ${length} bytes, which is no pcapng`);
  return at + length <= bytes.length ? at + length : 0;
}
