/**
 * Nexthop objects as `ip nexthop ... fdb` has them (net/ipv4/nexthop.c): VTEPs, and groups of VTEPs that an FDB entry names by `nhid`. A
 * group that a device's entries use is a list marked as such: each flow goes to one of its members.
 */
import { familyOf, formatIp, parseIp } from '../wire/address.ts';
import { answer, FdbError } from './error.ts';
import type { Lists } from './lists.ts';
import type { NextHops } from './nexthops.ts';

/** A nexthop as asked for: `via` or `group`. */
export interface Nexthop {
  readonly id: number;
  readonly via?: string | undefined;
  readonly group?: readonly number[] | undefined;
}

/** A nexthop as `ip -j nexthop show` prints it. */
export interface NexthopRecord {
  id: number;
  group?: { id: number }[];
  gateway?: string;
  scope?: 'link';
  flags: string[];
  fdb: null;
}

/** What a group's members are to a device. */
export interface GroupUser {
  readonly index: number;
  readonly port: number;
  readonly vni: number;
  readonly family: 4 | 6;
}

/** Hears that entries with a list are to have another one, or are to go, before the list is given back. */
export interface GroupEvents {
  onList(old: number, list: number): void;
  onGone(list: number): void;
}

interface GroupList {
  readonly id: number;
  readonly device: GroupUser;
  /** Of the lists. */
  list: number;
  /** Next hops, in the order of the group. */
  members: readonly number[];
  /** Entries that use it. */
  references: number;
}

export class NexthopGroups {
  readonly #nextHops: NextHops;
  readonly #lists: Lists;
  readonly #events: GroupEvents;
  readonly #nexthops = new Map<number, Nexthop>();
  readonly #used = new Map<number, GroupList>();

  constructor(nextHops: NextHops, lists: Lists, events: GroupEvents) {
    this.#nextHops = nextHops;
    this.#lists = lists;
    this.#events = events;
  }

