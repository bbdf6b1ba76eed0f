/** flannel's vxlan backend, with the daemon's devices instead of the kernel's. */

import { parsePrefix } from '../../wire/prefix.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6 } from '../../wire/vxlan.ts';
import { Daemon } from '../daemon.ts';
import type { DeviceConfig } from '../fields.ts';
import type { Log } from '../log.ts';
import { offloadObstacle } from '../offload/probe.ts';
import { CommandError, type FdbArguments } from '../protocol.ts';
import { completeDevice } from '../words.ts';
import { type Backend, HopelessError, type Overlay, type Wish } from './backend.ts';
import { FAMILIES, type Family, type PerFamily } from './lease.ts';
import type { NetConf, VxlanBackend } from './net-conf.ts';

export interface VxlanOptions {
  /** What every device gets besides what the cluster says: uplink, workers. */
  readonly device: Partial<DeviceConfig>;
  /** See DaemonOptions. */
  readonly without: readonly string[];
  readonly log: Log;
}

/** flannel takes 50 bytes also where the outer packet is IPv6, which is 20 too few. */
const OVERHEAD = { ipv4: OUTER_LENGTH_IPV4, ipv6: OUTER_LENGTH_IPV6 } as const;

export function vxlanDeviceName(family: Family, vni: number): string {
  return family === 'ipv4' ? `flannel.${vni}` : `flannel-v6.${vni}`;
}

export class Vxlan implements Backend {
  readonly overlays: PerFamily<Overlay>;
  readonly directRouting: boolean;
  readonly #conf: VxlanBackend;
  readonly #options: VxlanOptions;
  #daemon: Daemon | undefined;
  #offload: Partial<DeviceConfig> = {};
  /** The devices as they were asked for last, by name. */
  readonly #configs = new Map<string, DeviceConfig>();
  /** The entries that were made here, MAC to VTEP, by device. Others in the FDB are somebody else's. */
  readonly #entries = new Map<string, Map<string, string>>();
  /** What the daemon was told last, and how often its FDB had changed after that. */
  #told: Wish | undefined;
  #fdbChanges = 0;
  /** The subnet that each VTEP is bound to, by device. */
  readonly #bound = new Map<string, Map<string, string>>();

  constructor(netConf: NetConf, conf: VxlanBackend, options: VxlanOptions) {
    this.#conf = conf;
    this.#options = options;
    this.directRouting = conf.directRouting;
    if (conf.gbp)
      options.log(
        "GBP: other nodes' packets with a policy are taken; none is sent, since a TAP knows no packet's mark",
      );
    const overlay = (family: Family): Overlay | null => {
      const network = netConf[family]?.network;
      return network === undefined ? null : { device: vxlanDeviceName(family, conf.vni), network, spansNetwork: false };
    };
    this.overlays = { ipv4: overlay('ipv4'), ipv6: overlay('ipv6') };
  }

  async keepDevices(wish: Wish): Promise<string[]> {
    const daemon = await this.#start();
    const made: string[] = [];
    for (const config of this.#wanted(wish)) {
      const { name, local, dev } = config;
      const before = this.#configs.get(name);
      if (!daemon.status().devices.includes(name)) {
        await this.#add(daemon, config);
        this.#entries.delete(name);
        this.#told = undefined;
        this.#bound.delete(name);
        made.push(`device ${name}`);
      } else if (before && (before.local !== local || before.dev !== dev)) {
        await daemon.linkSet(name, { local, dev });
        made.push(`device ${name}: local ${local} dev ${dev}`);
      }
      this.#configs.set(name, { ...config, udpcsum: await this.#keepChecksums(daemon, config) });
    }
    return made;
  }

