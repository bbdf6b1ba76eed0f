/**
 * What a frame gives its own outer header: its ECN field always, and its DS field, TTL and DF where the device inherits them. One number, since
 * a run has one outer header:
 *
 *     bits 0-7 TOS or traffic class | 8-15 TTL or hop limit | 16 DF
 *
 * A template has zeros where frames decide, so that marks are added to it; most frames' marks are 0.
 */

import { ECN, encapsulatedEcn, encapsulatedEcnLinux, trafficClass } from '../wire/ecn.ts';
import {
  ETHER_HEADER,
  ETHER_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  networkOffset,
  VLAN_TAG,
} from '../wire/ethernet.ts';
import { IPV4_DONT_FRAGMENT, IPV4_FRAGMENT, IPV4_HEADER, IPV4_TOS, IPV4_TTL } from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_HOP_LIMIT } from '../wire/ipv6.ts';
import { DEVICE_TTL, type Device, DF_INHERIT, ECN_RFC6040, TOS_INHERIT, TTL_INHERIT } from './device.ts';

export const MARK_TTL_SHIFT = 8;
export const MARK_TTL = 0xff << MARK_TTL_SHIFT;
export const MARK_DF = 1 << 16;

/** The options that make more than ECN of a frame's marks. */
export const MARKING = TTL_INHERIT | TOS_INHERIT | DF_INHERIT | ECN_RFC6040;

/** Marks of a frame of at least 14 bytes on a device without any of these options: its ECN field as Linux has it. */
export function plainMarks(bytes: Uint8Array, frame: number, length: number): number {
  return encapsulatedEcnLinux(dsField(bytes, frame, length));
}

/**
 * Marks of a frame of at least 14 bytes on a device with some of these options. DF is inherited through one VLAN tag: the kernel takes the
 * outermost one off what a bridge or a VLAN device sends before its vxlan device looks. What is not IP, or ends within its IP header, has no
 * DS field and no DF, and the host's default TTL (Linux: ip_tunnel_get_dsfield, ip_tunnel_get_ttl).
 */
export function inheritedMarks(bytes: Uint8Array, frame: number, length: number, device: Device): number {
  const { flags } = device;
  const network = networkOffset(bytes, frame, length);
  const ip = frame + network;
  const room = length - network;
  const type = etherType(bytes, ip);
  let tos = 0;
  let ttl = 0;
  let df = 0;
  if (type === ETHERTYPE_IPV4 && room >= IPV4_HEADER) {
    tos = bytes[ip + IPV4_TOS];
    ttl = bytes[ip + IPV4_TTL];
    df = bytes[ip + IPV4_FRAGMENT] & (IPV4_DONT_FRAGMENT >> 8) ? MARK_DF : 0;
  } else if (type === ETHERTYPE_IPV6 && room >= IPV6_HEADER) {
    tos = trafficClass(bytes, ip);
    ttl = bytes[ip + IPV6_HOP_LIMIT];
    df = MARK_DF; // IPv6 packets are not fragmented on the way
  }
  const ecn = flags & ECN_RFC6040 ? encapsulatedEcn(tos) : encapsulatedEcnLinux(tos);
  let marks = (flags & TOS_INHERIT ? tos & ~ECN : 0) | ecn;
  if (flags & TTL_INHERIT) marks |= (ttl || device.word(DEVICE_TTL)) << MARK_TTL_SHIFT;
  if (flags & DF_INHERIT && network <= ETHER_HEADER + VLAN_TAG) marks |= df;
  return marks;
}

/** TOS or traffic class of the frame's IP packet, 0 where there is none. */
function dsField(bytes: Uint8Array, frame: number, length: number): number {
  // Nearly all frames are these.
  if (bytes[frame + ETHER_TYPE] === ETHERTYPE_IPV4 >> 8 && bytes[frame + ETHER_TYPE + 1] === (ETHERTYPE_IPV4 & 0xff)) {
    return length >= ETHER_HEADER + IPV4_HEADER ? bytes[frame + ETHER_HEADER + IPV4_TOS] : 0;
  }
  const network = networkOffset(bytes, frame, length);
  const ip = frame + network;
  const room = length - network;
  switch (etherType(bytes, ip)) {
    case ETHERTYPE_IPV4:
      return room >= IPV4_HEADER ? bytes[ip + IPV4_TOS] : 0;
    case ETHERTYPE_IPV6:
      return room >= IPV6_HEADER ? trafficClass(bytes, ip) : 0;
    default:
      return 0;
  }
}
