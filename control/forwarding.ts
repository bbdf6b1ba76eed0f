/** Where frames go: joins the FDB's writer with the resolver that finds the way to each of its next hops. */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { FdbError } from '../fdb/error.ts';
import type { NexthopGroups } from '../fdb/groups.ts';
import { Mdb, type MdbEntry, type MdbRecord, type MdbSelection, type MdbUser } from '../fdb/mdb.ts';
import { MdbReader } from '../fdb/mdb-table.ts';
import { type NextHopEvents, VIA_HOST } from '../fdb/nexthops.ts';
import { buildTemplate } from '../fdb/template.ts';
import { type FdbListener, FdbWriter } from '../fdb/writer.ts';
import { familyOf, isMulticast, macHigh, macLow, parseIp } from '../wire/address.ts';
import type { Prefix } from '../wire/prefix.ts';
import type { VxlanDevice } from './device.ts';
import { defaultDestination, outerOptions } from './device-options.ts';
import type { Events } from './events.ts';
import type { Found } from './explain/explain.ts';
import { changeText, FdbHistories, type FdbHistory } from './fdb-history.ts';
import { type DeviceDefaults, type FdbSelection, matcher } from './fdb-selection.ts';
import type { FdbEntry } from './fields.ts';
import type { Host } from './host.ts';
import { Learning } from './learning.ts';
import type { Log } from './log.ts';
import type { PeerState } from './metrics/text.ts';
import type { Offender } from './offenders.ts';
import type { LocalTrouble, Path } from './path.ts';
import { PeerEvents, type PeerFields } from './peer-events.ts';
import { CommandError, type FdbRecord, type PeerRecord } from './protocol.ts';
import { ReachLog } from './reach-log.ts';
import { Refusals } from './refusals.ts';
import { Resolver } from './resolver.ts';
import { type PathLimit, TooBigListener } from './too-big.ts';

const ZERO_MAC = '00:00:00:00:00:00';
/** Fields of an entry that has none of its own. */
const PLAIN_ENTRY: Omit<FdbEntry, 'mac' | 'dst'> = { port: null, vni: null, via: null, state: 'permanent' };

export type FdbChange = 'add' | 'append' | 'replace';

interface NextHop {
  readonly device: VxlanDevice;
  readonly ip: string;
  readonly port: number;
  readonly vni: number;
  readonly via: string;
}

export class Forwarding {
  readonly #writer: FdbWriter;
  readonly #mdb: Mdb;
  /** Looks groups up as the workers do. */
  readonly #groups: MdbReader;
  readonly #resolver: Resolver;
  readonly learning: Learning;
  readonly #devices = new Map<number, VxlanDevice>();
  readonly #nextHops = new Map<number, NextHop>();
  readonly #reach: ReachLog;
  readonly #histories = new FdbHistories();
  readonly #peers: PeerEvents;
  readonly #refusals: Refusals;
  readonly #defaultTtl = { 4: systemTtl('ipv4/ip_default_ttl'), 6: systemTtl('ipv6/conf/all/hop_limit') };
  readonly #warn: (message: string) => void;
  readonly #log: Log;
  /** By the family that packets have outside; null: it does not work here. */
  readonly #listeners = new Map<4 | 6, TooBigListener | null>();

