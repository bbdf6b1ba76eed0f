/**
 * The multicast database of VXLAN devices, fed by hand: which VTEPs get an inner group's packets. Operations and errors are those of `bridge mdb`
 * on a vxlan device (drivers/net/vxlan/vxlan_mdb.c); of the main thread. What its workers read is mdb-table.ts.
 *
 * A remote of (*, G) may have a source list: `include` sends to it what comes from these sources, `exclude` what comes from others. As in
 * the kernel each source of a list is an (S, G) entry of its own with the same remote, which is blocked if it is excluded.
 */
import { familyOf, formatIp, isMulticast, parseIp } from '../wire/address.ts';
import { DoubledTable } from './doubled.ts';
import { answer, FdbError } from './error.ts';
import type { Lists } from './lists.ts';
import { MDB_SHAPE, mdbKey } from './mdb-table.ts';
import type { NextHopKey, NextHops } from './nexthops.ts';

export type FilterMode = 'include' | 'exclude';

/** A remote of an entry as asked for. What is absent is the device's own. */
export interface MdbEntry {
  /** An IPv4 or IPv6 group; 0.0.0.0 or ::, all groups that have no entry. */
  readonly grp: string;
  readonly src?: string | undefined;
  readonly dst?: string | undefined;
  readonly dst_port?: number | undefined;
  readonly vni?: number | undefined;
  readonly src_vni?: number | undefined;
  readonly via?: string | undefined;
  readonly filter_mode?: FilterMode | undefined;
  readonly source_list?: readonly string[] | undefined;
  readonly state?: 'permanent' | 'temp' | undefined;
}

/** One remote of an entry, as `bridge -d -j mdb show` prints it. */
export interface MdbRecord {
  dev: string;
  port: string;
  grp: string;
  src?: string;
  state: 'permanent';
  filter_mode: FilterMode;
  source_list?: { address: string; timer: '0.00' }[];
  protocol: 'static';
  flags: 'blocked'[];
  dst: string;
  dst_port?: number;
  vni?: number;
  via?: string;
}

/** Which remotes flush() removes; what is absent selects all. */
export type MdbSelection = Pick<MdbEntry, 'dst' | 'dst_port' | 'vni' | 'src_vni'>;

/** What entries are to a device. */
export interface MdbUser {
  readonly index: number;
  readonly name: string;
  readonly port: number;
  readonly vni: number;
  readonly family: 4 | 6;
}

interface Remote {
  readonly hop: NextHopKey;
  readonly mode: FilterMode;
  readonly sources: readonly string[];
  /** Excluded by the (*, G) that it comes from. */
  readonly isBlocked: boolean;
}

interface Entry {
  readonly device: number;
  readonly grp: string;
  /** '': any. */
  readonly src: string;
  /** The last added first, as in the kernel. */
  readonly remotes: readonly Remote[];
  /** Of the lists. */
  readonly list: number;
}

/** Hears of remotes that have come, changed or gone. */
export type MdbListener = (change: 'added' | 'changed' | 'deleted', record: MdbRecord) => void;

/** Entries that an operation leaves behind, by their names. */
type Changes = Map<string, Omit<Entry, 'list'>>;

const DEFAULT_LIMIT = 1 << 14;

export class Mdb {
  readonly #nextHops: NextHops;
  readonly #lists: Lists;
  readonly #table: DoubledTable;
  readonly #entries = new Map<string, Entry>();
  readonly #listener: MdbListener | undefined;

  /** @param limit @param seed see DoubledTable. */
  constructor(nextHops: NextHops, lists: Lists, seed = 0, limit: number = DEFAULT_LIMIT, listener?: MdbListener) {
    this.#listener = listener;
    this.#nextHops = nextHops;
    this.#lists = lists;
    this.#table = new DoubledTable(MDB_SHAPE, limit, seed);
  }

  /** What the workers read. */
  get buffer(): SharedArrayBuffer {
    return this.#table.buffer;
  }

