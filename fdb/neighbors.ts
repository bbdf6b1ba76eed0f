/**
 * The neighbours behind each device: (device, IP) -> MAC, for ARP/ND suppression and route short-circuit. One SharedArrayBuffer, written
 * by the main thread, read by the workers without locks:
 *
 *     word 0 HEAD   changes so far; its lowest bit is the area to read
 *     word 1 SEED   of the hash
 *     word 2 MASK   cells of an area - 1
 *     words 16..    area 0: cells of 8 words, then area 1
 *
 *     cell: | device << 8 | family (4 or 6) | address: 4 words | state << 16 | macHigh | macLow | - |
 *
 * Open addressing with linear probing; a cell whose first word is 0 is empty. A change is made in the area that nobody reads, then HEAD
 * moves on, then it is made in the other area, too. A reader that finds HEAD changed at the end looks again; it never waits.
 */
import { get32 } from '../wire/bytes.ts';
import { loadWord } from './nexthops.ts';

const HEAD = 0;
const SEED = 1;
const MASK = 2;
const HEADER_WORDS = 16;

const KEY = 0;
const ADDRESS = 1;
const STATE_AND_MAC_HIGH = 5;
const MAC_LOW = 6;
const CELL_SHIFT = 3;
const CELL_WORDS = 1 << CELL_SHIFT;

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

function hash(seed: number, key: number, a: number, b: number, c: number, d: number): number {
  let h = Math.imul(seed ^ key, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13) ^ a, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16) ^ b, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13) ^ c, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16) ^ d, 0x85ebca6b);
  return h ^ (h >>> 16);
}

/** A worker's view. What find() found stands in the fields until the next call. */
export class NeighborReader {
  /** u16 and int32, both big-endian. */
  macHigh = 0;
  macLow = 0;
  readonly #words: Int32Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
  }

  /** The state of a device's neighbour whose address of `family` 4 or 6 is at `offset`; 0 when there is none. */
  find(device: number, family: number, bytes: Uint8Array, offset: number): number {
    const words = this.#words;
    const key = (device << 8) | family;
    const a = get32(bytes, offset);
    const b = family === 6 ? get32(bytes, offset + 4) : 0;
    const c = family === 6 ? get32(bytes, offset + 8) : 0;
    const d = family === 6 ? get32(bytes, offset + 12) : 0;
    const mask = words[MASK];
    const start = hash(words[SEED], key, a, b, c, d) & mask;
    for (;;) {
      const head = Atomics.load(words, HEAD);
      const area = areaBase(head, mask);
      let found = 0;
      // Bounded, because an area that is being written under us may look full.
      for (let i = start, left = mask; left >= 0; left--, i = (i + 1) & mask) {
        const cell = area + (i << CELL_SHIFT);
        const its = loadWord(words, cell + KEY);
        if (its === 0) break;
        if (its !== key || loadWord(words, cell + ADDRESS) !== a || loadWord(words, cell + ADDRESS + 1) !== b) continue;
        if (loadWord(words, cell + ADDRESS + 2) !== c || loadWord(words, cell + ADDRESS + 3) !== d) continue;
        const stateAndMac = loadWord(words, cell + STATE_AND_MAC_HIGH);
        this.macHigh = stateAndMac & 0xffff;
        this.macLow = loadWord(words, cell + MAC_LOW);
        found = stateAndMac >>> 16;
        break;
      }
      if (Atomics.load(words, HEAD) === head) return found;
    }
  }
}

/** The writer's side: one of it, in the main thread. */
export class NeighborTable {
  readonly buffer: SharedArrayBuffer;
  readonly limit: number;
  readonly #words: Int32Array;
  readonly #mask: number;
  #size = 0;

