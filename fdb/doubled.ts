/**
 * A hash table that is there twice, so that workers read it without locks while the main thread changes it. One SharedArrayBuffer:
 *
 *     word 0 HEAD   changes so far; its lowest bit is the area to read
 *     word 1 SEED   of the hash
 *     word 2 MASK   cells of an area - 1
 *     words 16..    area 0: cells of a power of two of words, then area 1
 *
 *     cell: | key ... | value ... | - |
 *
 * Open addressing with linear probing; a cell whose first word is 0 is empty, so that no key begins with 0. A change is made in the area
 * that nobody reads, then HEAD moves on, then it is made in the other area, too. A reader that finds HEAD changed at the end looks again; it
 * never waits.
 */
import { loadWord } from './nexthops.ts';

const HEAD = 0;
const SEED = 1;
const MASK = 2;
const HEADER_WORDS = 16;

/** How many words a key and its value have. */
export interface CellShape {
  readonly key: number;
  readonly value: number;
}

function cellShift({ key, value }: CellShape): number {
  return Math.ceil(Math.log2(key + value));
}

function areaBase(head: number, mask: number, shift: number): number {
  return HEADER_WORDS + (head & 1) * ((mask + 1) << shift);
}

function hash(seed: number, words: Int32Array, at: number, count: number): number {
  let h = Math.imul(seed, 0x85ebca6b);
  for (let i = 0; i < count; i++) {
    h = Math.imul(h ^ words[at + i], 0xc2b2ae35);
    h ^= h >>> 15;
  }
  return h ^ (h >>> 16);
}

/** A worker's view: write `key`, then call find(). */
export class DoubledReader {
  readonly key: Int32Array;
  /** What find() has found; else what it was. */
  readonly value: Int32Array;
  readonly #words: Int32Array;
  readonly #shift: number;

  constructor(buffer: SharedArrayBuffer, shape: CellShape) {
    this.#words = new Int32Array(buffer);
    this.#shift = cellShift(shape);
    this.key = new Int32Array(shape.key);
    this.value = new Int32Array(shape.value);
  }

  /** Whether there is an entry of that key. */
  find(): boolean {
    const { key, value } = this;
    const words = this.#words;
    const shift = this.#shift;
    const mask = words[MASK];
    const start = hash(words[SEED], key, 0, key.length) & mask;
    for (;;) {
      const head = Atomics.load(words, HEAD);
      const area = areaBase(head, mask, shift);
      let isFound = false;
      // Bounded, because an area that is being written under us may look full.
      for (let i = start, left = mask; left >= 0; left--, i = (i + 1) & mask) {
        const cell = area + (i << shift);
        if (loadWord(words, cell) === 0) break;
        let same = 0;
        while (same < key.length && loadWord(words, cell + same) === key[same]) same++;
        if (same < key.length) continue;
        for (let k = 0; k < value.length; k++) value[k] = loadWord(words, cell + same + k);
        isFound = true;
        break;
      }
      if (Atomics.load(words, HEAD) === head) return isFound;
    }
  }
}

/** The writer's side: one of it, in the main thread. */
export class DoubledTable {
  readonly buffer: SharedArrayBuffer;
  readonly limit: number;
  readonly #words: Int32Array;
  readonly #keyWords: number;
  readonly #shift: number;
  readonly #mask: number;
  #size = 0;

  /**
   * @param limit the number of entries at which set() refuses. Memory is reserved for it (four cells an entry, at the power of two above), but
   *   taken by the kernel only when it is written.
   * @param seed any int32; a secret one keeps others from choosing keys that share a hash.
   */
  constructor(shape: CellShape, limit: number, seed: number) {
    const cells = 2 ** (Math.ceil(Math.log2(limit)) + 1);
    this.limit = limit;
    this.#keyWords = shape.key;
    this.#shift = cellShift(shape);
    this.buffer = new SharedArrayBuffer(4 * (HEADER_WORDS + 2 * (cells << this.#shift)));
    this.#words = new Int32Array(this.buffer);
    this.#words[SEED] = seed;
    this.#words[MASK] = this.#mask = cells - 1;
  }

  get size(): number {
    return this.#size;
  }

  /** Adds an entry (its key and its value), or changes it. False when the table is full. */
  set(entry: Int32Array): boolean {
    const words = this.#words;
    const known = this.#place(this.#area(), entry);
    const isNew = words[known] === 0;
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
  delete(key: Int32Array): boolean {
    if (this.#words[this.#place(this.#area(), key)] === 0) return false;
    this.#change((area) => this.#remove(area, this.#place(area, key)));
    this.#size--;
    return true;
  }

  /** The area that is read now; `changes` from now on. */
  #area(changes = 0): number {
    return areaBase(this.#words[HEAD] + changes, this.#mask, this.#shift);
  }

  /** In the area that nobody reads; then, when everybody reads that, in the other one. */
  #change(change: (area: number) => void): void {
    change(this.#area(1));
    Atomics.add(this.#words, HEAD, 1);
    change(this.#area(1));
  }

  /** What follows the cell moves up, so that no search ends at the hole (Knuth, TAOCP 3, 6.4, algorithm R). */
  #remove(area: number, cell: number): void {
    const words = this.#words;
    const distance = (from: number, to: number) => ((to - from) >> this.#shift) & this.#mask;
    let hole = cell;
    for (let at = this.#next(area, hole); words[at] !== 0; at = this.#next(area, at)) {
      const home = this.#home(area, words, at);
      if (distance(home, at) < distance(hole, at)) continue;
      for (let i = 0; i < 1 << this.#shift; i++) Atomics.store(words, hole + i, words[at + i]);
      hole = at;
    }
    Atomics.store(words, hole, 0);
  }

  /** Where a key is in an area, or would go: its own cell, or the first empty one. */
  #place(area: number, key: Int32Array): number {
    const words = this.#words;
    let at = this.#home(area, key, 0);
    while (words[at] !== 0) {
      let same = 0;
      while (same < this.#keyWords && words[at + same] === key[same]) same++;
      if (same === this.#keyWords) break;
      at = this.#next(area, at);
    }
    return at;
  }

  #home(area: number, words: Int32Array, at: number): number {
    return area + ((hash(this.#words[SEED], words, at, this.#keyWords) & this.#mask) << this.#shift);
  }

  #next(area: number, at: number): number {
    return area + (((((at - area) >> this.#shift) + 1) & this.#mask) << this.#shift);
  }
}
