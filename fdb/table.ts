/**
 * The forwarding table: (device, MAC) -> destination, in one SharedArrayBuffer, written by one thread and read by all without locks.
 *
 *     word 0 HEAD         generation << 6 | area << 5 | log2(cells)
 *     word 1 SEED         of the hash
 *     word 2 LOG2_LARGEST log2(cells) of one area when it is as large as it gets
 *     word 3 CLOCK        coarse seconds, which the writer sets now and then
 *     words 16..          area 0: cells of 8 words, then area 1
 *
 *     cell: | macLow | device << 16 | macHigh | destination | state | updated | used | - | - |
 *           `updated`: when the entry last changed or, with learning, its MAC was last heard; `used`: when it was last sent to. Workers
 *           stamp both, once a second at most. A stamp that meets a rebuild is lost, or another entry's: it lives a little longer.
 *
 * Open addressing with linear probing. What makes the reader safe without a lock:
 *
 * - A key is written once in the life of an area: into a cell whose destination is 0 (empty), which ends every reader's search. The
 *   destination is stored last. A deleted cell becomes a tombstone, which only its own key may bring back to life.
 * - When cells run out the writer builds the other area and changes HEAD. A reader that slept through that may have looked at cells that
 *   are being rewritten; it reads HEAD again at the end and starts over.
 */

import type { FdbMirror } from './mirror.ts';
import { ROUTER } from './state.ts';

const HEAD = 0;
const SEED = 1;
const LOG2_LARGEST = 2;
const CLOCK = 3;
const HEADER_WORDS = 16;

// Words of a cell. Not exported: V8 loads an exported constant from memory each time, which is 2 ns of a lookup (Node 20.20).
const CELL_MAC_LOW = 0;
const CELL_MAC_HIGH = 1;
const CELL_DESTINATION = 2;
const CELL_STATE = 3;
const CELL_UPDATED = 4;
const CELL_USED = 5;
const CELL_WORDS = 8;
const CELL_SHIFT = 3;

// Destinations that are none.
const EMPTY = 0;
const TOMBSTONE = -1;

export const DEFAULT_LIMIT = 1 << 20;

const LOG2_SMALLEST = 6;

/**
 * On x86 loads are not reordered with loads, and V8 keeps the order of typed-array loads, so that the search can use plain loads and one
 * Atomics.load at its end. Elsewhere every load is atomic, which costs a call each (6 ns, Node 20.20).
 */
export const ORDERED_LOADS = process.arch === 'x64' || process.arch === 'ia32';

function hash(seed: number, high: number, low: number): number {
  let h = low ^ seed;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13) ^ high, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

function areaBase(head: number, log2Largest: number): number {
  return HEADER_WORDS + (((head >> 5) & 1) << (log2Largest + CELL_SHIFT));
}

/** A worker's view of the table. */
export class FdbReader {
  readonly words: Int32Array;
  readonly #seed: number;
  readonly #log2Largest: number;
  readonly #ordered: boolean;

  /** @param ordered false takes the path of processors that reorder loads. */
  constructor(buffer: SharedArrayBuffer, ordered: boolean = ORDERED_LOADS) {
    this.#ordered = ordered;
    this.words = new Int32Array(buffer);
    this.#seed = this.words[SEED];
    this.#log2Largest = this.words[LOG2_LARGEST];
  }

