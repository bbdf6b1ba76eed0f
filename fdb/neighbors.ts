/**
 * The neighbours behind each device: (device, IP) -> MAC, for ARP/ND suppression and route short-circuit. A table of doubled.ts, written by
 * the main thread, read by the workers without locks:
 *
 *     cell: | device << 8 | family (4 or 6) | address: 4 words | state << 16 | macHigh | macLow | - |
 */
import { get32 } from '../wire/bytes.ts';
import { DoubledReader, DoubledTable } from './doubled.ts';

const SHAPE = { key: 5, value: 2 };

// States, as the kernel's NUD_ bits (linux/neighbour.h).
export const NUD_INCOMPLETE = 0x01;
export const NUD_REACHABLE = 0x02;
export const NUD_STALE = 0x04;
export const NUD_DELAY = 0x08;
export const NUD_PROBE = 0x10;
export const NUD_FAILED = 0x20;
export const NUD_NOARP = 0x40;
export const NUD_PERMANENT = 0x80;
/** States in which the MAC is not in doubt, and `proxy` answers (NUD_CONNECTED, include/net/neighbour.h). */
export const NUD_CONNECTED = NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE;
/** States in which the kernel sends to the MAC, and a bridge answers for it (NUD_VALID). */
export const NUD_VALID = NUD_CONNECTED | NUD_PROBE | NUD_STALE | NUD_DELAY;
// Bits of our own beside them.
/** The address is this host's own, on the device or on what it is a port of. */
export const IS_OWN = 0x100;
/** The entry is the bridge's that the device is a port of, not the device's. */
export const OF_BRIDGE = 0x200;
/** It is a router (`ip neigh ... router`, NTF_ROUTER). */
export const IS_ROUTER = 0x400;

const DEFAULT_LIMIT = 1 << 16;

/** A worker's view. What find() found stands in the fields until the next call. */
export class NeighborReader {
  /** u16 and int32, both big-endian. */
  macHigh = 0;
  macLow = 0;
  readonly #reader: DoubledReader;

  constructor(buffer: SharedArrayBuffer) {
    this.#reader = new DoubledReader(buffer, SHAPE);
  }

  /** The state of a device's neighbour whose address of `family` 4 or 6 is at `offset`; 0 when there is none. */
  find(device: number, family: number, bytes: Uint8Array, offset: number): number {
    const { key, value } = this.#reader;
    key[0] = (device << 8) | family;
    putAddress(key, 1, bytes, offset, family);
    if (!this.#reader.find()) return 0;
    this.macHigh = value[0] & 0xffff;
    this.macLow = value[1];
    return value[0] >>> 16;
  }
}

/** The writer's side: one of it, in the main thread. */
export class NeighborTable {
  readonly #table: DoubledTable;

  /** @param limit @param seed see DoubledTable; 128 bytes an entry. */
  constructor(limit: number = DEFAULT_LIMIT, seed = 0) {
    this.#table = new DoubledTable(SHAPE, limit, seed);
  }

  get buffer(): SharedArrayBuffer {
    return this.#table.buffer;
  }

  get size(): number {
    return this.#table.size;
  }

  get limit(): number {
    return this.#table.limit;
  }

  /**
   * Adds an entry, or changes it. `ip`: 4 or 16 bytes. `state`: NUD_ bits and our own, not 0. False when the table is full.
   */
  set(device: number, ip: Uint8Array, macHigh: number, macLow: number, state: number): boolean {
    return this.#table.set(Int32Array.of(...keyOf(device, ip), (state << 16) | macHigh, macLow));
  }

  /** Whether there was one. */
  delete(device: number, ip: Uint8Array): boolean {
    return this.#table.delete(keyOf(device, ip));
  }
}

function keyOf(device: number, ip: Uint8Array): Int32Array {
  const key = new Int32Array(SHAPE.key);
  const family = ip.length === 4 ? 4 : 6;
  key[0] = (device << 8) | family;
  putAddress(key, 1, ip, 0, family);
  return key;
}

/** Writes an address of `family` 4 or 6 as four words of a key. */
export function putAddress(key: Int32Array, at: number, bytes: Uint8Array, offset: number, family: number): void {
  key[at] = get32(bytes, offset);
  key[at + 1] = family === 6 ? get32(bytes, offset + 4) : 0;
  key[at + 2] = family === 6 ? get32(bytes, offset + 8) : 0;
  key[at + 3] = family === 6 ? get32(bytes, offset + 12) : 0;
}