  /** `onVtep`: called when a VTEP was learned that nothing was sent to until now. */
  constructor(host: Host, log: Log, events: Events, onVtep: () => void) {
    this.#reach = new ReachLog(log);
    this.#peers = new PeerEvents(events);
    this.#refusals = new Refusals(events);
    const warn = (message: string): void => log(message, { level: 'warn' });
    this.#warn = warn;
    this.#log = log;
    const listener: FdbListener = {
      onChange: (change, record, from, device) => {
        this.#histories.note(device, change, record, from, Date.now());
        if (!events.has('fdb')) return;
        const { ifname, ...entry } = record;
        events.emit('fdb', change, ifname, from === undefined ? entry : { ...entry, from });
      },
      onRefused: (...refused) => this.#refusals.note(...refused),
    };
    const nextHopEvents: NextHopEvents = {
      onNextHop: (index, { device, ip, port, vni, via }) => {
        const hop = { device: this.#devices.get(device)!, ip, port, vni, via };
        this.#nextHops.set(index, hop);
        if (!isNowhere(ip)) this.#peers.add(index, () => hop.device.name, peerFields(hop));
        this.#want(index);
      },
      onRelease: (index) => {
        this.#reach.forget(this.#nextHops.get(index)!.ip);
        this.#nextHops.delete(index);
        this.#peers.remove(index);
        this.#resolver.release(index);
      },
    };
    this.#writer = new FdbWriter(nextHopEvents, { seed: randomInt(2 ** 31), listener });
    this.#mdb = new Mdb(
      this.#writer.nextHops,
      this.#writer.lists,
      randomInt(2 ** 31),
      undefined,
      (change, { dev, port: _, ...record }) => events.emit('mdb', change, dev, record),
    );
    this.#groups = new MdbReader(this.#mdb.buffer);
    this.learning = new Learning(this.#writer, (index) => this.#devices.get(index), onVtep);
    this.#resolver = new Resolver(
      host,
      {
        publish: (index, path, mtu) => {
          this.#reach.note(this.#nextHops.get(index)!.ip, undefined);
          this.#peers.note(index, null);
          this.#logPath(index, path, mtu);
          this.#publish(index, path, mtu);
        },
        unresolve: (index, reason, isDropped) => {
          this.#reach.note(this.#nextHops.get(index)!.ip, reason);
          this.#peers.note(index, reason);
          if (isDropped) this.#writer.withhold(index);
          else this.#publish(index, undefined);
        },
      },
      { warn },
    );
  }

  /** For those who mirror it. */
  get fdb(): FdbWriter {
    return this.#writer;
  }

  /** What the workers read. */
  get buffers(): Record<'fdb' | 'mdb' | 'nextHops' | 'peers' | 'lists', SharedArrayBuffer> {
    const { table, nextHops, lists } = this.#writer;
    return {
      fdb: table.buffer,
      mdb: this.#mdb.buffer,
      nextHops: nextHops.buffer,
      peers: nextHops.peers.buffer,
      lists: lists.buffer,
    };
  }

  /** The host's TTL or hop limit for packets of an address. */
  defaultTtl(local: string): number {
    return this.#defaultTtl[familyOf(local)];
  }

  /** Takes the device's entries of the configuration as well. */
  addDevice(device: VxlanDevice): void {
    const { index, config } = device;
    this.#devices.set(index, device);
    this.#describe(device);
    const dst = defaultDestination(config);
    if (dst !== null) this.change('append', device, { ...PLAIN_ENTRY, mac: ZERO_MAC, dst });
    // A MAC that may have several remotes is named once for each of them.
    for (const entry of config.fdb) this.change('append', device, entry);
    this.#receiverChanged(device);
  }

  /** The device has another uplink, NIC, address, name or remote: finds the way to each of its next hops again. */
  moveDevice(device: VxlanDevice, oldRemote: string | null): void {
    const { config } = device;
    this.learning.ageingChanged();
    this.#describe(device);
    for (const [nextHop, hop] of this.#nextHops) {
      if (hop.device !== device) continue;
      this.#resolver.release(nextHop);
      this.#want(nextHop);
    }
    const dst = defaultDestination(config);
    if (dst === oldRemote) return;
    if (dst !== null) this.change('append', device, { ...PLAIN_ENTRY, mac: ZERO_MAC, dst });
    if (oldRemote === null) return;
    try {
      this.del(device, { ...PLAIN_ENTRY, mac: ZERO_MAC, dst: oldRemote });
    } catch (error) {
      if (!(error instanceof FdbError) || error.errno !== 'ENOENT') throw error; // somebody has removed it already
    }
  }