  /**
   * The destination of a MAC on a device, 0 when there is none: `index << 1` for a next hop, `list << 1 | 1` for a list.
   * `macHigh` holds the first two bytes (u16), `macLow` the other four (int32), both big-endian.
   */
  lookup(device: number, macHigh: number, macLow: number): number {
    const words = this.words;
    const high = (device << 16) | macHigh;
    if (!this.#ordered) return this.#searchAtomic(high, macLow, true);
    const hashed = hash(this.#seed, high, macLow);
    for (;;) {
      const head = words[HEAD];
      const mask = (1 << (head & 31)) - 1;
      const base = areaBase(head, this.#log2Largest);
      let i = hashed & mask;
      let found = EMPTY;
      let used = 0;
      // Bounded, because an area that is being rewritten under us may look full.
      for (let left = mask; left >= 0; left--) {
        const cell = base + (i << CELL_SHIFT);
        const destination = words[cell + CELL_DESTINATION];
        if (destination === EMPTY) break;
        if (words[cell + CELL_MAC_LOW] === macLow && words[cell + CELL_MAC_HIGH] === high) {
          found = destination;
          used = cell + CELL_USED;
          break;
        }
        i = (i + 1) & mask;
      }
      if (Atomics.load(words, HEAD) !== head) continue;
      if (found <= EMPTY) return EMPTY;
      if (words[used] !== words[CLOCK]) words[used] = words[CLOCK];
      return found;
    }
  }

  /** The word index of a MAC's cell, -1 when it has no entry. Valid until the next rebuild. */
  find(device: number, macHigh: number, macLow: number): number {
    const words = this.words;
    const high = (device << 16) | macHigh;
    if (!this.#ordered) return this.#searchAtomic(high, macLow, false);
    const hashed = hash(this.#seed, high, macLow);
    for (;;) {
      const head = words[HEAD];
      const mask = (1 << (head & 31)) - 1;
      const base = areaBase(head, this.#log2Largest);
      let i = hashed & mask;
      let found = -1;
      for (let left = mask; left >= 0; left--) {
        const cell = base + (i << CELL_SHIFT);
        const destination = words[cell + CELL_DESTINATION];
        if (destination === EMPTY) break;
        if (words[cell + CELL_MAC_LOW] === macLow && words[cell + CELL_MAC_HIGH] === high) {
          if (destination !== TOMBSTONE) found = cell;
          break;
        }
        i = (i + 1) & mask;
      }
      if (Atomics.load(words, HEAD) === head) return found;
    }
  }

  /** Whether the MAC's entry is a router's (`bridge fdb ... router`). */
  isRouter(device: number, macHigh: number, macLow: number): boolean {
    const cell = this.find(device, macHigh, macLow);
    return cell >= 0 && (this.words[cell + CELL_STATE] & ROUTER) !== 0;
  }

  /** lookup() and find() where loads may overtake each other. */
  #searchAtomic(high: number, low: number, wantDestination: boolean): number {
    const words = this.words;
    const hashed = hash(this.#seed, high, low);
    for (;;) {
      const head = Atomics.load(words, HEAD);
      const mask = (1 << (head & 31)) - 1;
      const base = areaBase(head, this.#log2Largest);
      let found = wantDestination ? EMPTY : -1;
      for (let i = hashed & mask, left = mask; left >= 0; i = (i + 1) & mask, left--) {
        const cell = base + (i << CELL_SHIFT);
        const destination = Atomics.load(words, cell + CELL_DESTINATION);
        if (destination === EMPTY) break;
        if (Atomics.load(words, cell + CELL_MAC_LOW) !== low) continue;
        if (Atomics.load(words, cell + CELL_MAC_HIGH) !== high) continue;
        if (destination === TOMBSTONE) break;
        found = wantDestination ? destination : cell;
        if (wantDestination) Atomics.store(words, cell + CELL_USED, words[CLOCK]);
        break;
      }
      if (Atomics.load(words, HEAD) === head) return found;
    }
  }

  /** The destination of a cell that find() has returned. */
  destination(cell: number): number {
    return Math.max(EMPTY, this.words[cell + CELL_DESTINATION]);
  }

  /** The bits of state.ts of a cell that find() has returned. */
  state(cell: number): number {
    return this.words[cell + CELL_STATE];
  }

  /** Notes that the MAC was heard. */
  stamp(cell: number): void {
    const { words } = this;
    if (words[cell + CELL_UPDATED] !== words[CLOCK]) words[cell + CELL_UPDATED] = words[CLOCK];
  }
}

/** The writer's side: one of it, in the main thread. */
export class FdbTable {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly limit: number;
  mirror: FdbMirror | undefined;
  /** How often where frames go was changed: who finds the same number again has missed nothing. */
  changes = 0;
  readonly #reader: FdbReader;
  readonly #log2Largest: number;
  #live = 0;
  #tombstones = 0;
  #rebuilds = 0;

  /**
   * @param limit the number of entries at which insert() refuses. Memory is reserved for it (128 bytes an entry, at the power of two above)
   *   but taken by the kernel only when it is written.
   * @param seed any int32; a secret one keeps others from choosing MACs that share a hash.
   */
  constructor(limit: number = DEFAULT_LIMIT, seed = 0) {
    this.#log2Largest = Math.max(LOG2_SMALLEST, Math.ceil(Math.log2(limit)) + 1);
    this.buffer = new SharedArrayBuffer(4 * (HEADER_WORDS + (2 << (this.#log2Largest + CELL_SHIFT))));
    this.words = new Int32Array(this.buffer);
    this.words[SEED] = seed;
    this.words[LOG2_LARGEST] = this.#log2Largest;
    this.limit = limit;
    Atomics.store(this.words, HEAD, LOG2_SMALLEST);
    this.#reader = new FdbReader(this.buffer);
  }

  /** Entries in the table. */
  get size(): number {
    return this.#live;
  }

  /** Cells of the active area. */
  get capacity(): number {
    return 1 << (this.words[HEAD] & 31);
  }

  /** How often the table was written anew into the other area. */
  get rebuilds(): number {
    return this.#rebuilds;
  }

  /** The word index of a MAC's cell, -1 when it has no entry. Valid until the next insert(). */
  find(device: number, macHigh: number, macLow: number): number {
    return this.#reader.find(device, macHigh, macLow);
  }

  /**
   * Adds a MAC that has no entry yet. `state` is kept as it is, `now` in coarse seconds.
   * Returns the word index of its cell, or -1 when the table is full.
   */
  insert(device: number, macHigh: number, macLow: number, destination: number, state: number, now: number): number {
    if (this.#live >= this.limit) return -1;
    const high = (device << 16) | macHigh;
    let cell = this.#place(high, macLow);
    if (this.words[cell + CELL_DESTINATION] === TOMBSTONE) {
      this.#tombstones--;
    } else if ((this.#live + this.#tombstones + 1) * 5 > this.capacity * 3) {
      this.#rebuild();
      cell = this.#place(high, macLow);
    }
    this.#fill(cell, high, macLow, state, now, now);
    this.#live++;
    this.setDestination(cell, destination);
    return cell;
  }

  device(cell: number): number {
    return this.words[cell + CELL_MAC_HIGH] >>> 16;
  }

  macHigh(cell: number): number {
    return this.words[cell + CELL_MAC_HIGH] & 0xffff;
  }

  macLow(cell: number): number {
    return this.words[cell + CELL_MAC_LOW];
  }

  destination(cell: number): number {
    return this.words[cell + CELL_DESTINATION];
  }

  state(cell: number): number {
    return this.words[cell + CELL_STATE];
  }

  /** When the entry last changed or its MAC was heard, in coarse seconds. */
  updated(cell: number): number {
    return this.words[cell + CELL_UPDATED];
  }

  /** When the entry was last sent to, in coarse seconds. */
  used(cell: number): number {
    return this.words[cell + CELL_USED];
  }

  /** The time that workers stamp entries with, in coarse seconds. */
  setClock(now: number): void {
    Atomics.store(this.words, CLOCK, now);
  }

  /** `now` in coarse seconds. */
  setState(cell: number, state: number, now: number): void {
    this.words[cell + CELL_STATE] = state;
    this.words[cell + CELL_UPDATED] = now;
    this.#tell(cell, this.destination(cell));
  }

  /** `now` in coarse seconds. */
  setUpdated(cell: number, now: number): void {
    this.words[cell + CELL_UPDATED] = now;
  }

  /** `now` in coarse seconds. */
  setUsed(cell: number, now: number): void {
    this.words[cell + CELL_USED] = now;
  }

  /** Sends an entry's frames elsewhere, in one atomic store. */
  setDestination(cell: number, destination: number): void {
    Atomics.store(this.words, cell + CELL_DESTINATION, destination);
    this.changes++;
    this.#tell(cell, destination);
  }

  remove(cell: number): void {
    Atomics.store(this.words, cell + CELL_DESTINATION, TOMBSTONE);
    this.changes++;
    this.#tell(cell, 0);
    this.#live--;
    this.#tombstones++;
  }

  #tell(cell: number, destination: number): void {
    this.mirror?.setEntry(this.device(cell), this.macHigh(cell), this.macLow(cell), destination, this.state(cell));
  }

  /** The first entry's cell behind `cell` (0 to begin), -1 at the end. remove() is allowed on the way, insert() is not. */
  next(cell: number): number {
    const base = areaBase(this.words[HEAD], this.#log2Largest);
    const end = base + this.capacity * CELL_WORDS;
    for (let c = cell === 0 ? base : cell + CELL_WORDS; c < end; c += CELL_WORDS) {
      if (this.words[c + CELL_DESTINATION] > 0) return c;
    }
    return -1;
  }

  /** The cell where a key is, was, or would go: its own, its tombstone, or the first empty one of its chain. */
  #place(high: number, low: number): number {
    const words = this.words;
    const mask = this.capacity - 1;
    const base = areaBase(words[HEAD], this.#log2Largest);
    for (let i = hash(words[SEED], high, low) & mask; ; i = (i + 1) & mask) {
      const cell = base + (i << CELL_SHIFT);
      if (words[cell + CELL_DESTINATION] === EMPTY) return cell;
      if (words[cell + CELL_MAC_LOW] === low && words[cell + CELL_MAC_HIGH] === high) return cell;
    }
  }

  #fill(cell: number, high: number, low: number, state: number, updated: number, used: number): void {
    const words = this.words;
    words[cell + CELL_MAC_LOW] = low;
    words[cell + CELL_MAC_HIGH] = high;
    words[cell + CELL_STATE] = state;
    words[cell + CELL_UPDATED] = updated;
    words[cell + CELL_USED] = used;
  }

  /**
   * Writes the live entries into the other area, at a load of at most 0.3 as long as there is room to grow, and makes it the active one.
   * At the largest size the load is up to 0.5, and tombstones may take another tenth of the cells before the next rebuild.
   */
  #rebuild(): void {
    const words = this.words;
    const head = words[HEAD];
    let log2 = LOG2_SMALLEST;
    while (log2 < this.#log2Largest && (this.#live + 1) * 10 > 3 * (1 << log2)) log2++;
    const nextHead = (((head >> 6) + 1) << 6) | (~head & 32) | log2 | 0;
    const base = areaBase(nextHead, this.#log2Largest);
    const mask = (1 << log2) - 1;
    words.fill(0, base, base + ((mask + 1) << CELL_SHIFT));
    for (let from = this.next(0); from >= 0; from = this.next(from)) {
      const high = words[from + CELL_MAC_HIGH];
      const low = words[from + CELL_MAC_LOW];
      let i = hash(words[SEED], high, low) & mask;
      while (words[base + (i << CELL_SHIFT) + CELL_DESTINATION] !== EMPTY) i = (i + 1) & mask;
      const to = base + (i << CELL_SHIFT);
      this.#fill(to, high, low, words[from + CELL_STATE], words[from + CELL_UPDATED], words[from + CELL_USED]);
      words[to + CELL_DESTINATION] = words[from + CELL_DESTINATION];
    }
    this.#tombstones = 0;
    this.#rebuilds++;
    Atomics.store(words, HEAD, nextHead);
  }
}