  async #add(daemon: Daemon, config: DeviceConfig): Promise<void> {
    try {
      await daemon.linkAdd(config);
    } catch (error) {
      const isRequired = config.offload === 'require' && error instanceof CommandError && error.errno === 'EOPNOTSUPP';
      throw isRequired ? new HopelessError(`--${error.message.replace(`${config.name}: `, '')}`) : error;
    }
  }

  /** `offload auto` does without outer checksums only while the kernel can carry flows, which another uplink may change. */
  async #keepChecksums(daemon: Daemon, { name, offload, udpcsum }: DeviceConfig): Promise<boolean> {
    const wanted = offload === 'auto' ? daemon.offloadObstacle(name) !== undefined : udpcsum;
    if (wanted !== udpcsum) await daemon.linkSet(name, { udpcsum: wanted });
    return wanted;
  }

  keepPeers(wish: Wish): string[] {
    if (!this.#daemon) return [];
    const isForeign = this.#daemon.fdbChanges !== this.#fdbChanges;
    if (wish === this.#told && !isForeign) return [];
    const { peers } = wish;
    const repaired: string[] = [];
    for (const family of FAMILIES) {
      const device = this.overlays[family]?.device;
      if (!device) continue;
      const wanted = new Map<string, string>();
      const subnets = new Map<string, string>();
      // Of one that several nodes say is theirs, a lease that has not ended yet among them, no subnet is known.
      const ambiguous = new Set<string>();
      for (const peer of peers.values()) {
        const share = peer[family];
        if (!share?.vtepMac) continue;
        wanted.set(share.vtepMac, share.publicIp);
        if (!this.#bindsSubnets) continue;
        if (subnets.has(share.publicIp)) ambiguous.add(share.publicIp);
        subnets.set(share.publicIp, share.subnet);
      }
      for (const publicIp of ambiguous) subnets.delete(publicIp);
      // Before there are entries by which its packets are let in.
      this.#bind(this.#daemon, device, subnets);
      repaired.push(...this.#keepEntries(this.#daemon, device, wanted, isForeign));
      this.#unbind(this.#daemon, device, subnets);
    }
    // With all entries in place it knows as much as an earlier run.
    if (this.#told === undefined)
      this.#daemon.releasePins().catch(({ message }: Error) => this.#options.log(message, { level: 'error' }));
    this.#told = wish;
    this.#fdbChanges = this.#daemon.fdbChanges;
    return repaired;
  }

  async metrics(): Promise<string> {
    return (await this.#daemon?.metrics()) ?? '';
  }

  mtu({ external }: Wish, family: Family): number {
    // net-conf's MTU is that of the network underneath.
    return (this.#conf.mtu ?? external.nic.mtu) - OVERHEAD[family];
  }

  async stop(): Promise<void> {
    await this.#daemon?.stop();
    this.#daemon = undefined;
  }

  /** One daemon for both devices; its control socket answers `uvxlan link`, `fdb` and `stats` as always. */
  async #start(): Promise<Daemon> {
    if (this.#daemon) return this.#daemon;
    const { without, log } = this.#options;
    const daemon = new Daemon({ devices: [], without, log, keepsPins: true });
    try {
      await daemon.start();
    } catch (error) {
      await daemon.stop().catch(({ message }: Error) => log(message, { level: 'error' }));
      throw error;
    }
    this.#daemon = daemon;
    this.#offload = this.#offloadFields();
    return daemon;
  }

  /** What makes it possible that the kernel carries known flows: no outer UDP checksums. */
  #offloadFields(): Partial<DeviceConfig> {
    const { device, log } = this.#options;
    if (device.offload === 'require') return { udpcsum: false, udp6zerocsumtx: true, udp6zerocsumrx: true };
    if (device.offload !== 'auto') return {};
    const obstacle = offloadObstacle();
    // The kernel's device drops IPv6 packets without a checksum, unless told otherwise.
    if (obstacle === undefined) return { udpcsum: false };
    log(`known flows are not offloaded to the kernel: ${obstacle}`);
    return { offload: 'off' };
  }

  #wanted({ external, own }: Wish): DeviceConfig[] {
    const { vni, port, mtu, learning, gbp } = this.#conf;
    return FAMILIES.flatMap((family) => {
      const share = own[family];
      if (!share || !this.overlays[family]) return [];
      return completeDevice({
        ...this.#options.device,
        ...this.#offload,
        ...this.#checksums(vxlanDeviceName(family, vni)),
        'vtep-filter': this.#deviceFilter(),
        name: vxlanDeviceName(family, vni),
        id: vni,
        dstport: port,
        local: external.address[family],
        dev: external.nic.name,
        address: share.vtepMac,
        // Without one of its own the device follows its NIC's.
        mtu: mtu === null ? null : mtu - OVERHEAD[family],
        learning,
        gbp,
        persist: true,
      });
    });
  }

  /** As they were left last. */
  #checksums(name: string): Partial<DeviceConfig> {
    const config = this.#configs.get(name);
    return config ? { udpcsum: config.udpcsum } : {};
  }

  get #bindsSubnets(): boolean {
    return this.#options.device['vtep-filter'] === 'strict';
  }

  /** Each node has one MAC address, whatever is asked of its pods' addresses; where MACs are learned there may be others behind it. */
  #deviceFilter(): DeviceConfig['vtep-filter'] {
    const { 'vtep-filter': asked = 'off' } = this.#options.device;
    return asked === 'known' && !this.#conf.learning ? 'strict' : asked;
  }

  /** So that a node sends with its own pods' addresses alone. */
  #bind(daemon: Daemon, device: string, wanted: ReadonlyMap<string, string>): void {
    const bound = this.#bound.get(device) ?? new Map<string, string>();
    this.#bound.set(device, bound);
    for (const [vtep, subnet] of wanted) {
      if (bound.get(vtep) === subnet) continue;
      daemon.bindVtep(device, vtep, [parsePrefix(subnet)!]);
      bound.set(vtep, subnet);
    }
  }

  #unbind(daemon: Daemon, device: string, wanted: ReadonlyMap<string, string>): void {
    const bound = this.#bound.get(device)!;
    for (const vtep of bound.keys()) {
      if (wanted.has(vtep)) continue;
      daemon.bindVtep(device, vtep, []);
      bound.delete(vtep);
    }
  }

  #keepEntries(daemon: Daemon, device: string, wanted: ReadonlyMap<string, string>, isForeign: boolean): string[] {
    const ours = this.#entries.get(device) ?? new Map<string, string>();
    this.#entries.set(device, ours);
    const repaired: string[] = [];
    // Thousands of entries take longer to list than one to change.
    const there = isForeign ? new Map(daemon.fdbShow({ dev: device }).map(({ mac, dst }) => [mac, dst])) : ours;
    const entry = (mac: string, dst: string | null) =>
      ({ dev: device, mac, dst, port: null, vni: null, via: null, state: 'permanent' }) as const;
    for (const [mac, dst] of wanted) {
      if (there.get(mac) === dst) continue;
      if (ours.get(mac) === dst) repaired.push(`FDB entry ${mac} dev ${device} dst ${dst}`);
      daemon.fdbReplace(entry(mac, dst));
      ours.set(mac, dst);
    }
    for (const mac of ours.keys()) {
      if (wanted.has(mac)) continue;
      if (there.has(mac)) removeEntry(daemon, entry(mac, null));
      ours.delete(mac);
    }
    return repaired;
  }
}

function removeEntry(daemon: Daemon, entry: FdbArguments): void {
  try {
    daemon.fdbDel(entry);
  } catch (error) {
    if ((error as { errno?: unknown }).errno !== 'ENOENT') throw error; // somebody was faster
  }
}
