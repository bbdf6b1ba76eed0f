/** A packet as it lies in packet memory, maybe in several pieces, with its offload metadata: what is about to be recorded. */
import {
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAGS,
  VNET_GSO_SIZE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
} from '../../system/vnet.ts';
import type { Batch } from '../batch.ts';
import { IOVEC, type PacketMemory } from '../memory.ts';

/** More than any port is given at once. */
const MOST = 512;

export class Pieces {
  readonly at = new Int32Array(MOST);
  readonly length = new Int32Array(MOST);
  count = 0;
  total = 0;
  flags = 0;
  gsoType = 0;
  gsoSize = 0;
  headerLength = 0;
  checksumStart = 0;
  checksumOffset = 0;

  /** One piece, without metadata. */
  one(at: number, length: number): void {
    this.count = this.total = 0;
    this.add(at, length);
    this.flags = this.gsoType = this.gsoSize = this.headerLength = this.checksumStart = this.checksumOffset = 0;
  }

  add(at: number, length: number): void {
    this.at[this.count] = at;
    this.length[this.count++] = length;
    this.total += length;
  }

  /** Puts a piece in front of the one that there is. */
  behind(at: number, length: number): void {
    const frame = this.at[0];
    const frameLength = this.length[0];
    this.count = this.total = 0;
    this.add(at, length);
    this.add(frame, frameLength);
  }

  /** Packet `index` of a batch. */
  ofBatch(batch: Batch, index: number): void {
    this.one(batch.at[index], batch.length[index]);
    this.flags = batch.flags[index];
    this.gsoType = batch.gsoType[index];
    this.gsoSize = batch.gsoSize[index];
    this.headerLength = batch.headerLength[index];
    this.checksumStart = batch.checksumStart[index];
    this.checksumOffset = batch.checksumOffset[index];
  }

  /** A packet with a virtio header of `vnet` bytes in front, as a port has it. */
  behindVnet(memory: PacketMemory, at: number, length: number, vnet: number): void {
    this.one(at + vnet, length - vnet);
    this.#readVnet(memory, at);
  }

  /** The same in iovecs: the virtio header is the first, or its beginning. */
  ofIovecs(memory: PacketMemory, iovecs: number, count: number, vnet: number): void {
    const { u32, address } = memory;
    this.count = this.total = 0;
    for (let i = 0; i < count; i++) {
      const word = (iovecs + i * IOVEC) >> 2;
      const at = u32[word] + u32[word + 1] * 2 ** 32 - address;
      const skipped = i === 0 ? vnet : 0;
      if (i === 0) this.#readVnet(memory, at);
      if (u32[word + 2] > skipped) this.add(at + skipped, u32[word + 2] - skipped);
    }
  }

  #readVnet({ u8, u16 }: PacketMemory, at: number): void {
    this.flags = u8[at + VNET_FLAGS];
    this.gsoType = u8[at + VNET_GSO_TYPE];
    this.headerLength = u16[(at + VNET_HEADER_LENGTH) >> 1];
    this.gsoSize = u16[(at + VNET_GSO_SIZE) >> 1];
    this.checksumStart = u16[(at + VNET_CHECKSUM_START) >> 1];
    this.checksumOffset = u16[(at + VNET_CHECKSUM_OFFSET) >> 1];
  }
}