  /** Entries of all devices, and how many there may be. */
  get fill(): { entries: number; limit: number } {
    return { entries: this.#table.size, limit: this.#table.limit };
  }

  /** Entries (groups, with and without source) of a device. */
  size(device: number): number {
    return this.#of(device).length;
  }

  /** A remote more for a group. Throws FdbError EEXIST, EINVAL with the kernel's sentence, EAFNOSUPPORT, EOPNOTSUPP, ENOSPC, ENOBUFS. */
  add(device: MdbUser, asked: MdbEntry, now: number): void {
    this.#set(device, asked, false, now);
  }

  /** Another port, VNI, filter mode and source list for a remote, or a new remote. Throws as add(), but for EEXIST. */
  replace(device: MdbUser, asked: MdbEntry, now: number): void {
    this.#set(device, asked, true, now);
  }

  /** Removes a remote, and what its source list has made; with the last one the entry. Throws FdbError ENOENT, EINVAL. */
  del(device: MdbUser, asked: MdbEntry, now: number): void {
    const { grp, src } = check(device, asked);
    const name = nameOf(device.index, grp, src);
    const entry = this.#entries.get(name);
    if (!entry) throw refused('Did not find MDB entry', 'ENOENT');
    const dst = canonical(asked.dst!);
    if (!entry.remotes.some(({ hop }) => hop.ip === dst)) throw refused('Did not find MDB remote entry', 'ENOENT');
    const changes: Changes = new Map();
    this.#drop(changes, name, dst);
    this.#commit(device, changes, now);
  }

  /** Removes the remotes of a device that are selected. Throws FdbError EINVAL. */
  flush(device: MdbUser, now: number, selection: MdbSelection = {}): void {
    const { index, vni } = device;
    const { dst, dst_port, src_vni } = selection;
    if (src_vni && src_vni !== vni) return;
    const address = dst === undefined ? undefined : canonical(dst);
    const changes: Changes = new Map();
    for (const entry of this.#of(index)) {
      for (const { hop } of entry.remotes) {
        if (address !== undefined && hop.ip !== address) continue;
        if (dst_port && hop.port !== dst_port) continue;
        if (selection.vni && hop.vni !== selection.vni) continue;
        this.#drop(changes, nameOf(index, entry.grp, entry.src), hop.ip);
      }
    }
    this.#commit(device, changes, now);
  }

  /** The remotes of a device's entries, the last added entry first. */
  show(device: MdbUser): MdbRecord[] {
    return this.#of(device.index).flatMap((entry) => recordsOf(device, entry));
  }

  /** The remotes of one entry. Throws FdbError ENOENT, EINVAL. */
  get(device: MdbUser, { grp, src, src_vni }: Pick<MdbEntry, 'grp' | 'src' | 'src_vni'>): MdbRecord[] {
    refuseOtherVni(device, src_vni);
    const source = src === undefined ? '' : sourceOf(src, grp);
    const entry = this.#entries.get(nameOf(device.index, canonical(grp), source));
    if (!entry) throw refused('MDB entry not found', 'ENOENT');
    return recordsOf(device, entry);
  }

  /** The entry that has a list, in words, and the next hops that its packets go to. */
  describe(list: number): { text: string; nextHops: number[] } | undefined {
    const entry = [...this.#entries.values()].find((each) => each.list === list);
    if (!entry) return undefined;
    const { grp, src } = entry;
    return { text: `grp ${grp}${src === '' ? '' : ` src ${src}`}`, nextHops: this.#lists.members(list) };
  }

  #of(device: number): Entry[] {
    return [...this.#entries.values()].filter((entry) => entry.device === device).reverse();
  }

  #set(device: MdbUser, asked: MdbEntry, isReplace: boolean, now: number): void {
    if (asked.state !== 'permanent') throw refused('MDB entry must be permanent');
    const { grp, src, remote } = check(device, asked);
    const changes: Changes = new Map();
    this.#put(changes, device.index, grp, src, remote, isReplace);
    this.#commit(device, changes, now);
  }

  #put(changes: Changes, device: number, grp: string, src: string, remote: Remote, isReplace: boolean): void {
    const name = nameOf(device, grp, src);
    const { remotes } = changes.get(name) ?? this.#entries.get(name) ?? { remotes: [] };
    const { ip } = remote.hop;
    const old = remotes.find(({ hop }) => hop.ip === ip);
    if (old && !isReplace) throw refused('Replace not specified and MDB remote entry already exists', 'EEXIST');
    for (const source of old?.sources ?? [])
      if (!remote.sources.includes(source)) this.#drop(changes, nameOf(device, grp, source), ip);
    for (const source of remote.sources) {
      const own: Remote = { ...remote, mode: 'include', sources: [], isBlocked: remote.mode === 'exclude' };
      this.#put(changes, device, grp, source, own, isReplace);
    }
    const left = old ? remotes.map((each) => (each === old ? remote : each)) : [remote, ...remotes];
    changes.set(name, { device, grp, src, remotes: left });
  }

  /** Takes a remote out of an entry, if it is there. */
  #drop(changes: Changes, name: string, ip: string): void {
    const entry = changes.get(name) ?? this.#entries.get(name);
    const old = entry?.remotes.find(({ hop }) => hop.ip === ip);
    if (!entry || !old) return;
    changes.set(name, { ...entry, remotes: entry.remotes.filter((each) => each !== old) });
    for (const source of old.sources) this.#drop(changes, nameOf(entry.device, entry.grp, source), ip);
  }

