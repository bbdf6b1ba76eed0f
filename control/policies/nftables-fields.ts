/** What the rules of nftables compare, and how the tunnel's packets compare to it. */
import {
  type AddressRange,
  addressIn,
  addressRange,
  addressTypeIn,
  all,
  always,
  any,
  type Condition,
  constant,
  deviceIn,
  type Family,
  familyIs,
  markIn,
  never,
  packetTypeIn,
  perhaps,
  portIn,
  prefixRange,
  stateIn,
} from './conditions.ts';
import { type Expression, keyOf } from './nftables-text.ts';

/** What a rule compares: `compare` is given the values that it may have. */
export interface Field {
  /** Where it is not there at all, a comparison fails, whether it is for equality or not. */
  readonly present: Condition;
  readonly compare: (values: readonly Expression[]) => Condition;
}

const UNKNOWN: Field = { present: always, compare: () => perhaps };
/** Compared to `exists` and `missing`: it is missing. */
const ABSENT: Field = { present: always, compare: (values) => presence(values, false) };
const NO_CONTENT: Field = { present: never, compare: () => never };
/** Nobody's socket but ours, which is not transparent and has an address; packets that IPsec is not to change. */
const ABSENT_FLAGS = new Set(['ipsec', 'transparent', 'wildcard']);

export function fieldOf(expression: Expression): Field {
  const key = keyOf(expression);
  const value = (expression as Record<string, Expression>)[key];
  switch (key) {
    case 'payload':
      return payloadField(value as { protocol?: string; field?: string });
    case 'meta':
      return metaField((value as { key: string }).key);
    case 'ct':
      return conntrackField((value as { key: string }).key);
    case 'fib':
      return fibField(value as { result: string; flags: string[] });
    case 'concat':
      return concatField((value as Expression[]).map(fieldOf));
    case '&':
      return maskField(value as [Expression, Expression]);
    case 'rt':
    case 'socket':
      return ABSENT_FLAGS.has((value as { key: string }).key) ? ABSENT : UNKNOWN;
    case 'exthdr':
    case 'ip option':
      // Only packets without any pass by the host's stack.
      return (value as { field?: string }).field === undefined ? ABSENT : NO_CONTENT;
    case 'ipsec': // of the state that decrypted the packet
    case 'tcp option':
      return NO_CONTENT;
    default:
      return UNKNOWN;
  }
}

/** Whether a thing that is there, or is not, compares equal to `exists` or `missing`; other comparisons are of its content. */
function presence(values: readonly Expression[], there: boolean): Condition {
  const flags = values.map((value) => (value === 1 ? true : value === 0 || value === '0' ? false : value));
  if (flags.every((flag) => typeof flag === 'boolean')) return constant(flags.includes(there));
  return there ? perhaps : never;
}

const TRANSPORT = new Set(['udp', 'th']);
const LINK = new Set(['ether', 'vlan']);

function payloadField({ protocol, field }: { protocol?: string; field?: string }): Field {
  if (protocol === undefined || field === undefined) return UNKNOWN; // raw bits
  if (protocol === 'ip' || protocol === 'ip6')
    return { present: familyIs(protocol), compare: ipField(protocol, field) };
  if (LINK.has(protocol)) return UNKNOWN;
  if (!TRANSPORT.has(protocol)) return NO_CONTENT;
  if (field === 'sport' || field === 'dport') {
    const side = field === 'sport' ? 'source' : 'destination';
    return { present: always, compare: (values) => numbers(values, (ranges) => portIn(side, ranges)) };
  }
  return UNKNOWN;
}

function ipField(family: Family, field: string): (values: readonly Expression[]) => Condition {
  if (field === 'saddr' || field === 'daddr') {
    return (values) => addresses(family, field === 'saddr' ? 'source' : 'destination', values);
  }
  if (field === 'protocol' || field === 'nexthdr') return protocols;
  if (field === 'version') return (values) => constant(values.includes(family === 'ip' ? 4 : 6));
  return () => perhaps;
}

function protocols(values: readonly Expression[]): Condition {
  if (values.some((value) => keyOf(value) !== '')) return perhaps; // a range
  return constant(values.some((value) => value === 'udp' || value === 17));
}

