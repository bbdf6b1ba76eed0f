/**
 * Takes a packet apart: Ethernet, VLAN, ARP, IPv4, IPv6, UDP, TCP, ICMP, ICMPv6 with ND, VXLAN, and again inside. Pure, and total: whatever
 * the bytes are, the layers hold every one of them once, up to a fault that is named and as data behind it.
 */
import { get16, get32 } from '../wire/bytes.ts';
import {
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHER_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_VLAN,
} from '../wire/ethernet.ts';
import { UDP_DESTINATION, UDP_HEADER } from '../wire/udp.ts';
import { outerPort, VXLAN_HEADER, VXLAN_PORT_IANA, VXLAN_PORT_LINUX } from '../wire/vxlan.ts';
import { Dissection } from './dissection.ts';
import { dissectEthernet } from './ethernet.ts';
import { dissectIpv4 } from './ipv4.ts';
import { dissectIpv6 } from './ipv6.ts';
import type { Packet } from './packet.ts';

export interface DissectOptions {
  /** As it was sent, in bytes, when a capture has cut it off. */
  readonly length?: number;
  /** UDP ports behind which VXLAN is looked for, besides 4789 and 8472. */
  readonly vxlanPorts?: readonly number[];
  /** What the first byte belongs to; Ethernet when absent. */
  readonly linkType?: 'ethernet' | 'ip';
}

export function dissect(bytes: Uint8Array, options: DissectOptions = {}): Packet {
  const { length = bytes.length, vxlanPorts = [], linkType = 'ethernet' } = options;
  const d = new Dissection(bytes, length, [VXLAN_PORT_IANA, VXLAN_PORT_LINUX, ...vxlanPorts]);
  if (linkType === 'ethernet') dissectEthernet(d, 0, bytes.length);
  else if (bytes.length > 0 && bytes[0] >> 4 === 6) dissectIpv6(d, 0, bytes.length);
  else dissectIpv4(d, 0, bytes.length);
  return d.packet;
}

/** Takes an outer packet of ours apart: it carries VXLAN, whatever its UDP port is. */
export function dissectOuter(bytes: Uint8Array, length = bytes.length): Packet {
  return dissect(bytes, { length, vxlanPorts: [outerPort(bytes)] });
}

/** The same of a packet from anywhere: VXLAN behind another port is found where the datagram can hardly be anything else. */
export function dissectAny(bytes: Uint8Array, options: DissectOptions = {}): Packet {
  const packet = dissect(bytes, options);
  if (packet.layers.some(({ name }) => name === 'VXLAN')) return packet;
  const udp = packet.layers.find(({ name, quoted }) => name === 'UDP' && !quoted);
  if (!udp || !looksLikeVxlan(bytes, udp.offset + UDP_HEADER)) return packet;
  return dissect(bytes, { ...options, vxlanPorts: [get16(bytes, udp.offset + UDP_DESTINATION)] });
}

/** The I flag alone, reserved bits that are zero (RFC 7348, 5), and a frame from a single MAC with something that is common. */
function looksLikeVxlan(bytes: Uint8Array, at: number): boolean {
  const frame = at + VXLAN_HEADER;
  if (bytes.length < frame + ETHER_HEADER || get32(bytes, at) !== 0x08000000 || bytes[at + 7] !== 0) return false;
  const type = get16(bytes, frame + ETHER_TYPE);
  const isCommon = [ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP, ETHERTYPE_VLAN].includes(type);
  return isCommon && (bytes[frame + ETHER_SOURCE] & 1) === 0;
}
