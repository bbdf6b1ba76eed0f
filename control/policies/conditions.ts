/**
 * Conditions that a firewall rule or an IPsec policy puts to packets, asked of all packets of a tunnel in one direction at once.
 * A condition that cannot be decided holds perhaps: what may hit the tunnel counts as hitting it.
 */
import { formatIp, parseIp } from '../../wire/address.ts';

/** For all of the packets, for none of them, for some or who knows. */
export type Holds = 'always' | 'never' | 'perhaps';
export type Condition = (packets: Packets) => Holds;
export type Family = 'ip' | 'ip6';

/** The hooks that the redirect uplink gets past, in the order in which a packet meets them. */
export const HOOKS = { in: ['ingress', 'prerouting', 'input'], out: ['output', 'postrouting'] } as const;
export type Direction = keyof typeof HOOKS;
export type Hook = (typeof HOOKS)[Direction][number];

/** Encapsulated packets between this VTEP and a number of remote ones, at one hook. */
export interface Packets {
  readonly direction: Direction;
  readonly hook: Hook;
  readonly family: Family;
  /** The NIC, and the VRF that it belongs to: netfilter runs for both. */
  readonly devices: readonly string[];
  /** `addressKey` of our VTEP. */
  readonly local: string;
  /** True when the NIC has no other address that masquerading could take. */
  readonly onlyAddress: boolean;
  readonly remotes: Remotes;
  /** UDP source ports, both ends included. */
  readonly sourcePorts: readonly [number, number];
  readonly destinationPort: number;
  /** Undefined when a rule may have changed it. */
  readonly mark: number | undefined;
  readonly connectionMark: number | undefined;
  /** Conntrack knows them. */
  readonly tracked: boolean;
  /** Conntrack may take them for answers to each other: our source ports include the VXLAN port. */
  readonly answers: boolean;
  /** False when an earlier rule may have decided about them already. */
  readonly certain: boolean;
}

/**
 * Remote VTEPs: `addressKey`s; `any` when they may be anywhere; `stranger` while there are none, for an address that no rule
 * was written for.
 */
export type Remotes = readonly string[] | 'any' | 'stranger';

export const always: Condition = () => 'always';
export const never: Condition = () => 'never';
export const perhaps: Condition = () => 'perhaps';

export function constant(holds: boolean): Condition {
  return holds ? always : never;
}

function opposite(holds: Holds): Holds {
  if (holds === 'perhaps') return 'perhaps';
  return holds === 'always' ? 'never' : 'always';
}

export function both(left: Holds, right: Holds): Holds {
  if (left === 'never' || right === 'never') return 'never';
  return left === 'always' && right === 'always' ? 'always' : 'perhaps';
}

export function either(left: Holds, right: Holds): Holds {
  return opposite(both(opposite(left), opposite(right)));
}

export function not(condition: Condition): Condition {
  if (condition === always) return never;
  if (condition === never) return always;
  return condition === perhaps ? perhaps : (packets) => opposite(condition(packets));
}

export function all(conditions: readonly Condition[]): Condition {
  if (conditions.includes(never)) return never;
  const rest = conditions.filter((condition) => condition !== always);
  if (rest.length < 2) return rest[0] ?? always;
  return (packets) => {
    let holds: Holds = 'always';
    for (const condition of rest) {
      holds = both(holds, condition(packets));
      if (holds === 'never') break;
    }
    return holds;
  };
}

export function any(conditions: readonly Condition[]): Condition {
  if (conditions.includes(always)) return always;
  const rest = conditions.filter((condition) => condition !== never);
  if (rest.length < 2) return rest[0] ?? never;
  return (packets) => {
    let holds: Holds = 'never';
    for (const condition of rest) {
      holds = either(holds, condition(packets));
      if (holds === 'always') break;
    }
    return holds;
  };
}

/** Sorted ranges of numbers, or of strings of one length. Both ends belong to a range. */
export class Ranges<T extends number | string> {
  readonly #lows: T[] = [];
  readonly #highs: T[] = [];

