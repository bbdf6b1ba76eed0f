/** The daemon: puts devices, uplinks, tables and workers together, answers the control socket, and follows the host. */

import { availableParallelism } from 'node:os';
import { DEFAULT_BUSY_POLL } from '../dataplane/busy-poll.ts';
import { total } from '../dataplane/counters.ts';
import { WorkerPool } from '../dataplane/pool.ts';
import { REPORT_DEVICE } from '../dataplane/reports.ts';
import type { Nexthop, NexthopRecord } from '../fdb/groups.ts';
import type { MdbRecord, MdbSelection } from '../fdb/mdb.ts';
import { type Capabilities, probeCapabilities } from '../system/capabilities.ts';
import type { Prefix } from '../wire/prefix.ts';
import { type Api, startApi } from './api.ts';
import type { CaptureRequest } from './capture/capture.ts';
import { cleanUp } from './cleanup.ts';
import type { VxlanDevice } from './device.ts';
import { DeviceSet } from './device-set.ts';
import { DropEvents } from './drop-events.ts';
import { type EventGroup, type EventListener, Events } from './events.ts';
import type { FdbHistory } from './fdb-history.ts';
import type { FdbSelection } from './fdb-selection.ts';
import type { DeviceConfig } from './fields.ts';
import { Forwarding } from './forwarding.ts';
import { Host } from './host.ts';
import { HostFollower } from './host-follower.ts';
import type { MdbArguments } from './mdb-words.ts';
import type { ProcessMeter } from './metrics/process.ts';
import { takeMiss } from './misses.ts';
import type { NeighArguments, NeighCommand, NeighFilter, NeighRecord } from './neigh-words.ts';
import { NeighbourFollower } from './neighbour-follower.ts';
import { Observation } from './observation.ts';
import { Offload } from './offload/offload.ts';
import { PIN_DIRECTORY, removePins } from './offload/pins.ts';
import { OverlayNeighbours } from './overlay-neighbours.ts';
import {
  CommandError,
  type DaemonHandlers,
  type DaemonStatus,
  type ExplainRequest,
  type Explanation,
  type FdbArguments,
  type FdbFilter,
  type FdbRecord,
  type LinkRecord,
  noSuchDevice,
  type PeerRecord,
  type RunningCapture,
  readyLine,
  type SampleRecord,
  type StatsRecord,
  type ThreadRecord,
  VERSION,
} from './protocol.ts';
import { Serving, type ServingOptions } from './serving.ts';
import { deviceStats, uplinkStats } from './stats.ts';
import type { TrafficRequest, TrafficSample } from './traffic/sample.ts';
import { UplinkSet } from './uplink-set.ts';
import { Watch } from './watch.ts';

export interface DaemonOptions extends ServingOptions {
  readonly devices: readonly DeviceConfig[];
  /** Capabilities of the kernel to do without, as `--without` names them. */
  readonly without: readonly string[];
  /** What earlier daemons have pinned stays until releasePins(): devices and their entries come later. */
  readonly keepsPins?: boolean;
}

const MAX_DEFAULT_WORKERS = 4;
/** VTEPs with a series of their own, when nobody says how many. */
const METRICS_PEERS = 100;
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** Runs the daemon until a signal ends it; returns the exit status. Throws when it cannot start, and leaves nothing behind then. */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  const ended = new Promise<void>((resolve) => {
    // For good: a second signal must not end the process while it takes things away.
    for (const signal of SIGNALS) process.on(signal, () => resolve());
  });
  const daemon = new Daemon(options);
  try {
    await Promise.race([daemon.start(), ended]);
    await ended;
  } catch (error) {
    await daemon.stop().catch(({ message }: Error) => options.log(message, { level: 'error' }));
    throw error;
  }
  await daemon.stop();
  return 0;
}

