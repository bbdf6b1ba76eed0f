/** The daemon: puts devices, uplinks, tables and workers together, answers the control socket, and follows the host. */

import { availableParallelism } from 'node:os';
import { clear, total } from '../dataplane/counters.ts';
import { MAX_DEVICES } from '../dataplane/device.ts';
import { WorkerPool } from '../dataplane/pool.ts';
import { REPORT_DEVICE } from '../dataplane/reports.ts';
import type { Nexthop, NexthopRecord } from '../fdb/groups.ts';
import type { MdbRecord, MdbSelection } from '../fdb/mdb.ts';
import { type Capabilities, probeCapabilities } from '../system/capabilities.ts';
import { familyOf, macHigh, macLow } from '../wire/address.ts';
import type { Prefix } from '../wire/prefix.ts';
import { type Api, startApi } from './api.ts';
import type { CaptureRequest } from './capture/capture.ts';
import { cleanUp } from './cleanup.ts';
import { findPlace, type Place, VxlanDevice } from './device.ts';
import { defaultDestination, optionWords, outerOptions } from './device-options.ts';
import { DropEvents } from './drop-events.ts';
import { type EventGroup, type EventListener, Events } from './events.ts';
import type { FdbHistory } from './fdb-history.ts';
import type { FdbSelection } from './fdb-selection.ts';
import type { DeviceConfig } from './fields.ts';
import { Forwarding } from './forwarding.ts';
import { Host, type Link } from './host.ts';
import { lowestFree } from './lowest-free.ts';
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
import type { Uplink, UplinkWish } from './uplinks.ts';
import { Watch } from './watch.ts';
import { deviceProblems } from './words.ts';

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
/** From a change of the host that could not be followed to the next attempt. */
const FOLLOW_MILLISECONDS = 1_000;
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
  /** What could not be followed last, by name: said once. */
  #troubles = new Map<string, string>();
  #followTimer: NodeJS.Timeout | undefined;
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
      ...Array.from(this.#troubles, ([name, trouble]) => `${name}: ${trouble}`),
    ]);
    for (const removed of await cleanUp(this.#host)) log(`removed ${removed}, left behind by an earlier run`);
    this.#capabilities = probeCapabilities(without);
    this.#forwarding = new Forwarding(this.#host, log, this.#events, () => this.#uplinks.remotesChanged());
    this.#offload = new Offload(this.#forwarding.fdb, log);
    this.#pool = new WorkerPool({
      workers: this.#workers,
      ...this.#forwarding.buffers,
      neighbors: this.#neighbours.buffer,
      onFailure: (worker, error) =>
        log(`worker ${worker} failed and is started again: ${error.stack ?? error.message}`, {
          level: 'error',
          worker,
        }),
      onReport: (words, record) => this.#takeReport(words, record),
      onGone: (index) => void this.#inTurn(() => this.#dropDeleted(index)).catch(() => {}),
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
      replace: (device, uplink) => this.#changeUplink(device, uplink),
      inTurn: (change) => this.#inTurn(change),
    });
    for (const config of devices) await this.#inTurn(() => this.#createDevice(config));
    await this.#forwarding.settled();
    if (this.#stopping) return;
    this.#watch = new Watch(this.#host.iproute.prefix, (changes) => {
      // Routes, and neighbours of the underlay, are the resolver's.
      if (changes.has('link') || changes.has('address')) this.#follow();
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
      () => clearTimeout(this.#followTimer),
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
    const device = await this.#inTurn(() => this.#createDevice(config));
    const [link] = await this.linkShow(device.name);
    this.#options.log(readyLine(link), { device: link.ifname });
  }

  async linkDel(name: string): Promise<void> {
    await this.#inTurn(() => this.#removeDevice(this.#device(name)));
    this.#options.log(`${name} is removed`, { device: name });
  }

  /** Gives a running device other options: those of `changes`. */
  async linkSet(name: string, changes: Partial<DeviceConfig>): Promise<void> {
    await this.#inTurn(async () => {
      const device = this.#device(name);
      const config = { ...device.config, ...changes };
      refuseTtlChange(name, device.config, changes);
      for (const { message } of deviceProblems(config)) throw new CommandError(`${name}: ${message}`, 'EINVAL');
      if ((config.uplink === 'raw') !== (device.config.uplink === 'raw')) {
        throw new CommandError(
          `${name}: Cannot change between uplink raw and the others: remove it and add it again`,
          'EOPNOTSUPP',
        );
      }
      const place = await findPlace(this.#host, config);
      if (familyOf(place.local) !== familyOf(device.place.local)) {
        throw new CommandError(
          `${name}: New address family does not match old one: remove it and add it again`,
          'EOPNOTSUPP',
        );
      }
      await this.#moveDevice(device, config, place);
      this.#updateOffload(device);
    });
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
    if (this.#forwarding.bindVtep(device, vtep, subnets)) this.#updateOffload(device);
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

  async #createDevice(config: DeviceConfig): Promise<VxlanDevice> {
    this.#refuseTwin(config);
    const place = await findPlace(this.#host, config);
    const index = lowestFree(MAX_DEVICES, (candidate) => this.#devices.has(candidate), 'devices');
    const uplink = await this.#uplinks.acquire(requestOf(config, place));
    try {
      const device = await VxlanDevice.create(this.#host, this.#capabilities, index, config, place, uplink);
      this.#devices.set(index, device);
      clear(this.#pool.counters, index);
      this.#pool.setBridged(index, false);
      this.#pool.setMdb(index, false);
      this.#tellMac(device);
      this.#tellOptions(device);
      this.#forwarding.addDevice(device);
      this.#neighbours.addDevice(device);
      await this.#pool.addDevice(device.specs(this.#capabilities));
      this.#updateOffload(device);
      this.#uplinks.remotesChanged();
      return device;
    } catch (error) {
      const device = this.#devices.get(index);
      if (device) await this.#removeDevice(device);
      else await this.#uplinks.release();
      throw error;
    }
  }

  /** The kernel's rules: one device for a VNI, port and family, and one answer to zero checksums a port (vxlan_vni_in_use, vxlan_find_sock). */
  #refuseTwin({ name, id, dstport, local, remote, udp6zerocsumrx }: DeviceConfig): void {
    const family = familyOf(local ?? remote ?? '');
    for (const { config, place } of this.#devices.values()) {
      if (config.name === name) throw new CommandError(`${name}: a device of that name exists`, 'EEXIST');
      if (config.dstport !== dstport || familyOf(place.local) !== family) continue;
      if (family === 6 && config.udp6zerocsumrx !== udp6zerocsumrx) {
        const other = `${config.name} has ${config.udp6zerocsumrx ? '' : 'no'}udp6zerocsumrx on port ${dstport}`;
        throw new CommandError(`${name}: Address already in use: ${other}, a port has one or the other`, 'EADDRINUSE');
      }
      if (config.id !== id) continue;
      throw new CommandError(`${name}: A VXLAN device with the specified VNI already exists: ${config.name}`, 'EEXIST');
    }
  }

  async #removeDevice(device: VxlanDevice): Promise<void> {
    this.#devices.delete(device.index);
    this.#offload.remove(device);
    await this.#pool.removeDevice(device.index);
    this.#forwarding.removeDevice(device);
    this.#neighbours.removeDevice(device);
    device.remove();
    await this.#uplinks.release();
  }

  /** Gives a device another configuration or place; traffic goes on, over another uplink if these need one. */
  async #moveDevice(device: VxlanDevice, config: DeviceConfig, place: Place): Promise<void> {
    const uplink = await this.#uplinks.acquire(requestOf(config, place));
    const moved = uplink !== device.uplink;
    const remote = defaultDestination(device.config);
    device.config = config;
    device.place = place;
    this.#tellOptions(device);
    if (moved) await this.#changeUplink(device, uplink, remote);
    else this.#forwarding.moveDevice(device, remote);
    this.#uplinks.remotesChanged();
    await device.followMtu();
    this.#offload.update(device);
    if (moved) await this.#uplinks.release();
  }

  /** Traffic goes over another uplink from now on; the old one is the caller's to close. `remote` is the one until now. */
  async #changeUplink(device: VxlanDevice, uplink: Uplink, remote = defaultDestination(device.config)): Promise<void> {
    device.uplink = uplink;
    await this.#pool.addDevice(device.specs(this.#capabilities));
    this.#forwarding.moveDevice(device, remote);
    this.#offload.update(device);
  }

  /** Throws a CommandError where the device asks for more than there is. */
  #updateOffload(device: VxlanDevice): void {
    const { send, receive } = this.#offload.update(device);
    const obstacle = send ?? receive;
    if (device.config.offload !== 'require' || obstacle === undefined) return;
    throw new CommandError(`${device.name}: offload require: ${obstacle}`, 'EOPNOTSUPP');
  }

  /** Something on the host has changed: devices and uplinks take over what concerns them. */
  async #followHost(): Promise<void> {
    clearTimeout(this.#followTimer);
    const links = await this.#host.links();
    const troubles = new Map<string, string>();
    const attempt = async (name: string, follow: () => Promise<void>): Promise<void> => {
      try {
        await follow();
      } catch (error) {
        const { message } = error as Error;
        if (this.#troubles.get(name) !== message)
          this.#options.log(`${name}: ${message}`, { level: 'warn', device: name });
        troubles.set(name, message);
      }
    };
    for (const device of [...this.#devices.values()])
      await attempt(device.name, () => this.#followDevice(device, links));
    for (const { name, follow } of this.#uplinks.follow(links)) await attempt(name, follow);
    this.#troubles = troubles;
    if (troubles.size > 0) this.#followTimer = setTimeout(() => this.#follow(), FOLLOW_MILLISECONDS).unref();
  }

  #follow(): void {
    this.#inTurn(() => this.#followHost()).catch(() => {});
  }

  async #followDevice(device: VxlanDevice, links: readonly Link[]): Promise<void> {
    if (!device.mac()) return this.#dropDeleted(device.index);
    const renamed = device.followName();
    this.#tellMac(device);
    this.#followFlags(device, links);
    await this.#tellBridge(device, links);
    const { config, place } = device;
    const nic = place.nic && findNic(place.nic, links);
    if (place.nic && !nic) return; // gone: until it comes back the next hops are unresolved, and say so
    const isNew = nic?.ifindex !== place.nic?.ifindex;
    if (nic && isNew)
      this.#options.log(`${device.name}: ${nic.name} is there again`, { device: device.name, nic: nic.name });
    const local = await this.#followLocal(device);
    const changed = isNew || nic?.name !== place.nic?.name || nic?.mtu !== place.nic?.mtu || local !== place.local;
    if (changed || renamed) await this.#moveDevice(device, { ...config, dev: nic?.name ?? null }, { nic, local });
    else this.#offload.update(device); // another MAC, or another namespace
  }

  #followFlags(device: VxlanDevice, links: readonly Link[]): void {
    const link = links.find(({ name }) => name === device.name);
    if (!link) return; // in another namespace it is not to be seen
    if (device.isUp && !link.up) this.#forwarding.down(device);
    device.isUp = link.up;
    if (device.noArp === link.noarp) return;
    device.noArp = link.noarp;
    this.#tellOptions(device);
  }

  /** A VTEP address that nobody gave is the host's to change. */
  async #followLocal({ config, place }: VxlanDevice): Promise<string> {
    if (config.local !== null) return place.local;
    const addresses = await this.#host.addresses();
    if (addresses.some(({ address }) => address === place.local)) return place.local;
    // It may come back, or another come.
    return findPlace(this.#host, config).then(
      ({ local }) => local,
      () => place.local,
    );
  }

  /** The workers drop frames that come back with the device's own MAC, which `ip link set` may change. */
  #tellMac(device: VxlanDevice): void {
    const mac = device.mac();
    if (mac) this.#pool.setMac(device.index, macHigh(mac, 0), macLow(mac, 0));
  }

  #tellOptions({ index, config, place, noArp }: VxlanDevice): void {
    this.#pool.setOptions(index, optionWords(config, this.#forwarding.defaultTtl(place.local), noArp));
    this.#neighbourFollower.changed();
  }

  /** A bridge's port tells senders of what does not fit, where a host's own device leaves it to be fragmented. */
  async #tellBridge(device: VxlanDevice, links: readonly Link[]): Promise<void> {
    const master = links.find(({ name }) => name === device.name)?.master;
    if (master === device.master) return;
    const kind = master === undefined ? undefined : (await this.#host.link(master))?.kind;
    device.master = master;
    this.#pool.setBridged(device.index, kind === 'bridge' || kind === 'openvswitch');
  }

  #takeReport(words: Int32Array, record: number): void {
    if (this.#forwarding.learning.take(words, record)) return;
    const device = this.#devices.get(words[record + REPORT_DEVICE]);
    if (device) takeMiss(this.#events, device.name, words, record); // else it was removed meanwhile
  }

  /** Somebody has deleted the TAP, as one deletes a kernel device: `ip link del`. */
  async #dropDeleted(index: number): Promise<void> {
    const device = this.#devices.get(index);
    if (!device || device.mac()) return;
    await this.#removeDevice(device);
    this.#options.log(`${device.name} was deleted by somebody (ip link del): it carries no traffic any more`, {
      level: 'warn',
      device: device.name,
    });
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

/** The NIC as it is now: one that was renamed keeps its number, one that was made anew has the name. */
function findNic(nic: Link, links: readonly Link[]): Link | undefined {
  return links.find(({ ifindex }) => ifindex === nic.ifindex) ?? links.find(({ name }) => name === nic.name);
}

/** The kernel's rule (vxlan_nl2conf): a TTL that is inherited stays so. */
function refuseTtlChange(name: string, { ttl }: DeviceConfig, changes: Partial<DeviceConfig>): void {
  if (changes.ttl === undefined || (ttl === 'inherit') === (changes.ttl === 'inherit')) return;
  throw new CommandError(`${name}: cannot change TTL_INHERIT flag: remove the device and add it again`, 'EOPNOTSUPP');
}

function requestOf(config: DeviceConfig, { nic, local }: Place): UplinkWish {
  const { uplink: choice, dstport: port, srcport: sourcePorts, remote, group, fdb } = config;
  // Policies of the host may concern these VTEPs only, and hold from the first packet on.
  const remotes = [remote, ...fdb.map(({ dst }) => dst)].filter((address) => address !== null);
  return { choice, nic, local, port, sourcePorts, group, ...outerOptions(config, familyOf(local)), remotes };
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
