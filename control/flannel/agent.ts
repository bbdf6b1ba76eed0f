/**
 * The node agent: what flanneld does, with uvxlan's dataplane in place of the kernel's vxlan device. It joins what the cluster says (Source),
 * what is to be on this host because of that (Reconciler, Backend), and who waits for it (subnet.env, probes, systemd).
 *
 *     source's events --+
 *     ip monitor -------+--> reconcile: devices -> addresses, neighbours, routes -> FDB -> rules --> subnet.env, ready
 *     every 4 seconds --+
 *
 * Nothing is taken away when the agent ends, so that packets flow on as soon as it is back.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { notify } from '../../system/notify.ts';
import { formatMac } from '../../wire/address.ts';
import { TAP_ALIAS } from '../device.ts';
import { Host } from '../host.ts';
import { MonitorProcess } from '../monitor-process.ts';
import { type Backend, HopelessError, HostGateway, type Wish } from './backend.ts';
import { chooseInterface, type ExternalInterface, familiesOf, type InterfaceWish } from './external-interface.ts';
import { type HealthView, serveHealth } from './health.ts';
import { type KeptState, keptStatePath, readKeptState, writeKeptState } from './kept-state.ts';
import { DocumentError } from './keys.ts';
import { type Endpoint, FAMILIES, type Family, type Lease, type PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';
import { type Depth, Reconciler, type ReconcilerOptions } from './reconciler.ts';
import { type Source, StoppedError } from './source.ts';
import { formatSubnetEnv, replaceFile } from './subnet-env.ts';
import { UdpOverlay } from './udp-backend.ts';
import { Vxlan, type VxlanOptions } from './vxlan-backend.ts';

export interface AgentOptions extends ReconcilerOptions, VxlanOptions {
  readonly source: Source;
  readonly interface: InterfaceWish;
  /** Addresses that other nodes reach this one at, where they are not the NIC's own. */
  readonly publicIp: PerFamily<string>;
  readonly subnetFile: string;
  /** Port 0: no probes. */
  readonly healthz: { readonly ip: string; readonly port: number };
}

/** Milliseconds between looks for what no event tells of. */
const PERIOD = 4_000;
/** All is read again after so many milliseconds, should an event have been missed; and after so many times as long as it takes, at most LONGEST_REST. */
const ALL_AFTER = 120_000;
const REST = 2_000;
const LONGEST_REST = 600_000;
/** Milliseconds from an event of the host, which usually is one of many, to the comparison. */
const DEBOUNCE = 50;
/** Of the time, no more than one part in so many goes into comparisons that events of the host ask for. */
const SHARE = 5;
/** But in milliseconds no event waits longer: what is missing is to be back within seconds. */
const LONGEST_WAIT = 1_000;
/** Milliseconds until what failed is tried again: at first, and at most. */
const FIRST_RETRY = 500;
const LONGEST_RETRY = 30_000;
/** Milliseconds from a change to keeping it: the state of many nodes is a megabyte. */
const KEEP_AFTER = 500;
/** Lines of one kind that a log takes at a time. */
const SHOWN = 3;
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** Runs the agent until a signal ends it; returns the exit status. Rejects with what makes it impossible. */
export async function runAgent(options: AgentOptions): Promise<number> {
  const ended = new Promise<void>((resolve) => {
    for (const signal of SIGNALS) process.on(signal, () => resolve());
  });
  const agent = new Agent(options);
  try {
    await Promise.race([agent.start(), agent.failed, ended]);
    await Promise.race([agent.failed, ended]);
  } finally {
    notify('STOPPING=1');
    await agent.stop();
  }
  return 0;
}

export class Agent {
  /** Rejects with a HopelessError. */
  readonly failed: Promise<never>;
  #fail!: (error: HopelessError) => void;
  readonly #options: AgentOptions;
  readonly #host = new Host();
  readonly #statePath: string;
  #netConf: NetConf | undefined;
  /** What is wrong with the one that has been read since, and how often one was. */
  #confProblem: string | null = null;
  #confFaults = 0;
  #external: ExternalInterface | undefined;
  #own: Lease | undefined;
  #peers: ReadonlyMap<string, Lease> | undefined;
  /** Of the cluster, for this node (Source.publicIps). */
  #fixedIps: PerFamily<string> = { ipv4: null, ipv6: null };
  /** What this node is registered with. */
  #endpoint: PerFamily<Endpoint> | undefined;
  /** All of it together; undefined when anything has changed. */
  #wish: Wish | undefined;
  /** Whether links or addresses of the host have changed since the NIC was chosen. */
  #isMoved = false;
  #backend: Backend | undefined;
  #reconciler: Reconciler | undefined;
  #monitor: MonitorProcess | undefined;
  #health: Awaited<ReturnType<typeof serveHealth>> | undefined;

