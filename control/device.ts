/** One VXLAN device of the daemon: its TAP, its place on the host, and what it reports of itself. */
import type { DeviceSpec } from '../dataplane/worker.ts';
import { type Capabilities, overlayOffloads } from '../system/capabilities.ts';
import { closeTap, createTap, type TapDevice } from '../system/tun.ts';
import { VNET_PLAIN } from '../system/vnet.ts';
import { macHigh, macLow, parseMac } from '../wire/address.ts';
import { OUTER_LENGTH_IPV4 } from '../wire/vxlan.ts';
import type { DeviceConfig } from './fields.ts';
import type { Host, Link } from './host.ts';
import { CommandFailed } from './iproute.ts';
import { CommandError, type LinkRecord, vxlanInfo } from './protocol.ts';
import type { Uplink } from './uplinks.ts';

/**
 * Largest super-frame that the TAP may be given. The outer IPv4 length, 16 bits, has to hold it and 36 bytes of headers; the rest is
 * for the inner Ethernet header and tags, which the kernel does not count.
 */
const GSO_MAX_SIZE = 65000;

/** Where a device sends from: the NIC and the VTEP address, as given or found. */
export interface Place {
  readonly nic: Link;
  readonly local: string;
}

/** Finds NIC and address of a device for which not all is given. Throws one sentence that says what to give. */
export async function findPlace(host: Host, config: DeviceConfig): Promise<Place> {
  const addresses = await host.addresses();
  const remote = config.remote === null ? undefined : await host.route({ destination: config.remote });
  if (remote instanceof CommandFailed) throw remote;
  const name = config.dev ?? addresses.find(({ address }) => address === config.local)?.dev ?? remote?.dev;
  if (name === undefined) {
    const what =
      config.local === null
        ? 'no dev, local or remote'
        : `local ${config.local} is not an address of this host and no dev`;
    throw new Error(`${config.name}: ${what} given: say which NIC to use with 'dev NIC'`);
  }
  const nic = await host.link(name);
  if (nic === undefined) throw new CommandError(`${config.name}: Cannot find device "${name}" (dev)`, 'ENODEV');
  const local =
    config.local ?? remote?.source ?? addresses.find(({ dev, family }) => dev === name && family === 'inet')?.address;
  if (local === undefined)
    throw new Error(`${config.name}: ${name} has no IPv4 address: give one with 'local ADDRESS'`);
  if (local.includes(':'))
    throw new Error(`${config.name}: IPv6 outside is not there yet: give an IPv4 'local' address`);
  return { nic, local };
}

export class VxlanDevice {
  /** Its number in the tables: the FDB's key and the counters' scope. */
  readonly index: number;
  readonly config: DeviceConfig;
  readonly place: Place;
  readonly uplink: Uplink;
  readonly #tap: TapDevice;
  readonly #host: Host;

  private constructor(index: number, config: DeviceConfig, place: Place, uplink: Uplink, tap: TapDevice, host: Host) {
    this.index = index;
    this.config = config;
    this.place = place;
    this.uplink = uplink;
    this.#tap = tap;
    this.#host = host;
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
    const tap = createTap(config.name, uplink.specs.length, VNET_PLAIN, overlayOffloads(capabilities));
    try {
      await host.setLink(config.name, {
        mtu: config.mtu ?? place.nic.mtu - OUTER_LENGTH_IPV4,
        ...(config.address === null ? {} : { address: config.address }),
        gsoMaxSize: GSO_MAX_SIZE,
        up: true,
      });
    } catch (error) {
      closeTap(tap);
      throw error;
    }
    return new VxlanDevice(index, config, place, uplink, tap, host);
  }

  get name(): string {
    return this.config.name;
  }

  /** What worker `worker` gets. */
  spec(worker: number, capabilities: Capabilities): DeviceSpec {
    const { index: uplink } = this.uplink.specs[worker];
    return {
      index: this.index,
      vni: this.config.id,
      uplink,
      tap: this.#tap.queues[worker],
      mergeUdp: capabilities.uso,
    };
  }

  /** The TAP's MAC as it is now, in two big-endian parts. */
  async mac(): Promise<{ high: number; low: number } | undefined> {
    const mac = (await this.#host.link(this.name))?.mac;
    const bytes = mac === undefined ? undefined : parseMac(mac);
    return bytes && { high: macHigh(bytes, 0), low: macLow(bytes, 0) };
  }

  /** The device as `ip -j -s -d link show` has it, with the words of a vxlan device instead of the TAP's. */
  async record(state: Omit<LinkRecord['uvxlan'], 'uplink' | 'reason' | 'workers'>): Promise<LinkRecord> {
    const rows = await this.#host.iproute.json<LinkRecord[]>('ip', [
      '-j',
      '-s',
      '-d',
      'link',
      'show',
      'dev',
      this.name,
    ]);
    const { kind: uplink, reason, specs } = this.uplink;
    return {
      ...rows[0],
      linkinfo: { info_kind: 'vxlan', info_data: vxlanInfo(this.config, this.place.local, this.place.nic.name) },
      uvxlan: { uplink, reason, workers: specs.length, ...state },
    };
  }

  close(): void {
    closeTap(this.#tap);
  }
}
