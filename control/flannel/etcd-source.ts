import type { Log } from '../log.ts';
import { compareConf } from './conf-change.ts';
import { EtcdClient, type EtcdOptions, type KeyEvent, type KeyValue, LostHistoryError } from './etcd-client.ts';
import { parseLeaseValue, readLease } from './etcd-lease.ts';
import { NoSubnetError, type Ranges, type Registration, registerNode } from './etcd-registration.ts';
import { Feed } from './feed.ts';
import { type Credentials, parseHttpUrl, readCredential } from './http.ts';
import { DocumentError } from './keys.ts';
import type { Endpoint, PerFamily } from './lease.ts';
import { type NetConf, parseNetConf } from './net-conf.ts';
import { ownLease, vtepMacOf } from './reading.ts';
import { Backoff, insist, pause } from './retry.ts';
import { type Source, type SourceListener, type SourceStatus, StoppedError } from './source.ts';
import { subnetRange } from './subnet-range.ts';

export interface EtcdSourceOptions {
  /** Base URLs, as --etcd-endpoints has them. */
  readonly endpoints: readonly string[];
  /** `/coreos.com/network` */
  readonly prefix: string;
  /** PEM files, read anew for every connection. */
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Milliseconds before its end at which the lease is renewed. */
  readonly renewMargin: number;
  /** From subnet.env: what this node had before it was started. */
  readonly previousSubnets: PerFamily<string>;
  readonly log: Log;
  readonly random?: () => number;
  readonly client?: Pick<EtcdOptions, 'silence' | 'patience'>;
}

/** Milliseconds: pauses after failures, and between looks for a configuration or a free subnet. */
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 15_000;
const LONGEST_CONF_PAUSE = 5_000;
const NO_SUBNET_PAUSE = 30_000;
const SOONEST_RENEWAL = 1_000;
const RACE_PAUSE = 50;
/** A watch that has stood for so long is a good one. */
const SETTLED = 2_000;

/** Something in the state needs the list to be read again; nothing is wrong with the server. */
class ListAgain extends Error {}

/** A cluster in etcd v3, as flannel keeps it without Kubernetes: a key for each node under a lease of 24 hours. */
export class EtcdSource implements Source {
  readonly name: string;
  readonly #client: EtcdClient;
  readonly #options: EtcdSourceOptions;
  readonly #feed: Feed;
  /** `/coreos.com/network/` */
  readonly #root: string;
  readonly #confKey: string;
  /** `/coreos.com/network/subnets/` */
  readonly #directory: string;
  readonly #stop = new AbortController();
  #conf: NetConf | undefined;
  #ranges: Ranges | undefined;
  #own: PerFamily<Endpoint> | undefined;
  #registration: Registration | undefined;
  #previous: PerFamily<string>;
  #renewal: NodeJS.Timeout | undefined;
  #leaseEnds: number | null = null;
  /** Pauses while another node takes our key as often as we take it back. */
  readonly #contest = new Backoff(FIRST_PAUSE, LONGEST_PAUSE);
  #isContested = false;
  #lostAt = Number.NEGATIVE_INFINITY;
  /** Ends a watch so that the list is read again. */
  #again = new AbortController();
  #running: Promise<void> | undefined;

