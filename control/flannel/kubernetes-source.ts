import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import type { Log } from '../log.ts';
import { compareConf } from './conf-change.ts';
import { Feed } from './feed.ts';
import { DocumentError, isMap } from './keys.ts';
import { type KubeAccess, kubeconfigAccess, plainAccess, podAccess } from './kube-access.ts';
import { GoneError, KubeClient, type KubeClientOptions, type KubeEvent, type KubeObject } from './kube-client.ts';
import type { Endpoint, PerFamily } from './lease.ts';
import { type NetConf, parseNetConf } from './net-conf.ts';
import { NodeAnnotations } from './node-annotations.ts';
import { NodeRegistration } from './node-registration.ts';
import type { Reading } from './reading.ts';
import { Backoff, insist, pause, retryAfter } from './retry.ts';
import { type Source, type SourceListener, type SourceStatus, StoppedError } from './source.ts';

export interface KubernetesSourceOptions {
  /** Without either, the service account of the pod that we run in. */
  readonly kubeconfigFile?: string | undefined;
  readonly apiUrl?: string | undefined;
  /** `flannel.alpha.coreos.com` */
  readonly annotationPrefix: string;
  /** `/etc/kube-flannel/net-conf.json` */
  readonly netConfPath: string;
  /** NODE_NAME; without it POD_NAME and POD_NAMESPACE, from which the API server tells the node. */
  readonly environment: NodeJS.ProcessEnv;
  /** Whether ready() changes the node's condition NetworkUnavailable. */
  readonly setNodeNetworkUnavailable: boolean;
  readonly log: Log;
  readonly client?: KubeClientOptions;
}

/** Milliseconds, as client-go's reflector has them. */
const FIRST_PAUSE = 800;
const LONGEST_PAUSE = 30_000;
/** Milliseconds between looks at the file with the network configuration. */
const CONF_PERIOD = 1_000;
/** A watch that has stood for so long is a good one. */
const SETTLED = 2_000;
const NODES = '/api/v1/nodes';

/** A cluster in Kubernetes: each node's lease is in its annotations, and its subnet is its podCIDR. */
export class KubernetesSource implements Source {
  readonly name: string;
  readonly #client: KubeClient;
  readonly #options: KubernetesSourceOptions;
  readonly #annotations: NodeAnnotations;
  readonly #feed: Feed;
  readonly #stop = new AbortController();
  readonly #onConf = () => this.#compareConf();
  #conf: NetConf | undefined;
  #node: string | undefined;
  #registration: NodeRegistration | undefined;
  /** Where the watch goes on; undefined: after a new list. */
  #version: string | undefined;
  #running: Promise<unknown> | undefined;

  /** Throws DocumentError when there is no telling where the API server is. */
  constructor(options: KubernetesSourceOptions) {
    this.#options = options;
    this.#client = new KubeClient(accessOf(options), options.client);
    this.name = `Kubernetes at ${this.#client.origin}`;
    this.#annotations = new NodeAnnotations(options.annotationPrefix);
    this.#feed = new Feed(options.log);
    const { NODE_NAME, POD_NAME, POD_NAMESPACE } = options.environment;
    this.#node = NODE_NAME || undefined;
    if (!NODE_NAME && !(POD_NAME && POD_NAMESPACE)) {
      throw new DocumentError(['which node is this? Set NODE_NAME, or POD_NAME and POD_NAMESPACE, in the environment']);
    }
  }

  get faults() {
    return this.#feed.faults.counts;
  }

  get status(): SourceStatus {
    const problem = this.#feed.problem ?? this.#registration?.problem ?? null;
    return { connected: problem === null, problem, leaseEnds: null };
  }

  async netConf(): Promise<NetConf> {
    const { netConfPath, log } = this.#options;
    let text: string;
    try {
      text = readFileSync(netConfPath, 'utf8');
    } catch (error) {
      throw new DocumentError([`cannot read ${netConfPath} (${(error as NodeJS.ErrnoException).code})`]);
    }
    const { conf, notes } = parseNetConf(text, netConfPath);
    for (const note of notes) log(note, { level: 'warn' });
    this.#conf = conf;
    // A ConfigMap's files change while the pod runs.
    watchFile(netConfPath, { interval: CONF_PERIOD, persistent: false }, this.#onConf);
    return conf;
  }

  #compareConf(): void {
    const { netConfPath } = this.#options;
    let text: string;
    try {
      text = readFileSync(netConfPath, 'utf8');
    } catch {
      return; // it is being replaced, or gone: what it said goes on
    }
    compareConf(this.#feed.faults, text, netConfPath, this.#conf!);
  }

  async publicIps(): Promise<PerFamily<string>> {
    return this.#annotations.nodePublicIps(await this.#ownNode());
  }

  async vtepMacs(): Promise<PerFamily<string>> {
    return this.#annotations.vtepMacs(await this.#ownNode());
  }

  start(own: PerFamily<Endpoint>, listener: SourceListener): void {
    this.#feed.open(listener);
    this.#running = this.#run(own).catch((error) => {
      if (!this.#stop.signal.aborted) throw error;
    });
  }

