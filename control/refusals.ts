/** MACs that could not be learned, as events: once a second and device, with the last one and how many packets asked for it. */
import { formatMac, macBytes } from '../wire/address.ts';
import type { Events } from './events.ts';

interface Refused {
  readonly high: number;
  readonly low: number;
  readonly dst: string;
  readonly reason: string;
  readonly count: number;
}

const PERIOD = 1_000;

export class Refusals {
  readonly #events: Events;
  readonly #ofDevice = new Map<string, Refused>();
  #timer: NodeJS.Timeout | undefined;

  constructor(events: Events) {
    this.#events = events;
  }

  note(ifname: string, high: number, low: number, dst: string, reason: string): void {
    if (!this.#events.has('fdb')) return;
    const count = (this.#ofDevice.get(ifname)?.count ?? 0) + 1;
    this.#ofDevice.set(ifname, { high, low, dst, reason, count });
    this.#timer ??= setTimeout(() => this.#tell(), PERIOD).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #tell(): void {
    this.#timer = undefined;
    for (const [ifname, { high, low, ...fields }] of this.#ofDevice) {
      this.#events.emit('fdb', 'refused', ifname, { mac: formatMac(macBytes(high, low)), ...fields });
    }
    this.#ofDevice.clear();
  }
}
