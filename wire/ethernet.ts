/**
 * Ethernet II frames, with IEEE 802.1Q and 802.1ad tags. RFC 894; IEEE 802.1Q-2018, 9.6.
 *
 *      0                 6            12     14
 *      +-----------------+------------+------+
 *      |   destination   |   source   | type |  network header ...
 *      +-----------------+------------+------+
 *
 * A tag is 4 bytes between source and type: 0x8100 or 0x88a8, then 3 bits of priority, 1 of drop eligibility, 12 of VLAN id.
 */
import { get16, put16 } from './bytes.ts';

export const ETHER_DESTINATION = 0;
export const ETHER_SOURCE = 6;
export const ETHER_TYPE = 12;
/** Length of an untagged header. */
export const ETHER_HEADER = 14;
export const MAC_LENGTH = 6;
export const VLAN_TAG = 4;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
export const ETHERTYPE_QINQ = 0x88a8;

/**
 * Offset of the network header, counted from the frame's first byte: 14, or 18 and 22 behind one and two tags; 0 when the
 * frame ends inside its Ethernet header. A third tag, or one that is cut off, counts as the network header.
 */
export function networkOffset(bytes: Uint8Array, frame: number, length: number): number {
  if (length < ETHER_HEADER) return 0;
  let offset = ETHER_HEADER;
  for (let tags = 0; tags < 2 && offset + VLAN_TAG <= length; tags++) {
    const type = etherType(bytes, frame + offset);
    if (type !== ETHERTYPE_VLAN && type !== ETHERTYPE_QINQ) break;
    offset += VLAN_TAG;
  }
  return offset;
}

/** The ethertype of the network header at `network`: the two bytes in front of it, whatever the number of tags. */
export function etherType(bytes: Uint8Array, network: number): number {
  return get16(bytes, network - 2);
}

/** Writes an untagged header. MAC addresses are 6 bytes. */
export function writeEthernetHeader(
  bytes: Uint8Array,
  frame: number,
  destination: Uint8Array,
  source: Uint8Array,
  type: number,
): void {
  bytes.set(destination, frame + ETHER_DESTINATION);
  bytes.set(source, frame + ETHER_SOURCE);
  put16(bytes, frame + ETHER_TYPE, type);
}
