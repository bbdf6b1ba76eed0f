/** Filters as functions over packets: what pcap-filter(7) says, on Ethernet frames. */
import { get16 } from '../../wire/bytes.ts';
import {
  ETHER_DESTINATION,
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  VLAN_TAG,
} from '../../wire/ethernet.ts';
import {
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  ipv4HeaderLength,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_SOURCE, PROTOCOL_FRAGMENT } from '../../wire/ipv6.ts';
import { type Direction, type Expression, type Protocol, parseFilter } from './expression.ts';

/** Whether the frame of `length` bytes at `at` passes; of these `captured` are there. Nothing is read beyond them. */
export type Filter = (bytes: Uint8Array, at: number, captured: number, length: number) => boolean;

const ETHERTYPE_RARP = 0x8035;
const TYPES: Partial<Record<Protocol, number>> = {
  ip: ETHERTYPE_IPV4,
  ip6: ETHERTYPE_IPV6,
  arp: ETHERTYPE_ARP,
  rarp: ETHERTYPE_RARP,
};
const NUMBERS = { tcp: PROTOCOL_TCP, udp: PROTOCOL_UDP, sctp: PROTOCOL_SCTP };
/** Addresses of IPv4 in an ARP packet for Ethernet. */
const ARP_SENDER = 14;
const ARP_TARGET = 24;

/** Throws FilterError. undefined for an empty text: everything passes. */
export function compileFilter(text: string): Filter | undefined {
  const expression = parseFilter(text);
  return expression && compile(expression);
}

function compile(expression: Expression): Filter {
  switch (expression.kind) {
    case 'and':
    case 'or': {
      const [left, right] = [compile(expression.left), compile(expression.right)];
      return expression.kind === 'and' ? both(left, right) : either(left, right);
    }
    case 'not': {
      const of = compile(expression.of);
      return (bytes, at, captured, length) => !of(bytes, at, captured, length);
    }
    case 'protocol':
      return compileProtocol(expression.protocol, expression.tags);
    case 'next':
      return compileNext(expression.version, expression.number, expression.tags);
    case 'type':
      return typeIs(expression.type, expression.tags);
    case 'net':
      return compileNet(expression);
    case 'mac':
      return inDirection(expression.direction, ETHER_SOURCE, ETHER_DESTINATION, (offset) =>
        bytesAre(offset, expression.address, 48),
      );
    case 'port':
      return compilePort(expression);
    case 'vlan':
      return compileVlan(expression.id, expression.tags);
    case 'length':
      return (_bytes, _at, _captured, length) => length >= expression.least && length <= expression.most;
    case 'broadcast':
      return bytesAre(ETHER_DESTINATION, new Uint8Array(6).fill(0xff), 48);
    case 'multicast':
      return compileMulticast(expression.protocol, expression.tags);
  }
}

/** Offset of the network header behind the tags that the filter has spoken of. */
const networkAt = (tags: number): number => ETHER_HEADER + tags * VLAN_TAG;

function both(a: Filter, b: Filter): Filter {
  return (bytes, at, captured, length) => a(bytes, at, captured, length) && b(bytes, at, captured, length);
}

function either(a: Filter, b: Filter): Filter {
  return (bytes, at, captured, length) => a(bytes, at, captured, length) || b(bytes, at, captured, length);
}

function typeIs(type: number, tags: number): Filter {
  const offset = networkAt(tags);
  return (bytes, at, captured) => captured >= offset && get16(bytes, at + offset - 2) === type;
}

function byteIs(offset: number, value: number): Filter {
  return (bytes, at, captured) => captured > offset && bytes[at + offset] === value;
}

/** Whether the first `bits` bits at an offset are those of `wanted`. */
function bytesAre(offset: number, wanted: Uint8Array, bits: number): Filter {
  const whole = bits >> 3;
  const mask = 0xff & ~(0xff >> (bits & 7));
  return (bytes, at, captured) => {
    if (captured < offset + wanted.length) return false;
    for (let i = 0; i < whole; i++) if (bytes[at + offset + i] !== wanted[i]) return false;
    return mask === 0 || ((bytes[at + offset + whole] ^ wanted[whole]) & mask) === 0;
  };
}

function inDirection(
  direction: Direction,
  source: number,
  destination: number,
  at: (offset: number) => Filter,
): Filter {
  if (direction === 'src') return at(source);
  if (direction === 'dst') return at(destination);
  return direction === 'both' ? both(at(source), at(destination)) : either(at(source), at(destination));
}

function compileProtocol(protocol: Protocol, tags: number): Filter {
  const type = TYPES[protocol];
  if (type !== undefined) return typeIs(type, tags);
  if (protocol === 'icmp') return compileNext(4, PROTOCOL_ICMP, tags);
  if (protocol === 'icmp6') return compileNext(6, PROTOCOL_ICMPV6, tags);
  return compileNext(0, NUMBERS[protocol as keyof typeof NUMBERS], tags);
}

