/** Tells which drop counter of a block has risen: the reason for which a packet was dropped. */
import { COUNTER } from '../counters.ts';
import { DROPS } from '../drops.ts';

export class DropWatch {
  /** By how much the counter that risen() has found rose. */
  rise = 0;
  readonly #counters: Float64Array;
  readonly #indices: Int32Array;
  readonly #before: Float64Array;
  #scope = 0;

  constructor(counters: Float64Array, direction: 'tx' | 'rx') {
    this.#counters = counters;
    this.#indices = Int32Array.from(
      DROPS.flatMap((drop) => (drop.direction === direction ? [COUNTER[drop.name]] : [])),
    );
    this.#before = new Float64Array(this.#indices.length);
  }

  /** From now on. `scope`: first word of the block. */
  start(scope: number): void {
    this.#scope = scope;
    for (let i = 0; i < this.#indices.length; i++) this.#before[i] = this.#counters[scope + this.#indices[i]];
  }

  /** A counter that has risen since the start, or since it was told last; -1 when there is none. */
  risen(): number {
    const indices = this.#indices;
    for (let i = 0; i < indices.length; i++) {
      const now = this.#counters[this.#scope + indices[i]];
      if (now === this.#before[i]) continue;
      this.rise = now - this.#before[i];
      this.#before[i] = now;
      return indices[i];
    }
    return -1;
  }
}
