/**
 * The packet memory of one worker: a slice of a WebAssembly.Memory that kernel, TypeScript and SIMD code share. All of it is
 * laid out at start; the operating system commits a page when it is first touched.
 */
import * as libc from '../system/libc.ts';

/** Room in front of a frame: the uplink's virtio header (24) and the longest outer header (IPv6: 70). */
export const HEADROOM = 94;
/** The longest frame that a TAP hands out, virtio header included: a 64 kB super-frame with its Ethernet header and tags. */
export const LARGEST_FRAME = 65536 + 64;
/** What one worker needs. */
export const WORKER_BYTES = 8 * 1024 * 1024;
const PAGE = 65536;

/** What is posted to a worker so that it can make its PacketMemory. */
export interface MemoryShare {
  readonly memory: WebAssembly.Memory;
  readonly address: number;
}

/** Allocates the packet memory of all workers. */
export function sharePacketMemory(workers: number): MemoryShare {
  const pages = (workers * WORKER_BYTES) / PAGE;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  return { memory, address: libc.addressOf(new Uint8Array(memory.buffer)) };
}

export class PacketMemory {
  readonly memory: WebAssembly.Memory;
  /** Address of byte 0: offset + address is what a system call takes. */
  readonly address: number;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly view: DataView;
  #next: number;
  readonly #end: number;
  /** Given back, by size. */
  readonly #free = new Map<number, number[]>();

  constructor(share: MemoryShare, worker: number) {
    const { buffer } = share.memory;
    this.memory = share.memory;
    this.address = share.address;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.view = new DataView(buffer);
    this.#next = worker * WORKER_BYTES;
    this.#end = this.#next + WORKER_BYTES;
  }

  /**
   * Takes `bytes` of the worker's slice, 64-byte aligned: for what is laid out when a device or an uplink comes, never for a packet.
   * Structures come zeroed, whatever was there before the worker failed and was started again; large buffers do not, since the
   * operating system commits a page when it is first touched.
   */
  take(bytes: number): number {
    const at = this.#free.get(bytes)?.pop() ?? this.#extend(bytes);
    if (bytes < PAGE) this.u8.fill(0, at, at + bytes);
    return at;
  }

  #extend(bytes: number): number {
    const at = this.#next;
    this.#next = (at + bytes + 63) & ~63;
    if (this.#next > this.#end) throw new Error(`a worker's packet memory (${WORKER_BYTES} bytes) is too small`);
    return at;
  }

  /** Gives back what `take(bytes)` returned, for the next one that takes as much. */
  give(at: number, bytes: number): void {
    const given = this.#free.get(bytes);
    if (given) given.push(at);
    else this.#free.set(bytes, [at]);
  }

  /** Writes struct iovec number `index` of the array at `iovecs`: `length` bytes at offset `at`. */
  setIovec(iovecs: number, index: number, at: number, length: number): void {
    const word = (iovecs + index * IOVEC) >> 2;
    const pointer = this.address + at;
    this.u32[word] = pointer;
    this.u32[word + 1] = pointer / 2 ** 32;
    this.u32[word + 2] = length;
    this.u32[word + 3] = 0;
  }

  /** Writes a 64-bit pointer to offset `at` of this memory into the 8 bytes at `field`. */
  setPointer(field: number, at: number): void {
    const pointer = this.address + at;
    this.u32[field >> 2] = pointer;
    this.u32[(field >> 2) + 1] = pointer / 2 ** 32;
  }
}

/** Size of a struct iovec on 64-bit hosts: pointer, length. */
export const IOVEC = 16;