function addresses(family: Family, side: 'source' | 'destination', values: readonly Expression[]): Condition {
  const ranges: AddressRange[] = [];
  let strange = false;
  for (const value of values) {
    const range = rangeOf(value);
    if (range === undefined) strange = true;
    else if (range[0].length === (family === 'ip' ? 8 : 32)) ranges.push(range);
  }
  const known = addressIn(side, ranges);
  return strange ? any([known, perhaps]) : known;
}

function rangeOf(value: Expression): AddressRange | undefined {
  if (typeof value === 'string') return addressRange(value);
  const { prefix, range } = value as { prefix?: { addr: string; len: number }; range?: [string, string] };
  if (prefix) return prefixRange(prefix.addr, prefix.len);
  return range && addressRange(range.join('-'));
}

function numbers(
  values: readonly Expression[],
  condition: (ranges: readonly (readonly [number, number])[]) => Condition,
): Condition {
  const ranges: [number, number][] = [];
  for (const value of values) {
    const range = (value as { range?: Expression[] })?.range ?? [value, value];
    if (!range.every((end) => typeof end === 'number')) return perhaps;
    ranges.push(range as [number, number]);
  }
  return condition(ranges);
}

function strings(values: readonly Expression[]): string[] {
  return values.map(String);
}

function metaField(key: string): Field {
  switch (key) {
    case 'l4proto':
      return { present: always, compare: protocols };
    case 'nfproto':
    case 'protocol':
      return {
        present: always,
        compare: (values) =>
          any([
            values.includes('ip') || values.includes('ipv4') ? familyIs('ip') : never,
            values.includes('ip6') || values.includes('ipv6') ? familyIs('ip6') : never,
          ]),
      };
    case 'iif':
    case 'iifname':
    case 'oif':
    case 'oifname': {
      const end = key.startsWith('i') ? 'in' : 'out';
      return { present: always, compare: (values) => deviceIn(end, strings(values), '*') };
    }
    case 'mark':
      return { present: always, compare: (values) => numbers(values, (ranges) => markIn('mark', ranges)) };
    case 'pkttype':
      return { present: always, compare: (values) => packetTypeIn(strings(values)) };
    case 'ipsec':
      return ABSENT;
    default:
      return UNKNOWN;
  }
}

function conntrackField(key: string): Field {
  switch (key) {
    case 'state':
      return { present: always, compare: (values) => stateIn(strings(values)) };
    case 'mark':
      return {
        present: ({ tracked }) => (tracked ? 'always' : 'never'),
        compare: (values) => numbers(values, (ranges) => markIn('connectionMark', ranges)),
      };
    case 'status':
      return { present: always, compare: (values) => (values.every(isUnset) ? never : perhaps) };
    case 'direction':
      return { present: always, compare: (values) => constant(values.includes('original')) };
    default:
      return UNKNOWN;
  }
}

/** Bits of conntrack's status that the tunnel's connections do not have. */
function isUnset(status: Expression): boolean {
  return status === 'dnat' || status === 'snat' || status === 'expected';
}

function fibField({ result, flags }: { result: string; flags: string[] }): Field {
  const side = flags.includes('saddr') ? 'source' : 'destination';
  if (result === 'type') return { present: always, compare: (values) => addressTypeIn(side, strings(values)) };
  // There is a route back to a VTEP: packets of our own to it would not leave otherwise.
  return { present: always, compare: (values) => presence(values, true) };
}

function concatField(fields: readonly Field[]): Field {
  return {
    present: all(fields.map(({ present }) => present)),
    compare: (values) =>
      any(
        values.map((value) => {
          const parts = (value as { concat?: Expression[] })?.concat;
          return parts ? all(fields.map((field, i) => field.compare([parts[i]]))) : perhaps;
        }),
      ),
  };
}

function maskField([left, mask]: [Expression, Expression]): Field {
  const field = fieldOf(left);
  const { meta, ct, payload } = left as Record<string, { key?: string; field?: string }>;
  if (typeof mask === 'number' && (meta?.key === 'mark' || ct?.key === 'mark')) {
    const which = meta ? 'mark' : 'connectionMark';
    return { ...field, compare: (values) => numbers(values, (ranges) => markIn(which, ranges, mask)) };
  }
  // Not a fragment: of this field, only the bit "don't fragment" may be set (RFC 791, 3.1).
  if (payload?.field === 'frag-off' && typeof mask === 'number' && (mask & 0x4000) === 0) {
    return { ...field, compare: (values) => constant(values.includes(0)) };
  }
  return { ...field, compare: () => perhaps };
}
