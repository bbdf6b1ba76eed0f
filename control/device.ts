/** One VXLAN device of the daemon: its TAP, its place on the host, and what it reports of itself. */
import { fstatSync, statSync } from 'node:fs';
import type { DeviceSpec } from '../dataplane/task.ts';
import { type Capabilities, overlayOffloads } from '../system/capabilities.ts';
import * as libc from '../system/libc.ts';
import { closeTap, createTap, setPersistent, type TapDevice, tapMac, tapName, tapNamespace } from '../system/tun.ts';
import { VNET_PLAIN } from '../system/vnet.ts';
import { familyOf, formatMac } from '../wire/address.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6 } from '../wire/vxlan.ts';
import type { DeviceConfig } from './fields.ts';
import { Host, type Link } from './host.ts';
import { CommandFailed } from './iproute.ts';
import { CommandError, type LinkRecord, vxlanInfo } from './protocol.ts';
import { steering } from './steering.ts';
import type { Uplink } from './uplinks.ts';

/**
 * Largest super-frame that the TAP may be given. The outer IP length, 16 bits, has to hold it and 36 bytes of headers; the rest is
 * for the inner Ethernet header and tags, which the kernel does not count.
 */
const GSO_MAX_SIZE = 65000;

/** Where a device sends from: the VTEP address, and the NIC unless the route to each VTEP decides. */
export interface Place {
  readonly nic: Link | undefined;
  readonly local: string;
}

/** Finds NIC and address of a device for which not all is given. Throws one sentence that says what to give. */
export async function findPlace(host: Host, config: DeviceConfig): Promise<Place> {
  const { name, dev, remote } = config;
  const [nic, addresses] = await Promise.all([dev === null ? undefined : host.link(dev), host.addresses()]);
  if (dev !== null && nic === undefined) throw new CommandError(`${name}: Cannot find device "${dev}" (dev)`, 'ENODEV');
  if (config.local !== null) {
    // A VTEP address may come later, as it may in the kernel; but most often it is a slip.
    if (addresses.some(({ address }) => address === config.local)) return { nic, local: config.local };
    throw new CommandError(
      `${name}: local ${config.local} is not an address of this host: see 'ip addr'`,
      'EADDRNOTAVAIL',
    );
  }
  const known = remote ?? config.fdb.find(({ dst }) => dst !== null)?.dst;
  const route = known ? await host.route({ destination: known, dev: dev ?? undefined }) : undefined;
  if (route instanceof CommandFailed)
    throw new CommandError(`${name}: no route to ${known}: ${route.reason}`, 'ENETUNREACH');
  const local =
    route?.source ?? addresses.find((address) => address.dev === dev && address.scope === 'global')?.address;
  if (local !== undefined) return { nic, local };
  const where = dev === null ? 'give it, or dev NIC' : `${dev} has none that could be taken`;
  throw new CommandError(`${name}: the VTEP address is missing: ${where} (local ADDRESS)`, 'EADDRNOTAVAIL');
}

export class VxlanDevice {
  /** Its number in the tables: the FDB's key and the counters' scope. */
  readonly index: number;
  config: DeviceConfig;
  place: Place;
  uplink: Uplink;
  /** The device that it was a port of when the host was read last, a bridge or a VRF say. */
  master: string | undefined;
  /** `ip link set NAME up`, when the host was read last. */
  isUp = true;
  /** `ip link set NAME arp off`, likewise. */
  noArp = false;
  /** The MTU that we gave it last. Another one was set by somebody, and stays. */
  #mtu: number;
  readonly #tap: TapDevice;
  readonly #host: Host;

  private constructor(index: number, config: DeviceConfig, place: Place, uplink: Uplink, tap: TapDevice, host: Host) {
    this.index = index;
    this.config = config;
    this.place = place;
    this.uplink = uplink;
    this.#tap = tap;
    this.#host = host;
    this.#mtu = config.mtu ?? defaultMtu(place);
  }

