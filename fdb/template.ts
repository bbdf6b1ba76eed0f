/**
 * The outer headers of a next hop, with all that does not depend on the frame. Left zero for the dataplane: total length, id and checksum of
 * the IPv4 header, source port, length and checksum of the UDP header.
 *
 *     24 zero bytes | Ethernet 14 | IPv4 20 or IPv6 40 | UDP 8 | VXLAN 8 |
 */
import { parseIp, parseMac } from '../wire/address.ts';
import { pseudoSum4, pseudoSum6, sum } from '../wire/checksum.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, writeEthernetHeader } from '../wire/ethernet.ts';
import { IPV4_HEADER, PROTOCOL_UDP, writeIpv4Header } from '../wire/ipv4.ts';
import { IPV6_HEADER, writeIpv6Header } from '../wire/ipv6.ts';
import { UDP_HEADER, writeUdpHeader } from '../wire/udp.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6, writeVxlanHeader } from '../wire/vxlan.ts';
import { TEMPLATE_HEADROOM, TEMPLATE_WORDS, type Template, UDP_CHECKSUM } from './nexthops.ts';

export interface OuterHeaders {
  /** Of the NIC that the packets leave through, and of the next machine on the way. */
  readonly sourceMac: string;
  readonly destinationMac: string;
  /** Local and remote VTEP: addresses of one family. */
  readonly source: string;
  readonly destination: string;
  /** Destination UDP port. */
  readonly port: number;
  readonly vni: number;
  readonly ttl: number;
  /** TOS or traffic class. This and the TTL are 0 where frames decide (dataplane/marks.ts). */
  readonly tos: number;
  /** IPv6 only. */
  readonly flowLabel?: number;
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
  const source = parsed(parseIp(outer.source), outer.source);
  const destination = parsed(parseIp(outer.destination), outer.destination);
  const ipv4 = source.length === 4;
  if (destination.length !== source.length)
    throw new TypeError(`${outer.source} and ${outer.destination} are of two families`);
  const ip = TEMPLATE_HEADROOM + ETHER_HEADER;
  const udp = ip + (ipv4 ? IPV4_HEADER : IPV6_HEADER);
  const destinationMac = parsed(parseMac(outer.destinationMac), outer.destinationMac);
  const sourceMac = parsed(parseMac(outer.sourceMac), outer.sourceMac);
  writeEthernetHeader(bytes, TEMPLATE_HEADROOM, destinationMac, sourceMac, ipv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
  if (ipv4) {
    writeIpv4Header(bytes, ip, {
      tos: outer.tos,
      totalLength: 0,
      id: 0,
      dontFragment: outer.df,
      ttl: outer.ttl,
      protocol: PROTOCOL_UDP,
      source,
      destination,
    });
  } else {
    writeIpv6Header(bytes, ip, {
      trafficClass: outer.tos,
      flowLabel: outer.flowLabel ?? 0,
      payloadLength: 0,
      nextHeader: PROTOCOL_UDP,
      hopLimit: outer.ttl,
      source,
      destination,
    });
  }
  writeUdpHeader(bytes, udp, 0, outer.port, 0);
  writeVxlanHeader(bytes, udp + UDP_HEADER, outer.vni);
  return {
    outerLength: ipv4 ? OUTER_LENGTH_IPV4 : OUTER_LENGTH_IPV6,
    ipSum: ipv4 ? sum(bytes, ip, IPV4_HEADER) : 0,
    pseudoSum: ipv4 ? pseudoSum4(bytes, ip, PROTOCOL_UDP, 0) : pseudoSum6(bytes, ip, PROTOCOL_UDP, 0),
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
