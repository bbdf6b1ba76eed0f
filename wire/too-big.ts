/**
 * What tells a sender that its packet does not fit the path: ICMP "fragmentation needed" (RFC 792, RFC 1191, 4) and ICMPv6 "packet too
 * big" (RFC 4443, 3.2). It comes from the packet's own destination, since a tunnel has no address inside.
 *
 *      0      1      2          4                8
 *      +------+------+----------+----------------+----------------------------+
 *      |  3   |  4   | checksum | 0 (2), MTU (2) | the packet's first bytes   |
 *      |  2   |  0   | checksum |    MTU (4)     | the same                   |
 *      +------+------+----------+----------------+----------------------------+
 *
 * When one is sent, and what is in it, follows the kernel's tunnels (Linux: iptunnel_pmtud_check_icmp and iptunnel_pmtud_check_icmpv6 in
 * net/ipv4/ip_tunnel_core.c).
 */
import { get16, put16, put32 } from './bytes.ts';
import { fillIpv4Checksum, pseudoSum6, putChecksum, sum } from './checksum.ts';
import {
  ETHER_DESTINATION,
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHER_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  MAC_LENGTH,
} from './ethernet.ts';
import {
  ICMP_CHECKSUM,
  ICMP_CODE,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HEADER,
  ICMP_TYPE,
  ICMP_UNREACHABLE,
} from './icmp.ts';
import {
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV4_VERSION_IHL,
  ipv4HeaderLength,
  ipv4IsWhole,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
} from './ipv4.ts';
import {
  IPV6_DESTINATION,
  IPV6_HEADER,
  IPV6_HOP_LIMIT,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  IPV6_VERSION,
  ipv6IsWhole,
  ipv6Transport,
  PROTOCOL_FRAGMENT,
} from './ipv6.ts';

/** The whole error's IP packet is at most so long: RFC 1812, 4.3.2.3, and IPV6_MIN_MTU (RFC 4443, 2.4). */
const IPV4_LONGEST = 576;
const IPV6_LONGEST = 1280;
/** No error tells a smaller MTU than every path has to carry (RFC 1122, 3.3.3; RFC 8200, 5). */
const IPV4_SMALLEST_MTU = 576;
const IPV6_SMALLEST_MTU = 1280;

/** Length of the longest frame that `writeTooBig` makes. */
export const TOO_BIG_FRAME = ETHER_HEADER + IPV6_LONGEST;

const ICMPV6_TOO_BIG = 2;
/** From here on types are informational (RFC 4443, 2.1); of these, redirects are not answered either. */
const ICMPV6_INFORMATIONAL = 128;
const ICMPV6_REDIRECT = 137;
/** Unreachable, source quench, redirect, time exceeded, parameter problem (Linux: icmp_is_err). */
const ICMP_ERRORS = [ICMP_UNREACHABLE, 4, 5, 11, 12];

/**
 * Writes the frame that says that the frame at `from` (`length` bytes, no tags) may have `mtu` bytes of IP packet only, at most
 * TOO_BIG_FRAME bytes at `to`, and returns its length. 0: nothing may be said of that frame, or to its sender. An IPv4
 * packet without DF is a router's to fragment: with `wantsDf` it gets no error either.
 */
export function writeTooBig(
  bytes: Uint8Array,
  to: number,
  from: number,
  length: number,
  mtu: number,
  wantsDf: boolean,
): number {
  if (length < ETHER_HEADER) return 0;
  const ip = from + ETHER_HEADER;
  const room = length - ETHER_HEADER;
  switch (etherType(bytes, ip)) {
    case ETHERTYPE_IPV4:
      if (mtu < IPV4_SMALLEST_MTU || !mayAnswerIpv4(bytes, ip, room, wantsDf)) return 0;
      return writeFragmentationNeeded(bytes, to, from, room, mtu);
    case ETHERTYPE_IPV6:
      if (mtu < IPV6_SMALLEST_MTU || !mayAnswerIpv6(bytes, ip, room)) return 0;
      return writePacketTooBig(bytes, to, from, room, mtu);
    default:
      return 0;
  }
}

function mayAnswerIpv4(bytes: Uint8Array, ip: number, length: number, wantsDf: boolean): boolean {
  if (!ipv4IsWhole(bytes, ip, length)) return false;
  const fragment = get16(bytes, ip + IPV4_FRAGMENT);
  if (wantsDf ? fragment !== IPV4_DONT_FRAGMENT : (fragment & IPV4_FRAGMENT_OFFSET) !== 0) return false;
  const source = bytes[ip + IPV4_SOURCE];
  const isUnicast = source !== 0 && source !== 127 && source < 224 && bytes[ip + IPV4_DESTINATION] < 224;
  if (!isUnicast) return false;
  if (bytes[ip + IPV4_PROTOCOL] !== PROTOCOL_ICMP) return true;
  const icmp = ipv4HeaderLength(bytes, ip);
  return icmp < length && !ICMP_ERRORS.includes(bytes[ip + icmp + ICMP_TYPE]);
}

