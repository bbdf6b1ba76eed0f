/** Entries of the FDB in words, as bridge prints them: what is there, where it leads, and what a frame would meet. */
import { formatMac, macBytes } from '../wire/address.ts';
import type { NexthopGroups } from './groups.ts';
import type { Lists } from './lists.ts';
import type { NextHopKey, NextHops } from './nexthops.ts';
import { type FdbState, flagNames, isDynamic, LEARNED, stateText } from './state.ts';
import type { FdbTable } from './table.ts';

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

/** An entry as `bridge -j fdb show` prints it; absent: the device's own port, VNI and any NIC. */
export interface FdbRecord {
  mac: string;
  ifname: string;
  dst?: string;
  /** Nexthop group in the place of dst. */
  nhid?: number;
  port?: number;
  vni?: number;
  viaIf?: string;
  /** Seconds since it was last sent to, and since it changed or its MAC was heard: only where they were asked for. */
  used?: number;
  updated?: number;
  flags: string[];
  state: 'permanent' | 'static' | '';
}

/** What a look-up finds. */
export interface FdbAnswer {
  /** Of the entry; all zeros for the default one. */
  readonly mac: string;
  readonly isOwn: boolean;
  readonly state: FdbState;
  readonly isLearned: boolean;
  /** When the entry last changed, in seconds of CLOCK_MONOTONIC. */
  readonly updated: number;
  /** Indices, in the order of the copies. */
  readonly nextHops: readonly number[];
}

/** Where they lie. */
interface Tables {
  readonly table: FdbTable;
  readonly nextHops: NextHops;
  readonly lists: Lists;
  readonly groups: NexthopGroups;
}

export class FdbRecords {
  readonly #fdb: Tables;
  readonly #device: (index: number) => FdbDevice;

  /** `device`: throws for one that is not there. */
  constructor(fdb: Tables, device: (index: number) => FdbDevice) {
    this.#fdb = fdb;
    this.#device = device;
  }

  /** The entries of a device, or of all, one record a remote; with ages when `now` is given. */
  show(device?: number, now?: number): FdbRecord[] {
    const { table } = this.#fdb;
    const records: FdbRecord[] = [];
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      if (device !== undefined && table.device(cell) !== device) continue;
      records.push(...this.of(cell, now));
    }
    return records;
  }

  /** How many MACs of a device have each VTEP as a remote, by address; groups are left out. */
  countRemotes(device: number): Map<string, number> {
    const { table } = this.#fdb;
    const destinations = new Map<number, number>();
    const cells = new Map<number, number>();
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      if (table.device(cell) !== device) continue;
      const destination = table.destination(cell);
      destinations.set(destination, (destinations.get(destination) ?? 0) + 1);
      cells.set(destination, cell);
    }
    const counts = new Map<string, number>();
    for (const [destination, count] of destinations) {
      const cell = cells.get(destination)!;
      if (this.groupOf(cell) !== undefined) continue;
      for (const { ip } of this.hops(cell)) counts.set(ip, (counts.get(ip) ?? 0) + count);
    }
    return counts;
  }

  /** What a frame to a MAC meets, as the workers look it up: the MAC's own entry, else the default one; undefined without either. */
  lookup(device: number, high: number, low: number): FdbAnswer | undefined {
    const { table } = this.#fdb;
    const own = table.find(device, high, low);
    const cell = own >= 0 ? own : table.find(device, 0, 0);
    if (cell < 0) return undefined;
    return {
      mac: formatMac(macBytes(table.macHigh(cell), table.macLow(cell))),
      isOwn: own >= 0,
      state: isDynamic(table.state(cell)) ? 'dynamic' : stateText(table.state(cell)) || 'dynamic',
      isLearned: table.state(cell) === LEARNED,
      updated: table.updated(cell),
      nextHops: this.#members(table.destination(cell)),
    };
  }

  /** The nexthop group of an entry that has one. */
  groupOf(cell: number): number | undefined {
    const destination = this.#fdb.table.destination(cell);
    return (destination & 1) === 0 ? undefined : this.#fdb.groups.idOf(destination >> 1);
  }

  /** Where the entry's frames go. */
  hops(cell: number): NextHopKey[] {
    return this.#members(this.#fdb.table.destination(cell)).map((member) => this.#fdb.nextHops.key(member));
  }

  /** Indices of the next hops of a cell's destination. */
  #members(destination: number): number[] {
    return destination & 1 ? this.#fdb.lists.members(destination >> 1) : [destination >> 1];
  }

  /** One record a remote, or one for a group; with ages when `now` is given. */
  of(cell: number, now?: number): FdbRecord[] {
    if (now !== undefined) this.catchUp(cell);
    const nhid = this.groupOf(cell);
    if (nhid !== undefined) return [this.ofRemote(cell, nhid, now)];
    return this.hops(cell).map((hop) => this.ofRemote(cell, hop, now));
  }

  /** Of one remote, or of the group of this number. */
  ofRemote(cell: number, to: NextHopKey | number, now?: number): FdbRecord {
    const { table } = this.#fdb;
    const { name, port, vni } = this.#device(table.device(cell));
    // The keys in the order in which bridge prints them.
    const record: Partial<FdbRecord> = {
      mac: formatMac(macBytes(table.macHigh(cell), table.macLow(cell))),
      ifname: name,
    };
    if (typeof to === 'number') record.nhid = to;
    else {
      record.dst = to.ip;
      if (to.port !== port) record.port = to.port;
      if (to.vni !== vni) record.vni = to.vni;
      if (to.via !== '') record.viaIf = to.via;
    }
    if (now !== undefined) {
      record.used = seconds(now) - table.used(cell);
      record.updated = seconds(now) - table.updated(cell);
    }
    record.flags = ['self', ...flagNames(table.state(cell))];
    record.state = stateText(table.state(cell));
    return record as FdbRecord;
  }

  /** Takes over from the mirror when the entry was used and heard. */
  catchUp(cell: number): void {
    const { table } = this.#fdb;
    if (!table.mirror) return;
    const { used, heard } = table.mirror.stamps(table.device(cell), table.macHigh(cell), table.macLow(cell));
    if (seconds(used) > table.used(cell)) table.setUsed(cell, seconds(used));
    if (seconds(heard) > table.updated(cell)) table.setUpdated(cell, seconds(heard));
  }
}

/** As the table keeps times, of milliseconds. */
export function seconds(now: number): number {
  return Math.floor(now / 1000);
}
