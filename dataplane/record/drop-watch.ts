/** Tells which drop counter of a block has risen: the reason for which a packet was dropped. */
import { COUNTER } from '../counters.ts';
import { DROPS } from '../drops.ts';

export class DropWatch {
  /** By how much the counter that risen() has found rose. */
  rise = 0;
  readonly #counters: Float64Array;
  /** The first of a direction's counters, which lie side by side. */
  readonly #first: number;
  readonly #before: Float64Array;
  #from = 0;

  constructor(counters: Float64Array, direction: 'tx' | 'rx') {
    const drops = DROPS.filter((drop) => drop.direction === direction);
    this.#counters = counters;
    this.#first = COUNTER[drops[0].name];
    this.#before = new Float64Array(drops.length);
  }

  /** From now on. `scope`: first word of the block. */
  start(scope: number): void {
    const counters = this.#counters;
    const before = this.#before;
    const from = scope + this.#first;
    this.#from = from;
    for (let i = 0; i < before.length; i++) before[i] = counters[from + i];
  }

  /** A counter that has risen since the start, or since it was told last; -1 when there is none. */
  risen(): number {
    const counters = this.#counters;
    const before = this.#before;
    const from = this.#from;
    for (let i = 0; i < before.length; i++) {
      if (counters[from + i] !== before[i]) return this.#tell(i);
    }
    return -1;
  }

  #tell(i: number): number {
    const now = this.#counters[this.#from + i];
    this.rise = now - this.#before[i];
    this.#before[i] = now;
    return this.#first + i;
  }
}
