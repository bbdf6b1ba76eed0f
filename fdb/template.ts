/**
 * The outer headers of a next hop, with all that does not depend on the frame. Left zero for the dataplane: total length, id and checksum of
 * the IPv4 header, source port, length and checksum of the UDP header.
 *
 *     24 zero bytes | Ethernet 14 | IPv4 20 | UDP 8 | VXLAN 8 |
 */
import { parseIpv4, parseMac } from '../wire/address.ts';
import { pseudoSum4, sum } from '../wire/checksum.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, writeEthernetHeader } from '../wire/ethernet.ts';
import { IPV4_HEADER, PROTOCOL_UDP, writeIpv4Header } from '../wire/ipv4.ts';
import { UDP_HEADER, writeUdpHeader } from '../wire/udp.ts';
import { OUTER_LENGTH_IPV4, writeVxlanHeader } from '../wire/vxlan.ts';
import { TEMPLATE_HEADROOM, TEMPLATE_WORDS, type Template, UDP_CHECKSUM } from './nexthops.ts';

export interface OuterHeaders {
  /** Of the NIC that the packets leave through, and of the next machine on the way. */
  readonly sourceMac: string;
  readonly destinationMac: string;
  /** Local and remote VTEP: IPv4 addresses. */
  readonly source: string;
  readonly destination: string;
  /** Destination UDP port. */
  readonly port: number;
  readonly vni: number;
  readonly ttl: number;
  readonly tos: number;
  /** Whether to set DF. */
  readonly df: boolean;
  readonly udpChecksum: boolean;
  /** Index of the uplink. */
  readonly uplink: number;
  /** Largest outer IP packet on the path, in bytes. */
  readonly mtu: number;
}

/** Throws a TypeError when an address is none: the caller got them from the host, in iproute2's words. */
export function buildTemplate(outer: OuterHeaders): Template {
  const words = new Int32Array(TEMPLATE_WORDS);
  const bytes = new Uint8Array(words.buffer);
  const ip = TEMPLATE_HEADROOM + ETHER_HEADER;
  const udp = ip + IPV4_HEADER;
  const destinationMac = parsed(parseMac(outer.destinationMac), outer.destinationMac);
  const sourceMac = parsed(parseMac(outer.sourceMac), outer.sourceMac);
  writeEthernetHeader(bytes, TEMPLATE_HEADROOM, destinationMac, sourceMac, ETHERTYPE_IPV4);
  writeIpv4Header(bytes, ip, {
    tos: outer.tos,
    totalLength: 0,
    id: 0,
    dontFragment: outer.df,
    ttl: outer.ttl,
    protocol: PROTOCOL_UDP,
    source: parsed(parseIpv4(outer.source), outer.source),
    destination: parsed(parseIpv4(outer.destination), outer.destination),
  });
  writeUdpHeader(bytes, udp, 0, outer.port, 0);
  writeVxlanHeader(bytes, udp + UDP_HEADER, outer.vni);
  return {
    outerLength: OUTER_LENGTH_IPV4,
    ipSum: sum(bytes, ip, IPV4_HEADER),
    pseudoSum: pseudoSum4(bytes, ip, PROTOCOL_UDP, 0),
    uplink: outer.uplink,
    flags: outer.udpChecksum ? UDP_CHECKSUM : 0,
    mtu: outer.mtu,
    words,
  };
}

function parsed(bytes: Uint8Array | undefined, text: string): Uint8Array {
  if (bytes === undefined) throw new TypeError(`${text} is not an address of this kind`);
  return bytes;
}
