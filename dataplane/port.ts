/**
 * A port moves one packet a call, a virtio header in front of it: what a TAP, an uplink's TAP, an in-memory link, a recorder
 * and a fault injector have in common. Results are as of the system calls: bytes, or -1 and the error from `errno`.
 */
import * as libc from '../system/libc.ts';
import type { PacketMemory } from './memory.ts';

export interface Port {
  /** Descriptor to poll for reading, or -1. */
  readonly fd: number;
  /** Reads one packet into [at, at + capacity); -1 with EAGAIN when there is none. */
  read(at: number, capacity: number): number;
  write(at: number, length: number): number;
  /** Writes the packet that `count` iovecs at offset `iovecs` make up. */
  writev(iovecs: number, count: number): number;
  errno(): number;
}

/** A port that is a file descriptor. */
export class FdPort implements Port {
  readonly fd: number;
  readonly #address: number;

  constructor(fd: number, memory: PacketMemory) {
    this.fd = fd;
    this.#address = memory.address;
  }

  read(at: number, capacity: number): number {
    return libc.read(this.fd, this.#address + at, capacity);
  }

  write(at: number, length: number): number {
    return libc.write(this.fd, this.#address + at, length);
  }

  writev(iovecs: number, count: number): number {
    return libc.writev(this.fd, this.#address + iovecs, count);
  }

  errno(): number {
    return libc.errno();
  }
}
