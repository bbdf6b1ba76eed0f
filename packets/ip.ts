/** What IPv4 and IPv6 have in common: which protocol follows, and the pseudo-header that its checksum counts. */
import { pseudoSum4, pseudoSum6, sum } from '../wire/checksum.ts';
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import type { Dissection, Extra } from './dissection.ts';
import { dissectIcmp } from './icmp.ts';
import { dissectIcmpv6 } from './icmpv6.ts';
import { dissectTcp } from './tcp.ts';
import { dissectUdp } from './udp.ts';

/** The packet around a transport header. */
export interface Network {
  readonly version: 4 | 6;
  /** Offset of the IP header. */
  readonly ip: number;
  /** Whether it is a part of a packet, so that no checksum can be verified. */
  readonly isFragment: boolean;
}

/** The transport header at `offset` of a packet that ends at `end`. */
export function dissectTransport(d: Dissection, network: Network, protocol: number, offset: number, end: number): void {
  if (protocol === PROTOCOL_UDP) dissectUdp(d, network, offset, end);
  else if (protocol === PROTOCOL_TCP) dissectTcp(d, network, offset, end);
  else if (protocol === PROTOCOL_ICMP && network.version === 4) dissectIcmp(d, network, offset, end);
  else if (protocol === PROTOCOL_ICMPV6 && network.version === 6) dissectIcmpv6(d, network, offset, end);
  else d.data('data', offset, end);
}

/**
 * What is to be said of the checksum at `field` of the transport packet [offset, end). A sender may leave it to the NIC: then the
 * field has no more than the pseudo-header's sum.
 */
export function transportChecksum(
  d: Dissection,
  network: Network,
  protocol: number,
  offset: number,
  end: number,
  field: number,
): Extra {
  if (network.isFragment) return { meaning: 'not to be verified: this is a fragment' };
  if (d.quoted || end > d.bytes.length) return { meaning: 'not to be verified: the packet is cut off' };
  const { bytes } = d;
  const length = end - offset;
  const pseudo = (network.version === 4 ? pseudoSum4 : pseudoSum6)(bytes, network.ip, protocol, length);
  if (sum(bytes, offset, length, pseudo) === 0xffff) return { meaning: 'correct' };
  if (sum(bytes, field, 2) === pseudo) return { meaning: "unfinished: the pseudo-header's sum, the NIC adds the rest" };
  return { problem: 'wrong' };
}

/** The same for a checksum without pseudo-header (ICMP). */
export function plainChecksum(d: Dissection, network: Network, offset: number, end: number): Extra {
  if (network.isFragment) return { meaning: 'not to be verified: this is a fragment' };
  if (d.quoted || end > d.bytes.length) return { meaning: 'not to be verified: the packet is cut off' };
  return sum(d.bytes, offset, end - offset) === 0xffff ? { meaning: 'correct' } : { problem: 'wrong' };
}
