/**
 * IPv6 neighbour discovery: solicitations and advertisements. RFC 4861, 4.3, 4.4 and 4.6.1.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---------------+---------------+-------------------------------+
 *   0 | type 135, 136 |    code 0     |           checksum            |
 *   4 |R|S|O|                  reserved (R, S, O: 136 only)           |
 *   8 |                   target address (16 bytes)                   |
 *     +---------------+---------------+-------------------------------+
 *  24 |  option type  | length / 8    |  link-layer address (6 bytes), or what the type says ...
 */
import { putMac } from './address.ts';
import { put16, put32 } from './bytes.ts';
import { pseudoSum6, putChecksum, sum } from './checksum.ts';
import { ETHER_DESTINATION, ETHER_HEADER, ETHER_SOURCE, ETHER_TYPE, ETHERTYPE_IPV6, MAC_LENGTH } from './ethernet.ts';
import { ICMP_CHECKSUM, ICMP_CODE, ICMP_TYPE } from './icmp.ts';
import { PROTOCOL_ICMPV6 } from './ipv4.ts';
import {
  IPV6_DESTINATION,
  IPV6_HEADER,
  IPV6_HOP_LIMIT,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  IPV6_VERSION,
} from './ipv6.ts';

export const ND_SOLICITATION = 135;
export const ND_ADVERTISEMENT = 136;

export const ND_FLAGS = 4;
export const ND_TARGET = 8;
/** Length of a message without options. */
export const ND_MESSAGE = 24;

/** Bits of the byte at ND_FLAGS. */
export const ND_ROUTER = 0x80;
export const ND_SOLICITED = 0x40;
export const ND_OVERRIDE = 0x20;

const OPTION_SOURCE_MAC = 1;
const OPTION_TARGET_MAC = 2;
const OPTION_MAC_LENGTH = 8;

/** Length of the frame that `writeAdvertisement` makes. */
export const ND_FRAME = ETHER_HEADER + IPV6_HEADER + ND_MESSAGE + OPTION_MAC_LENGTH;

/**
 * The type of the neighbour-discovery message directly behind the IPv6 header at `ip` (`length` bytes from there): ND_SOLICITATION,
 * ND_ADVERTISEMENT, or 0 when it is none, or not whole.
 */
export function ndType(bytes: Uint8Array, ip: number, length: number): number {
  if (length < IPV6_HEADER + ND_MESSAGE || bytes[ip + IPV6_NEXT_HEADER] !== PROTOCOL_ICMPV6) return 0;
  if (bytes[ip + IPV6_HEADER + ICMP_CODE] !== 0) return 0;
  const type = bytes[ip + IPV6_HEADER + ICMP_TYPE];
  return type === ND_SOLICITATION || type === ND_ADVERTISEMENT ? type : 0;
}

/**
 * Where the MAC of whoever solicits is, in a frame of `length` bytes without tags that ndType() has found to be a solicitation: in
 * its source link-layer option, else in the Ethernet header. -1 when an option's length is zero, or leads beyond the frame (RFC
 * 4861, 7.1.1: discard it).
 */
export function solicitorMac(bytes: Uint8Array, frame: number, length: number): number {
  const end = frame + length;
  for (let option = frame + ETHER_HEADER + IPV6_HEADER + ND_MESSAGE; option + 1 < end; ) {
    const size = bytes[option + 1] << 3;
    if (size === 0 || option + size > end) return -1;
    if (bytes[option] === OPTION_SOURCE_MAC) return option + 2;
    option += size;
  }
  return frame + ETHER_SOURCE;
}

/**
 * Writes the frame of ND_FRAME bytes that answers the solicitation in the frame at `request` (no tags): the target is at the MAC given as
 * u16 and int32. `mac`: where the MAC is that it goes to, as solicitorMac() says. Solicited and override are set. The two must not
 * overlap.
 */
export function writeAdvertisement(
  bytes: Uint8Array,
  frame: number,
  request: number,
  mac: number,
  macHigh: number,
  macLow: number,
  isRouter: boolean,
): void {
  const ip = frame + ETHER_HEADER;
  const message = ip + IPV6_HEADER;
  const asked = request + ETHER_HEADER;
  const target = asked + IPV6_HEADER + ND_TARGET;
  bytes.copyWithin(frame + ETHER_DESTINATION, mac, mac + MAC_LENGTH);
  putMac(bytes, frame + ETHER_SOURCE, macHigh, macLow);
  put16(bytes, frame + ETHER_TYPE, ETHERTYPE_IPV6);
  // The upper half of the traffic class is the request's, as in the kernel (vxlan_na_create).
  put32(bytes, ip + IPV6_VERSION, (6 << 28) | ((bytes[asked + IPV6_VERSION] & 0x0f) << 24));
  put16(bytes, ip + IPV6_PAYLOAD_LENGTH, ND_MESSAGE + OPTION_MAC_LENGTH);
  bytes[ip + IPV6_NEXT_HEADER] = PROTOCOL_ICMPV6;
  bytes[ip + IPV6_HOP_LIMIT] = 255;
  bytes.copyWithin(ip + IPV6_SOURCE, target, target + 16);
  bytes.copyWithin(ip + IPV6_DESTINATION, asked + IPV6_SOURCE, asked + IPV6_DESTINATION);
  bytes[message + ICMP_TYPE] = ND_ADVERTISEMENT;
  bytes[message + ICMP_CODE] = 0;
  put16(bytes, message + ICMP_CHECKSUM, 0);
  put32(bytes, message + ND_FLAGS, ((isRouter ? ND_ROUTER : 0) | ND_SOLICITED | ND_OVERRIDE) << 24);
  bytes.copyWithin(message + ND_TARGET, target, target + 16);
  bytes[message + ND_MESSAGE] = OPTION_TARGET_MAC;
  bytes[message + ND_MESSAGE + 1] = OPTION_MAC_LENGTH >> 3;
  putMac(bytes, message + ND_MESSAGE + 2, macHigh, macLow);
  const length = ND_MESSAGE + OPTION_MAC_LENGTH;
  const pseudo = pseudoSum6(bytes, ip, PROTOCOL_ICMPV6, length);
  putChecksum(bytes, message + ICMP_CHECKSUM, sum(bytes, message, length, pseudo));
}
