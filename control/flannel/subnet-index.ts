import { overlaps, type Prefix } from '../../wire/prefix.ts';

/** Subnets of which no two overlap, and whose each is. A look-up takes a binary search. */
export class SubnetIndex {
  /** Ascending. */
  readonly #subnets: Prefix[] = [];
  readonly #owners: string[] = [];

  /** Whose subnet has an address in common with this one. */
  overlapping(subnet: Prefix, except?: string): string | undefined {
    // Only the last one that begins before, and those that begin inside.
    for (let i = Math.max(this.#position(subnet.first) - 1, 0); i < this.#subnets.length; i++) {
      if (overlaps(this.#subnets[i], subnet)) {
        if (this.#owners[i] !== except) return this.#owners[i];
      } else if (this.#subnets[i].first > subnet.first) return undefined;
    }
    return undefined;
  }

  /** Overlaps with none that is there. */
  add(subnet: Prefix, owner: string): void {
    const at = this.#position(subnet.first);
    this.#subnets.splice(at, 0, subnet);
    this.#owners.splice(at, 0, owner);
  }

  delete(subnet: Prefix): void {
    const at = this.#position(subnet.first);
    this.#subnets.splice(at, 1);
    this.#owners.splice(at, 1);
  }

  /** How many begin before. */
  #position(first: bigint): number {
    let [low, high] = [0, this.#subnets.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#subnets[middle].first < first) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
