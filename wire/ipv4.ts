/**
 * IPv4. RFC 791, 3.1; the second byte as in RFC 2474 (DSCP) and RFC 3168 (ECN).
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------+-------+-----------+---+-------------------------------+
 *   0 |version|  IHL  |   DSCP    |ECN|         total length          |
 *   4 |              id               |0|DF|MF|   fragment offset / 8 |
 *   8 |      TTL      |   protocol    |        header checksum        |
 *  12 |                        source address                         |
 *  16 |                      destination address                      |
 *     +---------------------------------------------------------------+
 */
import { get16, put16 } from './bytes.ts';

export const IPV4_VERSION_IHL = 0;
export const IPV4_TOS = 1;
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_ID = 4;
export const IPV4_FRAGMENT = 6;
export const IPV4_TTL = 8;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SOURCE = 12;
export const IPV4_DESTINATION = 16;
/** Length of a header without options. */
export const IPV4_HEADER = 20;

/** Bits of the word at IPV4_FRAGMENT. */
export const IPV4_DONT_FRAGMENT = 0x4000;
export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_FRAGMENT_OFFSET = 0x1fff;

/** Numbers of the protocol field, and of IPv6's next header. https://www.iana.org/assignments/protocol-numbers */
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;
export const PROTOCOL_SCTP = 132;

/** In bytes, options included; says nothing about how many bytes there are. */
export function ipv4HeaderLength(bytes: Uint8Array, ip: number): number {
  return (bytes[ip + IPV4_VERSION_IHL] & 0x0f) << 2;
}

/** Whether `length` bytes hold a whole IPv4 header, options included. */
export function ipv4IsWhole(bytes: Uint8Array, ip: number, length: number): boolean {
  if (length < IPV4_HEADER || bytes[ip + IPV4_VERSION_IHL] >>> 4 !== 4) return false;
  const header = ipv4HeaderLength(bytes, ip);
  return header >= IPV4_HEADER && header <= length;
}

/** Whether the packet is a fragment, the first one included. */
export function ipv4IsFragment(bytes: Uint8Array, ip: number): boolean {
  return (get16(bytes, ip + IPV4_FRAGMENT) & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) !== 0;
}

export interface Ipv4Header {
  readonly tos: number;
  /** Header and payload, in bytes. */
  readonly totalLength: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly ttl: number;
  readonly protocol: number;
  /** 4 bytes. */
  readonly source: Uint8Array;
  /** 4 bytes. */
  readonly destination: Uint8Array;
}

/** Writes a header of 20 bytes, its checksum zero: see `fillIpv4Checksum`. */
export function writeIpv4Header(bytes: Uint8Array, ip: number, header: Ipv4Header): void {
  bytes[ip + IPV4_VERSION_IHL] = 0x45;
  bytes[ip + IPV4_TOS] = header.tos;
  put16(bytes, ip + IPV4_TOTAL_LENGTH, header.totalLength);
  put16(bytes, ip + IPV4_ID, header.id);
  put16(bytes, ip + IPV4_FRAGMENT, header.dontFragment ? IPV4_DONT_FRAGMENT : 0);
  bytes[ip + IPV4_TTL] = header.ttl;
  bytes[ip + IPV4_PROTOCOL] = header.protocol;
  put16(bytes, ip + IPV4_CHECKSUM, 0);
  bytes.set(header.source, ip + IPV4_SOURCE);
  bytes.set(header.destination, ip + IPV4_DESTINATION);
}
