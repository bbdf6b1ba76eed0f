/** Follows the host: NICs that come, go, are renamed or get another MTU or address, and TAPs that somebody changes. */
import type { WorkerPool } from '../dataplane/pool.ts';
import { findPlace, type VxlanDevice } from './device.ts';
import type { DeviceSet } from './device-set.ts';
import type { Forwarding } from './forwarding.ts';
import type { Host, Link } from './host.ts';
import type { Log } from './log.ts';
import type { Offload } from './offload/offload.ts';
import type { UplinkSet } from './uplink-set.ts';

export interface HostFollowerOptions {
  readonly devices: ReadonlyMap<number, VxlanDevice>;
  readonly set: DeviceSet;
  readonly host: Host;
  readonly pool: WorkerPool;
  readonly forwarding: Forwarding;
  readonly offload: Offload;
  readonly uplinks: UplinkSet;
  readonly log: Log;
  /** Asks for follow() in turn, after a change that could not be followed. */
  readonly again: () => void;
}

/** Milliseconds until then. */
const AGAIN = 1_000;

export class HostFollower {
  readonly #options: HostFollowerOptions;
  /** What could not be followed last, by name: said once. */
  #troubles = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: HostFollowerOptions) {
    this.#options = options;
  }

  /** What cannot be followed just now, a line each. */
  get troubles(): string[] {
    return Array.from(this.#troubles, ([name, trouble]) => `${name}: ${trouble}`);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  /** Something on the host has changed: devices and uplinks take over what concerns them. */
  async follow(): Promise<void> {
    clearTimeout(this.#timer);
    const links = await this.#options.host.links();
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
    for (const device of [...this.#options.devices.values()])
      await attempt(device.name, () => this.#followDevice(device, links));
    for (const { name, follow } of this.#options.uplinks.follow(links)) await attempt(name, follow);
    this.#troubles = troubles;
    if (troubles.size > 0) this.#timer = setTimeout(this.#options.again, AGAIN).unref();
  }

  async #followDevice(device: VxlanDevice, links: readonly Link[]): Promise<void> {
    if (!device.mac()) return this.#options.set.dropDeleted(device.index);
    const renamed = device.followName();
    this.#options.set.tellMac(device);
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
    if (changed || renamed) await this.#options.set.move(device, { ...config, dev: nic?.name ?? null }, { nic, local });
    else this.#options.offload.update(device); // another MAC, or another namespace
  }

  #followFlags(device: VxlanDevice, links: readonly Link[]): void {
    const link = links.find(({ name }) => name === device.name);
    if (!link) return; // in another namespace it is not to be seen
    if (device.isUp && !link.up) this.#options.forwarding.down(device);
    device.isUp = link.up;
    if (device.noArp === link.noarp) return;
    device.noArp = link.noarp;
    this.#options.set.tellOptions(device);
  }

  /** A VTEP address that nobody gave is the host's to change. */
  async #followLocal({ config, place }: VxlanDevice): Promise<string> {
    if (config.local !== null) return place.local;
    const addresses = await this.#options.host.addresses();
    if (addresses.some(({ address }) => address === place.local)) return place.local;
    // It may come back, or another come.
    return findPlace(this.#options.host, config).then(
      ({ local }) => local,
      () => place.local,
    );
  }

  /** A bridge's port tells senders of what does not fit, where a host's own device leaves it to be fragmented. */
  async #tellBridge(device: VxlanDevice, links: readonly Link[]): Promise<void> {
    const master = links.find(({ name }) => name === device.name)?.master;
    if (master === device.master) return;
    const kind = master === undefined ? undefined : (await this.#options.host.link(master))?.kind;
    device.master = master;
    this.#options.pool.setBridged(device.index, kind === 'bridge' || kind === 'openvswitch');
  }
}

/** The NIC as it is now: one that was renamed keeps its number, one that was made anew has the name. */
function findNic(nic: Link, links: readonly Link[]): Link | undefined {
  return links.find(({ ifindex }) => ifindex === nic.ifindex) ?? links.find(({ name }) => name === nic.name);
}