/** As in libpcap, of IPv6's extension headers the fragment header alone is looked behind. */
function compileNext(version: 0 | 4 | 6, number: number, tags: number): Filter {
  const network = networkAt(tags);
  const ipv4 = both(typeIs(ETHERTYPE_IPV4, tags), byteIs(network + IPV4_PROTOCOL, number));
  const next = byteIs(network + IPV6_NEXT_HEADER, number);
  const behindFragment = both(
    byteIs(network + IPV6_NEXT_HEADER, PROTOCOL_FRAGMENT),
    byteIs(network + IPV6_HEADER, number),
  );
  const ipv6 = both(typeIs(ETHERTYPE_IPV6, tags), either(next, behindFragment));
  return version === 4 ? ipv4 : version === 6 ? ipv6 : either(ipv4, ipv6);
}

/** An IPv4 address without a protocol is looked for in ARP, too. */
function compileNet({ protocol, direction, address, prefix, tags }: Extract<Expression, { kind: 'net' }>): Filter {
  const network = networkAt(tags);
  const inside = (type: number, source: number, destination: number): Filter =>
    both(
      typeIs(type, tags),
      inDirection(direction, network + source, network + destination, (offset) => bytesAre(offset, address, prefix)),
    );
  if (address.length === 16) return inside(ETHERTYPE_IPV6, IPV6_SOURCE, IPV6_DESTINATION);
  const ip = inside(ETHERTYPE_IPV4, IPV4_SOURCE, IPV4_DESTINATION);
  const arp = inside(ETHERTYPE_ARP, ARP_SENDER, ARP_TARGET);
  const rarp = inside(ETHERTYPE_RARP, ARP_SENDER, ARP_TARGET);
  if (protocol === undefined) return either(ip, either(arp, rarp));
  return protocol === 'ip' ? ip : protocol === 'arp' ? arp : rarp;
}

/** Of fragments the first alone has ports; behind IPv6 extension headers none are looked for. */
function compilePort({ protocol, direction, from, to, tags }: Extract<Expression, { kind: 'port' }>): Filter {
  const network = networkAt(tags);
  const has = protocol ? [NUMBERS[protocol]] : [PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP];
  const within = (bytes: Uint8Array, at: number): boolean => {
    const port = get16(bytes, at);
    return port >= from && port <= to;
  };
  const matches = (bytes: Uint8Array, transport: number): boolean => {
    const source = direction !== 'dst' && within(bytes, transport);
    const destination = direction !== 'src' && within(bytes, transport + 2);
    return direction === 'both' ? source && destination : source || destination;
  };
  return (bytes, at, captured) => {
    if (captured < network + IPV4_HEADER) return false;
    const ip = at + network;
    const type = get16(bytes, ip - 2);
    if (type === ETHERTYPE_IPV4) {
      if ((get16(bytes, ip + IPV4_FRAGMENT) & IPV4_FRAGMENT_OFFSET) !== 0) return false;
      const transport = ipv4HeaderLength(bytes, ip);
      return (
        captured >= network + transport + 4 && has.includes(bytes[ip + IPV4_PROTOCOL]) && matches(bytes, ip + transport)
      );
    }
    if (type !== ETHERTYPE_IPV6 || captured < network + IPV6_HEADER + 4) return false;
    return has.includes(bytes[ip + IPV6_NEXT_HEADER]) && matches(bytes, ip + IPV6_HEADER);
  };
}

function compileVlan(id: number | undefined, tags: number): Filter {
  const tag = networkAt(tags);
  const tagged = [ETHERTYPE_VLAN, ETHERTYPE_QINQ, 0x9100].map((type) => typeIs(type, tags)).reduce(either);
  if (id === undefined) return tagged;
  return both(tagged, (bytes, at, captured) => captured >= tag + 2 && (get16(bytes, at + tag) & 0xfff) === id);
}

function compileMulticast(protocol: 'ether' | 'ip' | 'ip6', tags: number): Filter {
  const network = networkAt(tags);
  if (protocol === 'ether') return (bytes, at, captured) => captured > 0 && (bytes[at] & 1) === 1;
  if (protocol === 'ip6') return both(typeIs(ETHERTYPE_IPV6, tags), byteIs(network + IPV6_DESTINATION, 0xff));
  // As in libpcap: broadcast counts.
  const offset = network + IPV4_DESTINATION;
  return both(typeIs(ETHERTYPE_IPV4, tags), (bytes, at, captured) => captured > offset && bytes[at + offset] >= 224);
}
