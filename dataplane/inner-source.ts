/** The source address inside a frame, held against the subnets that the VTEP it came from is bound to. */
import { SUBNET_IPV4, SUBNET_IPV4_LENGTH, SUBNET_IPV6, SUBNET_IPV6_LENGTH } from '../fdb/peers.ts';
import { ARP_SENDER_IP, arpIsIpv4 } from '../wire/arp.ts';
import { get16, get32 } from '../wire/bytes.ts';
import { ETHER_HEADER, ETHER_TYPE, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../wire/ethernet.ts';
import { IPV4_HEADER, IPV4_SOURCE } from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_SOURCE } from '../wire/ipv6.ts';

/**
 * Whether a frame of at least 14 bytes has its IPv4 or IPv6 source, or ARP sender, in one of the subnets (SUBNET_WORDS). What has no
 * such address does not: a tag, for instance, that a kernel further on may take off, would hide one.
 */
export function isFromSubnet(bytes: Uint8Array, frame: number, length: number, subnets: Int32Array): boolean {
  const network = frame + ETHER_HEADER;
  const rest = length - ETHER_HEADER;
  switch (get16(bytes, frame + ETHER_TYPE)) {
    case ETHERTYPE_IPV4:
      return rest >= IPV4_HEADER && isIn(bytes, network + IPV4_SOURCE, subnets, SUBNET_IPV4_LENGTH, SUBNET_IPV4);
    case ETHERTYPE_IPV6:
      return rest >= IPV6_HEADER && isIn(bytes, network + IPV6_SOURCE, subnets, SUBNET_IPV6_LENGTH, SUBNET_IPV6);
    case ETHERTYPE_ARP:
      return (
        arpIsIpv4(bytes, network, rest) &&
        isIn(bytes, network + ARP_SENDER_IP, subnets, SUBNET_IPV4_LENGTH, SUBNET_IPV4)
      );
    default:
      return false;
  }
}

/** `length` and `prefix`: their words in `subnets`. */
function isIn(bytes: Uint8Array, address: number, subnets: Int32Array, length: number, prefix: number): boolean {
  let bits = subnets[length] - 1;
  if (bits < 0) return false;
  for (let k = 0; bits > 0; k++, bits -= 32) {
    const differing = get32(bytes, address + 4 * k) ^ subnets[prefix + k];
    // A shift by 32 is one by 0.
    if ((bits >= 32 ? differing : differing >>> (32 - bits)) !== 0) return false;
  }
  return true;
}