  /**
   * @param limit the number of entries at which set() refuses. Memory is reserved for it (128 bytes an entry, at the power of two above), but
   *   taken by the kernel only when it is written.
   * @param seed any int32; a secret one keeps others from choosing addresses that share a hash.
   */
  constructor(limit: number = DEFAULT_LIMIT, seed = 0) {
    const cells = 2 ** (Math.ceil(Math.log2(limit)) + 1);
    this.limit = limit;
    this.buffer = new SharedArrayBuffer(4 * (HEADER_WORDS + 2 * cells * CELL_WORDS));
    this.#words = new Int32Array(this.buffer);
    this.#words[SEED] = seed;
    this.#words[MASK] = this.#mask = cells - 1;
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Adds an entry, or changes it. `ip`: 4 or 16 bytes. `state`: NUD_ bits and our own, not 0. False when the table is full.
   */
  set(device: number, ip: Uint8Array, macHigh: number, macLow: number, state: number): boolean {
    const words = this.#words;
    const entry = [keyOf(device, ip), ...addressWords(ip), (state << 16) | macHigh, macLow];
    const known = this.#place(areaBase(words[HEAD], this.#mask), entry);
    const isNew = words[known + KEY] === 0;
    if (isNew && this.#size >= this.limit) return false;
    if (!isNew && entry.every((word, i) => words[known + i] === word)) return true;
    this.#change((area) => {
      const cell = this.#place(area, entry);
      for (const [i, word] of entry.entries()) Atomics.store(words, cell + i, word);
    });
    if (isNew) this.#size++;
    return true;
  }

  /** Whether there was one. */
  delete(device: number, ip: Uint8Array): boolean {
    const words = this.#words;
    const entry = [keyOf(device, ip), ...addressWords(ip)];
    if (words[this.#place(areaBase(words[HEAD], this.#mask), entry) + KEY] === 0) return false;
    this.#change((area) => this.#remove(area, this.#place(area, entry)));
    this.#size--;
    return true;
  }

  /** In the area that nobody reads; then, when everybody reads that, in the other one. */
  #change(change: (area: number) => void): void {
    const words = this.#words;
    change(areaBase(words[HEAD] + 1, this.#mask));
    Atomics.add(words, HEAD, 1);
    change(areaBase(words[HEAD] + 1, this.#mask));
  }

  /** What follows the cell moves up, so that no search ends at the hole (Knuth, TAOCP 3, 6.4, algorithm R). */
  #remove(area: number, cell: number): void {
    const words = this.#words;
    const distance = (from: number, to: number) => ((to - from) >> CELL_SHIFT) & this.#mask;
    let hole = cell;
    for (let at = this.#next(area, hole); words[at + KEY] !== 0; at = this.#next(area, at)) {
      const home = this.#home(area, words.subarray(at, at + CELL_WORDS));
      if (distance(home, at) < distance(hole, at)) continue;
      for (let i = 0; i < CELL_WORDS; i++) Atomics.store(words, hole + i, words[at + i]);
      hole = at;
    }
    Atomics.store(words, hole + KEY, 0);
  }

  /** Where an address (`entry`: the first words of its cell) is in an area, or would go: its own cell, or the first empty one. */
  #place(area: number, entry: readonly number[]): number {
    const words = this.#words;
    let at = this.#home(area, entry);
    while (words[at + KEY] !== 0) {
      let same = 0;
      while (same < STATE_AND_MAC_HIGH && words[at + same] === entry[same]) same++;
      if (same === STATE_AND_MAC_HIGH) break;
      at = this.#next(area, at);
    }
    return at;
  }

  #home(area: number, [key, a, b, c, d]: readonly number[] | Int32Array): number {
    return area + ((hash(this.#words[SEED], key, a, b, c, d) & this.#mask) << CELL_SHIFT);
  }

  #next(area: number, at: number): number {
    return area + ((((at - area) >> CELL_SHIFT) + 1) & this.#mask) * CELL_WORDS;
  }
}

function areaBase(head: number, mask: number): number {
  return HEADER_WORDS + (head & 1) * ((mask + 1) << CELL_SHIFT);
}

function keyOf(device: number, ip: Uint8Array): number {
  return (device << 8) | (ip.length === 4 ? 4 : 6);
}

function addressWords(ip: Uint8Array): number[] {
  return [0, 4, 8, 12].map((offset) => (offset < ip.length ? get32(ip, offset) : 0));
}