  #describe({ index, name, config, place }: VxlanDevice): void {
    const { id: vni, dstport: port, maxaddress: limit } = config;
    this.#writer.addDevice({ index, name, vni, port, family: familyOf(place.local), limit });
  }

  removeDevice(device: VxlanDevice): void {
    this.#mdb.flush(userOf(device), performance.now());
    this.#writer.removeDevice(device.index, performance.now());
    this.#writer.nextHops.peers.forget(device.index);
    this.#devices.delete(device.index);
    this.learning.forget(device);
    this.#histories.forget(device.index);
    this.#receiverChanged(device);
  }

  /** A device that was taken down knows what was configured only: what it has learned goes (Linux: vxlan_stop). */
  down(device: VxlanDevice): void {
    this.#writer.flush(device.index, performance.now(), ({ state }) => state === '');
  }

  /** Next hops of other devices may end at one that has come or gone. */
  #receiverChanged(device: VxlanDevice): void {
    const { id, dstport } = device.config;
    for (const [index, hop] of this.#nextHops) {
      if (hop.device !== device && hop.vni === id && hop.port === dstport) this.#want(index);
    }
  }

  /** What it means for a next hop to be this machine (Linux: encap_bypass_if_local). */
  #ifLocal({ device, ip, port, vni }: NextHop): LocalTrouble | undefined {
    const { config, place } = device;
    const receiver = [...this.#devices.values()].find(
      (other) =>
        other.config.id === vni &&
        other.config.dstport === port &&
        familyOf(other.place.local) === familyOf(place.local),
    );
    if (receiver === device) return { reason: `${ip} is an address of this machine`, isDropped: false };
    if (receiver || !config.localbypass) return undefined;
    const reason = `${ip} is an address of this machine, where no device has VNI ${vni} and dstport ${port} (localbypass)`;
    return { reason, isDropped: true };
  }

  /** The device's VTEPs, with the number of MACs behind each. */
  macsBehind({ index, name }: VxlanDevice): PeerRecord[] {
    return Array.from(this.#writer.records.countRemotes(index), ([dst, macs]) => ({ ifname: name, dst, macs }));
  }

  /** Throws FdbError, and CommandError for a NIC that the entry cannot leave through. */
  change(change: FdbChange, device: VxlanDevice, entry: FdbEntry): void {
    refuseOtherNic(device, entry.via);
    this.#writer[change](device.index, entry, performance.now());
  }

  del(device: VxlanDevice, entry: FdbEntry): void {
    this.#writer.del(device.index, entry, performance.now());
  }

  flush(device: VxlanDevice, selection: FdbSelection): void {
    this.#writer.flush(device.index, performance.now(), matcher(selection, defaultsOf(device)));
  }

  /** See Peers.bind. Returns whether this was the device's first that is bound, or its last. */
  bindVtep({ index }: VxlanDevice, vtep: string, subnets: readonly Prefix[]): boolean {
    const { peers } = this.#writer.nextHops;
    const wasBound = peers.isBound(index);
    peers.bind(index, parseIp(vtep)!, subnets);
    return peers.isBound(index) !== wasBound;
  }

  /** The remotes of a MAC with ages and last changes: each its own. Throws FdbError ENOENT, which says when the MAC went. */
  get({ index }: VxlanDevice, mac: string): (FdbRecord & FdbHistory)[] {
    const { changes, history } = this.#histories.of(index, mac);
    try {
      const records = this.#writer.get(index, mac, performance.now());
      return records.map((record) => {
        const own = history.filter(({ dst, from }) => dst === record.dst || from === record.dst);
        return { ...record, changes, history: records.length === 1 ? history : own };
      });
    } catch (error) {
      if (!(error instanceof FdbError) || error.errno !== 'ENOENT' || changes === 0) throw error;
      throw new FdbError('ENOENT', `${error.message} Its last change: ${changeText(history[0])}`);
    }
  }

  /** The last changes of a MAC, whether it is there or not. */
  history({ index }: VxlanDevice, mac: string): FdbHistory {
    return this.#histories.of(index, mac);
  }

  /** With ages if they are asked for. */
  show(device: VxlanDevice, selection: FdbSelection = {}, statistics = false): FdbRecord[] {
    const records = this.#writer.show(device.index, statistics ? performance.now() : undefined);
    return records.filter(matcher(selection, defaultsOf(device)));
  }

  /** Throws FdbError, and CommandError for a NIC that packets cannot leave through. */
  changeMdb(change: 'add' | 'replace' | 'del', device: VxlanDevice, entry: MdbEntry): void {
    if (change !== 'del') refuseOtherNic(device, entry.via ?? null);
    this.#mdb[change](userOf(device), entry, performance.now());
  }

  flushMdb(device: VxlanDevice, selection: MdbSelection): void {
    this.#mdb.flush(userOf(device), performance.now(), selection);
  }

  getMdb(device: VxlanDevice, entry: MdbEntry): MdbRecord[] {
    return this.#mdb.get(userOf(device), entry);
  }

  showMdb(device: VxlanDevice): MdbRecord[] {
    return this.#mdb.show(userOf(device));
  }

  /** Whether the device has entries in the multicast database. */
  hasMdb({ index }: VxlanDevice): boolean {
    return this.#mdb.size(index) > 0;
  }

  /** The multicast database's entry that a frame of at least 14 bytes meets. */
  #findGroup(device: number, frame: Uint8Array): { text: string; nextHops: readonly number[] } | undefined {
    const destination = (frame[0] & 1) === 0 ? 0 : this.#groups.find(device, frame, 0, frame.length);
    return destination === 0 ? undefined : this.#mdb.describe(destination >> 1);
  }

  /** What a frame of at least 14 bytes meets in the multicast database or the FDB, and the ways to its next hops. */
  find(device: VxlanDevice, frame: Uint8Array): Found {
    const group = this.#findGroup(device.index, frame);
    const entry = group ? undefined : this.#writer.records.lookup(device.index, macHigh(frame, 0), macLow(frame, 0));
    const reasons = this.#resolver.reasons();
    const hops = ((group ?? entry)?.nextHops ?? []).flatMap((index) => {
      const hop = this.#nextHops.get(index);
      if (!hop) return []; // it went a moment ago
      const { ip, port, vni } = hop;
      return [{ ip, port, vni, path: this.#resolver.path(index), reason: reasons.get(index) }];
    });
    return { group: group?.text, entry, hops };
  }

  #logPath(index: number, path: Path | undefined, mtu: number): void {
    const { device, ip } = this.#nextHops.get(index)!;
    const way = path ? `on ${path.dev} to ${path.destinationMac}, MTU ${mtu}` : "found by the host's stack";
    this.#log(`${device.name}: the way to VTEP ${ip}: ${way}`, { level: 'debug', device: device.name, peer: ip });
  }

  /** The VTEP of a next hop; undefined when it is gone. */
  remote(nextHop: number): string | undefined {
    return this.#nextHops.get(nextHop)?.ip;
  }

  /** A next hop in words, and the entry by which a frame goes there. */
  describe(nextHop: number, device: number, frame: Uint8Array): string {
    const hop = this.#nextHops.get(nextHop);
    if (!hop) return `next hop ${nextHop}, which is gone`;
    const group = this.#findGroup(device, frame);
    const found = this.#writer.records.lookup(device, macHigh(frame, 0), macLow(frame, 0));
    const entry = group
      ? ` (MDB: ${group.text})`
      : found
        ? ` (FDB: ${found.isOwn ? found.mac : 'the default entry'}, ${found.state})`
        : '';
    return `VTEP ${hop.ip}, port ${hop.port}, VNI ${hop.vni}${entry}`;
  }

  /** Nexthop objects, which entries of all devices may name. */
  get groups(): NexthopGroups {
    return this.#writer.groups;
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
    not_learned: number;
    offenders: Offender[];
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
      not_learned: this.#writer.refused(device.index),
      offenders: this.learning.offenders(device),
    };
  }

  /** How full the tables are. */
  get tables(): { table: string; entries: number; limit: number }[] {
    const { table, nextHops } = this.#writer;
    return [
      { table: 'fdb', entries: table.size, limit: table.limit },
      { table: 'nexthops', entries: nextHops.size, limit: nextHops.limit },
      { table: 'mdb', ...this.#mdb.fill },
    ];
  }

  /** All VTEPs of all devices, and whether they can be reached. */
  peers(): PeerState[] {
    const reasons = this.#resolver.reasons();
    const peers = new Map<string, PeerState>();
    for (const [index, { device, ip }] of this.#nextHops) {
      if (isNowhere(ip)) continue;
      const key = `${device.name} ${ip}`;
      const isUp = !reasons.has(index) && peers.get(key)?.isUp !== false;
      peers.set(key, { dev: device.name, dst: ip, isUp });
    }
    return [...peers.values()];
  }

  /** Addresses of the VTEPs that the device sends to. */
  remotes(device: VxlanDevice): string[] {
    return [...this.#nextHops.values()].flatMap((hop) => (hop.device === device && !isNowhere(hop.ip) ? hop.ip : []));
  }

  async stop(): Promise<void> {
    for (const listener of this.#listeners.values()) listener?.stop();
    this.learning.stop();
    this.#reach.stop();
    this.#peers.stop();
    this.#refusals.stop();
    await this.#resolver.stop();
  }

  /** Until its way is known, and for good where sockets carry it, the host's stack finds it. */
  #want(index: number): void {
    const hop = this.#nextHops.get(index)!;
    const { device, ip, via } = hop;
    const { local, nic } = device.place;
    if (isNowhere(ip)) return;
    this.#publish(index, undefined);
    // A group has no route to be found: the host's stack sends to it, through the NIC that its sockets are bound to.
    if (isMulticast(ip)) return;
    const viaHost = device.uplink.kind !== 'redirect';
    this.#hearTooBig(familyOf(local));
    this.#resolver.add(index, { remote: ip, local, dev: via || nic?.name, viaHost, ifLocal: this.#ifLocal(hop) });
  }

  /** From the first next hop on that needs it. */
  #hearTooBig(family: 4 | 6): void {
    if (this.#listeners.has(family)) return;
    try {
      this.#listeners.set(family, new TooBigListener(family, (limit) => this.#limit(limit)));
    } catch (error) {
      this.#listeners.set(family, null);
      this.#warn(
        `paths that are narrower than the NIC are not found out over IPv${family}: ${(error as Error).message}`,
      );
    }
  }

  /** An ICMP error is about a path of ours if we send such packets there. */
  #limit({ source, destination, port, vni, mtu }: PathLimit): void {
    const isOurs = [...this.#nextHops.values()].some(
      (hop) =>
        hop.ip === destination &&
        hop.port === port &&
        hop.device.place.local === source &&
        (vni === undefined || hop.vni === vni),
    );
    if (isOurs) this.#resolver.limitMtu(destination, mtu);
  }

  /** `mtu`: the path's where the host's stack finds it; 0 when that is not known. */
  #publish(index: number, found: Path | undefined, mtu = 0): void {
    const { device, ip, port, vni } = this.#nextHops.get(index)!;
    const { config } = device;
    const { local, nic } = device.place;
    const outer = outerOptions(config, familyOf(local));
    // Whole frames leave through the uplink's own NIC only.
    const path = found?.dev === nic?.name ? found : undefined;
    const template = buildTemplate({
      sourceMac: path?.sourceMac ?? ZERO_MAC,
      destinationMac: path?.destinationMac ?? ZERO_MAC,
      source: path?.source ?? local,
      destination: ip,
      port,
      vni,
      mtu: path?.mtu ?? mtu,
      ttl: config.ttl === 'inherit' ? 0 : outer.ttl || this.defaultTtl(local),
      tos: outer.tos,
      df: outer.df === 'set',
      flowLabel: outer.flowLabel,
      udpChecksum: outer.udpChecksum,
      uplink: device.uplink.index,
    });
    this.#writer.publish(index, template, path ? undefined : VIA_HOST);
  }
}

