/**
 * Changes the FDB: the only writer of the table, its lists and its next hops. Operations and errors are those of `bridge fdb` on a vxlan
 * device (drivers/net/vxlan/vxlan_core.c: vxlan_fdb_add, vxlan_fdb_update, vxlan_fdb_delete).
 *
 * Times are milliseconds of CLOCK_MONOTONIC; the table keeps them in whole seconds.
 */
import { familyOf, formatIp, formatMac, macBytes, macHigh, macLow, parseIp, parseMac } from '../wire/address.ts';
import { answer, FdbError } from './error.ts';
import { Lists } from './lists.ts';
import type { FdbMirror } from './mirror.ts';
import {
  DEFAULT_GRACE,
  type NextHopEvents,
  type NextHopKey,
  NextHops,
  type RESOLVED,
  type Template,
  type VIA_HOST,
} from './nexthops.ts';
import { type FdbState, STATE_BITS, stateText } from './state.ts';
import { DEFAULT_LIMIT, FdbTable } from './table.ts';

/** A VXLAN device, as far as its entries depend on it. */
export interface FdbDevice {
  /** 0..255, the key of its entries. */
  readonly index: number;
  readonly name: string;
  readonly vni: number;
  /** Destination port of entries that name none. */
  readonly port: number;
  readonly family: 4 | 6;
  /** Entries that it takes (`maxaddress`); 0: as many as the table. */
  readonly limit?: number;
}

/** An entry as asked for. What is absent or null is the device's own. */
export interface FdbEntry {
  readonly mac: string;
  /** The remote VTEP. Without it del() removes all of the MAC. */
  readonly dst?: string | null;
  readonly port?: number | null;
  readonly vni?: number | null;
  /** Name of the NIC to leave through. */
  readonly via?: string | null;
  /** permanent when absent. */
  readonly state?: FdbState;
}

/** An entry as `bridge -j fdb show` prints it; absent: the device's own port, VNI and any NIC. */
export interface FdbRecord {
  mac: string;
  ifname: string;
  dst: string;
  port?: number;
  vni?: number;
  viaIf?: string;
  flags: string[];
  state: 'permanent' | 'static' | '';
}

export interface FdbOptions {
  /** Entries in the table, all devices together. */
  readonly limit?: number;
  /** Of the hash: random, see FdbTable. */
  readonly seed?: number;
  /** Milliseconds that workers may hold on to what they found. */
  readonly grace?: number;
}

export class FdbWriter {
  readonly table: FdbTable;
  readonly nextHops: NextHops;
  readonly lists: Lists;
  readonly #devices: (FdbDevice | undefined)[] = [];
  readonly #sizes = new Int32Array(256);

  constructor(events: NextHopEvents, { limit = DEFAULT_LIMIT, seed = 0, grace = DEFAULT_GRACE }: FdbOptions = {}) {
    this.table = new FdbTable(limit, seed);
    this.nextHops = new NextHops(events, undefined, grace);
    this.lists = new Lists(undefined, grace);
  }

  addDevice(device: FdbDevice): void {
    this.#devices[device.index] = device;
  }

  /** Removes its entries as well. */
  removeDevice(index: number, now: number): void {
    this.flush(index, now);
    this.#devices[index] = undefined;
  }

  /** Tells `mirror` of all changes from now on; what is there already, replay() tells. */
  set mirror(mirror: FdbMirror) {
    this.table.mirror = mirror;
    this.nextHops.mirror = mirror;
  }

