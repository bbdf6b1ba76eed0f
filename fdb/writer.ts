/**
 * Changes the FDB: the only writer of the table, its lists and its next hops. Operations and errors are those of `bridge fdb` on a vxlan
 * device (drivers/net/vxlan/vxlan_core.c: vxlan_fdb_add, vxlan_fdb_update, vxlan_fdb_delete).
 *
 * Times are milliseconds of CLOCK_MONOTONIC; the table keeps them in whole seconds.
 */
import { familyOf, formatIp, macHigh, macLow, parseIp, parseMac } from '../wire/address.ts';
import { answer, FdbError } from './error.ts';
import { NexthopGroups } from './groups.ts';
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
import { type FdbDevice, type FdbRecord, FdbRecords, seconds } from './records.ts';
import {
  ADDED_BY_USER,
  type FdbFlag,
  type FdbState,
  flagBits,
  isDynamic,
  LEARNED,
  NTF_EXT_LEARNED,
  NUD_FIXED,
  STATE_BITS,
} from './state.ts';
import { DEFAULT_LIMIT, FdbTable } from './table.ts';

/** An entry as asked for. What is absent or null is the device's own. */
export interface FdbEntry {
  readonly mac: string;
  /** The remote VTEP. Without it del() removes all of the MAC. */
  readonly dst?: string | null;
  /** A nexthop group in the place of dst, port, vni and via. */
  readonly nhid?: number | null | undefined;
  readonly port?: number | null;
  readonly vni?: number | null;
  /** Name of the NIC to leave through. */
  readonly via?: string | null;
  /** permanent when absent. */
  readonly state?: FdbState;
  readonly flags?: readonly FdbFlag[] | undefined;
}

/** What has happened to an entry, or to one remote of it. */
export type FdbChange = 'added' | 'changed' | 'deleted' | 'learned' | 'moved' | 'aged';

/** Hears of changes; `from` is the VTEP until then. */
export interface FdbListener {
  readonly onChange: (change: FdbChange, record: FdbRecord, from: string | undefined, device: number) => void;
  /** A MAC, two big-endian parts, at the VTEP `ip` is not learned, for want of room. */
  readonly onRefused?: (ifname: string, high: number, low: number, ip: string, reason: string) => void;
}

export interface FdbOptions {
  readonly listener?: FdbListener;
  /** Entries in the table, all devices together. */
  readonly limit?: number;
  /** Of the hash: random, see FdbTable. */
  readonly seed?: number;
  /** Milliseconds that workers may hold on to what they found. */
  readonly grace?: number;
}

/** Learned entries take at most three quarters of the table, so that there is always room for configured ones. */
const MOST_LEARNED = 3 / 4;
/** Learned entries add no next hops beyond this number: each costs the resolver a route and a neighbour. */
const LEARNED_NEXT_HOPS = 1 << 14;
const MANY_NEXT_HOPS = `there are ${LEARNED_NEXT_HOPS} next hops already`;
/** Seconds between two looks at the age of entries, at most (Linux: FDB_AGE_INTERVAL). */
const AGE_INTERVAL = 10;

export class FdbWriter {
  readonly table: FdbTable;
  readonly nextHops: NextHops;
  readonly lists: Lists;
  readonly groups: NexthopGroups;
  readonly records: FdbRecords;
  readonly #devices: (FdbDevice | undefined)[] = [];
  readonly #sizes = new Int32Array(256);
  readonly #refused = new Float64Array(256);
  readonly #listener: FdbListener | undefined;

