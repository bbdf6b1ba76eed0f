/** The daemon: puts devices, uplinks, tables and workers together, answers the control socket, and follows the host. */
import { availableParallelism } from 'node:os';
import { clear, FIRST_UPLINK_SCOPE } from '../dataplane/counters.ts';
import { MAX_DEVICES } from '../dataplane/device.ts';
import { WorkerPool } from '../dataplane/pool.ts';
import { type Capabilities, probeCapabilities } from '../system/capabilities.ts';
import { macHigh, macLow } from '../wire/address.ts';
import { type Api, startApi } from './api.ts';
import { cleanUp } from './cleanup.ts';
import { findPlace, type Place, VxlanDevice } from './device.ts';
import type { DeviceConfig } from './fields.ts';
import { Forwarding } from './forwarding.ts';
import { Host, type Link } from './host.ts';
import { type PolicyChange, PolicyWatch } from './policy-watch.ts';
import {
  CommandError,
  type DaemonHandlers,
  type DaemonStatus,
  type FdbArguments,
  type FdbFilter,
  type FdbRecord,
  type LinkRecord,
  noSuchDevice,
  readyLine,
  type StatsRecord,
  VERSION,
} from './protocol.ts';
import { deviceStats, uplinkStats } from './stats.ts';
import { openUplink, policyWarning, tunnelOf, type Uplink, type UplinkRequest, uplinkKey } from './uplinks.ts';
import { Watch } from './watch.ts';

export interface DaemonOptions {
  readonly devices: readonly DeviceConfig[];
  /** Capabilities of the kernel to do without, as `--without` names them. */
  readonly without: readonly string[];
  readonly log: (line: string) => void;
}

const MAX_DEFAULT_WORKERS = 4;
const MAX_UPLINKS = 64;
/** From a change of the FDB to another look at the host's policies. */
const REMOTES_MILLISECONDS = 500;
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
    await daemon.stop().catch(({ message }: Error) => options.log(message));
    throw error;
  }
  await daemon.stop();
  return 0;
}

export class Daemon implements DaemonHandlers {
  readonly #options: DaemonOptions;
  readonly #host = new Host();
  readonly #devices = new Map<number, VxlanDevice>();
  /** By what makes devices share one. */
  readonly #uplinks = new Map<string, Uplink>();
  readonly #workers: number;
  #capabilities!: Capabilities;
  #forwarding!: Forwarding;
  #pool!: WorkerPool;
  /** What could not be followed last, by name: said once. */
  #troubles = new Map<string, string>();
  #followTimer: NodeJS.Timeout | undefined;
  /** Uplinks whose NIC is not there. */
  readonly #stranded = new WeakSet<Uplink>();
  #api: Api | undefined;
  #watch: Watch | undefined;
  #policies: PolicyWatch | undefined;
  #remotesTimer: NodeJS.Timeout | undefined;
  #starting: Promise<void> | undefined;
  /** Changes of devices and uplinks run one after the other. */
  #queue: Promise<unknown> = Promise.resolve();
  #ready = false;
  #stopping = false;

