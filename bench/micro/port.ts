/** A port whose packets are memory. */
import type { PacketMemory } from '../../dataplane/memory.ts';
import type { Port } from '../../dataplane/port.ts';
import * as libc from '../../system/libc.ts';

/** What a read puts in place each time. Payload lies there from the first time, since nobody writes to it. */
const HEADERS = 256;

/** Hands out the same packets again and again; what is written goes nowhere. Allocates nothing. */
export class BenchPort implements Port {
  readonly fd = -1;
  readonly #memory: PacketMemory;
  readonly #at: Int32Array;
  readonly #lengths: Int32Array;
  #next = 0;
  #left = 0;
  #copied = Number.MAX_SAFE_INTEGER;

  constructor(memory: PacketMemory, packets: readonly Uint8Array[] = []) {
    this.#memory = memory;
    this.#lengths = Int32Array.from(packets, (bytes) => bytes.length);
    this.#at = Int32Array.from(packets, (bytes) => {
      const at = memory.take(bytes.length);
      memory.u8.set(bytes, at);
      return at;
    });
  }

  /** Lets the next reads find `count` packets, beginning with the first one. */
  refill(count: number): void {
    this.#next = 0;
    this.#left = count;
  }

  /** From now on payload is in place. */
  copyHeadersOnly(): void {
    this.#copied = HEADERS;
  }

  read(at: number, _capacity: number): number {
    if (this.#left === 0) return -1;
    this.#left--;
    const i = this.#next;
    this.#next = i + 1 === this.#at.length ? 0 : i + 1;
    const length = this.#lengths[i];
    this.#memory.u8.copyWithin(at, this.#at[i], this.#at[i] + Math.min(length, this.#copied));
    return length;
  }

  write(_at: number, length: number): number {
    return length;
  }

  writev(_iovecs: number, count: number): number {
    return count;
  }

  errno(): number {
    return libc.EAGAIN;
  }
}
