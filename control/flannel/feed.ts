import { FaultLog } from './faults.ts';
import { type Lease, sameLease } from './lease.ts';
import { Peers } from './peers.ts';
import type { SourceListener } from './source.ts';

/** What every source has towards its listener: the peers, this node's lease, and the faults. */
export class Feed {
  readonly faults: FaultLog;
  readonly peers: Peers;
  #listener: SourceListener | undefined;
  #own: Lease | undefined;
  #listed = false;

  constructor(log: (line: string) => void) {
    this.faults = new FaultLog(log);
    this.peers = new Peers(this.faults);
  }

  get own(): Lease | undefined {
    return this.#own;
  }

  open(listener: SourceListener): void {
    this.#listener = listener;
  }

  close(): void {
    this.#listener = undefined;
  }

  /** The whole list has been read into `peers`. */
  list(): void {
    this.#listed = true;
    this.#listener?.onPeers(this.peers.leases, this.peers.takeChanged());
  }

  /** Tells what has changed in `peers`; nothing before there was a list. */
  change(): void {
    if (!this.#listed) return;
    const changed = this.peers.takeChanged();
    if (changed.size > 0) this.#listener?.onPeers(this.peers.leases, changed);
  }

  setOwn(lease: Lease): void {
    if (this.#own !== undefined && sameLease(this.#own, lease)) return;
    this.#own = lease;
    this.#listener?.onOwn(lease);
    this.peers.setOwn(lease);
    this.change();
  }
}