  readonly #stop = new AbortController();
  #ready = false;
  /** What was asked for since the running comparison has begun. */
  #pending: Depth | undefined;
  #running: Promise<void> = Promise.resolve();
  #isRunning = false;
  #timers = new Map<string, NodeJS.Timeout>();
  #notBefore = 0;
  #retry = FIRST_RETRY;
  /** When all is to be read again, as performance.now() counts. */
  #allAt = performance.now() + ALL_AFTER;
  /** What the log has said of failures, so that each is said once while it lasts. */
  #said = new Set<string>();
  /** What the log has said of nodes that get no route. */
  #offLink = '';
  #subnetEnv = '';
  /** Whether the kept state is the present one. */
  #isKept = true;
  #repairs = 0;
  #reconciliations = 0;
  #reconcileSeconds = 0;

  constructor(options: AgentOptions) {
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {}); // nobody may wait for it
    this.#options = options;
    this.#statePath = keptStatePath(options.subnetFile);
  }

  /** Resolves when this node is registered and follows the cluster, which takes as long as the cluster's server takes to answer. */
  async start(): Promise<void> {
    const { source, healthz, log } = this.#options;
    if (healthz.port !== 0) {
      const dataplane = async (): Promise<string> => (await this.#backend?.metrics?.()) ?? '';
      this.#health = await serveHealth(healthz.ip, healthz.port, () => this.view(), dataplane);
    }
    const kept = readKeptState(this.#statePath);
    if (kept) {
      log(`goes on with what was known before, ${kept.peers.size} peers, until ${source.name} answers`);
      await this.#begin(kept.netConf);
      [this.#own, this.#peers, this.#wish] = [kept.own, kept.peers, undefined];
      this.#kick('all');
    }
    try {
      const netConf = await this.#readNetConf();
      if (JSON.stringify(netConf) !== JSON.stringify(this.#netConf)) {
        if (this.#netConf) log('the network configuration is another one than before', { level: 'warn' });
        [this.#own, this.#peers, this.#wish] = [undefined, undefined, undefined];
        await this.#running;
        const before = this.#deviceNames();
        await this.#begin(netConf);
        await this.#removeDevices(before);
      }
      this.#fixedIps = await source.publicIps();
      this.#endpoint = await this.#findEndpoint();
      if (this.#isStopping) return;
      source.start(this.#endpoint, {
        onOwn: (lease) => {
          this.#own = lease;
          this.#changed();
        },
        onPeers: (peers) => {
          this.#peers = peers;
          this.#changed();
        },
      });
    } catch (error) {
      if (!(error instanceof StoppedError)) throw error;
    }
  }

  /** Ends what runs; devices, routes, neighbours and rules stay. */
  async stop(): Promise<void> {
    this.#stop.abort();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#monitor?.stop();
    await this.#health?.close();
    await this.#options.source.stop();
    await this.#running;
    this.#reconciler?.close();
    await this.#backend?.stop();
  }

  view(): HealthView {
    const { source } = this.#options;
    return {
      ready: this.#ready,
      problem: [...this.#said][0] ?? this.#confProblem ?? source.status.problem,
      peers: this.#peers?.size ?? 0,
      offLink: this.#reconciler?.offLink.length ?? 0,
      repairs: this.#repairs,
      reconciliations: this.#reconciliations,
      reconcileSeconds: this.#reconcileSeconds,
      source: source.status,
      faults: { ...source.faults, net_conf: source.faults.net_conf + this.#confFaults },
    };
  }

  /** Everything that depends on the network configuration, which is the first to be known. */
  async #begin(netConf: NetConf): Promise<void> {
    await this.#backend?.stop();
    this.#reconciler?.close();
    this.#netConf = netConf;
    this.#backend = openBackend(netConf, this.#options);
    this.#reconciler = new Reconciler(this.#host, this.#backend, this.#options);
    this.#external = await this.#waitForInterface();
    if (this.#monitor) return;
    this.#monitor = new MonitorProcess(
      this.#host.iproute.prefix,
      ['ip', 'monitor', 'label', 'link', 'address', 'route', 'neigh'],
      {
        onListening: () => this.#hostChanged(),
        onLine: (line) => {
          if (this.#concerns(line)) this.#hostChanged();
        },
        onComplaint: () => this.#hostChanged(), // events were lost; the NIC's are found with the next full comparison
      },
    );
    const beat = () => {
      this.#later('beat', PERIOD, beat);
      const isAll = performance.now() >= this.#allAt;
      if (isAll) this.#allAt = performance.now() + ALL_AFTER;
      this.#isMoved ||= isAll;
      this.#kick(isAll ? 'all' : 'cheap');
    };
    this.#later('beat', PERIOD, beat);
  }

  /** The NIC may come up after the agent, as at boot. */
  async #waitForInterface(): Promise<ExternalInterface> {
    for (let pause = FIRST_RETRY; ; pause = Math.min(2 * pause, LONGEST_RETRY)) {
      try {
        return await this.#chooseInterface();
      } catch (error) {
        this.#say((error as Error).message);
        await this.#pause(pause);
      }
    }
  }

  /** Rejects for one that stands in a wrong file; but waits for a better one where there is something to go on with. */
  async #readNetConf(): Promise<NetConf> {
    for (let pause = FIRST_RETRY; ; pause = Math.min(2 * pause, LONGEST_RETRY)) {
      try {
        const netConf = await this.#options.source.netConf();
        this.#confProblem = null;
        return netConf;
      } catch (error) {
        if (!(error instanceof DocumentError) || this.#netConf === undefined) throw error;
        const problem = error.message.replaceAll('\n', '; ');
        if (problem !== this.#confProblem) {
          this.#confFaults++;
          this.#options.log(`${problem}: going on with what was known before`, { level: 'warn' });
        }
        this.#confProblem = problem;
        await this.#pause(pause);
      }
    }
  }

  async #pause(milliseconds: number): Promise<void> {
    await sleep(milliseconds, undefined, { signal: this.#stop.signal }).catch(() => {
      throw new StoppedError();
    });
  }

  #chooseInterface(): Promise<ExternalInterface> {
    const except = [...this.#options.interface.except, ...this.#deviceNames()];
    return chooseInterface(this.#host, { ...this.#options.interface, except }, familiesOf(this.#netConf!));
  }

  get #isStopping(): boolean {
    return this.#stop.signal.aborted;
  }

  #deviceNames(): string[] {
    return FAMILIES.flatMap((family) => this.#backend?.overlays[family]?.device ?? []);
  }

  /** Those of another configuration, which nobody needs any more. */
  async #removeDevices(names: readonly string[]): Promise<void> {
    const needed = this.#deviceNames();
    for (const name of names) {
      if (needed.includes(name) || (await this.#host.link(name))?.alias !== TAP_ALIAS) continue;
      await this.#host.iproute.run('ip', ['link', 'del', 'dev', name]);
      this.#options.log(`removed ${name}, a device of the configuration before`);
    }
  }

  /** How other nodes are to reach this one. MAC addresses that they know already stay. */
  async #findEndpoint(): Promise<PerFamily<Endpoint>> {
    const publicIps = this.#publicIps();
    const needsMacs = this.#netConf!.backend.type === 'vxlan';
    const known = needsMacs ? await this.#options.source.vtepMacs(publicIps) : undefined;
    const endpoint = async (family: Family): Promise<Endpoint | null> => {
      const publicIp = publicIps[family];
      if (publicIp === null) return null;
      const mac =
        known && (known[family] ?? this.#own?.[family]?.vtepMac ?? (await this.#tapMac(family)) ?? randomMac());
      return { publicIp, vtepMac: mac ?? null };
    };
    return { ipv4: await endpoint('ipv4'), ipv6: await endpoint('ipv6') };
  }

  #publicIps(): PerFamily<string> {
    const { publicIp } = this.#options;
    const of = (family: Family): string | null => {
      const own = this.#external!.address[family];
      return own === null ? null : (publicIp[family] ?? this.#fixedIps[family] ?? own);
    };
    return { ipv4: of('ipv4'), ipv6: of('ipv6') };
  }

  /** Of a device that an earlier run has left. */
  async #tapMac(family: Family): Promise<string | undefined> {
    const device = this.#backend!.overlays[family]?.device;
    return device ? (await this.#host.link(device))?.mac : undefined;
  }

  /** Whether a line of `ip monitor` is about something that is the agent's, or that it depends on. */
  #concerns(line: string): boolean {
    // What is as it was put there is our own doing, and no reason to read all of it again.
    const differs = this.#reconciler?.differs(line);
    if (differs !== undefined) return differs;
    if (line.startsWith('[NEIGH]')) return this.#deviceNames().some((name) => line.includes(` dev ${name} `));
    if (line.startsWith('[ROUTE]')) {
      this.#isMoved ||= line.includes('default ');
      return !line.includes('table local');
    }
    const name = line.match(/^\[\w+\](?:Deleted )?\d+: ([^:@\s]+)/)?.[1];
    const isNic = name === this.#external!.nic.name;
    this.#isMoved ||= isNic;
    return isNic || this.#deviceNames().some((device) => device === name);
  }

  #hostChanged(): void {
    if (this.#timers.has('host') || this.#isStopping) return;
    const wait = Math.max(DEBOUNCE, this.#notBefore - performance.now());
    this.#later('host', wait, () => this.#kick('all'));
  }

  #later(name: string, milliseconds: number, action: () => void): void {
    clearTimeout(this.#timers.get(name));
    const timer = setTimeout(() => {
      this.#timers.delete(name);
      action();
    }, milliseconds);
    this.#timers.set(name, timer);
  }

  /** The cluster is another one than before. */
  #changed(): void {
    this.#wish = undefined;
    this.#isKept = false;
    this.#kick('changes');
  }

  /** Compares soon, and not twice at a time. */
  #kick(depth: Depth): void {
    this.#pending = deeper(this.#pending, depth);
    if (this.#isRunning || this.#isStopping) return;
    this.#isRunning = true;
    this.#running = this.#reconcile().finally(() => {
      this.#isRunning = false;
      if (this.#pending) this.#kick(this.#pending);
    });
  }

  async #reconcile(): Promise<void> {
    // What comes at once with this is part of it.
    await sleep(0);
    const depth = this.#pending ?? 'changes';
    this.#pending = undefined;
    if (!this.#reconciler || this.#isStopping) return;
    const started = performance.now();
    const failures: string[] = [];
    try {
      if (this.#isMoved) failures.push(...(await this.#followInterface()));
      const wish = this.#currentWish();
      if (!wish) return;
      const { repaired, failed } = await this.#reconciler.run(wish, depth);
      failures.push(...failed);
      this.#report(repaired);
      this.#reportOffLink(this.#reconciler.offLink);
      this.#publish(wish);
    } catch (error) {
      if (error instanceof HopelessError) return this.#fail(error);
      failures.push((error as Error).message);
    }
    const took = performance.now() - started;
    this.#options.log(`compared (${depth}) in ${took.toFixed(1)} ms`, { level: 'debug' });
    this.#reconciliations++;
    this.#reconcileSeconds = took / 1000;
    if (depth === 'all') {
      this.#notBefore = performance.now() + Math.min(took * SHARE, LONGEST_WAIT);
      this.#allAt = performance.now() + Math.min(Math.max(ALL_AFTER, REST * took), LONGEST_REST);
    }
    this.#note(failures);
  }

  /** undefined while the cluster has not told all of it. */
  #currentWish(): Wish | undefined {
    const [netConf, external, own, peers] = [this.#netConf, this.#external, this.#own, this.#peers];
    if (!this.#wish && netConf && external && own && peers) this.#wish = { netConf, external, own, peers };
    return this.#wish;
  }

  /** Another NIC or address of it than before: peers have to be told. */
  async #followInterface(): Promise<string[]> {
    try {
      const external = await this.#chooseInterface();
      this.#isMoved = false;
      if (JSON.stringify(external) === JSON.stringify(this.#external)) return [];
      this.#external = external;
      this.#wish = undefined;
    } catch (error) {
      return [`goes on with ${this.#external!.nic.name}: ${(error as Error).message}`];
    }
    const publicIps = this.#publicIps();
    const registered = this.#endpoint;
    const isSame = (family: Family) => (registered?.[family]?.publicIp ?? null) === publicIps[family];
    if (!registered || FAMILIES.every(isSame)) return [];
    this.#options.log(`public IP is ${FAMILIES.flatMap((family) => publicIps[family] ?? []).join(', ')} now`);
    this.#endpoint = await this.#findEndpoint();
    this.#options.source.register(this.#endpoint);
    return [];
  }

  /** Tells who waits for it that this node forwards, and what it is. */
  #publish(wish: Wish): void {
    const { subnetFile, ipMasq, source, log } = this.#options;
    const { netConf, own, peers } = wish;
    const families = FAMILIES.filter((family) => own[family] !== null && netConf[family] !== null);
    const text = formatSubnetEnv({
      network: { ipv4: netConf.ipv4?.network ?? null, ipv6: netConf.ipv6?.network ?? null },
      subnet: { ipv4: own.ipv4?.subnet ?? null, ipv6: own.ipv6?.subnet ?? null },
      mtu: Math.min(...families.map((family) => this.#backend!.mtu(wish, family))),
      ipMasq,
    });
    if (text !== this.#subnetEnv || !existsSync(subnetFile)) replaceFile(subnetFile, text);
    this.#subnetEnv = text;
    if (!this.#isKept) this.#later('keep', KEEP_AFTER, () => this.#keep({ netConf, own, peers }));
    if (this.#ready || this.#endpoint === undefined) return;
    this.#ready = true;
    const subnets = families.map((family) => own[family]!.subnet).join(', ');
    log(`ready: ${subnets}, ${peers.size} peers, ${netConf.backend.type} through ${wish.external.nic.name}`);
    source.ready();
    notify('READY=1');
  }

  #keep(state: KeptState): void {
    this.#isKept = true;
    try {
      writeKeptState(this.#statePath, state);
    } catch (error) {
      this.#options.log(`${this.#statePath} cannot be written (${(error as NodeJS.ErrnoException).code})`, {
        level: 'error',
      });
    }
  }

  #report(repaired: readonly string[]): void {
    // Before the node is ready all of it is new.
    if (!this.#ready || repaired.length === 0) return;
    this.#repairs += repaired.length;
    this.#options.log(`was missing or changed, and is right again: ${shortList(repaired, '; ')}`, { level: 'warn' });
  }

  #reportOffLink(nodes: readonly string[]): void {
    const text = shortList(nodes, ', ');
    if (text === this.#offLink) return;
    this.#offLink = text;
    const { name } = this.#external!.nic;
    if (text === '') this.#options.log(`all nodes are on the link of ${name} now, and have routes`);
    else {
      this.#options.log(
        `not on the link of ${name}, so that host-gw has no route to them: ${text} (vxlan with DirectRouting reaches such nodes)`,
        { level: 'warn' },
      );
    }
  }

  /** Says what fails, once while it lasts, and tries again. */
  #note(failures: readonly string[]): void {
    // What fails for one peer may fail for all: the first ones say why.
    for (const failure of failures.slice(0, SHOWN)) this.#say(failure);
    if (failures.length > SHOWN) this.#say(`${failures.length - SHOWN} more changes of the host failed`);
    if (failures.length === 0) {
      this.#said.clear();
      this.#retry = FIRST_RETRY;
      return;
    }
    if (this.#isStopping) return;
    this.#later('retry', this.#retry, () => this.#kick('all'));
    this.#retry = Math.min(2 * this.#retry, LONGEST_RETRY);
  }

  #say(message: string): void {
    if (this.#said.has(message) || this.#isStopping) return;
    this.#said.add(message);
    this.#options.log(message, { level: 'warn' });
  }
}

export function openBackend(netConf: NetConf, options: VxlanOptions): Backend {
  const { backend } = netConf;
  switch (backend.type) {
    case 'vxlan':
      return new Vxlan(netConf, backend, options);
    case 'host-gw':
      return new HostGateway(netConf);
    case 'udp':
      return new UdpOverlay(netConf, backend, options.log);
  }
}

/** The first ones, and how many more there are. */
function shortList(items: readonly string[], separator: string): string {
  const more = items.length > SHOWN ? ` and ${items.length - SHOWN} more` : '';
  return `${items.slice(0, SHOWN).join(separator)}${more}`;
}

const DEPTHS: readonly Depth[] = ['changes', 'cheap', 'all'];

function deeper(one: Depth | undefined, other: Depth): Depth {
  return one === undefined || DEPTHS.indexOf(one) < DEPTHS.indexOf(other) ? other : one;
}

/** Locally administered, unicast. */
function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = (bytes[0] & 0xfc) | 0x02;
  return formatMac(bytes);
}