  /** Tells the mirror of a device's entries and their next hops as they are. */
  replay(device: number, mirror: FdbMirror): void {
    const { table } = this;
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      if (table.device(cell) !== device) continue;
      const destination = table.destination(cell);
      if ((destination & 1) === 0) mirror.setNextHop(destination >> 1);
      mirror.setEntry(device, table.macHigh(cell), table.macLow(cell), destination);
    }
  }

  /** Entries (MACs) of a device. */
  size(device: number): number {
    return this.#sizes[device];
  }

  /** A MAC that has no entry yet. Throws FdbError EEXIST, ENOSPC, EINVAL, EAFNOSUPPORT, ENOBUFS. */
  add(device: number, entry: FdbEntry, now: number): void {
    const { high, low, hop, bits } = this.#parse(device, entry);
    if (this.table.find(device, high, low) >= 0) throw answer('EEXIST');
    this.#create(device, high, low, hop, bits, now);
  }

  /**
   * A further remote of the zero MAC or of a multicast MAC. A unicast MAC has one: when it has, as with a remote that is there
   * already, only the state changes. Throws FdbError ENOSPC, EINVAL, EAFNOSUPPORT, ENOBUFS.
   */
  append(device: number, entry: FdbEntry, now: number): void {
    const { high, low, hop, bits } = this.#parse(device, entry);
    const cell = this.table.find(device, high, low);
    if (cell < 0) {
      this.#create(device, high, low, hop, bits, now);
      return;
    }
    this.#setState(cell, bits, now);
    if (!hasMany(high, low)) return;
    const list = this.table.destination(cell) >> 1;
    if (this.#member(list, hop) > 0) return;
    const grown = this.#holding(hop, now, (index) => this.lists.append(list, index, now));
    this.#setList(cell, list, grown, now);
  }

  /**
   * Gives a unicast MAC another remote, or adds it. Throws FdbError EOPNOTSUPP for the zero MAC and multicast, whose state has then
   * changed all the same; ENOSPC, EINVAL, EAFNOSUPPORT, ENOBUFS.
   */
  replace(device: number, entry: FdbEntry, now: number): void {
    const { high, low, hop, bits } = this.#parse(device, entry);
    const cell = this.table.find(device, high, low);
    if (cell < 0) {
      if (hasMany(high, low)) throw answer('EOPNOTSUPP');
      this.#create(device, high, low, hop, bits, now);
      return;
    }
    this.#setState(cell, bits, now);
    if (hasMany(high, low)) throw new FdbError('EOPNOTSUPP', 'Error: Cannot replace non-unicast fdb entries.');
    const old = this.table.destination(cell) >> 1;
    if (this.nextHops.find(hop) === old) return;
    this.table.setDestination(cell, this.nextHops.acquire(hop, now) << 1);
    this.nextHops.release(old, now);
  }

  /**
   * With a dst removes this remote, and with the last one the MAC; without (or 0.0.0.0) the MAC and all its remotes. A remote that is
   * not there is no error. Throws FdbError ENOENT when the MAC is not there, EINVAL.
   */
  del(device: number, entry: FdbEntry, now: number): void {
    const { high, low } = macOf(entry.mac);
    const hop = this.#hop(device, entry);
    const cell = this.table.find(device, high, low);
    if (cell < 0) throw answer('ENOENT');
    if (hop === undefined || hop.ip === '0.0.0.0' || hop.ip === '::') {
      this.#remove(cell, now);
      return;
    }
    const destination = this.table.destination(cell);
    if ((destination & 1) === 0) {
      if (this.nextHops.find(hop) === destination >> 1) this.#remove(cell, now);
      return;
    }
    const list = destination >> 1;
    const member = this.#member(list, hop);
    if (member === 0) return;
    if (this.lists.count(list) === 1) {
      this.#remove(cell, now);
      return;
    }
    this.#setList(cell, list, this.lists.remove(list, member, now), now);
    this.nextHops.release(member, now);
  }

  /** Removes all entries of a device. */
  flush(device: number, now: number): void {
    for (let cell = this.table.next(0); cell >= 0; cell = this.table.next(cell)) {
      if (this.table.device(cell) === device) this.#remove(cell, now);
    }
  }

  /** The entries of a device, or of all, one record a remote. */
  show(device?: number): FdbRecord[] {
    const { table } = this;
    const records: FdbRecord[] = [];
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      if (device !== undefined && table.device(cell) !== device) continue;
      const destination = table.destination(cell);
      const mac = formatMac(macBytes(table.macHigh(cell), table.macLow(cell)));
      const state = stateText(table.state(cell));
      const members = destination & 1 ? this.lists.members(destination >> 1) : [destination >> 1];
      for (const member of members) records.push(this.#record(mac, this.nextHops.key(member), state));
    }
    return records;
  }

  /** See NextHops.publish(). */
  publish(index: number, template: Template, state?: typeof RESOLVED | typeof VIA_HOST): void {
    this.nextHops.publish(index, template, state);
  }

  #record(mac: string, hop: NextHopKey, state: FdbRecord['state']): FdbRecord {
    const { name, port, vni } = this.#device(hop.device);
    // The keys in the order in which bridge prints them.
    return {
      mac,
      ifname: name,
      dst: hop.ip,
      ...(hop.port === port ? {} : { port: hop.port }),
      ...(hop.vni === vni ? {} : { vni: hop.vni }),
      ...(hop.via === '' ? {} : { viaIf: hop.via }),
      flags: ['self'],
      state,
    };
  }

  #create(device: number, high: number, low: number, hop: NextHopKey, bits: number, now: number): void {
    const { limit } = this.#device(device);
    if (this.table.size >= this.table.limit || (limit && this.#sizes[device] >= limit)) throw answer('ENOSPC');
    const destination = this.#holding(hop, now, (index) =>
      hasMany(high, low) ? (this.lists.create([index], now) << 1) | 1 : index << 1,
    );
    this.table.insert(device, high, low, destination, bits, seconds(now));
    this.#sizes[device]++;
  }

  #remove(cell: number, now: number): void {
    const destination = this.table.destination(cell);
    this.#sizes[this.table.device(cell)]--;
    this.table.remove(cell);
    if ((destination & 1) === 0) {
      this.nextHops.release(destination >> 1, now);
      return;
    }
    for (const member of this.lists.members(destination >> 1)) this.nextHops.release(member, now);
    this.lists.release(destination >> 1, now);
  }

  #setState(cell: number, bits: number, now: number): void {
    if (this.table.state(cell) !== bits) this.table.setState(cell, bits, seconds(now));
  }

  #setList(cell: number, old: number, list: number, now: number): void {
    if (list === old) return;
    this.table.setDestination(cell, (list << 1) | 1);
    this.lists.release(old, now);
  }

  /** The next hop's index when the list has it, else 0. */
  #member(list: number, hop: NextHopKey): number {
    const index = this.nextHops.find(hop);
    return index > 0 && this.lists.includes(list, index) ? index : 0;
  }

  /** Takes a reference to a next hop for what `use` makes of it; gives it back when `use` throws. */
  #holding(hop: NextHopKey, now: number, use: (index: number) => number): number {
    const index = this.nextHops.acquire(hop, now);
    try {
      return use(index);
    } catch (error) {
      this.nextHops.release(index, now);
      throw error;
    }
  }

  /** The parts of an entry that is to be there afterwards. */
  #parse(device: number, entry: FdbEntry): { high: number; low: number; hop: NextHopKey; bits: number } {
    const { high, low } = macOf(entry.mac);
    const hop = this.#hop(device, entry);
    if (hop === undefined) throw answer('EINVAL');
    if (familyOf(hop.ip) !== this.#device(device).family) throw answer('EAFNOSUPPORT');
    return { high, low, hop, bits: STATE_BITS[entry.state ?? 'permanent'] };
  }

  /** undefined: the entry has no dst. */
  #hop(device: number, { dst, port, vni, via }: FdbEntry): NextHopKey | undefined {
    const own = this.#device(device);
    if (!dst) return undefined;
    const ip = parseIp(dst);
    if (ip === undefined) throw answer('EINVAL');
    // Port 0 is the device's own to iproute2, too.
    return { device, ip: formatIp(ip), port: port || own.port, vni: vni ?? own.vni, via: via ?? '' };
  }

  #device(index: number): FdbDevice {
    const device = this.#devices[index];
    if (device === undefined) throw new RangeError(`there is no device ${index} in the FDB`);
    return device;
  }
}

/** Whether a MAC may have several remotes: the zero MAC (the default entry) and multicast (vxlan_fdb_update_existing). */
function hasMany(high: number, low: number): boolean {
  return (high & 0x100) !== 0 || (high === 0 && low === 0);
}

function macOf(text: string): { high: number; low: number } {
  const mac = parseMac(text);
  if (mac === undefined) throw answer('EINVAL');
  return { high: macHigh(mac, 0), low: macLow(mac, 0) };
}

function seconds(now: number): number {
  return Math.floor(now / 1000);
}