  constructor(ranges: Iterable<readonly [T, T]>) {
    for (const [low, high] of [...ranges].sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0))) {
      const last = this.#highs.at(-1);
      if (last === undefined || low > (typeof last === 'number' ? last + 1 : last)) {
        this.#lows.push(low);
        this.#highs.push(high);
      } else if (high > last) this.#highs[this.#highs.length - 1] = high as T;
    }
  }

  /** Whether the values from low to high are in one range. */
  cover(low: T, high: T): Holds {
    let first = 0;
    for (let end = this.#lows.length; first < end; ) {
      const middle = (first + end) >> 1;
      if (this.#highs[middle] < low) first = middle + 1;
      else end = middle;
    }
    if (first === this.#lows.length || this.#lows[first] > high) return 'never';
    return this.#lows[first] <= low && high <= this.#highs[first] ? 'always' : 'perhaps';
  }
}

/** An address as hex digits, 8 for IPv4 and 32 for IPv6, which sort as addresses do; undefined when it is none. */
export function addressKey(text: string): string | undefined {
  const bytes = parseIp(text);
  return bytes && Buffer.from(bytes).toString('hex');
}

function formatAddressKey(key: string): string {
  return formatIp(Buffer.from(key, 'hex'));
}

export type AddressRange = readonly [string, string];

/** The addresses of a prefix; undefined when it is none. */
export function prefixRange(address: string, length: number): AddressRange | undefined {
  const key = addressKey(address);
  if (key === undefined || !(length >= 0 && length <= key.length * 4)) return undefined;
  const bits = BigInt(key.length * 4);
  const host = (1n << (bits - BigInt(length))) - 1n;
  const low = BigInt(`0x${key}`) & ~host;
  const text = (value: bigint) => value.toString(16).padStart(key.length, '0');
  return [text(low), text(low | host)];
}

/** `1.2.3.4`, `1.2.3.0/24` or `1.2.3.0/255.255.255.0` (no other masks than those of prefixes), or `1.2.3.4-1.2.3.9`. */
export function addressRange(text: string): AddressRange | undefined {
  const [first, last] = text.split('-').map(addressKey);
  if (last !== undefined) return first === undefined ? undefined : [first, last];
  const [address, mask] = text.split('/');
  if (mask === undefined) return first === undefined ? undefined : [first, first];
  return prefixRange(address, /^\d+$/.test(mask) ? Number(mask) : maskLength(mask));
}

function maskLength(mask: string): number {
  const bits = [...(parseIp(mask) ?? [])].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  return /^1*0*$/.test(bits) && bits !== '' ? bits.replaceAll('0', '').length : Number.NaN;
}

/** Unicast addresses of other hosts. */
const ANYWHERE: Record<Family, readonly AddressRange[]> = {
  ip: [
    ['01000000', '7effffff'],
    ['80000000', 'dfffffff'],
  ],
  ip6: [[`${'0'.repeat(31)}2`, `fe${'f'.repeat(30)}`]],
};

export type Side = 'source' | 'destination';

/** The address on a side is one of these, all of one family. */
export function addressIn(side: Side, ranges: readonly AddressRange[]): Condition {
  const set = new Ranges(ranges);
  return (packets) => {
    if (!isRemote(side, packets)) return set.cover(packets.local, packets.local);
    const { remotes, family } = packets;
    if (remotes === 'stranger') return set.cover(...ANYWHERE[family].at(-1)!) === 'always' ? 'always' : 'never';
    const possible = remotes === 'any' ? ANYWHERE[family] : remotes.map((remote) => [remote, remote] as const);
    return agreed(possible.map(([low, high]) => set.cover(low, high)));
  };
}

function isRemote(side: Side, { direction }: Packets): boolean {
  return (side === 'source') === (direction === 'in');
}

/** One answer for all. */
function agreed(answers: readonly Holds[]): Holds {
  return answers.every((answer) => answer === answers[0]) ? answers[0] : 'perhaps';
}

export function familyIs(family: Family): Condition {
  return (packets) => (packets.family === family ? 'always' : 'never');
}

export function portIn(side: Side, ranges: readonly (readonly [number, number])[]): Condition {
  const set = new Ranges(ranges);
  if (side === 'source') return ({ sourcePorts: [low, high] }) => set.cover(low, high);
  return ({ destinationPort }) => set.cover(destinationPort, destinationPort);
}

export function markIn(
  which: 'mark' | 'connectionMark',
  ranges: readonly (readonly [number, number])[],
  mask = 0xffffffff,
): Condition {
  const set = new Ranges(ranges);
  return (packets) => {
    const mark = packets[which];
    if (mark === undefined) return 'perhaps';
    const value = (mark & mask) >>> 0;
    return set.cover(value, value);
  };
}

/**
 * The device that a packet came in by, or goes out by, has one of these names; `wild` at the end of one stands for anything. Where
 * a packet comes from is known on the way in only, where it goes to on the way out: otherwise the name is empty.
 */
export function deviceIn(end: Direction, names: readonly string[], wild: string): Condition {
  return ({ direction, devices }) => {
    const candidates = direction === end ? devices : [''];
    return agreed(candidates.map((device) => (names.some((name) => isNamed(device, name, wild)) ? 'always' : 'never')));
  };
}

function isNamed(device: string, name: string, wild: string): boolean {
  return name.endsWith(wild) ? device.startsWith(name.slice(0, -wild.length)) : device === name;
}

/**
 * Conntrack's state is one of these (lower case). The tunnel's packets are always new: answers do not come back to the source port,
 * which is a hash of the flow, but go to the VXLAN port (nf_conntrack_core.c: a connection without answer is IP_CT_NEW).
 */
export function stateIn(states: readonly string[]): Condition {
  return ({ tracked, answers }) => {
    const possible = !tracked ? ['untracked'] : answers ? ['new', 'established'] : ['new'];
    return agreed(possible.map((state) => (states.includes(state) ? 'always' : 'never')));
  };
}

/** What the routing table says of the address on a side is one of these types (lower case). */
export function addressTypeIn(side: Side, types: readonly string[]): Condition {
  return (packets) => (types.includes(isRemote(side, packets) ? 'unicast' : 'local') ? 'always' : 'never');
}

/** Link-layer packet type (lower case). */
export function packetTypeIn(types: readonly string[]): Condition {
  const toHost = types.includes('host') || types.includes('unicast') ? 'always' : 'never';
  const toOthers = types.every((type) => type === 'broadcast' || type === 'multicast') ? 'never' : 'perhaps';
  return ({ direction }) => (direction === 'in' ? toHost : toOthers);
}

/** Masquerading takes the NIC's address for the source: the one that is there. Only the source port may become another. */
export const masqueradesAsItIs: Condition = ({ direction, onlyAddress }) => {
  return direction === 'out' && onlyAddress ? 'always' : 'never';
};

/** The source address that a rule gives a packet is the one that it has. */
export function isLocal(address: unknown): Condition {
  return ({ direction, local }) => {
    return direction === 'out' && address === formatAddressKey(local) ? 'always' : 'never';
  };
}
