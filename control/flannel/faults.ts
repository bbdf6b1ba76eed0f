/** What can be wrong with a cluster's state or with getting at it: kind, and what it means. Each is a counter. */
import type { Log } from '../log.ts';

export const FAULTS = {
  net_conf: 'the network configuration does not parse or contradicts itself: the last good one stays',
  lease: "a node's lease or annotations do not parse: what was known of the node stays",
  subnet_outside: "a node's subnet is outside the cluster's network: the node is left out",
  subnet_taken: 'a subnet that is, or overlaps, that of another node: whoever had it first keeps it',
  mac_taken: 'a MAC address that another node has: whoever had it first keeps it',
  vni: "a node's VNI is not the cluster's: the node is left out",
  backend_type: "a node's backend is not the cluster's: the node is left out, as flannel does",
  own_taken: "a lease that claims this node's subnet, MAC address or public IP: it is left out",
  lease_lost: "this node's lease ended or was taken away: a new one is asked for",
  no_lease: 'this node could not get a lease: asked for again',
  unreachable: 'the server did not answer, or refused: asked again with growing pauses',
  answer: 'the server answered what makes no sense: asked again with growing pauses',
  relist: 'events were lost (compaction, an expired resourceVersion): the whole list was read again',
} as const;

export type FaultKind = keyof typeof FAULTS;
export type FaultCounts = Readonly<Record<FaultKind, number>>;

/**
 * Counts faults and logs them, each once for as long as it lasts: a server that is down for an hour, or a node that is wrong in every
 * event, is one line.
 */
export class FaultLog {
  readonly counts: Record<FaultKind, number>;
  readonly #log: Log;
  /** What the log has last said about each thing. */
  readonly #said = new Map<string, string>();

  constructor(log: Log) {
    this.#log = log;
    this.counts = Object.fromEntries(Object.keys(FAULTS).map((kind) => [kind, 0])) as Record<FaultKind, number>;
  }

  /** `about` is what is wrong (a node, a server), `message` the line: what, where, and what becomes of it. */
  note(kind: FaultKind, about: string, message: string): void {
    if (this.#said.get(about) === message) return;
    this.counts[kind]++;
    this.#said.set(about, message);
    this.#log(message, { level: 'warn' });
  }

  /** Nothing is wrong with it any more; `message`, when given, is logged if something was. */
  clear(about: string, message?: string): void {
    if (this.#said.delete(about) && message !== undefined) this.#log(message);
  }
}