  register(own: PerFamily<Endpoint>): void {
    this.#registration?.register(own);
  }

  ready(): void {
    if (this.#options.setNodeNetworkUnavailable) this.#registration?.setAvailable();
  }

  async stop(): Promise<void> {
    this.#feed.close();
    unwatchFile(this.#options.netConfPath, this.#onConf);
    this.#stop.abort(new StoppedError());
    await this.#running;
    this.#client.close();
  }

  async #run(own: PerFamily<Endpoint>): Promise<void> {
    const node = await this.#nodeName();
    this.#registration = new NodeRegistration({
      node,
      own,
      conf: this.#conf!,
      client: this.#client,
      annotations: this.#annotations,
      feed: this.#feed,
      signal: this.#stop.signal,
    });
    const backoff = new Backoff(FIRST_PAUSE, LONGEST_PAUSE, this.#options.client?.random);
    for (;;) {
      let wait = 0;
      try {
        this.#version ??= await this.#list();
        const start = performance.now();
        await this.#watch(this.#version, backoff);
        // It has run its time. Events must not wait, unless a server ends each watch at once.
        if (performance.now() - start > SETTLED) continue;
      } catch (error) {
        this.#stop.signal.throwIfAborted();
        if (error instanceof GoneError) this.#listAnew(error);
        else this.#feed.failed(error);
        wait = retryAfter(error);
      }
      await pause(backoff, this.#stop.signal, wait);
    }
  }

  async #list(): Promise<string> {
    const readings = new Map<string, Reading>();
    let own: KubeObject | undefined;
    let nodes = 0;
    const take = (node: KubeObject) => {
      nodes++;
      if (node.metadata.name === this.#node) own = node;
      const reading = this.#annotations.read(node, this.#conf!);
      if (reading) readings.set(node.metadata.name, reading);
    };
    const version = await this.#client.list(NODES, take, this.#stop.signal);
    // A cluster does not lose all of its nodes, this one among them, but a server may lose its data.
    if (nodes === 0 && this.#feed.peers.leases.size > 0) throw new Error(`${this.name} lists no node at all any more`);
    this.#registration!.see(own);
    // Nobody is another node than the one that we are, before we know what we are.
    readings.delete(this.#node!);
    this.#feed.peers.replace(readings);
    this.#feed.list();
    this.#feed.answered(this.name);
    return version;
  }

  async #watch(version: string, backoff: Backoff): Promise<void> {
    const events = await this.#client.watch(NODES, version, this.#stop.signal);
    const isGood = () => {
      this.#feed.answered(this.name);
      backoff.reset();
    };
    // In a quiet cluster nothing may come for minutes.
    const timer = setTimeout(isGood, SETTLED);
    try {
      for await (const event of events) {
        this.#version = event.version;
        if (event.type !== 'BOOKMARK') this.#take(event);
        this.#feed.change();
        isGood();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #take({ type, object }: KubeEvent): void {
    const { name } = object.metadata;
    const node = type === 'DELETED' ? undefined : object;
    if (name === this.#node) {
      this.#registration!.see(node);
      return;
    }
    const reading = node && this.#annotations.read(node, this.#conf!);
    if (reading) this.#feed.peers.update(name, reading);
    else this.#feed.peers.remove(name);
  }

  #listAnew({ message }: GoneError): void {
    this.#version = undefined;
    this.#feed.faults.counts.relist++;
    this.#options.log(`${message}: reading the whole list again`, { level: 'warn' });
  }

  async #ownNode(): Promise<KubeObject> {
    const name = await this.#nodeName();
    return this.#insist(() => this.#client.get(`${NODES}/${encodeURIComponent(name)}`, this.#stop.signal));
  }

  async #nodeName(): Promise<string> {
    const { POD_NAME: pod = '', POD_NAMESPACE: namespace = '' } = this.#options.environment;
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(pod)}`;
    this.#node ??= await this.#insist(async () => {
      const { spec } = await this.#client.get(path, this.#stop.signal);
      if (isMap(spec) && typeof spec.nodeName === 'string') return spec.nodeName;
      throw new Error(`the pod ${namespace}/${pod} has no spec.nodeName`);
    });
    return this.#node;
  }

  async #insist<T>(ask: () => Promise<T>): Promise<T> {
    const backoff = new Backoff(FIRST_PAUSE, LONGEST_PAUSE, this.#options.client?.random);
    const answer = await insist(ask, (error) => this.#feed.failed(error), backoff, this.#stop.signal);
    this.#feed.answered(this.name);
    return answer;
  }
}

function accessOf({ kubeconfigFile, apiUrl, environment }: KubernetesSourceOptions): KubeAccess {
  if (kubeconfigFile) return kubeconfigAccess(kubeconfigFile, apiUrl);
  return apiUrl ? plainAccess(apiUrl) : podAccess(environment);
}
