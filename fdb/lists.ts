/**
 * Lists of next hops: [count, next-hop index, ...] from the word that a destination names. A frame goes to each (head-end replication), or,
 * in a group, whose count is negative, to one of them by its flow. One SharedArrayBuffer of blocks, each a power of two of words:
 *
 *     | log2(words) | count | index | index | ... | unused ... |
 *                     ^ the list's name
 *
 * A member is appended in place, its index first and the count after it. Any other change makes a new list; a worker may go on reading
 * the old one, so that its block rests for a grace period.
 */
import { answer } from './error.ts';
import { DEFAULT_GRACE } from './nexthops.ts';

/** 16 MiB of address space: a list of 1,000 members may be changed 4,000 times within the grace period. */
const DEFAULT_WORDS = 1 << 22;
const LOG2_SMALLEST = 3;
/** Words of a block that are not members. */
const OVERHEAD = 2;

export class Lists {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #grace: number;
  /** Unused blocks by log2(words). */
  readonly #free: number[][] = Array.from({ length: 32 }, () => []);
  /** When each resting block was given up, oldest first. */
  readonly #retired = new Map<number, number>();
  #end = 0;

  /** @param grace milliseconds that a block rests. */
  constructor(words: number = DEFAULT_WORDS, grace: number = DEFAULT_GRACE) {
    this.buffer = new SharedArrayBuffer(words * 4);
    this.#words = new Int32Array(this.buffer);
    this.#grace = grace;
  }

  /** Returns the list's name. `now` in milliseconds. Throws FdbError ENOBUFS when there is no room. Groups are not changed in place. */
  create(members: readonly number[], now: number, isGroup = false): number {
    const block = this.#take(log2For(members.length), now);
    if (block < 0) throw answer('ENOBUFS');
    this.#words.set(members, block + OVERHEAD);
    Atomics.store(this.#words, block + 1, isGroup ? -members.length : members.length);
    return block + 1;
  }

  count(list: number): number {
    return this.#words[list];
  }

  members(list: number): number[] {
    return Array.from(this.#words.subarray(list + 1, list + 1 + Math.abs(this.#words[list])));
  }

  includes(list: number, member: number): boolean {
    return this.#words.subarray(list + 1, list + 1 + this.#words[list]).includes(member);
  }

  /**
   * Returns the name of the list with the member at its end: the same, or a new one, in which case the caller release()s the old one when
   * nothing leads to it any more. Throws FdbError ENOBUFS when there is no room.
   */
  append(list: number, member: number, now: number): number {
    const count = this.#words[list];
    if (OVERHEAD + count === 1 << this.#words[list - 1]) return this.create([...this.members(list), member], now);
    Atomics.store(this.#words, list + 1 + count, member);
    Atomics.store(this.#words, list, count + 1);
    return list;
  }

  /** The name of the list without a member; as append(). */
  remove(list: number, member: number, now: number): number {
    const rest = this.members(list).filter((other) => other !== member);
    const block = this.#take(log2For(rest.length), now);
    if (block < 0) return this.#removeInPlace(list, member);
    this.#words.set(rest, block + OVERHEAD);
    Atomics.store(this.#words, block + 1, rest.length);
    return block + 1;
  }

  release(list: number, now: number): void {
    this.#retired.set(list - 1, now);
  }

  /** Without room for a new list a removal must not fail: a worker that is in this list just now may send to its last member twice. */
  #removeInPlace(list: number, member: number): number {
    const last = list + this.#words[list];
    const at = this.#words.indexOf(member, list + 1);
    Atomics.store(this.#words, at, this.#words[last]);
    Atomics.store(this.#words, list, this.#words[list] - 1);
    return list;
  }

  /** A block of at least 2^log2 words, -1 when there is none. */
  #take(log2: number, now: number): number {
    for (const [block, given] of this.#retired) {
      if (now - given < this.#grace) break;
      this.#retired.delete(block);
      this.#free[this.#words[block]].push(block);
    }
    let size = log2;
    while (size < this.#free.length && this.#free[size].length === 0) size++;
    if (size === this.#free.length) {
      if (this.#end + (1 << log2) > this.#words.length) return -1;
      this.#words[this.#end] = log2;
      this.#end += 1 << log2;
      return this.#end - (1 << log2);
    }
    const block = this.#free[size].pop()!;
    // What a larger block has too much is halved down to it.
    while (size > log2) {
      size--;
      const half = block + (1 << size);
      this.#words[half] = size;
      this.#free[size].push(half);
    }
    this.#words[block] = log2;
    return block;
  }
}

/** Blocks double, so that growing a list member by member copies each a few times. */
function log2For(members: number): number {
  return Math.max(LOG2_SMALLEST, Math.ceil(Math.log2(members + OVERHEAD)));
}
