/**
 * The neighbours behind the devices, for ARP/ND suppression: those of `uvxlan neigh`, and those that the host has on the device (`ip neigh ...
 * dev flannel.1`), as the kernel's vxlan device would look them up; for `neigh_suppress` those of the device's bridge as well. Writes
 * them to the table that the workers read.
 */
import { randomInt } from 'node:crypto';
import { answer } from '../fdb/error.ts';
import { IS_OWN, IS_ROUTER, NeighborTable, NUD_PERMANENT, OF_BRIDGE } from '../fdb/neighbors.ts';
import { familyOf, macHigh, macLow, parseIp, parseMac } from '../wire/address.ts';
import type { VxlanDevice } from './device.ts';
import type { Address, Neighbour } from './host.ts';
import {
  type NeighArguments,
  type NeighCommand,
  type NeighFilter,
  type NeighRecord,
  NUD_NAMES,
} from './neigh-words.ts';

export type NeighChange = Exclude<NeighCommand, 'del'>;

interface Entry {
  readonly lladdr: string;
  /** NUD_ bits, and those of fdb/neighbors.ts. */
  readonly state: number;
}

interface DeviceNeighbours {
  readonly device: VxlanDevice;
  /** By address: of `uvxlan neigh`, and of the host. */
  readonly ours: Map<string, Entry>;
  host: Map<string, Entry>;
}

const NO_MAC = '00:00:00:00:00:00';
const SEED_RANGE = 2 ** 31;

export class OverlayNeighbours {
  readonly #table: NeighborTable;
  readonly #devices = new Map<number, DeviceNeighbours>();

  /** @param limit of entries, the host's included. */
  constructor(limit?: number) {
    this.#table = new NeighborTable(limit, randomInt(SEED_RANGE));
  }

  /** What the workers read. */
  get buffer(): SharedArrayBuffer {
    return this.#table.buffer;
  }

  /** Entries of all devices, and how many there may be. */
  get fill(): { entries: number; limit: number } {
    return { entries: this.#table.size, limit: this.#table.limit };
  }

  addDevice(device: VxlanDevice): void {
    this.#devices.set(device.index, { device, ours: new Map(), host: new Map() });
  }

  removeDevice({ index }: VxlanDevice): void {
    const neighbours = this.#devices.get(index);
    if (!neighbours) return;
    for (const dst of [...neighbours.ours.keys(), ...neighbours.host.keys()]) this.#table.delete(index, parseIp(dst)!);
    this.#devices.delete(index);
  }

  /** As the kernel does it; throws FdbError with its words. */
  change(change: NeighChange, device: VxlanDevice, { dst, lladdr, nud, router }: NeighArguments): void {
    const neighbours = this.#devices.get(device.index)!;
    const known = neighbours.ours.get(dst);
    if (change === 'add' && known) throw answer('EEXIST');
    if (change === 'change' && !known) throw answer('ENOENT');
    neighbours.ours.set(dst, { lladdr, state: NUD_NAMES[nud] | (router ? IS_ROUTER : 0) });
    if (this.#publish(neighbours, dst)) return;
    if (known) neighbours.ours.set(dst, known);
    else neighbours.ours.delete(dst);
    throw answer('ENOBUFS');
  }

  /** Throws FdbError ENOENT. Only of ours: the host's are `ip neigh`'s to remove. */
  del(device: VxlanDevice, dst: string): void {
    const neighbours = this.#devices.get(device.index)!;
    if (!neighbours.ours.delete(dst)) throw answer('ENOENT');
    this.#publish(neighbours, dst);
  }

  flush(device: VxlanDevice, filter: NeighFilter): void {
    const neighbours = this.#devices.get(device.index)!;
    for (const [dst, { state }] of [...neighbours.ours]) {
      if (!matches(filter, dst, state)) continue;
      neighbours.ours.delete(dst);
      this.#publish(neighbours, dst);
    }
  }

  show(device: VxlanDevice, filter: NeighFilter): NeighRecord[] {
    const { ours, host } = this.#devices.get(device.index)!;
    const own = [...ours].map(([dst, entry]) => record(dst, device.name, entry));
    const others = [...host]
      .filter(([dst, { state }]) => !ours.has(dst) && (state & IS_OWN) === 0)
      .map(([dst, entry]) => ({ ...record(dst, device.name, entry), protocol: 'kernel' as const }));
    return [...own, ...others].filter(({ dst, state }) => matches(filter, dst, NUD_NAMES[state[0].toLowerCase()]));
  }

  /**
   * Takes over what the host knows now: its neighbours and its own addresses on the device, and on `bridge`, which the device is a port of.
   */
  follow(device: VxlanDevice, known: Iterable<Neighbour>, addresses: readonly Address[], bridge?: string): void {
    const neighbours = this.#devices.get(device.index);
    if (!neighbours) return; // removed meanwhile
    const before = neighbours.host;
    const host = new Map<string, Entry>();
    for (const { dev, address, mac, state, isRouter } of known) {
      const own = dev === device.name;
      if (mac === undefined || (!own && dev !== bridge)) continue;
      const bits = (NUD_NAMES[state.toLowerCase()] ?? 0) | (own ? 0 : OF_BRIDGE) | (isRouter ? IS_ROUTER : 0);
      if (own || !host.has(address)) host.set(address, { lladdr: mac, state: bits });
    }
    for (const { dev, address } of addresses) {
      if (dev === device.name || dev === bridge) host.set(address, { lladdr: NO_MAC, state: NUD_PERMANENT | IS_OWN });
    }
    neighbours.host = host;
    // A host has 1024 neighbours of a family at most by default (gc_thresh3): what does not fit is left out.
    for (const dst of new Set([...before.keys(), ...host.keys()])) this.#publish(neighbours, dst);
  }

  /** False when the table is full. */
  #publish({ device: { index }, ours, host }: DeviceNeighbours, dst: string): boolean {
    const hosts = host.get(dst);
    const isOwn = hosts !== undefined && (hosts.state & IS_OWN) !== 0;
    const entry = isOwn ? hosts : (ours.get(dst) ?? hosts);
    const ip = parseIp(dst)!;
    if (entry === undefined) {
      this.#table.delete(index, ip);
      return true;
    }
    const mac = parseMac(entry.lladdr)!;
    return this.#table.set(index, ip, macHigh(mac, 0), macLow(mac, 0), entry.state);
  }
}

function record(dst: string, dev: string, { lladdr, state }: Entry): NeighRecord {
  const name = Object.keys(NUD_NAMES).find((word) => (state & NUD_NAMES[word]) !== 0) ?? 'none';
  const router = (state & IS_ROUTER) === 0 ? {} : { router: null };
  return { dst, dev, lladdr, ...router, state: [name.toUpperCase()] };
}

function matches({ to, states }: NeighFilter, dst: string, state: number): boolean {
  return (state & states) !== 0 && (to === null || isWithin(dst, to));
}

function isWithin(address: string, prefix: string): boolean {
  if (familyOf(address) !== familyOf(prefix)) return false;
  const bytes = parseIp(address)!;
  const [network, length] = prefix.split('/');
  const other = parseIp(network)!;
  const bits = length === undefined ? bytes.length * 8 : Number(length);
  return bytes.every((byte, i) => {
    const mask = 0xff & ~(0xff >> Math.min(8, Math.max(0, bits - i * 8)));
    return (byte & mask) === (other[i] & mask);
  });
}