  constructor(
    events: NextHopEvents,
    { limit = DEFAULT_LIMIT, seed = 0, grace = DEFAULT_GRACE, listener }: FdbOptions = {},
  ) {
    this.#listener = listener;
    this.table = new FdbTable(limit, seed);
    this.nextHops = new NextHops(events, undefined, grace, seed);
    this.lists = new Lists(undefined, grace);
    this.groups = new NexthopGroups(this.nextHops, this.lists, {
      onList: (old, list) => {
        for (const cell of this.#cellsOf(old)) this.table.setDestination(cell, (list << 1) | 1);
      },
      onGone: (list) => {
        for (const cell of this.#cellsOf(list)) this.#remove(cell, performance.now());
      },
    });
    this.records = new FdbRecords(this, (index) => this.#device(index));
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
  replay(device: number, mirror: Omit<FdbMirror, 'stamps'>): void {
    const { table } = this;
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      if (table.device(cell) !== device) continue;
      const destination = table.destination(cell);
      if ((destination & 1) === 0) mirror.setNextHop(destination >> 1);
      mirror.setEntry(device, table.macHigh(cell), table.macLow(cell), destination, table.state(cell));
    }
  }

  /** Takes over from the mirror, which is about to forget them, when a device's entries were used and heard. */
  catchUp(device: number): void {
    const { table } = this;
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      if (table.device(cell) === device) this.records.catchUp(cell);
    }
  }

  /** Entries (MACs) of a device. */
  size(device: number): number {
    return this.#sizes[device];
  }

  /** How often a device could not learn a MAC, for want of room. */
  refused(device: number): number {
    return this.#refused[device];
  }

  /**
   * A packet with this source MAC came from a VTEP, `ip`; `via` is its NIC when the address is link-local. As vxlan_snoop: a new entry, or
   * a dynamic one moves; what does not fit is counted. Workers report more often than they need to.
   */
  learn(device: number, high: number, low: number, ip: string, via: string, now: number): void {
    if (hasMany(high, low)) return; // not a MAC that one host has
    const { port, vni, family } = this.#device(device);
    if (familyOf(ip) !== family) return;
    const cell = this.table.find(device, high, low);
    const hop = { device, ip, port, vni, via };
    if (cell < 0) {
      const full = this.#fullFor(hop);
      if (full !== undefined) this.#refuse(device, high, low, ip, full);
      else this.#tell('learned', this.#create(device, high, low, hop, LEARNED, now));
      return;
    }
    if ((this.table.state(cell) & NUD_FIXED) !== 0) return;
    const old = this.table.destination(cell);
    if ((old & 1) !== 0) return;
    const { ip: from, ...rest } = this.nextHops.key(old >> 1);
    if (from === ip && rest.via === via) return;
    // Port and VNI stay as they are: the kernel changes the address alone.
    const moved = { ...rest, ip, via };
    if (this.#hasManyNextHops(moved)) {
      this.#refuse(device, high, low, ip, MANY_NEXT_HOPS);
      return;
    }
    this.table.setDestination(cell, this.nextHops.acquire(moved, now) << 1);
    this.nextHops.release(old >> 1, now);
    this.table.setUpdated(cell, seconds(now));
    this.#tell('moved', cell, from);
  }

  /**
   * Removes dynamic entries that have not been heard for as many seconds as `ageing` says of their device (0: they stay). Returns the
   * seconds until it is worth to look again.
   */
  age(ageing: (device: number) => number, now: number): number {
    const { table } = this;
    let next = AGE_INTERVAL;
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      if (!isDynamic(table.state(cell))) continue;
      const limit = ageing(table.device(cell));
      if (limit === 0) continue;
      let left = table.updated(cell) + limit - seconds(now);
      if (left <= 0) {
        this.records.catchUp(cell);
        left = table.updated(cell) + limit - seconds(now);
      }
      if (left <= 0) this.#remove(cell, now, 'aged');
      else next = Math.min(next, left);
    }
    return next;
  }

  /** A MAC that has no entry yet. Throws FdbError EEXIST, ENOSPC, EINVAL, EAFNOSUPPORT, ENOBUFS. */
  add(device: number, entry: FdbEntry, now: number): void {
    const { high, low, to, bits } = this.#parse(device, entry);
    if (this.table.find(device, high, low) >= 0) throw answer('EEXIST');
    this.#tell('added', this.#create(device, high, low, to, bits, now));
  }

  /**
   * A further remote of the zero MAC or of a multicast MAC. A unicast MAC has one: when it has, as with a remote that is there
   * already, only the state changes. Throws FdbError ENOSPC, EINVAL, EAFNOSUPPORT, ENOBUFS.
   */
  append(device: number, entry: FdbEntry, now: number): void {
    const { high, low, to, bits } = this.#parse(device, entry);
    const cell = this.table.find(device, high, low);
    if (cell < 0) {
      this.#tell('added', this.#create(device, high, low, to, bits, now));
      return;
    }
    this.#refuseGroup(cell, to);
    if (typeof to === 'number') throw new FdbError('EOPNOTSUPP', 'Error: Cannot append to a nexthop fdb.');
    this.#setState(cell, bits, now);
    if (!hasMany(high, low) || this.records.groupOf(cell) !== undefined) return;
    const list = this.table.destination(cell) >> 1;
    if (this.#member(list, to) > 0) return;
    const grown = this.#holding(to, now, (index) => this.lists.append(list, index, now));
    this.#setList(cell, list, grown, now);
    this.#tellOf('added', cell, to);
  }

  /**
   * Gives a unicast MAC another remote, or adds it; where a group stands only another group takes its place. Throws FdbError EOPNOTSUPP for the zero MAC and multicast, whose state has then
   * changed all the same; ENOSPC, EINVAL, EAFNOSUPPORT, ENOBUFS.
   */
  replace(device: number, entry: FdbEntry, now: number): void {
    const { high, low, to, bits } = this.#parse(device, entry);
    const cell = this.table.find(device, high, low);
    if (cell < 0) {
      if (hasMany(high, low)) throw answer('EOPNOTSUPP');
      this.#tell('added', this.#create(device, high, low, to, bits, now));
      return;
    }
    this.#refuseGroup(cell, to);
    this.#setState(cell, bits, now);
    if (hasMany(high, low)) throw new FdbError('EOPNOTSUPP', 'Error: Cannot replace non-unicast fdb entries.');
    const old = this.table.destination(cell) >> 1;
    const group = this.records.groupOf(cell);
    if (typeof to === 'number') {
      if (to === group) return;
      this.table.setDestination(cell, (this.groups.acquire(this.#device(device), to, now) << 1) | 1);
      this.groups.release(old, now);
      this.#tell('changed', cell);
      return;
    }
    if (group !== undefined || this.nextHops.find(to) === old) return;
    const from = this.nextHops.key(old).ip;
    this.table.setDestination(cell, this.nextHops.acquire(to, now) << 1);
    this.nextHops.release(old, now);
    this.#tell('changed', cell, from);
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
    this.#removeRemote(cell, hop, now);
  }

  /** The remotes of a MAC, with ages. Throws FdbError ENOENT when it is not there, EINVAL. */
  get(device: number, mac: string, now: number): FdbRecord[] {
    const { high, low } = macOf(mac);
    const cell = this.table.find(device, high, low);
    if (cell < 0) throw new FdbError('ENOENT', 'Error: Fdb entry not found.');
    return this.records.of(cell, now);
  }

  /** Removes the remotes of a device that are selected, and MACs that have none left. */
  flush(device: number, now: number, selects: (record: FdbRecord) => boolean = () => true): void {
    for (let cell = this.table.next(0); cell >= 0; cell = this.table.next(cell)) {
      if (this.table.device(cell) !== device) continue;
      if (this.records.of(cell).every(selects)) this.#remove(cell, now);
      else
        for (const hop of this.records.hops(cell))
          if (selects(this.records.ofRemote(cell, hop))) this.#removeRemote(cell, hop, now);
    }
  }

  /** See FdbRecords.show(). */
  show(device?: number, now?: number): FdbRecord[] {
    return this.records.show(device, now);
  }

  /** See NextHops.publish(). */
  publish(index: number, template: Template, state?: typeof RESOLVED | typeof VIA_HOST): void {
    this.nextHops.publish(index, template, state);
  }

  /** See NextHops.withhold(). */
  withhold(index: number): void {
    this.nextHops.withhold(index);
  }

  /** Tells of all remotes of an entry. */
  #tell(change: FdbChange, cell: number, from?: string): void {
    if (!this.#listener) return;
    const device = this.table.device(cell);
    for (const record of this.records.of(cell)) this.#listener.onChange(change, record, from, device);
  }

  #tellOf(change: FdbChange, cell: number, hop: NextHopKey): void {
    this.#listener?.onChange(change, this.records.ofRemote(cell, hop), undefined, this.table.device(cell));
  }

  /** What has no room for another MAC that is learned at a next hop, if anything. */
  #fullFor(hop: NextHopKey): string | undefined {
    const { table } = this;
    const { limit } = this.#device(hop.device);
    if (limit && this.#sizes[hop.device] >= limit) return `maxaddress ${limit} is reached`;
    if (table.size >= table.limit * MOST_LEARNED) return `the table is full: ${table.size} of ${table.limit} entries`;
    return this.#hasManyNextHops(hop) ? MANY_NEXT_HOPS : undefined;
  }

  #hasManyNextHops(hop: NextHopKey): boolean {
    return this.nextHops.size >= LEARNED_NEXT_HOPS && this.nextHops.find(hop) === 0;
  }

  #refuse(device: number, high: number, low: number, ip: string, reason: string): void {
    this.#refused[device]++;
    this.#listener?.onRefused?.(this.#device(device).name, high, low, ip, reason);
  }

  #create(device: number, high: number, low: number, to: NextHopKey | number, bits: number, now: number): number {
    const { limit } = this.#device(device);
    if (this.table.size >= this.table.limit || (limit && this.#sizes[device] >= limit)) throw answer('ENOSPC');
    const destination =
      typeof to === 'number'
        ? (this.groups.acquire(this.#device(device), to, now) << 1) | 1
        : this.#holding(to, now, (index) =>
            hasMany(high, low) ? (this.lists.create([index], now) << 1) | 1 : index << 1,
          );
    this.#sizes[device]++;
    return this.table.insert(device, high, low, destination, bits, seconds(now));
  }

  #remove(cell: number, now: number, change: FdbChange = 'deleted'): void {
    this.#tell(change, cell);
    const destination = this.table.destination(cell);
    this.#sizes[this.table.device(cell)]--;
    const isGroup = this.records.groupOf(cell) !== undefined;
    this.table.remove(cell);
    if (isGroup) {
      this.groups.release(destination >> 1, now);
      return;
    }
    if ((destination & 1) === 0) {
      this.nextHops.release(destination >> 1, now);
      return;
    }
    for (const member of this.lists.members(destination >> 1)) this.nextHops.release(member, now);
    this.lists.release(destination >> 1, now);
  }

  /** Removes a remote if it is there, and with the last one the entry. */
  #removeRemote(cell: number, hop: NextHopKey, now: number): void {
    const destination = this.table.destination(cell);
    if ((destination & 1) === 0) {
      if (this.nextHops.find(hop) === destination >> 1) this.#remove(cell, now);
      return;
    }
    const list = destination >> 1;
    const member = this.#member(list, hop);
    if (member === 0 || this.records.groupOf(cell) !== undefined) return;
    if (this.lists.count(list) === 1) {
      this.#remove(cell, now);
      return;
    }
    this.#tellOf('deleted', cell, hop);
    this.#setList(cell, list, this.lists.remove(list, member, now), now);
    this.nextHops.release(member, now);
  }

  #refuseGroup(cell: number, to: NextHopKey | number): void {
    if (typeof to !== 'number' || this.records.groupOf(cell) !== undefined) return;
    throw new FdbError('EOPNOTSUPP', 'Error: Cannot replace an existing non nexthop fdb with a nexthop.');
  }

  /** The entries that have a list. */
  #cellsOf(list: number): number[] {
    const cells: number[] = [];
    for (let cell = this.table.next(0); cell >= 0; cell = this.table.next(cell)) {
      if (this.table.destination(cell) === ((list << 1) | 1)) cells.push(cell);
    }
    return cells;
  }

