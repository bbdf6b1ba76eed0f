/** Writes the blocks of a capture to standard output, a file, or a ring of files, each of which begins with what a reader needs. */
import { closeSync, openSync, writeSync } from 'node:fs';
import { ByteQueue } from '../../packets/byte-queue.ts';
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
    const { count = Number.POSITIVE_INFINITY } = this.#limits;
    const input = new ByteQueue(chunks);
    let written = 0;
    let lost = 0;
    let isWhole = false;
    while (await input.fill(8)) {
      const head = input.peek(8);
      const type = head.readUInt32LE(0);
      if (!(await input.fill(head.readUInt32LE(4)))) break;
      const block = input.take(head.readUInt32LE(4));
      if (type === ENHANCED_PACKET) {
        if (written >= count) continue;
        if (++written === count) this.#onEnough();
      }
      if (type === INTERFACE_STATISTICS) {
        isWhole = true;
        lost = lostOf(block);
      }
      if (type === SECTION_HEADER || type === INTERFACE_DESCRIPTION) this.#head.push(block);
      await this.#write(block);
    }
    if (this.#fd >= 0) closeSync(this.#fd);
    return { written, lost, isWhole };
  }

  async #write(block: Buffer): Promise<void> {
    if (this.#name === undefined) {
      if (process.stdout.write(block)) return;
      await new Promise((resolve) => process.stdout.once('drain', resolve));
      return;
    }
    const { size } = this.#limits;
    if (size !== undefined && this.#size > 0 && this.#size + block.length > size * 1e6) this.#turnOver();
    writeSync(this.#fd, block);
    this.#size += block.length;
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