  /** Throws FdbError EEXIST, EINVAL with the kernel's sentence. */
  add(nexthop: Nexthop, now: number): void {
    if (this.#nexthops.has(nexthop.id)) throw answer('EEXIST');
    this.#set(nexthop, now);
  }

  /** Another VTEP, other members, or a new nexthop; flows move at once. Throws FdbError EINVAL with the kernel's sentence. */
  replace(nexthop: Nexthop, now: number): void {
    const known = this.#nexthops.get(nexthop.id);
    if (known?.via !== undefined && nexthop.group) throw invalid('Can not replace a nexthop with a nexthop group.');
    if (known?.group && nexthop.via !== undefined) throw invalid('Can not replace a nexthop group with a nexthop.');
    this.#set(nexthop, now);
  }

  /** Takes it out of its groups as well; a group without members goes, and entries whose group is gone. Throws FdbError ENOENT. */
  del(id: number, now: number): void {
    if (!this.#nexthops.delete(id)) throw answer('ENOENT');
    for (const [list, used] of [...this.#used]) if (used.id === id) this.#events.onGone(list);
    for (const { id: other, group } of [...this.#nexthops.values()]) {
      if (!group?.includes(id)) continue;
      const rest = group.filter((member) => member !== id);
      if (rest.length === 0) this.del(other, now);
      else this.#set({ id: other, group: rest }, now);
    }
  }

  flush(now: number): void {
    for (const id of [...this.#nexthops.keys()]) if (this.#nexthops.has(id)) this.del(id, now);
  }

  /** All, or one. Throws FdbError ENOENT. */
  show(id?: number): NexthopRecord[] {
    if (id !== undefined && !this.#nexthops.has(id)) throw answer('ENOENT');
    return [...this.#nexthops.values()]
      .filter((nexthop) => id === undefined || nexthop.id === id)
      .sort((a, b) => a.id - b.id)
      .map(({ id, via, group }) => ({
        id,
        ...(group ? { group: group.map((member) => ({ id: member })) } : { gateway: via!, scope: 'link' as const }),
        flags: [],
        fdb: null,
      }));
  }

  /** The list for an entry of a device that names a group. Throws FdbError EINVAL, EAFNOSUPPORT with the kernel's sentence, ENOBUFS. */
  acquire(device: GroupUser, id: number, now: number): number {
    const known = [...this.#used.values()].find((used) => used.id === id && used.device.index === device.index);
    if (known) {
      known.references++;
      return known.list;
    }
    const nexthop = this.#nexthops.get(id);
    if (!nexthop) throw invalid('Nexthop id does not exist.');
    if (!nexthop.group) throw invalid('Nexthop is not a multipath group.');
    if (familyOf(this.#via(nexthop.group[0])) !== device.family)
      throw new FdbError('EAFNOSUPPORT', 'Error: Nexthop group family not supported.');
    const made = this.#make({ id, device, list: 0, members: [], references: 1 }, nexthop.group, now);
    this.#used.set(made.list, made);
    return made.list;
  }

  release(list: number, now: number): void {
    const used = this.#used.get(list)!;
    if (--used.references > 0) return;
    this.#used.delete(list);
    this.#giveBack(used, now);
  }

  /** The group whose list it is; undefined for other lists. */
  idOf(list: number): number | undefined {
    return this.#used.get(list)?.id;
  }

  #via(id: number): string {
    return this.#nexthops.get(id)!.via!;
  }

  #set(nexthop: Nexthop, now: number): void {
    this.#check(nexthop);
    const { id, via, group } = nexthop;
    this.#nexthops.set(id, via === undefined ? { id, group } : { id, via: formatIp(parseIp(via)!) });
    for (const [list, used] of [...this.#used]) {
      const members = this.#nexthops.get(used.id)?.group;
      if (!members || (used.id !== id && !members.includes(id))) continue;
      const old = { ...used };
      this.#make(used, members, now);
      this.#used.delete(list);
      this.#used.set(used.list, used);
      this.#events.onList(list, used.list);
      this.#giveBack(old, now);
    }
  }

  /** The kernel's rules (nh_check_attr_group, nh_check_attr_fdb_group), also for a member that is replaced, where it has none. */
  #check({ id, via, group }: Nexthop): void {
    if (via !== undefined) {
      const family = parseIp(via) && familyOf(via);
      if (family === undefined) throw invalid('Invalid gateway address.');
      for (const { group: others } of this.#nexthops.values()) {
        const other = others?.includes(id) && others.find((member) => member !== id);
        if (other && familyOf(this.#via(other)) !== family) throw mixed();
      }
      return;
    }
    const members = group ?? [];
    if (members.length === 0) throw invalid('Nexthop group must have at least one nexthop.');
    if (new Set(members).size < members.length) throw invalid('Nexthop id can not be used twice in a group.');
    for (const member of members) {
      const known = this.#nexthops.get(member);
      if (!known) throw invalid('Invalid nexthop id.');
      if (known.group) throw invalid('Hash-threshold group can not be a nexthop within a group.');
      if (familyOf(known.via!) !== familyOf(this.#via(members[0]))) throw mixed();
    }
  }

  /** Fills in the list and its members. */
  #make(used: GroupList, group: readonly number[], now: number): GroupList {
    const { index: device, port, vni } = used.device;
    const members: number[] = [];
    try {
      for (const id of group)
        members.push(this.#nextHops.acquire({ device, ip: this.#via(id), port, vni, via: '' }, now));
      used.list = this.#lists.create(members, now, true);
    } catch (error) {
      for (const member of members) this.#nextHops.release(member, now);
      throw error;
    }
    used.members = members;
    return used;
  }

  #giveBack({ list, members }: GroupList, now: number): void {
    for (const member of members) this.#nextHops.release(member, now);
    this.#lists.release(list, now);
  }
}

function invalid(sentence: string): FdbError {
  return new FdbError('EINVAL', `Error: ${sentence}`);
}

function mixed(): FdbError {
  return invalid('FDB nexthop group cannot have mixed family nexthops.');
}
