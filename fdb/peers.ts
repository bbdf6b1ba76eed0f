/**
 * The VTEPs that each device sends to, by address, for workers to ask whether a packet's sender is one of them, and which inner addresses
 * it may send from. One SharedArrayBuffer:
 *
 *     word 0 HEAD   changes so far; its lowest bit is the area to read
 *     word 1 SEED   of the hash: a secret one keeps others from choosing addresses that share a chain
 *     word 2 MASK   cells of an area - 1
 *     words 16..    area 0: cells of 16 words, then area 1
 *
 *     cell: | address: 4 words | device + 1, 0 when empty | subnets: 7 words, see below | 4 unused |
 *
 * Open addressing with linear probing, at most half full. As in neighbors.ts, a change is made in the area that nobody reads, then HEAD
 * moves on, then it is made in the other area, too. A reader that finds HEAD changed at the end looks again; it never waits, so that a
 * known VTEP is found also while the writer is off the CPU.
 */
import { get32 } from '../wire/bytes.ts';
import { type Prefix, prefixBytes } from '../wire/prefix.ts';

const HEAD = 0;
const SEED = 1;
const MASK = 2;
const HEADER_WORDS = 16;

const CELL_OWNER = 4;
const CELL_SUBNETS = 5;
const CELL_SHIFT = 4;

/** Words of a VTEP's subnets: length + 1 of its IPv4 and IPv6 prefix, 0 for none, then their big-endian words. All 0: not bound to any. */
export const SUBNET_IPV4_LENGTH = 0;
export const SUBNET_IPV6_LENGTH = 1;
export const SUBNET_IPV4 = 2;
export const SUBNET_IPV6 = 3;
export const SUBNET_WORDS = 7;
const UNBOUND = new Int32Array(SUBNET_WORDS);

function hash(seed: number, device: number, a: number, b: number, c: number, d: number): number {
  let h = Math.imul(a ^ seed ^ (device << 24), 0x85ebca6b);
  h = Math.imul((h ^ (h >>> 15) ^ b) + 0x9e3779b1, 0xc2b2ae35);
  h = Math.imul((h ^ (h >>> 13) ^ c) + 0x9e3779b1, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 16) ^ d, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** A worker's view. Every load is atomic: it looks once for many packets. */
export class PeerReader {
  readonly #words: Int32Array;
  readonly #mask: number;

  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer);
    this.#mask = this.#words[MASK];
  }

  /** Whether the device sends to the address: four big-endian words, of IPv4 the first and zeros. */
  has(device: number, a: number, b: number, c: number, d: number): boolean {
    const words = this.#words;
    const start = hash(words[SEED], device, a, b, c, d);
    for (;;) {
      const head = Atomics.load(words, HEAD);
      const cell = this.#search(areaBase(head, this.#mask), start, device + 1, a, b, c, d);
      if (Atomics.load(words, HEAD) === head) return cell >= 0;
    }
  }

  /** Fills `subnets` (SUBNET_WORDS) with those that the VTEP is bound to; whether there are any. */
  readSubnets(device: number, a: number, b: number, c: number, d: number, subnets: Int32Array): boolean {
    const words = this.#words;
    const start = hash(words[SEED], device, a, b, c, d);
    for (;;) {
      const head = Atomics.load(words, HEAD);
      const cell = this.#search(areaBase(head, this.#mask), start, device + 1, a, b, c, d);
      for (let k = 0; k < SUBNET_WORDS; k++) {
        subnets[k] = cell < 0 ? 0 : Atomics.load(words, cell + CELL_SUBNETS + k);
      }
      if (Atomics.load(words, HEAD) === head) return (subnets[SUBNET_IPV4_LENGTH] | subnets[SUBNET_IPV6_LENGTH]) !== 0;
    }
  }

  /** The first word of its cell, -1 when there is none. */
  #search(area: number, start: number, owner: number, a: number, b: number, c: number, d: number): number {
    const words = this.#words;
    // Bounded, because an area that is being written under us may look full.
    for (let i = start & this.#mask, left = this.#mask; left >= 0; i = (i + 1) & this.#mask, left--) {
      const cell = area + (i << CELL_SHIFT);
      const found = Atomics.load(words, cell + CELL_OWNER);
      if (found === 0) return -1;
      if (found !== owner || Atomics.load(words, cell) !== a || Atomics.load(words, cell + 1) !== b) continue;
      if (Atomics.load(words, cell + 2) === c && Atomics.load(words, cell + 3) === d) return cell;
    }
    return -1;
  }
}

/** The writer's side, in the main thread. */
export class Peers {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #mask: number;
  /** How often each was added, by device and address. */
  readonly #references = new Map<string, number>();
  /** What VTEPs are bound to, by device and address, also while the device sends nothing there. */
  readonly #subnets = new Map<number, Map<string, Int32Array>>();

  /** `limit`: VTEPs that may be there at once. The kernel takes memory for cells that are written. */
  constructor(limit: number, seed = 0) {
    const log2 = Math.ceil(Math.log2(limit)) + 1;
    this.buffer = new SharedArrayBuffer((HEADER_WORDS + 2 * (1 << (log2 + CELL_SHIFT))) * 4);
    this.#words = new Int32Array(this.buffer);
    this.#words[SEED] = seed;
    this.#words[MASK] = this.#mask = (1 << log2) - 1;
  }