  constructor(options: DaemonOptions) {
    this.#options = options;
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
    for (const removed of await cleanUp(this.#host)) log(`removed ${removed}, left behind by an earlier run`);
    this.#capabilities = probeCapabilities(without);
    this.#forwarding = new Forwarding(this.#host, log);
    this.#pool = new WorkerPool({
      workers: this.#workers,
      ...this.#forwarding.buffers,
      onFailure: (worker, error) =>
        log(`worker ${worker} failed and is started again: ${error.stack ?? error.message}`),
      onGone: (index) => void this.#inTurn(() => this.#dropDeleted(index)).catch(() => {}),
    });
    this.#policies = new PolicyWatch(this.#host, {
      onChange: (change) => void this.#inTurn(() => this.#followPolicies(change)).catch(() => {}),
      onNote: log,
    });
    for (const config of devices) await this.#inTurn(() => this.#createDevice(config));
    await this.#forwarding.settled();
    if (this.#stopping) return;
    this.#watch = new Watch(this.#host.iproute.prefix, (changes) => {
      // Routes and neighbours are the resolver's.
      if (changes.has('link') || changes.has('address')) this.#follow();
    });
    this.#ready = true;
    for (const link of await this.linkShow(null)) log(readyLine(link));
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
      () => this.#watch?.stop(),
      () => this.#policies?.stop(),
      () => clearTimeout(this.#remotesTimer),
      () => clearTimeout(this.#followTimer),
      () => this.#pool?.stop(),
      () => this.#forwarding?.stop(),
      ...[...this.#devices.values()].map((device) => () => device.close()),
      ...[...this.#uplinks.values()].map((uplink) => () => uplink.close()),
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

  /** Makes a worker fail once, for tests of recovery. */
  failWorker(worker: number): void {
    this.#pool.fail(worker);
  }

  status(): DaemonStatus {
    return { version: VERSION, pid: process.pid, devices: [...this.#devices.values()].map(({ name }) => name) };
  }

  linkShow(name: string | null): Promise<LinkRecord[]> {
    return Promise.all(this.#select(name).map((device) => device.record(this.#forwarding.state(device))));
  }

  async linkAdd(config: DeviceConfig): Promise<void> {
    this.#select(null);
    const device = await this.#inTurn(() => this.#createDevice(config));
    const [link] = await this.linkShow(device.name);
    this.#options.log(readyLine(link));
  }

  async linkDel(name: string): Promise<void> {
    await this.#inTurn(() => this.#removeDevice(this.#device(name)));
    this.#options.log(`${name} is removed`);
  }

  /** Gives a running device other options: those of `changes`. */
  async linkSet(name: string, changes: Partial<DeviceConfig>): Promise<void> {
    await this.#inTurn(async () => {
      const device = this.#device(name);
      const config = { ...device.config, ...changes };
      if ((config.uplink === 'raw') !== (device.config.uplink === 'raw')) {
        throw new CommandError(
          `${name}: Cannot change between uplink raw and the others: remove it and add it again`,
          'EOPNOTSUPP',
        );
      }
      await this.#moveDevice(device, config, await findPlace(this.#host, config));
    });
  }

  fdbAdd(entry: FdbArguments): void {
    this.#forwarding.change('add', this.#device(entry.dev), entry);
    this.#remotesChanged();
  }

  fdbAppend(entry: FdbArguments): void {
    this.#forwarding.change('append', this.#device(entry.dev), entry);
    this.#remotesChanged();
  }

  fdbReplace(entry: FdbArguments): void {
    this.#forwarding.change('replace', this.#device(entry.dev), entry);
    this.#remotesChanged();
  }

  fdbDel(entry: FdbArguments): void {
    this.#forwarding.del(this.#device(entry.dev), entry);
  }

  fdbShow({ dev }: FdbFilter): FdbRecord[] {
    return this.#select(dev).flatMap((device) => this.#forwarding.show(device));
  }

  fdbFlush(dev: string): void {
    this.#forwarding.flush(this.#device(dev));
  }

  stats(name: string | null): Promise<StatsRecord[]> {
    const devices = this.#select(name);
    const uplinks = [...new Set(devices.map(({ uplink }) => uplink))];
    const { counters } = this.#pool;
    return Promise.all([
      ...devices.map((device) => deviceStats(counters, device)),
      ...uplinks.map((uplink) => uplinkStats(this.#host, counters, uplink)),
    ]);
  }

  async #createDevice(config: DeviceConfig): Promise<VxlanDevice> {
    this.#refuseTwin(config);
    const place = await findPlace(this.#host, config);
    const uplink = await this.#acquireUplink(requestOf(config, place));
    const index = lowestFree(MAX_DEVICES, (candidate) => this.#devices.has(candidate), 'devices');
    try {
      const device = await VxlanDevice.create(this.#host, this.#capabilities, index, config, place, uplink);
      this.#devices.set(index, device);
      clear(this.#pool.counters, index);
      this.#tellMac(device);
      this.#forwarding.addDevice(device);
      await this.#pool.addDevice(device.specs(this.#capabilities));
      return device;
    } catch (error) {
      const device = this.#devices.get(index);
      if (device) await this.#removeDevice(device);
      else await this.#releaseUplinks();
      throw error;
    }
  }

  /** The kernel's rule: one device for a VNI, port and family (vxlan_config_validate: EEXIST). */
  #refuseTwin({ name, id, dstport, local, remote }: DeviceConfig): void {
    const isIpv6 = (address: string | null): boolean => address?.includes(':') ?? false;
    const family = isIpv6(local) || isIpv6(remote);
    for (const { config, place } of this.#devices.values()) {
      if (config.name === name) throw new CommandError(`${name}: a device of that name exists`, 'EEXIST');
      if (config.id === id && config.dstport === dstport && isIpv6(place.local) === family) {
        throw new CommandError(
          `${name}: A VXLAN device with the specified VNI already exists: ${config.name}`,
          'EEXIST',
        );
      }
    }
  }

  async #removeDevice(device: VxlanDevice): Promise<void> {
    this.#devices.delete(device.index);
    await this.#pool.removeDevice(device.index);
    this.#forwarding.removeDevice(device);
    device.close();
    await this.#releaseUplinks();
  }

  /** Gives a device another configuration or place; traffic goes on, over another uplink if these need one. */
  async #moveDevice(device: VxlanDevice, config: DeviceConfig, place: Place): Promise<void> {
    const uplink = await this.#acquireUplink(requestOf(config, place));
    const moved = uplink !== device.uplink;
    const { remote } = device.config;
    device.config = config;
    device.place = place;
    device.uplink = uplink;
    if (moved) await this.#reassign(device);
    this.#forwarding.moveDevice(device, remote);
    await device.followMtu();
    if (moved) await this.#releaseUplinks();
  }

  async #acquireUplink(wanted: Omit<UplinkRequest, 'shared'>): Promise<Uplink> {
    const key = uplinkKey(wanted);
    return this.#uplinks.get(key) ?? (await this.#openUplink(key, wanted));
  }

  async #openUplink(key: string, wanted: Omit<UplinkRequest, 'shared'>): Promise<Uplink> {
    const open = [...this.#uplinks.values()];
    const shared = open.some(({ request: { port, local } }) => port === wanted.port && local === wanted.local);
    const index = lowestFree(MAX_UPLINKS, (candidate) => open.some((uplink) => uplink.index === candidate), 'uplinks');
    const uplink = await openUplink(this.#host, this.#capabilities, index, this.#workers, { ...wanted, shared });
    clear(this.#pool.counters, FIRST_UPLINK_SCOPE + index);
    this.#uplinks.set(key, uplink);
    await this.#pool.addUplink(uplink.specs);
    for (const note of uplink.notes) this.#options.log(note);
    this.#warnOf(uplink, uplink.policies);
    if (mayRedirect(wanted)) this.#policies?.follow(key, tunnelOf(wanted, wanted.remotes ?? []), uplink.policies);
    return uplink;
  }

  /** Rules of the host that redirect would get past came or went: `auto` takes another uplink, and what was asked for stays. */
  async #followPolicies({ key, policies, fresh }: PolicyChange): Promise<void> {
    const uplink = this.#uplinks.get(key);
    if (!uplink) return;
    if (uplink.kind === 'redirect') uplink.policies = policies;
    this.#warnOf(uplink, fresh);
    const kind = policies.length > 0 ? 'udp' : 'redirect';
    if (uplink.request.choice !== 'auto' || uplink.kind === kind) return;
    const { shared: _, ...request } = uplink.request;
    const replacement = await this.#openUplink(key, { ...request, remotes: this.#remotes(uplink) });
    const devices = this.#devicesOf(uplink);
    await this.#replaceUplink(uplink, replacement);
    for (const { name } of devices) {
      this.#options.log(`${name}: uplink ${replacement.kind} from now on (${replacement.reason})`);
    }
  }

  async #replaceUplink(uplink: Uplink, replacement: Uplink): Promise<void> {
    for (const device of this.#devicesOf(uplink)) {
      device.uplink = replacement;
      await this.#reassign(device);
      this.#forwarding.moveDevice(device, device.config.remote);
    }
    await this.#closeUplink(uplink);
  }

  /** Only who has asked for redirect gets past a policy, and is told so. */
  #warnOf({ kind, request }: Uplink, policies: Uplink['policies']): void {
    if (kind !== 'redirect' || request.choice !== 'redirect') return;
    for (const policy of policies) this.#options.log(policyWarning(policy, request.port));
  }

  /** Policies may concern some VTEPs only. */
  #remotesChanged(): void {
    this.#remotesTimer ??= setTimeout(() => {
      this.#remotesTimer = undefined;
      for (const [key, uplink] of this.#uplinks) {
        const { request } = uplink;
        if (mayRedirect(request)) this.#policies?.follow(key, tunnelOf(request, this.#remotes(uplink)));
      }
    }, REMOTES_MILLISECONDS);
  }

  #remotes(uplink: Uplink): string[] {
    return [...new Set(this.#devicesOf(uplink).flatMap((device) => this.#forwarding.remotes(device)))];
  }

  #devicesOf(uplink: Uplink): VxlanDevice[] {
    return [...this.#devices.values()].filter((device) => device.uplink === uplink);
  }

  /** Tells the workers that the device has another uplink. */
  async #reassign(device: VxlanDevice): Promise<void> {
    await this.#pool.removeDevice(device.index);
    await this.#pool.addDevice(device.specs(this.#capabilities));
  }

  /** Closes the uplinks that no device uses any more. */
  async #releaseUplinks(): Promise<void> {
    for (const [key, uplink] of this.#uplinks) {
      if (this.#devicesOf(uplink).length > 0) continue;
      this.#uplinks.delete(key);
      this.#policies?.unfollow(key);
      await this.#closeUplink(uplink);
    }
  }

  async #closeUplink(uplink: Uplink): Promise<void> {
    await this.#pool.removeUplink(uplink.index);
    await uplink.close();
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
        if (this.#troubles.get(name) !== message) this.#options.log(`${name}: ${message}`);
        troubles.set(name, message);
      }
    };
    for (const device of [...this.#devices.values()])
      await attempt(device.name, () => this.#followDevice(device, links));
    for (const [key, uplink] of [...this.#uplinks]) {
      await attempt(`uplink ${uplink.kind}`, () => this.#followUplink(key, uplink, links));
    }
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
    const { config, place } = device;
    const nic = place.nic && findNic(place.nic, links);
    if (place.nic && !nic) return; // gone: until it comes back the next hops are unresolved, and say so
    const isNew = nic?.ifindex !== place.nic?.ifindex;
    if (nic && isNew) this.#options.log(`${device.name}: ${nic.name} is there again`);
    const local = await this.#followLocal(device);
    const changed = isNew || nic?.name !== place.nic?.name || nic?.mtu !== place.nic?.mtu || local !== place.local;
    if (changed || renamed) await this.#moveDevice(device, { ...config, dev: nic?.name ?? null }, { nic, local });
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

  /** An uplink whose TAP somebody has taken away, or whose NIC was in another namespace meanwhile, is opened again. */
  async #followUplink(key: string, uplink: Uplink, links: readonly Link[]): Promise<void> {
    const { tapIndex, request } = uplink;
    if (tapIndex === undefined) return;
    const isThere = (index: number) => links.find(({ ifindex }) => ifindex === index);
    if (!isThere(request.nic!.ifindex)) {
      this.#stranded.add(uplink);
      return;
    }
    const tap = isThere(tapIndex);
    if (tap && !this.#stranded.has(uplink)) {
      if (!tap.up) await this.#host.setLink(tap.name, { up: true });
      return;
    }
    const { shared: _, ...wanted } = request;
    await this.#replaceUplink(uplink, await this.#openUplink(key, { ...wanted, remotes: this.#remotes(uplink) }));
    this.#stranded.delete(uplink);
    this.#options.log(`uplink ${uplink.kind} on ${request.nic!.name} was taken away by somebody, and is there again`);
  }

  /** The workers drop frames that come back with the device's own MAC, which `ip link set` may change. */
  #tellMac(device: VxlanDevice): void {
    const mac = device.mac();
    if (mac) this.#pool.setMac(device.index, macHigh(mac, 0), macLow(mac, 0));
  }

  /** Somebody has deleted the TAP, as one deletes a kernel device: `ip link del`. */
  async #dropDeleted(index: number): Promise<void> {
    const device = this.#devices.get(index);
    if (!device || device.mac()) return;
    await this.#removeDevice(device);
    this.#options.log(`${device.name} was deleted by somebody (ip link del): it carries no traffic any more`);
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

function requestOf(config: DeviceConfig, { nic, local }: Place): Omit<UplinkRequest, 'shared'> {
  const { uplink: choice, dstport: port, srcport: sourcePorts, ttl, udpcsum: udpChecksum } = config;
  return { choice, nic, local, port, sourcePorts, ttl, udpChecksum };
}

/** Whether the host's policies decide about the uplink, or are worth a warning. */
function mayRedirect({ nic, choice }: Omit<UplinkRequest, 'shared'>): boolean {
  return nic !== undefined && (choice === 'auto' || choice === 'redirect');
}

function lowestFree(limit: number, taken: (candidate: number) => boolean, what: string): number {
  for (let candidate = 0; candidate < limit; candidate++) if (!taken(candidate)) return candidate;
  throw new CommandError(`there are ${limit} ${what} already, and no more are possible`, 'ENOSPC');
}
