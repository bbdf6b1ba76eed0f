/** Where frames go: joins the FDB's writer with the resolver that finds the way to each of its next hops. */
import { buildTemplate } from '../fdb/template.ts';
import { FdbWriter } from '../fdb/writer.ts';
import type { VxlanDevice } from './device.ts';
import type { FdbEntry } from './fields.ts';
import type { Host } from './host.ts';
import type { Path } from './path.ts';
import type { FdbRecord } from './protocol.ts';
import { Resolver } from './resolver.ts';

/** The kernel's ip_default_ttl. */
const DEFAULT_TTL = 64;
const ZERO_MAC = '00:00:00:00:00:00';
/** A socket's packets are fragmented by the kernel: whatever a TAP hands out fits. */
const ANY_MTU = 0xffff;

export type FdbChange = 'add' | 'append' | 'replace';

export class Forwarding {
  readonly #writer: FdbWriter;
  readonly #resolver: Resolver;
  readonly #devices = new Map<number, VxlanDevice>();
  /** Next hop -> its VTEP, port and VNI, and its device. */
  readonly #nextHops = new Map<number, { device: VxlanDevice; ip: string; port: number; vni: number }>();

  constructor(host: Host, warn: (message: string) => void) {
    this.#writer = new FdbWriter({
      onNextHop: (index, { device, ip, port, vni, via }) =>
        this.#want(index, this.#devices.get(device)!, ip, port, vni, via),
      onRelease: (index) => this.#release(index),
    });
    this.#resolver = new Resolver(
      host,
      {
        publish: (index, path) => this.#write(index, path),
        unresolve: (index) => this.#writer.unresolve(index),
      },
      { warn },
    );
  }

  /** What the workers read. */
  get buffers(): { fdb: SharedArrayBuffer; nextHops: SharedArrayBuffer; lists: SharedArrayBuffer } {
    const { table, nextHops, lists } = this.#writer;
    return { fdb: table.buffer, nextHops: nextHops.buffer, lists: lists.buffer };
  }

  addDevice(device: VxlanDevice): void {
    const { index, name, config } = device;
    this.#devices.set(index, device);
    this.#writer.addDevice({ index, name, vni: config.id, port: config.dstport, family: 4 });
    if (config.remote !== null) this.change('append', device, { ...NO_ENTRY, mac: ZERO_MAC, dst: config.remote });
    // A MAC that may have several remotes is named once for each of them.
    for (const entry of config.fdb) this.change('append', device, entry);
  }

  change(change: FdbChange, device: VxlanDevice, entry: FdbEntry): void {
    this.#writer[change](device.index, entry, performance.now());
  }

  del(device: VxlanDevice, entry: FdbEntry): void {
    this.#writer.del(device.index, entry, performance.now());
  }

  flush(device: VxlanDevice): void {
    this.#writer.flush(device.index, performance.now());
  }

  show(device: VxlanDevice): FdbRecord[] {
    return this.#writer.show(device.index);
  }

  /** Resolves when every next hop known so far has been looked up. */
  settled(): Promise<void> {
    return this.#resolver.settled();
  }

  /** How much of it there is, and which VTEPs cannot be reached, for `link show`. */
  state(device: VxlanDevice): {
    fdb_entries: number;
    nexthops: number;
    nexthops_unresolved: number;
    unresolved: { dst: string; reason: string }[];
  } {
    const own = [...this.#nextHops].filter(([, hop]) => hop.device === device);
    const reasons = this.#resolver.reasons();
    const unresolved = own.flatMap(([index, { ip }]) =>
      reasons.has(index) ? [{ dst: ip, reason: reasons.get(index)! }] : [],
    );
    return {
      fdb_entries: this.#writer.size(device.index),
      nexthops: own.length,
      nexthops_unresolved: unresolved.length,
      unresolved,
    };
  }

  async stop(): Promise<void> {
    await this.#resolver.stop();
  }

  #want(index: number, device: VxlanDevice, ip: string, port: number, vni: number, via: string): void {
    this.#nextHops.set(index, { device, ip, port, vni });
    const { local, nic } = device.place;
    if (device.uplink.kind === 'udp') {
      // The kernel finds the way; the template only tells the address and port to send to.
      this.#write(index, { sourceMac: ZERO_MAC, destinationMac: ZERO_MAC, source: local, mtu: ANY_MTU });
    } else {
      this.#resolver.add(index, { remote: ip, local, dev: via || nic.name });
    }
  }

  #release(index: number): void {
    const { device } = this.#nextHops.get(index)!;
    this.#nextHops.delete(index);
    if (device.uplink.kind !== 'udp') this.#resolver.release(index);
  }

  #write(index: number, path: Pick<Path, 'sourceMac' | 'destinationMac' | 'source' | 'mtu'>): void {
    const { device, ip, port, vni } = this.#nextHops.get(index)!;
    const { ttl, udpcsum } = device.config;
    const template = buildTemplate({
      sourceMac: path.sourceMac,
      destinationMac: path.destinationMac,
      source: path.source,
      destination: ip,
      port,
      vni,
      mtu: path.mtu,
      ttl: ttl || DEFAULT_TTL,
      tos: 0,
      df: false,
      udpChecksum: udpcsum,
      uplink: device.uplink.specs[0].index,
    });
    this.#writer.publish(index, template);
  }
}

const NO_ENTRY: Omit<FdbEntry, 'mac' | 'dst'> = { port: null, vni: null, via: null, state: 'permanent' };
