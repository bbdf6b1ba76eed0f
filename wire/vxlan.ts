/**
 * VXLAN. RFC 7348, 5.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +---------------+-----------------------------------------------+
 *   0 |R|R|R|R|I|R|R|R|                   reserved                    |
 *   4 |                      VNI                      |   reserved    |
 *     +---------------------------------------------------------------+
 *   8 |  inner Ethernet frame ...
 */
import { get16, get24, put24, put32 } from './bytes.ts';
import { ETHER_HEADER } from './ethernet.ts';
import { IPV4_HEADER } from './ipv4.ts';
import { IPV6_HEADER } from './ipv6.ts';
import { UDP_DESTINATION, UDP_HEADER } from './udp.ts';

export const VXLAN_FLAGS = 0;
export const VXLAN_VNI = 4;
export const VXLAN_HEADER = 8;

/** Bit of the byte at VXLAN_FLAGS: the VNI is valid. Must be set. */
export const VXLAN_I = 0x08;
export const VNI_MAX = 0xffffff;

/** Assigned by IANA. */
export const VXLAN_PORT_IANA = 4789;
/** What Linux took before there was an assignment, and still takes by default (drivers/net/vxlan). */
export const VXLAN_PORT_LINUX = 8472;

/** Bytes that encapsulation puts in front of an inner frame: Ethernet, IP, UDP and VXLAN headers. */
export const OUTER_LENGTH_IPV4 = ETHER_HEADER + IPV4_HEADER + UDP_HEADER + VXLAN_HEADER;
export const OUTER_LENGTH_IPV6 = ETHER_HEADER + IPV6_HEADER + UDP_HEADER + VXLAN_HEADER;

export function vxlanVni(bytes: Uint8Array, vxlan: number): number {
  return get24(bytes, vxlan + VXLAN_VNI);
}

/** The UDP port that an outer packet goes to, which has neither options nor tags; 0 when its bytes end before. */
export function outerPort(bytes: Uint8Array): number {
  const isIpv6 = bytes.length > ETHER_HEADER && bytes[ETHER_HEADER] >> 4 === 6;
  const udp = (isIpv6 ? OUTER_LENGTH_IPV6 : OUTER_LENGTH_IPV4) - VXLAN_HEADER - UDP_HEADER;
  return bytes.length < udp + UDP_HEADER ? 0 : get16(bytes, udp + UDP_DESTINATION);
}

/** Writes the I flag and the VNI (24 bits), reserved bits zero. */
export function writeVxlanHeader(bytes: Uint8Array, vxlan: number, vni: number): void {
  put32(bytes, vxlan + VXLAN_FLAGS, VXLAN_I << 24);
  put24(bytes, vxlan + VXLAN_VNI, vni);
  bytes[vxlan + VXLAN_VNI + 3] = 0;
}
