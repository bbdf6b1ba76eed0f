import { contains, parsePrefix } from '../../wire/prefix.ts';
import type { Feed } from './feed.ts';
import type { KubeClient, KubeObject } from './kube-client.ts';
import type { Endpoint, PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';
import { isNetworkAvailable, type NodeAnnotations, networkAvailable, podSubnets } from './node-annotations.ts';
import { ownLease } from './reading.ts';
import { Backoff, pause, retryAfter } from './retry.ts';

export interface NodeRegistrationOptions {
  readonly node: string;
  readonly own: PerFamily<Endpoint>;
  readonly conf: NetConf;
  readonly client: KubeClient;
  readonly annotations: NodeAnnotations;
  readonly feed: Feed;
  readonly signal: AbortSignal;
}

/** Milliseconds between attempts, and between repairs of what somebody else keeps changing. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;

/**
 * Keeps this node's object in Kubernetes as it should be: annotations, and the condition once it forwards. Compares it with every event,
 * so that annotations that went (the node was deleted and has registered again, say) are put back.
 */
export class NodeRegistration {
  readonly #options: NodeRegistrationOptions;
  #own: PerFamily<Endpoint>;
  /** As it was last seen; undefined while it is not there. */
  #seen: KubeObject | undefined;
  #isAvailable = false;
  #isRunning = false;
  /** What was written last, and when. */
  #written = '';
  #writtenAt = 0;
  readonly #repairs = new Backoff(FIRST_PAUSE, LONGEST_PAUSE);
  #problem: string | null = null;

  constructor(options: NodeRegistrationOptions) {
    this.#options = options;
    this.#own = options.own;
  }

  /** Why the node is not registered; null when it is. */
  get problem(): string | null {
    return this.#problem;
  }

  register(own: PerFamily<Endpoint>): void {
    this.#own = own;
    this.#wake();
  }

  setAvailable(): void {
    this.#isAvailable = true;
    this.#wake();
  }

  see(node: KubeObject | undefined): void {
    this.#seen = node;
    this.#wake();
  }

  #wake(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#settle().catch((error) => {
      if (!this.#options.signal.aborted) throw error;
    });
  }

  /** Writes until there is nothing left to write. */
  async #settle(): Promise<void> {
    const { node, client, feed, signal } = this.#options;
    const backoff = new Backoff(FIRST_PAUSE, LONGEST_PAUSE);
    for (;;) {
      const patch = this.#patch();
      if (patch === undefined) break;
      const what = JSON.stringify(patch.metadata ?? 'condition');
      // Written before: either this is an event from before that, or somebody writes something else all the time.
      if (what === this.#written && performance.now() - this.#writtenAt < LONGEST_PAUSE * 2) {
        await pause(this.#repairs, signal);
        if (JSON.stringify(this.#patch()?.metadata ?? 'condition') !== what) continue;
      } else this.#repairs.reset();
      try {
        const path = `/api/v1/nodes/${encodeURIComponent(node)}/status`;
        const seen = await client.patch(path, patch, signal);
        this.#written = what;
        this.#writtenAt = performance.now();
        if (this.#seen !== undefined) this.#seen = seen;
        this.#problem = null;
        feed.faults.clear('registration', `the node ${node} is registered`);
      } catch (error) {
        signal.throwIfAborted();
        this.#problem = (error as Error).message;
        feed.faults.note('no_lease', 'registration', `cannot register this node: ${this.#problem}; trying again`);
        await pause(backoff, signal, retryAfter(error));
      }
    }
    this.#isRunning = false;
  }

  /** What has to be written; undefined when nothing has to or can be. Tells the lease on the way, once it is all there. */
  #patch(): { metadata?: object; status?: object } | undefined {
    const node = this.#seen;
    if (node === undefined) return this.#lack('there is no such node in the cluster');
    const { annotations, conf, feed } = this.#options;
    const subnets = this.#subnets(node);
    if (subnets === undefined) return undefined;
    const own = annotations.overwritten(node, this.#own);
    const missing = annotations.missing(node, own, conf);
    if (Object.keys(missing).length > 0) return { metadata: { annotations: missing } };
    this.#problem = null;
    feed.faults.clear('own', `node ${this.#options.node} has its lease`);
    feed.setOwn(ownLease(this.#options.node, own, subnets));
    if (!this.#isAvailable || isNetworkAvailable(node)) return undefined;
    return { status: { conditions: [networkAvailable(new Date())] } };
  }

  #subnets(node: KubeObject): PerFamily<string> | undefined {
    const { conf } = this.#options;
    const subnets = podSubnets(node);
    const found = { ipv4: conf.ipv4 && subnets.ipv4, ipv6: conf.ipv6 && subnets.ipv6 };
    for (const family of ['ipv4', 'ipv6'] as const) {
      const [subnet, network] = [found[family], conf[family]?.network];
      if (this.#own[family] === null || network === undefined) continue;
      const prefix = subnet === null ? undefined : parsePrefix(subnet);
      const name = family === 'ipv4' ? 'IPv4' : 'IPv6';
      if (prefix === undefined)
        return this.#lack(`it has no ${name} podCIDR (does the controller manager allocate them?)`);
      if (!contains(parsePrefix(network)!, prefix)) {
        return this.#lack(`its podCIDR ${subnet} is outside the network ${network} of net-conf.json`);
      }
    }
    return found;
  }

  #lack(reason: string): undefined {
    const { feed, node } = this.#options;
    this.#problem = reason;
    if (feed.own === undefined) feed.faults.note('no_lease', 'own', `node ${node} gets no lease: ${reason}; waiting`);
    else feed.faults.note('lease_lost', 'own', `node ${node} has lost its lease: ${reason}; going on with what it was`);
  }
}