  /** All changes, or, when there is no room for one, none. */
  #commit(user: MdbUser, changes: Changes, now: number): void {
    const left = [...changes].filter(([, { remotes }]) => remotes.length > 0);
    const added = left.filter(([name]) => !this.#entries.has(name)).length;
    if (this.#table.size + added > this.#table.limit) throw answer('ENOSPC');
    const held: number[] = [];
    const lists = new Map<string, number>();
    try {
      for (const [name, { remotes }] of left) {
        const members = remotes.map(({ hop }) => {
          const index = this.#nextHops.acquire(hop, now);
          held.push(index);
          return index;
        });
        lists.set(
          name,
          this.#lists.create(
            members.filter((_, i) => isSentTo(remotes[i], changes.get(name)!)),
            now,
          ),
        );
      }
    } catch (error) {
      for (const list of lists.values()) this.#lists.release(list, now);
      for (const index of held) this.#nextHops.release(index, now);
      throw error;
    }
    for (const [name, { device, grp, src, remotes }] of changes) {
      const list = lists.get(name);
      const key = mdbKey(device, parseIp(grp)!, parseIp(src));
      const old = this.#entries.get(name);
      if (list === undefined) {
        this.#table.delete(key);
        this.#entries.delete(name);
      } else {
        this.#table.set(Int32Array.of(...key, (list << 1) | 1));
        this.#entries.set(name, { device, grp, src, remotes, list });
      }
      this.#tell(user, old, { device, grp, src, remotes });
      if (!old) continue;
      for (const { hop } of old.remotes) this.#nextHops.release(this.#nextHops.find(hop), now);
      this.#lists.release(old.list, now);
    }
  }

  #tell(user: MdbUser, old: Omit<Entry, 'list'> | undefined, entry: Omit<Entry, 'list'>): void {
    if (!this.#listener) return;
    const before = new Map((old ? recordsOf(user, old) : []).map((record) => [record.dst, record]));
    for (const record of recordsOf(user, entry)) {
      const known = before.get(record.dst);
      before.delete(record.dst);
      if (!known) this.#listener('added', record);
      else if (JSON.stringify(known) !== JSON.stringify(record)) this.#listener('changed', record);
    }
    for (const record of before.values()) this.#listener('deleted', record);
  }
}

/** As vxlan_mdb_xmit: sources of (*, G) include have entries of their own, and excluded ones are blocked there. */
function isSentTo({ mode, isBlocked }: Remote, { grp, src }: Pick<Entry, 'grp' | 'src'>): boolean {
  return !isBlocked && !(mode === 'include' && src === '' && !isAny(grp));
}

