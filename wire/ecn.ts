/**
 * Explicit congestion notification through a tunnel. RFC 6040, 4; the field itself: RFC 3168, 5. It is the low two bits of IPv4's TOS
 * and of IPv6's traffic class: the DS field's other six (RFC 2474) are the tunnel's own, or inherited.
 */
import { get16 } from './bytes.ts';
import { fold, putChecksum } from './checksum.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, etherType, networkOffset } from './ethernet.ts';
import { IPV4_CHECKSUM, IPV4_HEADER, IPV4_TOS } from './ipv4.ts';
import { IPV6_HEADER } from './ipv6.ts';

/** Mask of the field. */
export const ECN = 3;
/** The sender does not do ECN. */
export const NOT_ECT = 0;
/** It does: two code points for that. */
export const ECT_1 = 1;
export const ECT_0 = 2;
/** Congestion was experienced on the way. */
export const CE = 3;

/** What `decapsulatedEcn` says of a packet that must not be delivered. */
export const ECN_DROP = -1;

/**
 * The inner field after decapsulation, by the inner and the outer one (RFC 6040, 4.2; Linux: INET_ECN_decapsulate, which agrees since 5.12):
 *
 *                     outer  Not-ECT   ECT(1)    ECT(0)    CE
 *     inner Not-ECT          Not-ECT   Not-ECT   Not-ECT   drop
 *     inner ECT(1)           ECT(1)    ECT(1)    ECT(1)    CE
 *     inner ECT(0)           ECT(0)    ECT(1)    ECT(0)    CE
 *     inner CE               CE        CE        CE        CE
 */
const DECAPSULATED = Int8Array.of(
  ...[NOT_ECT, NOT_ECT, NOT_ECT, ECN_DROP],
  ...[ECT_1, ECT_1, ECT_1, CE],
  ...[ECT_0, ECT_1, ECT_0, CE],
  ...[CE, CE, CE, CE],
);

/** The inner field after decapsulation, or ECN_DROP; of either argument only the field is looked at. */
export function decapsulatedEcn(inner: number, outer: number): number {
  return DECAPSULATED[((inner & ECN) << 2) | (outer & ECN)];
}

/** The outer field in RFC 6040's normal mode (4.1): a copy. */
export function encapsulatedEcn(inner: number): number {
  return inner & ECN;
}

/** The outer field as Linux has it (INET_ECN_encapsulate): CE goes out as ECT(0), so that what is marked CE was marked inside the tunnel. */
export function encapsulatedEcnLinux(inner: number): number {
  const ecn = inner & ECN;
  return ecn === CE ? ECT_0 : ecn;
}

/** The DS field and ECN of the IPv6 header at `ip`: it straddles two bytes. */
export function trafficClass(bytes: Uint8Array, ip: number): number {
  return (get16(bytes, ip) >>> 4) & 0xff;
}

/**
 * Gives the frame's IP packet, behind VLAN tags as well, the congestion that its outer header tells of: `outer` is that one's TOS or traffic
 * class. An IPv4 header's checksum follows. False: the packet must be dropped. What is not IP stays as it is.
 */
export function takeOuterEcn(bytes: Uint8Array, frame: number, length: number, outer: number): boolean {
  const network = networkOffset(bytes, frame, length);
  if (network < ETHER_HEADER) return true;
  const ip = frame + network;
  const room = length - network;
  const type = etherType(bytes, ip);
  if (type === ETHERTYPE_IPV4 && room >= IPV4_HEADER) {
    const tos = bytes[ip + IPV4_TOS];
    const ecn = decapsulatedEcn(tos, outer);
    if (ecn === ECN_DROP) return false;
    if (ecn !== (tos & ECN)) setTos(bytes, ip, (tos & ~ECN) | ecn);
  } else if (type === ETHERTYPE_IPV6 && room >= IPV6_HEADER) {
    const ecn = decapsulatedEcn(trafficClass(bytes, ip), outer);
    if (ecn === ECN_DROP) return false;
    bytes[ip + 1] = (bytes[ip + 1] & ~(ECN << 4)) | (ecn << 4);
  }
  return true;
}

/** RFC 1624, 3: the checksum is changed by what the field is, so that a wrong one stays wrong. */
function setTos(bytes: Uint8Array, ip: number, tos: number): void {
  const field = ip + IPV4_CHECKSUM;
  const checksum = bytes[field] | (bytes[field + 1] << 8);
  const change = (tos << 8) + (~(bytes[ip + IPV4_TOS] << 8) & 0xffff);
  bytes[ip + IPV4_TOS] = tos;
  putChecksum(bytes, field, fold((~checksum & 0xffff) + change));
}
