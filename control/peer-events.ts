/** VTEPs that come, go, and can or cannot be reached, as events. What changes back and forth faster than they are told is told once. */
import type { Events } from './events.ts';

/** A next hop, as events have it. */
export interface PeerFields {
  readonly dst: string;
  /** Where they are not the device's own. */
  readonly port?: number;
  readonly vni?: number;
}

interface Peer {
  readonly ifname: () => string;
  readonly fields: PeerFields;
  /** Why it cannot be reached, null when it can; undefined until that is known. */
  reason: string | null | undefined;
  /** As it was told last. */
  told: string | null | undefined;
}

/** Milliseconds from a change to its event, and events that are told at once: listeners are to keep up when all VTEPs change. */
const REST = 100;
const MOST = 500;

export class PeerEvents {
  readonly #events: Events;
  readonly #peers = new Map<number, Peer>();
  readonly #changed = new Set<number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(events: Events) {
    this.#events = events;
  }

  /** Frames may be sent to it from now on. `ifname`: of its device, which may be renamed. */
  add(index: number, ifname: () => string, fields: PeerFields): void {
    this.#peers.set(index, { ifname, fields, reason: undefined, told: undefined });
    this.#events.emit('peer', 'added', ifname(), { ...fields });
  }

  remove(index: number): void {
    const peer = this.#peers.get(index);
    if (!peer) return;
    this.#peers.delete(index);
    this.#changed.delete(index);
    this.#events.emit('peer', 'removed', peer.ifname(), { ...peer.fields });
  }

  /** `reason` null: it can be reached. */
  note(index: number, reason: string | null): void {
    const peer = this.#peers.get(index);
    if (!peer || peer.reason === reason) return;
    peer.reason = reason;
    this.#changed.add(index);
    this.#timer ??= setTimeout(() => this.#tell(), REST).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #tell(): void {
    this.#timer = undefined;
    let told = 0;
    for (const index of this.#changed) {
      if (told++ >= MOST) {
        this.#timer = setTimeout(() => this.#tell(), REST).unref();
        return;
      }
      this.#changed.delete(index);
      const peer = this.#peers.get(index)!;
      const { reason } = peer;
      if (reason === undefined || reason === peer.told) continue;
      peer.told = reason;
      const fields = reason === null ? peer.fields : { ...peer.fields, reason };
      this.#events.emit('peer', reason === null ? 'up' : 'down', peer.ifname(), { ...fields });
    }
  }
}
