/**
 * An in-memory link between two ports, for tests and benchmarks: what one writes the other reads, whole packets in order. A
 * `deliver` hook may lose, repeat, change or reorder them.
 */
import * as libc from '../../system/libc.ts';
import { IOVEC, type PacketMemory } from '../memory.ts';
import type { Port } from '../port.ts';

/** Decides what becomes of a packet: gives back those to deliver instead. */
export type Deliver = (packet: Uint8Array) => readonly Uint8Array[];

export class MemoryPort implements Port {
  readonly fd = -1;
  readonly #memory: PacketMemory;
  readonly #queue: Uint8Array[] = [];
  readonly #capacity: number;
  #peer: MemoryPort | undefined;
  #deliver: Deliver = (packet) => [packet];
  #errno = 0;

  /** `capacity`: packets that wait to be read; further ones are refused with ENOBUFS. */
  constructor(memory: PacketMemory, capacity = 1024) {
    this.#memory = memory;
    this.#capacity = capacity;
  }

  /** Makes two ports the ends of one link. `deliver` sees what either writes. */
  static link(a: MemoryPort, b: MemoryPort, deliver?: Deliver): void {
    a.#peer = b;
    b.#peer = a;
    if (deliver) a.#deliver = b.#deliver = deliver;
  }

  /** Puts a packet, virtio header first, where `read` finds it. */
  push(packet: Uint8Array): boolean {
    if (this.#queue.length >= this.#capacity) return false;
    this.#queue.push(packet);
    return true;
  }

  read(at: number, capacity: number): number {
    const packet = this.#queue.shift();
    if (!packet) return this.#fail(libc.EAGAIN);
    const length = Math.min(packet.length, capacity);
    this.#memory.u8.set(packet.subarray(0, length), at);
    return length;
  }

  write(at: number, length: number): number {
    return this.#send(this.#memory.u8.slice(at, at + length));
  }

  writev(iovecs: number, count: number): number {
    const { u8, u32, address } = this.#memory;
    const parts: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const word = (iovecs + i * IOVEC) >> 2;
      const at = u32[word] + u32[word + 1] * 2 ** 32 - address;
      parts.push(u8.subarray(at, at + u32[word + 2]));
    }
    return this.#send(Buffer.concat(parts));
  }

  errno(): number {
    return this.#errno;
  }

  #send(packet: Uint8Array): number {
    const peer = this.#peer;
    if (!peer) return this.#fail(libc.EIO);
    for (const delivered of this.#deliver(packet)) {
      if (!peer.push(delivered)) return this.#fail(libc.ENOBUFS);
    }
    return packet.length;
  }

  #fail(errno: number): number {
    this.#errno = errno;
    return -1;
  }
}
