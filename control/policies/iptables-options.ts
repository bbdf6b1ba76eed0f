/** The conditions of a rule of iptables: iptables(8) and iptables-extensions(8). */
import {
  addressIn,
  addressRange,
  addressTypeIn,
  all,
  always,
  type Condition,
  constant,
  deviceIn,
  markIn,
  never,
  not,
  packetTypeIn,
  perhaps,
  portIn,
  type Side,
  stateIn,
} from './conditions.ts';

/** Whether addresses and ports are in the ipset of this name; `sides` has a side for each part of its elements. */
export type IpsetLookup = (name: string, sides: readonly Side[]) => Condition;

/** An option and what follows it: `! --mark 0x4000/0x4000` after `-m mark`. */
export interface Option {
  readonly module: string;
  readonly name: string;
  readonly negated: boolean;
  readonly values: readonly string[];
}

/** Modules that only make options known, and whose conditions all are among these options. */
const MODULES = new Set([
  ...['udp', 'tcp', 'comment', 'mark', 'connmark', 'conntrack', 'state', 'multiport', 'addrtype', 'set', 'iprange'],
  ...['pkttype', 'rpfilter', 'policy', 'socket'],
]);
/** Headers that packets of ours do not have: those that have some go up the host's stack as they are. */
const ABSENT_HEADERS = new Set(['rt', 'frag', 'hbh', 'dst', 'ah', 'esp', 'icmp', 'icmp6', 'sctp', 'dccp']);

export function conditionsOf(options: readonly Option[], ipset: IpsetLookup): Condition[] {
  return options.map((option) => {
    const { module, name, negated } = option;
    if (name === '-m') {
      if (ABSENT_HEADERS.has(module)) return never;
      return MODULES.has(module) ? moduleCondition(module, options) : perhaps;
    }
    const condition = MODULES.has(module) || name.length === 2 ? optionCondition(option, ipset) : perhaps;
    return negated ? not(condition) : condition;
  });
}

/** What a module asks by being there. */
function moduleCondition(module: string, options: readonly Option[]): Condition {
  // There is a route back to a VTEP: packets of our own to it would not leave otherwise.
  if (module === 'rpfilter') return constant(!options.some(({ name }) => name === '--invert'));
  // That of our socket would be, but it is not transparent.
  return module === 'socket' ? perhaps : always;
}

function optionCondition({ module, name, values: [value = '', more = ''] }: Option, ipset: IpsetLookup): Condition {
  switch (name) {
    case '-p':
      return constant(['udp', '17', 'all', '0'].includes(value));
    case '-s':
    case '-d':
      return addresses(name === '-s' ? 'source' : 'destination', value);
    case '--src-range':
    case '--dst-range':
      return addresses(name === '--src-range' ? 'source' : 'destination', value);
    case '-i':
    case '-o':
      return deviceIn(name === '-i' ? 'in' : 'out', [value], '+');
    case '-f':
    case '--transparent':
      return never;
    case '--sport':
    case '--sports':
      return portIn('source', portRanges(value));
    case '--dport':
    case '--dports':
      return portIn('destination', portRanges(value));
    case '--ports':
      return not(all([not(portIn('source', portRanges(value))), not(portIn('destination', portRanges(value)))]));
    case '--mark':
      return markCondition(module === 'connmark' ? 'connectionMark' : 'mark', value);
    case '--ctstate':
    case '--state':
      return stateIn(lowerWords(value));
    case '--ctstatus':
      return lowerWords(value).every((status) => ['snat', 'dnat', 'expected'].includes(status)) ? never : perhaps;
    case '--ctdir':
      return constant(value === 'ORIGINAL');
    case '--src-type':
    case '--dst-type':
      return addressTypeIn(name === '--src-type' ? 'source' : 'destination', lowerWords(value));
    case '--pkt-type':
      return packetTypeIn([value]);
    case '--match-set':
      return ipset(
        value,
        more.split(',').map((side) => (side === 'src' ? 'source' : 'destination')),
      );
    case '--pol':
      return constant(value === 'none');
    case '--comment':
    case '--limit-iface-in':
    case '--limit-iface-out':
    case '--dir':
    case '--invert':
    case '--loose':
    case '--validmark':
    case '--accept-local':
      return always;
    default:
      return perhaps;
  }
}

function addresses(side: Side, text: string): Condition {
  const range = addressRange(text);
  return range === undefined ? perhaps : addressIn(side, [range]);
}

/** `8472`, `4789,8472` or `1024:65535`. */
function portRanges(text: string): [number, number][] {
  return text.split(',').map((part) => {
    const [low, high = low] = part.split(':');
    return [Number(low), Number(high)];
  });
}

function lowerWords(text: string): string[] {
  return text.toLowerCase().split(',');
}

function markCondition(which: 'mark' | 'connectionMark', text: string): Condition {
  const [value, mask] = valueAndMask(text);
  return markIn(which, [[value, value]], mask);
}

export function valueAndMask(text: string): [number, number] {
  const [value, mask = '0xffffffff'] = text.split('/');
  return [Number(value), Number(mask)];
}
