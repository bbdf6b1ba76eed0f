import type { FaultCounts } from './faults.ts';
import type { Endpoint, Lease, PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';

/**
 * Where the state of a flannel cluster is kept: a file, etcd, or the Kubernetes API. A source tells what the cluster should be; what
 * this node is, and the difference between the two, are the reconciler's.
 *
 * A source never gives up: what cannot be read now is read again later, with a growing pause, and what was known stays known until then.
 * What is wrong in the cluster's state is one line in the log and one more in `faults`, and keeps nobody else's lease from being used.
 */
export interface Source {
  /** For logs: `etcd at https://192.0.2.10:2379`. */
  readonly name: string;
  readonly faults: FaultCounts;
  readonly status: SourceStatus;

  /**
   * The cluster's network configuration; waits until the server has one that is right. Rejects after stop() with StoppedError, and
   * with a DocumentError when it stands in a file of this machine that is wrong.
   */
  netConf(): Promise<NetConf>;

  /**
   * Public IPs that the cluster has fixed for this node from outside (Kubernetes: the annotations node-public-ip, node-public-ipv6), to be
   * taken instead of the NIC's own. After netConf(); rejects as it does.
   */
  publicIps(): Promise<PerFamily<string>>;

  /**
   * MAC addresses that the cluster remembers of this node, known by name or, in etcd, by its public IPs: taken again after a restart, they
   * leave the other nodes' entries valid. After netConf(); rejects as it does.
   */
  vtepMacs(publicIps: PerFamily<string>): Promise<PerFamily<string>>;

  /** Registers this node and follows all others, until stop(). After netConf(). */
  start(own: PerFamily<Endpoint>, listener: SourceListener): void;

  /** Registers this node anew: its public IP or MAC address has changed. After start(). */
  register(own: PerFamily<Endpoint>): void;

  /** This node forwards: says so to the cluster (Kubernetes: the condition NetworkUnavailable becomes false). After onOwn(). */
  ready(): void;

  /** Ends all connections. This node's lease stays, so that a restart finds it again. */
  stop(): Promise<void>;
}

export interface SourceListener {
  /**
   * Other nodes came, changed, or went. `peers` is all of them by `Lease.node`, and stays the source's: a node of `changed` that is not in it
   * is gone. Called first when the whole list has been read, even when it is empty; after that only for what has changed, also
   * when the list had to be read again.
   */
  onPeers(peers: ReadonlyMap<string, Lease>, changed: ReadonlySet<string>): void;

  /** This node's own lease, first after it has been registered, and again whenever anything in it has changed. */
  onOwn(lease: Lease): void;
}

export interface SourceStatus {
  /** Whether the last answer was a good one and the watch is up. While false, the last good state goes on. */
  readonly connected: boolean;
  /** Why it is not connected: one clause without secrets. */
  readonly problem: string | null;
  /** Milliseconds on performance.now()'s clock at which this node's lease ends when nobody renews it; null when it never does. */
  readonly leaseEnds: number | null;
}

/** The source was stopped while somebody waited for its answer. */
export class StoppedError extends Error {
  constructor() {
    super('the source was stopped');
  }
}
