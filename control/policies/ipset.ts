/** Conditions on ipsets, from the text of `ipset save`. */
import {
  type AddressRange,
  addressIn,
  addressRange,
  all,
  any,
  type Condition,
  never,
  perhaps,
  portIn,
  type Side,
} from './conditions.ts';
import type { IpsetLookup } from './iptables-options.ts';

interface Ipset {
  /** What the parts of an element are: `['ip', 'port']` of a `hash:ip,port`. */
  readonly parts: readonly string[];
  readonly elements: string[];
  readonly inverted: Set<string>;
}

/** `text` is undefined where ipset is not to be had: then an address may be in any set. */
export function readIpsets(text: string | undefined): IpsetLookup {
  const sets = new Map<string, Ipset>();
  for (const line of (text ?? '').split('\n')) {
    const [command, name, what, ...options] = line.split(' ');
    if (command === 'create') {
      sets.set(name, { parts: what.split(':')[1].split(','), elements: [], inverted: new Set() });
    } else if (command === 'add') {
      sets.get(name)?.elements.push(what);
      if (options.includes('nomatch')) sets.get(name)?.inverted.add(what);
    }
  }
  const known = new Map<string, Condition>();
  return (name, sides) => {
    const key = [name, ...sides].join();
    let condition = known.get(key);
    if (condition === undefined) known.set(key, (condition = conditionOf(sets, name, sides)));
    return condition;
  };
}

function conditionOf(sets: ReadonlyMap<string, Ipset>, name: string, sides: readonly Side[]): Condition {
  const set = sets.get(name);
  if (set === undefined || set.inverted.size > 0) return perhaps;
  if (set.parts[0] === 'set') return any(set.elements.map((member) => conditionOf(sets, member, sides)));
  if (set.parts.length > sides.length) return perhaps;
  // One condition for all addresses: such a set may have a hundred thousand.
  if (set.parts.length === 1 && isAddress(set.parts[0])) {
    const ranges = set.elements.map(addressRange);
    return ranges.includes(undefined) ? perhaps : addressIn(sides[0], ranges as AddressRange[]);
  }
  return any(set.elements.map((element) => elementCondition(element.split(','), set.parts, sides)));
}

function elementCondition(values: readonly string[], parts: readonly string[], sides: readonly Side[]): Condition {
  return all(
    parts.map((part, i) => {
      if (part === 'port') return portCondition(values[i], sides[i]);
      const range = isAddress(part) ? addressRange(values[i]) : undefined;
      return range === undefined ? perhaps : addressIn(sides[i], [range]);
    }),
  );
}

/** `udp:53`, `tcp:80`; without a protocol in sets of type bitmap:port. */
function portCondition(text: string, side: Side): Condition {
  const [protocol, range = protocol] = text.split(':');
  if (range !== protocol && protocol !== 'udp') return never;
  const [low, high = low] = range.split('-').map(Number);
  return Number.isNaN(low + high) ? perhaps : portIn(side, [[low, high]]);
}

function isAddress(part: string): boolean {
  return part === 'ip' || part === 'net';
}
