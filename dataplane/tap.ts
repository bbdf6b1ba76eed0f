/** The receiving half of a TAP: reads frames with their offload metadata into packet memory. */
import {
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAGS,
  VNET_GSO_SIZE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
  VNET_PLAIN,
} from '../system/vnet.ts';
import type { Batch } from './batch.ts';
import { HEADROOM, LARGEST_FRAME, type PacketMemory } from './memory.ts';
import type { Port } from './port.ts';

/** Frames lie one behind the other, so that small ones share cache lines and pages; 20 of the largest fit. */
const ARENA = 21 * 65536;
const ALIGN = 64;

/** Packet memory that one worker reads frames into; its devices share it, since a batch is sent before the next is read. */
export function takeTapArena(memory: PacketMemory): number {
  return memory.take(ARENA);
}

/**
 * Reads up to `batch.capacity` frames. Every frame has HEADROOM bytes in front of it and starts at 2 mod 4, so that its IP
 * header, and that of the outer packet, are word-aligned.
 */
export function receiveFrames(port: Port, memory: PacketMemory, arena: number, batch: Batch): void {
  const { u8, u16 } = memory;
  batch.count = 0;
  const end = arena + ARENA - LARGEST_FRAME - HEADROOM;
  let at = arena;
  while (batch.count < batch.capacity && at <= end) {
    const frame = at + HEADROOM;
    const header = frame - VNET_PLAIN;
    const size = port.read(header, LARGEST_FRAME);
    if (size < VNET_PLAIN) break;
    const i = batch.add(frame, size - VNET_PLAIN);
    const flags = u8[header + VNET_FLAGS];
    if (flags !== 0) {
      // Read now: the VXLAN header will be written over it.
      batch.flags[i] = flags;
      batch.gsoType[i] = u8[header + VNET_GSO_TYPE];
      batch.headerLength[i] = u16[(header + VNET_HEADER_LENGTH) >> 1];
      batch.gsoSize[i] = u16[(header + VNET_GSO_SIZE) >> 1];
      batch.checksumStart[i] = u16[(header + VNET_CHECKSUM_START) >> 1];
      batch.checksumOffset[i] = u16[(header + VNET_CHECKSUM_OFFSET) >> 1];
    }
    at = (frame + size + ALIGN - 1) & ~(ALIGN - 1);
  }
}