function mayAnswerIpv6(bytes: Uint8Array, ip: number, length: number): boolean {
  if (!ipv6IsWhole(bytes, ip, length) || bytes[ip + IPV6_SOURCE] === 0xff) return false;
  if (isUnspecifiedOrLoopback(bytes, ip + IPV6_SOURCE)) return false;
  const found = ipv6Transport(bytes, ip, length);
  let transport = ip + (found >>> 8);
  let protocol = found & 0xff;
  const end = ip + length;
  if (protocol === PROTOCOL_FRAGMENT) {
    if (transport + 8 > end) return false;
    // Nothing tells what a later fragment is of; all of them may be answered (RFC 4443, 2.4 (e)).
    if ((get16(bytes, transport + 2) & 0xfff8) !== 0) return true;
    protocol = bytes[transport];
    transport += 8;
  }
  if (protocol !== PROTOCOL_ICMPV6) return true;
  if (transport >= end) return false;
  const type = bytes[transport + ICMP_TYPE];
  return type >= ICMPV6_INFORMATIONAL && type !== ICMPV6_REDIRECT;
}

function isUnspecifiedOrLoopback(bytes: Uint8Array, address: number): boolean {
  for (let i = 0; i < 15; i++) if (bytes[address + i] !== 0) return false;
  return bytes[address + 15] <= 1;
}

/** `room`: bytes from the IP header to the frame's end. */
function writeFragmentationNeeded(bytes: Uint8Array, to: number, from: number, room: number, mtu: number): number {
  const quoted = Math.min(room, IPV4_LONGEST - IPV4_HEADER - ICMP_HEADER);
  const asked = from + ETHER_HEADER;
  const ip = to + ETHER_HEADER;
  const icmp = ip + IPV4_HEADER;
  turnEthernet(bytes, to, from);
  bytes[ip + IPV4_VERSION_IHL] = 0x45;
  bytes[ip + IPV4_TOS] = 0;
  put16(bytes, ip + IPV4_TOTAL_LENGTH, IPV4_HEADER + ICMP_HEADER + quoted);
  put16(bytes, ip + IPV4_ID, 0);
  put16(bytes, ip + IPV4_FRAGMENT, IPV4_DONT_FRAGMENT);
  bytes[ip + IPV4_TTL] = bytes[asked + IPV4_TTL];
  bytes[ip + IPV4_PROTOCOL] = PROTOCOL_ICMP;
  put16(bytes, ip + IPV4_CHECKSUM, 0);
  bytes.copyWithin(ip + IPV4_SOURCE, asked + IPV4_DESTINATION, asked + IPV4_DESTINATION + 4);
  bytes.copyWithin(ip + IPV4_DESTINATION, asked + IPV4_SOURCE, asked + IPV4_SOURCE + 4);
  fillIpv4Checksum(bytes, ip);
  writeIcmp(bytes, icmp, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, mtu, asked, quoted);
  putChecksum(bytes, icmp + ICMP_CHECKSUM, sum(bytes, icmp, ICMP_HEADER + quoted));
  return ETHER_HEADER + IPV4_HEADER + ICMP_HEADER + quoted;
}

/** As above. */
function writePacketTooBig(bytes: Uint8Array, to: number, from: number, room: number, mtu: number): number {
  const quoted = Math.min(room, IPV6_LONGEST - IPV6_HEADER - ICMP_HEADER);
  const asked = from + ETHER_HEADER;
  const ip = to + ETHER_HEADER;
  const icmp = ip + IPV6_HEADER;
  const length = ICMP_HEADER + quoted;
  turnEthernet(bytes, to, from);
  put32(bytes, ip + IPV6_VERSION, 6 << 28);
  put16(bytes, ip + IPV6_PAYLOAD_LENGTH, length);
  bytes[ip + IPV6_NEXT_HEADER] = PROTOCOL_ICMPV6;
  bytes[ip + IPV6_HOP_LIMIT] = bytes[asked + IPV6_HOP_LIMIT];
  bytes.copyWithin(ip + IPV6_SOURCE, asked + IPV6_DESTINATION, asked + IPV6_HEADER);
  bytes.copyWithin(ip + IPV6_DESTINATION, asked + IPV6_SOURCE, asked + IPV6_DESTINATION);
  writeIcmp(bytes, icmp, ICMPV6_TOO_BIG, 0, mtu, asked, quoted);
  putChecksum(bytes, icmp + ICMP_CHECKSUM, sum(bytes, icmp, length, pseudoSum6(bytes, ip, PROTOCOL_ICMPV6, length)));
  return ETHER_HEADER + IPV6_HEADER + length;
}

function turnEthernet(bytes: Uint8Array, to: number, from: number): void {
  bytes.copyWithin(to + ETHER_DESTINATION, from + ETHER_SOURCE, from + ETHER_SOURCE + MAC_LENGTH);
  bytes.copyWithin(to + ETHER_SOURCE, from + ETHER_DESTINATION, from + ETHER_DESTINATION + MAC_LENGTH);
  bytes.copyWithin(to + ETHER_TYPE, from + ETHER_TYPE, from + ETHER_HEADER);
}

/** The MTU is 32 bits, of which IPv4's are the lower 16; the checksum is left zero. */
function writeIcmp(
  bytes: Uint8Array,
  icmp: number,
  type: number,
  code: number,
  mtu: number,
  quote: number,
  quoted: number,
): void {
  bytes[icmp + ICMP_TYPE] = type;
  bytes[icmp + ICMP_CODE] = code;
  put16(bytes, icmp + ICMP_CHECKSUM, 0);
  put32(bytes, icmp + 4, mtu);
  bytes.copyWithin(icmp + ICMP_HEADER, quote, quote + quoted);
}
