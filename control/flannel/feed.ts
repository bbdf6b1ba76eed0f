import type { Log } from '../log.ts';
import { FaultLog } from './faults.ts';
import { HttpError, RefusedError } from './http.ts';
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
  #problem: string | null = null;

  constructor(log: Log) {
    this.faults = new FaultLog(log);
    this.peers = new Peers(this.faults);
  }

  get own(): Lease | undefined {
    return this.#own;
  }

  /** Why the server does not answer as it should; null when it does. */
  get problem(): string | null {
    return this.#problem;
  }

  answered(server: string): void {
    this.#problem = null;
    this.faults.clear('server', `${server} answers again`);
  }

  failed(error: unknown): void {
    const message = (error as Error).message ?? String(error);
    this.#problem = message;
    const kind = error instanceof HttpError || error instanceof RefusedError ? 'unreachable' : 'answer';
    this.faults.note(kind, 'server', `${message}: what is known stays, asking again`);
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