  /** Adds a reference. `address`: 4 or 16 bytes. */
  add(device: number, address: Uint8Array): void {
    const name = `${device} ${address}`;
    const references = this.#references.get(name) ?? 0;
    this.#references.set(name, references + 1);
    if (references > 0) return;
    const [a, b, c, d] = wordsOf(address);
    const subnets = this.#subnets.get(device)?.get(`${address}`) ?? UNBOUND;
    const home = hash(this.#words[SEED], device, a, b, c, d) & this.#mask;
    this.#change((area) => {
      let i = home;
      while (this.#words[cellOf(area, i) + CELL_OWNER] !== 0) i = (i + 1) & this.#mask;
      this.#putSubnets(cellOf(area, i), subnets);
      this.#put(cellOf(area, i), device + 1, a, b, c, d);
    });
  }

  /** Binds a VTEP to the subnets, at most one a family, that frames from it may have their source address in; none: to nothing. */
  bind(device: number, address: Uint8Array, subnets: readonly Prefix[]): void {
    const ofDevice = this.#subnets.get(device) ?? new Map<string, Int32Array>();
    if (subnets.length > 0) ofDevice.set(`${address}`, subnetWords(subnets));
    else ofDevice.delete(`${address}`);
    if (ofDevice.size > 0) this.#subnets.set(device, ofDevice);
    else this.#subnets.delete(device);
    if (!this.#references.get(`${device} ${address}`)) return;
    const words = wordsOf(address);
    this.#change((area) =>
      this.#putSubnets(cellOf(area, this.#find(area, device, words)), ofDevice.get(`${address}`) ?? UNBOUND),
    );
  }

  /** Whether any VTEP of the device is bound. */
  isBound(device: number): boolean {
    return this.#subnets.has(device);
  }

  /** The device is gone, and its number another's soon. */
  forget(device: number): void {
    this.#subnets.delete(device);
  }

  /** Takes a reference away. */
  remove(device: number, address: Uint8Array): void {
    const name = `${device} ${address}`;
    const references = this.#references.get(name)! - 1;
    this.#references.set(name, references);
    if (references > 0) return;
    this.#references.delete(name);
    const words = wordsOf(address);
    this.#change((area) => this.#erase(area, this.#find(area, device, words)));
  }

  /** In the area that nobody reads; then, when everybody reads that, in the other one. */
  #change(change: (area: number) => void): void {
    const words = this.#words;
    change(areaBase(words[HEAD] + 1, this.#mask));
    Atomics.add(words, HEAD, 1);
    change(areaBase(words[HEAD] + 1, this.#mask));
  }

  /** Empties a cell and moves what stands behind it in its chain up, so that no search ends too early (Knuth 6.4, algorithm R). */
  #erase(area: number, at: number): void {
    const words = this.#words;
    let hole = at;
    for (let i = (hole + 1) & this.#mask; ; i = (i + 1) & this.#mask) {
      const cell = cellOf(area, i);
      const owner = words[cell + CELL_OWNER];
      if (owner === 0) break;
      const [a, b, c, d] = words.subarray(cell, cell + 4);
      const home = hash(words[SEED], owner - 1, a, b, c, d) & this.#mask;
      // It may stay where it is when its search begins behind the hole.
      if (((i - home) & this.#mask) < ((i - hole) & this.#mask)) continue;
      this.#putSubnets(cellOf(area, hole), words.subarray(cell + CELL_SUBNETS, cell + CELL_SUBNETS + SUBNET_WORDS));
      this.#put(cellOf(area, hole), owner, a, b, c, d);
      hole = i;
    }
    Atomics.store(words, cellOf(area, hole) + CELL_OWNER, 0);
  }

  #find(area: number, device: number, [a, b, c, d]: readonly number[]): number {
    const words = this.#words;
    for (let i = hash(words[SEED], device, a, b, c, d) & this.#mask; ; i = (i + 1) & this.#mask) {
      const cell = cellOf(area, i);
      if (words[cell + CELL_OWNER] !== device + 1 || words[cell] !== a || words[cell + 1] !== b) continue;
      if (words[cell + 2] === c && words[cell + 3] === d) return i;
    }
  }

  #putSubnets(cell: number, subnets: Int32Array): void {
    for (let k = 0; k < SUBNET_WORDS; k++) Atomics.store(this.#words, cell + CELL_SUBNETS + k, subnets[k]);
  }

  #put(cell: number, owner: number, a: number, b: number, c: number, d: number): void {
    const words = this.#words;
    Atomics.store(words, cell, a);
    Atomics.store(words, cell + 1, b);
    Atomics.store(words, cell + 2, c);
    Atomics.store(words, cell + 3, d);
    Atomics.store(words, cell + CELL_OWNER, owner);
  }
}

function subnetWords(subnets: readonly Prefix[]): Int32Array {
  const words = new Int32Array(SUBNET_WORDS);
  for (const subnet of subnets) {
    const isIpv4 = subnet.family === 4;
    words[isIpv4 ? SUBNET_IPV4_LENGTH : SUBNET_IPV6_LENGTH] = subnet.length + 1;
    words.set(wordsOf(prefixBytes(subnet)).slice(0, isIpv4 ? 1 : 4), isIpv4 ? SUBNET_IPV4 : SUBNET_IPV6);
  }
  return words;
}

function areaBase(head: number, mask: number): number {
  return HEADER_WORDS + (head & 1) * ((mask + 1) << CELL_SHIFT);
}

function cellOf(area: number, i: number): number {
  return area + (i << CELL_SHIFT);
}

function wordsOf(address: Uint8Array): number[] {
  return [0, 4, 8, 12].map((at) => (at < address.length ? get32(address, at) : 0));
}