  #setState(cell: number, bits: number, now: number): void {
    const old = this.table.state(cell);
    // Nobody else's learning takes over what was added by hand.
    if (old === bits || ((bits & NTF_EXT_LEARNED) !== 0 && (old & ADDED_BY_USER) !== 0)) return;
    this.table.setState(cell, bits, seconds(now));
    this.#tell('changed', cell);
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

  /** The parts of an entry that is to be there afterwards; `to` is a next hop, or a group's number. */
  #parse(device: number, entry: FdbEntry): { high: number; low: number; to: NextHopKey | number; bits: number } {
    const { high, low } = macOf(entry.mac);
    const bits = STATE_BITS[entry.state ?? 'permanent'] | flagBits(entry.flags ?? []) | ADDED_BY_USER;
    const hop = this.#hop(device, entry);
    if (entry.nhid) {
      if (hop || entry.port || typeof entry.vni === 'number' || entry.via)
        throw new FdbError('EINVAL', 'Error: DST, VNI, ifindex and port are mutually exclusive with NH_ID.');
      return { high, low, to: entry.nhid, bits };
    }
    if (hop === undefined) throw answer('EINVAL');
    if (familyOf(hop.ip) !== this.#device(device).family) throw answer('EAFNOSUPPORT');
    return { high, low, to: hop, bits };
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