  /** Throws DocumentError when an endpoint is no URL. */
  constructor(options: EtcdSourceOptions) {
    this.#options = options;
    this.#feed = new Feed(options.log);
    this.#previous = options.previousSubnets;
    this.#root = `/${options.prefix.replace(/^\/+|\/+$/g, '')}/`;
    this.#confKey = `${this.#root}config`;
    this.#directory = `${this.#root}subnets/`;
    const isUrl = options.endpoints.every((endpoint) => parseHttpUrl(endpoint));
    if (!isUrl || options.endpoints.length === 0) {
      throw new DocumentError(['--etcd-endpoints is not a list of URLs such as https://192.0.2.10:2379']);
    }
    // Without the user and password that a URL may have.
    this.name = `etcd at ${options.endpoints.map((endpoint) => new URL(endpoint).origin).join(', ')}`;
    const { username, password } = options;
    this.#client = new EtcdClient({
      ...options.client,
      endpoints: options.endpoints,
      credentials: () => readCredentials(options),
      username,
      password,
    });
  }

  get faults() {
    return this.#feed.faults.counts;
  }

  get status(): SourceStatus {
    return { connected: this.#feed.problem === null, problem: this.#feed.problem, leaseEnds: this.#leaseEnds };
  }

  async netConf(): Promise<NetConf> {
    return this.#insist(async () => {
      const { kvs } = await this.#client.range(this.#confKey, false, this.#stop.signal);
      if (kvs.length === 0) {
        throw new DocumentError([`${this.#confKey}: is not there: put flannel's net-conf.json into it`]);
      }
      const { conf, notes } = parseNetConf(kvs[0].value, this.#confKey);
      this.#ranges = this.#rangesOf(conf);
      for (const note of notes) this.#options.log(note, { level: 'warn' });
      this.#conf = conf;
      return conf;
    });
  }

  async publicIps(): Promise<PerFamily<string>> {
    return { ipv4: null, ipv6: null };
  }

  async vtepMacs(publicIps: PerFamily<string>): Promise<PerFamily<string>> {
    return this.#insist(async () => {
      const { kvs } = await this.#client.range(this.#directory, true, this.#stop.signal);
      const value = kvs.map(parseLeaseValue).find((each) => each?.PublicIP === publicIps.ipv4);
      return { ipv4: vtepMacOf(value?.BackendData), ipv6: vtepMacOf(value?.BackendV6Data) };
    });
  }

  start(own: PerFamily<Endpoint>, listener: SourceListener): void {
    this.#feed.open(listener);
    this.#own = own;
    this.#running = this.#run();
  }

  register(own: PerFamily<Endpoint>): void {
    this.#own = own;
    this.#again.abort(new ListAgain());
  }

  /** etcd has nothing to be told. */
  ready(): void {}

  async stop(): Promise<void> {
    this.#feed.close();
    clearTimeout(this.#renewal);
    this.#stop.abort(new StoppedError());
    await this.#running;
    this.#client.close();
  }

  async #run(): Promise<void> {
    const backoff = new Backoff(FIRST_PAUSE, LONGEST_PAUSE, this.#options.random);
    while (!this.#stop.signal.aborted) {
      this.#again = new AbortController();
      try {
        if (this.#isContested) await pause(this.#contest, this.#stop.signal);
        this.#isContested = false;
        await this.#follow(AbortSignal.any([this.#stop.signal, this.#again.signal]), backoff);
      } catch (error) {
        if (error instanceof ListAgain || this.#stop.signal.aborted) continue;
        if (error instanceof LostHistoryError) this.#listAnew(error);
        else this.#feed.failed(error);
        await pause(backoff, this.#stop.signal).catch(() => {});
      }
    }
  }

  /** Lists, registers, and watches until the list has to be read again. */
  async #follow(signal: AbortSignal, backoff: Backoff): Promise<void> {
    const { kvs: all, at } = await this.#client.range(this.#root, true, signal);
    const conf = all.find((kv) => kv.key === this.#confKey);
    // Not a cluster that all nodes have left, but an etcd that has lost its data.
    if (conf === undefined) throw new Error(`${this.#confKey} is gone`);
    compareConf(this.#feed.faults, conf.value, this.#confKey, this.#conf!);
    const kvs = all.filter(({ key }) => key.startsWith(this.#directory));
    await this.#register(kvs, signal);
    const readings = kvs.map((kv) => [this.#nameOf(kv), readLease(this.#nameOf(kv), kv, this.#conf!)] as const);
    this.#feed.peers.replace(new Map(readings.flatMap(([name, reading]) => (reading ? [[name, reading]] : []))));
    this.#feed.list();
    for (let position = at; ; ) {
      const start = performance.now();
      try {
        for await (const batch of this.#client.watch(this.#root, position, signal)) {
          position = batch.at;
          for (const event of batch.events) this.#take(event);
          this.#feed.change();
          this.#feed.answered(this.name);
          backoff.reset();
        }
        // Nothing came for a while. Events must not wait, unless a server ends each watch at once.
        if (performance.now() - start > SETTLED) continue;
      } catch (error) {
        if (error instanceof LostHistoryError || signal.aborted) throw error;
        this.#feed.failed(error);
      }
      await pause(backoff, signal);
    }
  }

  #listAnew({ message }: LostHistoryError): void {
    this.#feed.faults.counts.relist++;
    this.#options.log(`${this.name}: ${message}: reading the whole list again`, { level: 'warn' });
  }

  #take({ type, kv }: KeyEvent): void {
    if (kv.key === this.#confKey && type === 'put') {
      compareConf(this.#feed.faults, kv.value, this.#confKey, this.#conf!);
    }
    if (!kv.key.startsWith(this.#directory)) return;
    const name = this.#nameOf(kv);
    if (name === this.#registration?.name) {
      if (type === 'put' && kv.value === this.#registration.value) return;
      this.#lose(type === 'delete' ? `the key ${kv.key} is gone` : `the key ${kv.key} is another node's now`);
    }
    const reading = type === 'put' ? readLease(name, kv, this.#conf!) : undefined;
    if (reading) this.#feed.peers.update(name, reading);
    else this.#feed.peers.remove(name);
  }

  #lose(reason: string): void {
    const now = performance.now();
    this.#isContested = now - this.#lostAt < 2 * LONGEST_PAUSE;
    if (!this.#isContested) this.#contest.reset();
    this.#lostAt = now;
    this.#feed.faults.note('lease_lost', 'own lease', `this node has lost its lease: ${reason}; asking for a new one`);
    this.#registration = undefined;
    this.#again.abort(new ListAgain());
  }

  async #register(kvs: readonly KeyValue[], signal: AbortSignal): Promise<void> {
    const had = this.#registration;
    const found = had && kvs.find((kv) => this.#nameOf(kv) === had.name);
    if (had && found?.value !== had.value)
      this.#lose(`the key ${this.#directory}${had.name} is ${found ? 'another' : 'gone'}`);
    const [own, conf, ranges] = [this.#own!, this.#conf!, this.#ranges!];
    const wish = { own, conf, ranges, previous: this.#previous, random: this.#options.random ?? Math.random };
    try {
      this.#registration = await registerNode(this.#client, this.#directory, kvs, wish, signal);
    } catch (error) {
      if (!(error instanceof NoSubnetError)) throw error;
      this.#feed.faults.note('no_lease', 'own', `this node gets no lease: ${error.message}`);
      this.#after(NO_SUBNET_PAUSE, () => this.#again.abort(new ListAgain()));
      return;
    }
    if (this.#registration === undefined) {
      // Not in step with whoever was faster.
      await pause(new Backoff(RACE_PAUSE, RACE_PAUSE), signal);
      throw new ListAgain();
    }
    const { name, subnets } = this.#registration;
    this.#previous = subnets;
    this.#scheduleRenewal(this.#registration);
    this.#feed.faults.clear('own');
    this.#feed.faults.clear('own lease', `this node has a lease again: ${name}`);
    this.#feed.setOwn(ownLease(name, own, subnets));
  }

  #scheduleRenewal({ lease }: Registration): void {
    clearTimeout(this.#renewal);
    this.#leaseEnds = lease ? performance.now() + lease.seconds * 1000 : null;
    if (!lease) return;
    // The server may have made the lease shorter than the margin.
    const patience = Math.max(lease.seconds * 1000 - this.#options.renewMargin, SOONEST_RENEWAL);
    this.#after(patience, () => this.#renew(new Backoff(1000, 60_000, this.#options.random)));
  }

  async #renew(backoff: Backoff): Promise<void> {
    const registration = this.#registration;
    if (!registration?.lease) return;
    try {
      const seconds = await this.#client.keepAlive(registration.lease.id, this.#stop.signal);
      if (registration !== this.#registration) return;
      this.#feed.answered(this.name);
      if (seconds > 0) this.#scheduleRenewal({ ...registration, lease: { ...registration.lease, seconds } });
      else this.#lose('it ended before it was renewed');
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#feed.failed(error);
      this.#after(backoff.pause(), () => this.#renew(backoff));
    }
  }

  /** The one timer: of the lease, or of the wait for one. */
  #after(milliseconds: number, then: () => void): void {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(then, milliseconds);
  }

  #insist<T>(ask: () => Promise<T>): Promise<T> {
    const backoff = new Backoff(FIRST_PAUSE, LONGEST_CONF_PAUSE, this.#options.random);
    const answer = async () => {
      const answer = await ask();
      this.#feed.answered(this.name);
      this.#feed.faults.clear('net-conf');
      return answer;
    };
    return insist(answer, (error) => this.#noteFailure(error), backoff, this.#stop.signal);
  }

  #rangesOf({ ipv4, ipv6 }: NetConf): Ranges {
    if (ipv4 === null) {
      throw new DocumentError([`${this.#confKey}: EnableIPv4: is off, but a lease in etcd has an IPv4 subnet always`]);
    }
    const ranges = [ipv4, ipv6].map((network) => network && subnetRange(network));
    const problems = ranges.filter((range) => typeof range === 'string');
    if (problems.length > 0) throw new DocumentError(problems.map((problem) => `${this.#confKey}: ${problem}`));
    return { ipv4: ranges[0], ipv6: ranges[1] } as Ranges;
  }

  /** What is wrong with the configuration may be mended meanwhile; everything else is the server's. */
  #noteFailure(error: unknown): void {
    if (!(error instanceof DocumentError)) {
      this.#feed.failed(error);
      return;
    }
    const problems = error.message.replaceAll('\n', '; ');
    this.#feed.faults.note('net_conf', 'net-conf', `${problems}: waiting for a better one`);
  }

  #nameOf({ key }: KeyValue): string {
    return key.slice(this.#directory.length);
  }
}

function readCredentials({ caFile, certFile, keyFile }: EtcdSourceOptions): Credentials {
  const read = (file: string | undefined) => file && readCredential(file);
  return { ca: read(caFile), cert: read(certFile), key: read(keyFile) };
}
