/** The daemon: puts devices, uplinks, tables and workers together, answers the control socket, and takes all of it away again. */
import { availableParallelism } from 'node:os';
import { WorkerPool } from '../dataplane/pool.ts';
import { type Capabilities, probeCapabilities } from '../system/capabilities.ts';
import { type Api, startApi } from './api.ts';
import { cleanUp } from './cleanup.ts';
import { findPlace, type Place, VxlanDevice } from './device.ts';
import type { DeviceConfig } from './fields.ts';
import { Forwarding } from './forwarding.ts';
import { Host } from './host.ts';
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
import { openUplink, type Uplink } from './uplinks.ts';
import { Watch } from './watch.ts';

export interface DaemonOptions {
  readonly devices: readonly DeviceConfig[];
  /** Capabilities of the kernel to do without, as `--without` names them. */
  readonly without: readonly string[];
  readonly log: (line: string) => void;
}

const MAX_DEFAULT_WORKERS = 4;
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** Runs the daemon until a signal ends it; returns the exit status. Throws when it cannot start, and leaves nothing behind then. */
export async function runDaemon(options: DaemonOptions): Promise<number> {
  const ended = new Promise<void>((resolve) => {
    for (const signal of SIGNALS) process.once(signal, () => resolve());
  });
  const daemon = new Daemon(options);
  try {
    await Promise.race([daemon.start(), ended]);
    await ended;
  } finally {
    await daemon.stop();
  }
  return 0;
}

export class Daemon implements DaemonHandlers {
  readonly #options: DaemonOptions;
  readonly #host = new Host();
  readonly #devices: VxlanDevice[] = [];
  /** By NIC, address, port, and all else that makes devices share one. */
  readonly #uplinks = new Map<string, Uplink>();
  #api: Api | undefined;
  #forwarding: Forwarding | undefined;
  #pool: WorkerPool | undefined;
  #watch: Watch | undefined;
  #ready = false;

  constructor(options: DaemonOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const { devices, without, log } = this.#options;
    this.#api = await startApi(this);
    for (const removed of await cleanUp(this.#host)) log(`removed ${removed}, left behind by an earlier run`);
    const capabilities = probeCapabilities(without);
    const workers = Math.max(
      ...devices.map((device) => device.workers ?? Math.min(availableParallelism(), MAX_DEFAULT_WORKERS)),
    );
    this.#forwarding = new Forwarding(this.#host, log);
    this.#pool = new WorkerPool({
      workers,
      ...this.#forwarding.buffers,
      onFailure: (worker, error) =>
        log(`worker ${worker} failed and is started again: ${error.stack ?? error.message}`),
    });
    for (const config of devices) await this.#createDevice(config, workers, capabilities);
    await this.#forwarding.settled();
    for (let worker = 0; worker < workers; worker++) {
      const uplinks = [...this.#uplinks.values()].map(({ specs }) => specs[worker]);
      this.#pool.start(
        worker,
        uplinks,
        this.#devices.map((device) => device.spec(worker, capabilities)),
      );
    }
    this.#watch = new Watch([], () => this.#followMacs());
    this.#ready = true;
    for (const link of await this.linkShow(null)) log(readyLine(link));
  }

  async #createDevice(config: DeviceConfig, workers: number, capabilities: Capabilities): Promise<void> {
    const place = await findPlace(this.#host, config);
    const uplink = await this.#uplinkFor(config, place, workers, capabilities);
    const index = this.#devices.length;
    const device = await VxlanDevice.create(this.#host, capabilities, index, config, place, uplink);
    this.#devices.push(device);
    await this.#followMac(device);
    this.#forwarding!.addDevice(device);
  }

  async #uplinkFor(config: DeviceConfig, place: Place, workers: number, capabilities: Capabilities): Promise<Uplink> {
    const { dstport: port, srcport: sourcePorts, ttl, udpcsum: udpChecksum, uplink: choice } = config;
    const key = JSON.stringify([place.nic.name, place.local, port, sourcePorts, ttl, udpChecksum, choice]);
    const open = this.#uplinks.get(key);
    if (open) return open;
    const index = this.#uplinks.size;
    const request = { index, choice, ...place, port, sourcePorts, ttl, udpChecksum, workers };
    const uplink = await openUplink(this.#host, capabilities, request);
    this.#uplinks.set(key, uplink);
    return uplink;
  }

  async #followMacs(): Promise<void> {
    for (const device of this.#devices) await this.#followMac(device).catch(() => {});
  }

  /** The workers drop frames that come back with the device's own MAC, which `ip link set` may change. */
  async #followMac(device: VxlanDevice): Promise<void> {
    const mac = await device.mac();
    if (mac) this.#pool?.setMac(device.index, mac.high, mac.low);
  }

  /** Ends everything that was started, in the reverse order; may be called at any time, once. */
  async stop(): Promise<void> {
    this.#watch?.stop();
    await this.#pool?.stop();
    await this.#forwarding?.stop();
    for (const device of this.#devices) device.close();
    for (const uplink of this.#uplinks.values()) await uplink.close();
    await this.#api?.close();
  }

  status(): DaemonStatus {
    return { version: VERSION, pid: process.pid, devices: this.#devices.map(({ name }) => name) };
  }

  async linkShow(name: string | null): Promise<LinkRecord[]> {
    const devices = this.#select(name);
    return Promise.all(devices.map((device) => device.record(this.#forwarding!.state(device))));
  }

  fdbAdd(entry: FdbArguments): void {
    this.#forwarding!.change('add', this.#device(entry.dev), entry);
  }

  fdbAppend(entry: FdbArguments): void {
    this.#forwarding!.change('append', this.#device(entry.dev), entry);
  }

  fdbReplace(entry: FdbArguments): void {
    this.#forwarding!.change('replace', this.#device(entry.dev), entry);
  }

  fdbDel(entry: FdbArguments): void {
    this.#forwarding!.del(this.#device(entry.dev), entry);
  }

  fdbShow({ dev }: FdbFilter): FdbRecord[] {
    return this.#select(dev).flatMap((device) => this.#forwarding!.show(device));
  }

  fdbFlush(dev: string): void {
    this.#forwarding!.flush(this.#device(dev));
  }

  async stats(name: string | null): Promise<StatsRecord[]> {
    const devices = this.#select(name);
    const uplinks = [...new Set(devices.map(({ uplink }) => uplink))];
    const { counters } = this.#pool!;
    return Promise.all([
      ...devices.map((device) => deviceStats(this.#host, counters, device)),
      ...uplinks.map((uplink) => uplinkStats(this.#host, counters, uplink)),
    ]);
  }

  #select(name: string | null): VxlanDevice[] {
    if (!this.#ready) throw new CommandError('the daemon is still starting', 'EAGAIN');
    return name === null ? this.#devices : [this.#device(name)];
  }

  #device(name: string): VxlanDevice {
    const device = this.#devices.find((candidate) => candidate.name === name);
    if (!device) throw noSuchDevice(name);
    return device;
  }
}