  /** Creates the TAP with a queue for each worker, and sets it up. Throws, and leaves nothing behind, when it cannot. */
  static async create(
    host: Host,
    capabilities: Capabilities,
    index: number,
    config: DeviceConfig,
    place: Place,
    uplink: Uplink,
  ): Promise<VxlanDevice> {
    const left = config.persist && (await refuseForeign(host, config.name));
    const tap = createTap(config.name, uplink.specs.length, VNET_PLAIN, overlayOffloads(capabilities), config.persist);
    steering()?.device(tap);
    const device = new VxlanDevice(index, config, place, uplink, tap, host);
    try {
      // A TAP that is given its own MAC once more forgets its permanent neighbours (Linux: neigh_changeaddr).
      const isNew = config.address !== null && config.address !== formatMac(device.mac()!);
      const address = isNew ? { address: config.address! } : {};
      if (config.persist && !left) await keep(host, tap);
      await host.setLink(config.name, { mtu: device.#mtu, ...address, gsoMaxSize: GSO_MAX_SIZE, up: true });
    } catch (error) {
      if (left) device.close();
      else device.remove();
      throw error;
    }
    return device;
  }

  /** As configured, or as it was renamed. */
  get name(): string {
    return this.config.name;
  }

  /** What each worker gets. */
  specs(capabilities: Capabilities): DeviceSpec[] {
    const { index, uplink, config } = this;
    return this.#tap.queues.map((tap) => ({
      index,
      vni: config.id,
      uplink: uplink.index,
      tap,
      mergeUdp: capabilities.uso,
    }));
  }

  /** The TAP's MAC as it is now, 6 bytes; undefined when the TAP was deleted. */
  mac(): Uint8Array | undefined {
    return tapMac(this.#tap);
  }

  /** The TAP's number; 0 when it is gone, or in another network namespace than this process. */
  get ifindex(): number {
    const fd = tapNamespace(this.#tap);
    if (fd < 0) return libc.ifIndex(this.name);
    try {
      return isOurs(fd) ? libc.ifIndex(this.name) : 0;
    } finally {
      libc.close(fd);
    }
  }

  /** Takes over the name that `ip link set NAME name` gave the TAP; whether there is another one. */
  followName(): boolean {
    const name = tapName(this.#tap);
    if (name === undefined || name === this.name) return false;
    this.config = { ...this.config, name };
    return true;
  }

  /** Gives the TAP the MTU that suits its NIC, unless somebody has chosen one. */
  async followMtu(): Promise<void> {
    if (this.config.mtu !== null) return;
    const mtu = defaultMtu(this.place);
    if (mtu === this.#mtu) return;
    await this.atHome(async (host) => {
      if ((await host.link(this.name))?.mtu === this.#mtu) await host.setLink(this.name, { mtu });
      else return; // somebody's choice
      this.#mtu = mtu;
    });
  }

  /** Asks the host as seen from the network namespace that the TAP is in now: somebody may have moved it. */
  async atHome<T>(ask: (host: Host) => Promise<T>): Promise<T> {
    const fd = tapNamespace(this.#tap);
    if (fd < 0) return ask(this.#host);
    try {
      return await ask(isOurs(fd) ? this.#host : new Host(['nsenter', `--net=/proc/${process.pid}/fd/${fd}`, '--']));
    } finally {
      libc.close(fd);
    }
  }

  /** The device as `ip -j -s -d link show` has it, with the words of a vxlan device instead of the TAP's. */
  async record(
    state: Omit<LinkRecord['uvxlan'], 'uplink' | 'reason' | 'policies' | 'workers' | 'options'>,
  ): Promise<LinkRecord> {
    const { kind: uplink, reason, policies, specs } = this.uplink;
    const { profile, ecn, 'vtep-filter': filter, neigh_suppress } = this.config;
    return {
      ...(await this.#kernelRecord()),
      linkinfo: {
        info_kind: 'vxlan',
        info_data: vxlanInfo(this.config, this.place.local, this.place.nic?.name ?? null),
      },
      uvxlan: {
        ...{ uplink, reason },
        ...(uplink === 'redirect' ? { policies: policies.length } : {}),
        workers: specs.length,
        options: { profile, ecn, 'vtep-filter': filter, neigh_suppress },
        ...state,
      },
    };
  }

  async #kernelRecord(): Promise<LinkRecord> {
    const { name } = this;
    try {
      const show = ['-j', '-s', '-d', 'link', 'show', 'dev', name];
      return (await this.atHome((host) => host.iproute.json<LinkRecord[]>('ip', show)))[0];
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
      throw new CommandError(`${name} is not to be seen from here: ${error.reason}`, 'ENODEV');
    }
  }

  /** A persistent TAP stays, with its addresses, routes and permanent neighbours. */
  close(): void {
    closeTap(this.#tap);
  }

  /** Takes a persistent TAP away as well. */
  remove(): void {
    // A TAP that somebody has deleted is not there to be told.
    if (this.config.persist && this.mac()) setPersistent(this.#tap, false);
    this.close();
  }
}

/** By which a persistent TAP is known to be uvxlan's, whoever looks: `ip link show` prints it. */
export const TAP_ALIAS = 'uvxlan';

/** Whether there is a persistent TAP of ours to take over. Throws CommandError when the name is somebody else's. */
async function refuseForeign(host: Host, name: string): Promise<boolean> {
  const link = await host.link(name);
  if (!link) return false;
  if (link.kind !== 'tun' || link.alias !== TAP_ALIAS) {
    const advice = `if nothing uses it any more, remove it: ip link del ${name}`;
    throw new CommandError(`${name}: a device of that name exists that is not uvxlan's; ${advice}`, 'EEXIST');
  }
  return true;
}

/** Makes a new TAP outlive this process. IPv6 gives it no address by itself: its multicast would find nobody in the FDB. */
async function keep(host: Host, tap: TapDevice): Promise<void> {
  await host.setLink(tap.name, { ipv6Address: false, alias: TAP_ALIAS });
  setPersistent(tap, true);
}

/** Whether a descriptor is of this process's own network namespace. */
function isOurs(namespace: number): boolean {
  return fstatSync(namespace).ino === statSync('/proc/self/ns/net').ino;
}

/** What is left of the NIC's MTU, or of Ethernet's. */
function defaultMtu({ nic, local }: Place): number {
  return (nic?.mtu ?? 1500) - (familyOf(local) === 6 ? OUTER_LENGTH_IPV6 : OUTER_LENGTH_IPV4);
}