export class Daemon implements DaemonHandlers {
  readonly #options: DaemonOptions;
  readonly #host = new Host();
  readonly #devices = new Map<number, VxlanDevice>();
  readonly #workers: number;
  readonly #busyPoll: number;
  readonly #events = new Events();
  readonly #dropEvents = new DropEvents(() => this.stats(null));
  #observation!: Observation;
  readonly #neighbours = new OverlayNeighbours();
  readonly #neighbourFollower: NeighbourFollower;
  #capabilities!: Capabilities;
  #forwarding!: Forwarding;
  #offload!: Offload;
  #pool!: WorkerPool;
  #uplinks!: UplinkSet;
  #set!: DeviceSet;
  #follower: HostFollower | undefined;
  #api: Api | undefined;
  #watch: Watch | undefined;
  readonly #serving: Serving;
  #meter: ProcessMeter | undefined;
  #starting: Promise<void> | undefined;
  /** Changes of devices and uplinks run one after the other. */
  #queue: Promise<unknown> = Promise.resolve();
  #ready = false;
  #stopping = false;

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.#serving = new Serving(this, options);
    this.#neighbourFollower = new NeighbourFollower(this.#neighbours, () => this.#devices.values(), options.log);
    const asked = options.devices.map((device) => device.workers ?? 0);
    this.#workers = Math.max(...asked, 0) || Math.min(availableParallelism(), MAX_DEFAULT_WORKERS);
    const looks = options.devices.map((device) => device['busy-poll'] ?? DEFAULT_BUSY_POLL);
    this.#busyPoll = looks.length > 0 ? Math.max(...looks) : DEFAULT_BUSY_POLL;
  }

  start(): Promise<void> {
    this.#starting = this.#start();
    return this.#starting;
  }

  async #start(): Promise<void> {
    const { devices, without, log } = this.#options;
    this.#api = await startApi(this);
    // From the start on, so that what waits for the daemon hears why it is not ready yet.
    await this.#serving.metrics(() => [
      ...(this.#ready ? [] : ['the daemon is starting']),
      ...(this.#follower?.troubles ?? []),
    ]);
    for (const removed of await cleanUp(this.#host)) log(`removed ${removed}, left behind by an earlier run`);
    this.#capabilities = probeCapabilities(without);
    this.#forwarding = new Forwarding(this.#host, log, this.#events, () => this.#uplinks.remotesChanged());
    this.#offload = new Offload(this.#forwarding.fdb, log);
    this.#pool = new WorkerPool({
      workers: this.#workers,
      busyPoll: this.#busyPoll,
      ...this.#forwarding.buffers,
      neighbors: this.#neighbours.buffer,
      onFailure: (worker, error) =>
        log(`worker ${worker} failed and is started again: ${error.stack ?? error.message}`, {
          level: 'error',
          worker,
        }),
      onReport: (words, record) => this.#takeReport(words, record),
      onGone: (index) => void this.#inTurn(() => this.#set.dropDeleted(index)).catch(() => {}),
    });
    this.#observation = new Observation({
      ...{ devices: this.#devices, workers: this.#workers, capabilities: this.#capabilities },
      ...{ pool: this.#pool, forwarding: this.#forwarding, offload: this.#offload },
    });
    this.#uplinks = new UplinkSet({
      host: this.#host,
      capabilities: this.#capabilities,
      workers: this.#workers,
      pool: this.#pool,
      log,
      devices: () => [...this.#devices.values()],
      remotes: (device) => this.#forwarding.remotes(device),
      replace: (device, uplink) => this.#set.changeUplink(device, uplink),
      inTurn: (change) => this.#inTurn(change),
    });
    const parts = {
      ...{ devices: this.#devices, host: this.#host, pool: this.#pool, log, uplinks: this.#uplinks },
      ...{ forwarding: this.#forwarding, offload: this.#offload },
    };
    this.#set = new DeviceSet({
      ...{ ...parts, capabilities: this.#capabilities, neighbours: this.#neighbours },
      onOptions: () => this.#neighbourFollower.changed(),
    });
    const follow = (): void => void this.#inTurn(() => follower.follow()).catch(() => {});
    const follower = new HostFollower({ ...parts, set: this.#set, again: follow });
    this.#follower = follower;
    for (const config of devices) await this.#inTurn(() => this.#set.create(config));
    await this.#forwarding.settled();
    if (this.#stopping) return;
    this.#watch = new Watch(this.#host.iproute.prefix, (changes) => {
      // Routes, and neighbours of the underlay, are the resolver's.
      if (changes.has('link') || changes.has('address')) follow();
      if (changes.size > 1 || !changes.has('route')) this.#neighbourFollower.changed();
    });
    // What an earlier daemon has pinned goes on until this one knows as much.
    if (!this.#options.keepsPins) for (const directory of pinDirectories(devices)) removePins(directory);
    this.#ready = true;
    await this.#serving.page();
    for (const link of await this.linkShow(null)) log(readyLine(link), { device: link.ifname });
  }

  /**
   * Ends everything that was started, in the reverse order; may be called at any time, once. A step that fails does not keep the
   * others from being taken; throws what went wrong afterwards.
   */
  async stop(): Promise<void> {
    this.#stopping = true;
    // A start ends after the change that it is at; what it has made until then is taken away here.
    await this.#starting?.catch(() => {});
    await this.#queue;
    const failures: string[] = [];
    for (const step of [
      () => this.#serving.close(),
      () => this.#meter?.stop(),
      () => this.#watch?.stop(),
      () => this.#dropEvents.stop(),
      () => this.#neighbourFollower.stop(),
      () => this.#uplinks?.stopWatching(),
      () => this.#follower?.stop(),
      () => this.#offload?.close(),
      () => this.#observation?.close(),
      () => this.#pool?.stop(),
      () => this.#forwarding?.stop(),
      ...[...this.#devices.values()].map((device) => () => device.close()),
      () => this.#uplinks?.closeAll(),
      () => this.#api?.close(),
    ]) {
      try {
        await step();
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
    if (failures.length > 0) throw new Error(`not everything could be taken away: ${failures.join('; ')}`);
  }

  /** For Prometheus. */
  async metrics(): Promise<string> {
    const { metricsText } = await import('./metrics/text.ts');
    const { ProcessMeter } = await import('./metrics/process.ts');
    this.#meter ??= new ProcessMeter();
    const isReady = this.#ready && !this.#stopping;
    return metricsText({
      links: isReady ? await this.linkShow(null) : [],
      stats: isReady ? await this.stats(null) : [],
      threads: isReady ? this.threads() : [],
      writes: [...this.#devices.values()].map(({ index, name }) => {
        const { tx_writes, rx_writes } = total(this.#pool.counters, index);
        return { ifname: name, tx: tx_writes, rx: rx_writes };
      }),
      workerRestarts: this.#pool?.restarts ?? 0,
      tables: isReady ? [...this.#forwarding.tables, { table: 'neighbours', ...this.#neighbours.fill }] : [],
      peers: isReady ? this.#forwarding.peers() : [],
      mostPeers: this.#options.metrics?.peers ?? METRICS_PEERS,
      ...this.#meter.take(),
    });
  }

  /** Makes a worker fail once, for tests of recovery. */
  failWorker(worker: number): void {
    this.#pool.fail(worker);
  }

  status(): DaemonStatus {
    return { version: VERSION, pid: process.pid, devices: [...this.#devices.values()].map(({ name }) => name) };
  }

  linkShow(name: string | null): Promise<LinkRecord[]> {
    return Promise.all(
      this.#select(name).map((device) =>
        device.record({
          worker_restarts: this.#pool.restarts,
          ...this.#forwarding.state(device),
          ...offloadRecord(device, this.#offload),
        }),
      ),
    );
  }

  async linkAdd(config: DeviceConfig): Promise<void> {
    this.#select(null);
    if (config.workers !== null && config.workers !== this.#workers) {
      throw new CommandError(`workers are the daemon's, which has ${this.#workers}: give them to uvxlan up`, 'EINVAL');
    }
    if (config['busy-poll'] !== null && config['busy-poll'] !== this.#busyPoll) {
      throw new CommandError(`busy-poll is the daemon's, which has ${this.#busyPoll}: give it to uvxlan up`, 'EINVAL');
    }
    const device = await this.#inTurn(() => this.#set.create(config));
    const [link] = await this.linkShow(device.name);
    this.#options.log(readyLine(link), { device: link.ifname });
  }

  async linkDel(name: string): Promise<void> {
    await this.#inTurn(() => this.#set.remove(this.#device(name)));
    this.#options.log(`${name} is removed`, { device: name });
  }

  /** Gives a running device other options: those of `changes`. */
  async linkSet(name: string, changes: Partial<DeviceConfig>): Promise<void> {
    await this.#inTurn(() => this.#set.change(this.#device(name), changes));
    const [link] = await this.linkShow(name);
    this.#options.log(`${readyLine(link)} (link set)`, { device: name });
  }

  /** Why the kernel cannot carry any flows of a device, its outer checksums aside; undefined: it can. */
  offloadObstacle(name: string): string | undefined {
    return this.#offload.obstacle(this.#device(name));
  }

  /** Removes what earlier daemons have pinned, when all next hops have been looked up: this one knows as much now. */
  async releasePins(): Promise<void> {
    await this.#forwarding.settled();
    const configs = [...this.#devices.values()].map(({ config }) => config);
    for (const directory of pinDirectories(configs)) removePins(directory);
  }

  fdbAdd(entry: FdbArguments): void {
    this.#forwarding.change('add', this.#device(entry.dev), entry);
    this.#uplinks.remotesChanged();
  }

  fdbAppend(entry: FdbArguments): void {
    this.#forwarding.change('append', this.#device(entry.dev), entry);
    this.#uplinks.remotesChanged();
  }

  fdbReplace(entry: FdbArguments): void {
    this.#forwarding.change('replace', this.#device(entry.dev), entry);
    this.#uplinks.remotesChanged();
  }

  fdbDel(entry: FdbArguments): void {
    this.#forwarding.del(this.#device(entry.dev), entry);
  }

  fdbShow({ dev, selection, statistics }: FdbFilter): FdbRecord[] {
    return this.#select(dev).flatMap((device) => this.#forwarding.show(device, selection, statistics));
  }

  /** Another number after every change of an entry's destination. */
  get fdbChanges(): number {
    return this.#forwarding.fdb.table.changes;
  }

  fdbGet(dev: string, mac: string): (FdbRecord & FdbHistory)[] {
    return this.#forwarding.get(this.#device(dev), mac);
  }

  fdbHistory(dev: string, mac: string): FdbHistory {
    return this.#forwarding.history(this.#device(dev), mac);
  }

  peerShow(dev: string | null): PeerRecord[] {
    return this.#select(dev).flatMap((device) => this.#forwarding.macsBehind(device));
  }

  /** With `vtep-filter strict`, frames of the VTEP have to come from these subnets, at most one a family; none: from anywhere. */
  bindVtep(dev: string, vtep: string, subnets: readonly Prefix[]): void {
    const device = this.#device(dev);
    if (this.#forwarding.bindVtep(device, vtep, subnets)) this.#set.updateOffload(device);
  }

  nexthopSet(change: 'add' | 'replace', nexthop: Nexthop): void {
    this.#select(null);
    this.#forwarding.groups[change](nexthop, performance.now());
    this.#uplinks.remotesChanged();
  }

  nexthopDel(id: number): void {
    this.#select(null);
    this.#forwarding.groups.del(id, performance.now());
  }

  nexthopShow(id: number | null): NexthopRecord[] {
    this.#select(null);
    return this.#forwarding.groups.show(id ?? undefined);
  }

  nexthopFlush(): void {
    this.#select(null);
    this.#forwarding.groups.flush(performance.now());
  }

  fdbFlush(dev: string, selection: FdbSelection): void {
    this.#forwarding.flush(this.#device(dev), selection);
  }

  mdbChange(change: 'add' | 'replace' | 'del', entry: MdbArguments): void {
    const device = this.#device(entry.dev);
    this.#forwarding.changeMdb(change, device, entry);
    this.#tellMdb(device);
  }

  mdbShow(dev: string | null): MdbRecord[] {
    return this.#select(dev).flatMap((device) => this.#forwarding.showMdb(device));
  }

  mdbGet(entry: MdbArguments): MdbRecord[] {
    return this.#forwarding.getMdb(this.#device(entry.dev), entry);
  }

  mdbFlush(dev: string, selection: MdbSelection): void {
    const device = this.#device(dev);
    this.#forwarding.flushMdb(device, selection);
    this.#tellMdb(device);
  }

  /** Workers look groups up for devices that have some; and there may be a VTEP that nothing was sent to before. */
  #tellMdb(device: VxlanDevice): void {
    this.#pool.setMdb(device.index, this.#forwarding.hasMdb(device));
    this.#uplinks.remotesChanged();
  }

  neighChange(command: NeighCommand, neighbour: NeighArguments): void {
    const device = this.#device(neighbour.dev);
    if (command === 'del') this.#neighbours.del(device, neighbour.dst);
    else this.#neighbours.change(command, device, neighbour);
  }

  neighShow(filter: NeighFilter): NeighRecord[] {
    return this.#select(filter.dev).flatMap((device) => this.#neighbours.show(device, filter));
  }

  neighFlush(filter: NeighFilter): void {
    for (const device of this.#select(filter.dev)) this.#neighbours.flush(device, filter);
  }

  stats(name: string | null): Promise<StatsRecord[]> {
    const devices = this.#select(name);
    const uplinks = [...new Set(devices.map(({ uplink }) => uplink))];
    const { counters } = this.#pool;
    return Promise.all([
      ...devices.map((device) => deviceStats(counters, device, this.#offload.counters(device))),
      ...uplinks.map((uplink) => {
        const users = [...this.#devices.values()].filter((device) => device.uplink === uplink);
        const offloaded = users.map((device) => this.#offload.counters(device));
        return uplinkStats(this.#host, counters, uplink, offloaded);
      }),
    ]);
  }

  explain(request: ExplainRequest): Promise<Explanation> {
    return this.#observation.explain(this.#device(request.dev), request);
  }

  capture(request: CaptureRequest): Promise<RunningCapture> {
    return this.#observation.capture(this.#select(request.dev), request);
  }

  samples(): SampleRecord {
    this.#select(null);
    return this.#observation.samples();
  }

  traffic(request: TrafficRequest): Promise<TrafficSample> {
    this.#select(request.dev);
    return this.#observation.traffic(request.dev === null ? undefined : this.#device(request.dev), request);
  }

  threads(): ThreadRecord[] {
    this.#select(null);
    return this.#observation.threads();
  }

  listen(groups: readonly EventGroup[], listener: EventListener, dropRate: number): () => void {
    const ends = [this.#events.listen(groups, listener)];
    if (groups.includes('drop')) ends.push(this.#dropEvents.listen(dropRate, listener));
    return () => {
      for (const end of ends) end();
    };
  }

  #takeReport(words: Int32Array, record: number): void {
    if (this.#forwarding.learning.take(words, record)) return;
    const device = this.#devices.get(words[record + REPORT_DEVICE]);
    if (device) takeMiss(this.#events, device.name, words, record); // else it was removed meanwhile
  }

  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(() => {
      if (this.#stopping) throw new CommandError('the daemon is stopping', 'ESHUTDOWN');
      return change();
    });
    this.#queue = turn.catch(() => {});
    return turn;
  }

  #select(name: string | null): VxlanDevice[] {
    if (!this.#ready) throw new CommandError('the daemon is still starting', 'EAGAIN');
    return name === null ? [...this.#devices.values()] : [this.#device(name)];
  }

  #device(name: string): VxlanDevice {
    for (const device of this.#devices.values()) if (device.name === name) return device;
    throw noSuchDevice(name);
  }
}

/** The part of `link show` that tells what is offloaded. */
function offloadRecord(device: VxlanDevice, offload: Offload): Pick<LinkRecord['uvxlan'], 'offload'> {
  if (device.config.offload === 'off') return {};
  const { send, receive } = offload.state(device);
  return { offload: { send: send ?? true, receive: receive ?? true } };
}

/** Where earlier daemons may have pinned what they offloaded. */
function pinDirectories(devices: readonly DeviceConfig[]): Set<string> {
  return new Set([PIN_DIRECTORY, ...devices.flatMap((device) => device['offload-pin'] ?? [])]);
}
