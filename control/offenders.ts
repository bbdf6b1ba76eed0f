/** Who was kept out by `vtep-filter` or a static entry, the last ones of each device: for whoever wants to know what is going on. */

import { LRUCache } from 'lru-cache';

/** One sender and MAC, newest packet last. */
export interface Offender {
  /** The VTEP that the packets came from. */
  readonly src: string;
  /** Inner source MAC. */
  readonly mac: string;
  /** The drop that counts them. */
  readonly reason: string;
  /** Packets, at least: under a flood not each is reported. */
  readonly count: number;
  /** Of the last packet, milliseconds since 1970. */
  readonly time: number;
  /** Of the last packet: bytes from its VXLAN header on, and the first of them in hex. */
  readonly length: number;
  readonly sample: string;
}

/** Kept for each device. */
const MOST = 16;

export class Offenders {
  readonly #ofDevice = new Map<number, LRUCache<string, Offender>>();

  note(device: number, seen: Offender): void {
    const offenders = this.#ofDevice.get(device) ?? new LRUCache<string, Offender>({ max: MOST });
    this.#ofDevice.set(device, offenders);
    const name = `${seen.src} ${seen.mac} ${seen.reason}`;
    offenders.set(name, { ...seen, count: (offenders.peek(name)?.count ?? 0) + seen.count });
  }

  /** The last one first. */
  of(device: number): Offender[] {
    return [...(this.#ofDevice.get(device)?.values() ?? [])];
  }

  forget(device: number): void {
    this.#ofDevice.delete(device);
  }
}