/** The kernel's checks in its order (rtnl_validate_mdb_entry, vxlan_mdb_config_attrs_init). */
function check(device: MdbUser, asked: MdbEntry): { grp: string; src: string; remote: Remote } {
  const grp = canonical(asked.grp);
  refuseGroup(grp);
  if (asked.dst === undefined) throw refused('Missing remote destination IP address');
  const src = asked.src === undefined ? '' : sourceOf(asked.src, grp);
  if (!isMulticast(grp) && !isAny(grp)) throw refused('Group address is not multicast');
  if (isAny(grp) && asked.src !== undefined) throw refused('Source cannot be specified for the all-zeros entry');
  const isStar = src === '' && !isAny(grp);
  const { filter_mode, source_list } = asked;
  if (filter_mode && !isStar) throw refused('Filter mode can only be set for (*, G) entries');
  if (source_list && !isStar) throw refused('Source list can only be set for (*, G) entries');
  if (source_list && !filter_mode) throw refused('Source list cannot be set without filter mode');
  const sources = (source_list ?? []).map((source) => sourceOf(source, grp));
  if (new Set(sources).size < sources.length) throw refused('Source entry already exists', 'EEXIST');
  const mode = filter_mode ?? (src === '' ? 'exclude' : 'include');
  if (isStar && mode === 'include' && sources.length === 0)
    throw refused('Cannot add (*, G) INCLUDE with an empty source list');
  refuseOtherVni(device, asked.src_vni);
  const ip = canonical(asked.dst);
  // The kernel takes it, and drops what goes there.
  if (familyOf(ip) !== device.family) throw answer('EAFNOSUPPORT');
  const { dst_port, vni, via } = asked;
  const hop = { device: device.index, ip, port: dst_port || device.port, vni: vni ?? device.vni, via: via ?? '' };
  return { grp, src, remote: { hop, mode, sources, isBlocked: false } };
}

function refuseGroup(grp: string): void {
  const bytes = parseIp(grp)!;
  if (bytes.length === 16) {
    if (grp === 'ff02::1') throw new FdbError('EINVAL', 'Error: IPv6 entry group address is link-local all nodes.');
    return;
  }
  if (!isMulticast(grp) && !isAny(grp))
    throw new FdbError('EINVAL', 'Error: IPv4 entry group address is not multicast or 0.0.0.0.');
  if (bytes[0] === 224 && bytes[1] === 0 && bytes[2] === 0)
    throw new FdbError('EINVAL', 'Error: IPv4 entry group address is local multicast.');
}

function refuseOtherVni({ name, vni }: MdbUser, asked: number | undefined): void {
  if (asked === undefined || asked === vni) return;
  throw new FdbError('EOPNOTSUPP', `src_vni ${asked}: ${name} has VNI ${vni} only, uvxlan has a device for each VNI`);
}

/** Canonical text of a source, '' for any. */
function sourceOf(text: string, grp: string): string {
  const src = canonical(text);
  const family = familyOf(grp);
  if (familyOf(src) !== family) throw refused(`IPv${family} invalid source address length`);
  if (isMulticast(src)) throw refused(`IPv${family} multicast source address is not allowed`);
  return isAny(src) ? '' : src;
}

function canonical(text: string): string {
  const bytes = parseIp(text);
  if (!bytes) throw answer('EINVAL');
  return formatIp(bytes);
}

function isAny(address: string): boolean {
  return address === '0.0.0.0' || address === '::';
}

function nameOf(device: number, grp: string, src: string): string {
  return `${device} ${grp} ${src}`;
}

function recordsOf(
  { name, port, vni }: MdbUser,
  { grp, src, remotes }: Pick<Entry, 'grp' | 'src' | 'remotes'>,
): MdbRecord[] {
  return remotes.map(({ hop, mode, sources, isBlocked }) => ({
    dev: name,
    port: name,
    grp,
    ...(src === '' ? {} : { src }),
    state: 'permanent',
    filter_mode: mode,
    ...(sources.length === 0 ? {} : { source_list: sources.map((address) => ({ address, timer: '0.00' as const })) }),
    protocol: 'static',
    flags: isBlocked ? ['blocked'] : [],
    dst: hop.ip,
    ...(hop.port === port ? {} : { dst_port: hop.port }),
    ...(hop.vni === vni ? {} : { vni: hop.vni }),
    ...(hop.via === '' ? {} : { via: hop.via }),
  }));
}

/** With the sentence of the kernel's module, as iproute2 prints it. */
function refused(sentence: string, errno = 'EINVAL'): FdbError {
  return new FdbError(errno, `Error: vxlan: ${sentence}.`);
}
