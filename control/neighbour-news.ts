/**
 * Tells which of ip monitor's lines about neighbours say anything new of where packets go. The kernel asks a neighbour again every half
 * minute or so, and tells of each step (REACHABLE, STALE, DELAY, PROBE, REACHABLE): of thousands of them all the time, though nothing changes.
 */
const VALID = / (?:REACHABLE|STALE|DELAY|PROBE)\b/;

export class NeighbourNews {
  /** What was said last of each: the line, without which of the valid states it is in. */
  readonly #last = new Map<string, string>();
  readonly #isManaged: () => boolean;

  /** `isManaged`: whether the kernel keeps neighbours by itself. Where we have to, each step is for us. */
  constructor(isManaged: () => boolean) {
    this.#isManaged = isManaged;
  }

  /** `line` as `ip monitor label` prints it; other lines than those about neighbours are new. */
  isNew(line: string): boolean {
    const [, deleted, neighbour] = /^\[NEIGH\](Deleted )?(\S+ dev \S+)/.exec(line) ?? [];
    if (neighbour === undefined || !this.#isManaged()) return true;
    if (deleted !== undefined) {
      this.#last.delete(neighbour);
      return true;
    }
    const text = line.replace(VALID, '');
    if (this.#last.get(neighbour) === text) return false;
    this.#last.set(neighbour, text);
    return true;
  }

  /** Lines may have been lost. */
  forget(): void {
    this.#last.clear();
  }
}
