/** Internet checksums over packet memory, by the SIMD kernel; sums are of little-endian words, folded, not complemented. */
import { readFileSync } from 'node:fs';
import { putUdpChecksum } from '../wire/checksum.ts';
import type { PacketMemory } from './memory.ts';

/** Sum of `length` bytes at offset `at`. */
export type Sum = (at: number, length: number) => number;

let compiled: WebAssembly.Module | undefined;

/** Instantiates the SIMD kernel (`npm run build` makes it) over `memory`. */
export function loadSum(memory: PacketMemory): Sum {
  compiled ??= new WebAssembly.Module(readFileSync(new URL('./simd/checksum.wasm', import.meta.url)));
  const { exports } = new WebAssembly.Instance(compiled, { env: { memory: memory.memory, abort } });
  return exports.sum as Sum;
}

function abort(): never {
  throw new Error('checksum.wasm aborted');
}

/**
 * Finishes a checksum that holds the sum of the pseudo-header only: sums the frame at `at` from `start` on, and stores the
 * complement at start + offset. A UDP checksum of zero would mean "none", so it becomes 0xffff (RFC 768).
 */
export function finishChecksum(
  memory: PacketMemory,
  sum: Sum,
  at: number,
  length: number,
  start: number,
  offset: number,
): void {
  const field = at + start + offset;
  if (start + offset + 2 > length) return; // contradictory metadata: the receiver will refuse the packet
  putUdpChecksum(memory.u8, field, sum(at + start, length - start));
}