function peerFields({ device, ip, port, vni }: NextHop): PeerFields {
  const own = defaultsOf(device);
  return { dst: ip, ...(port === own.port ? {} : { port }), ...(vni === own.vni ? {} : { vni }) };
}

/** A remote that frames are dropped for, as the kernel takes it (vxlan_xmit_one: vxlan_addr_any). */
function isNowhere(ip: string): boolean {
  return ip === '0.0.0.0' || ip === '::';
}

function defaultsOf({ config }: VxlanDevice): DeviceDefaults {
  return { port: config.dstport, vni: config.id };
}

function userOf({ index, name, config, place }: VxlanDevice): MdbUser {
  return { index, name, port: config.dstport, vni: config.id, family: familyOf(place.local) };
}

/** Throws CommandError when `via` is another NIC than the device's; null: any. */
function refuseOtherNic({ place: { nic } }: VxlanDevice, via: string | null): void {
  if (via === null || via === nic?.name) return;
  const own = nic
    ? `packets leave through the device's own NIC, ${nic.name}: add a device on the other, or one without dev`
    : 'the device has no dev, so that the route to each VTEP decides: ip route';
  throw new CommandError(`via ${via}: ${own}`, 'EOPNOTSUPP');
}

/** The host's default, as sysctl has it; the kernel's own where there is none (a host without IPv6). */
function systemTtl(name: string): number {
  try {
    return Number(readFileSync(`/proc/sys/net/${name}`, 'latin1'));
  } catch {
    return 64;
  }
}
