import { parseIp } from '../../wire/address.ts';
import { put16 } from '../../wire/bytes.ts';
import { fillIpv4Checksum, pseudoSum4, pseudoSum6, putSum, putUdpChecksum, sum } from '../../wire/checksum.ts';
import { ETHER_HEADER } from '../../wire/ethernet.ts';
import { IPV4_DESTINATION, IPV4_HEADER, IPV4_TOTAL_LENGTH, PROTOCOL_UDP } from '../../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HEADER, IPV6_PAYLOAD_LENGTH } from '../../wire/ipv6.ts';
import { UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH } from '../../wire/udp.ts';

/**
 * Fills in what the host's stack writes into the outer headers of a packet of `length` bytes, of which `bytes` are there: lengths and
 * checksums, and the destination when `local` is given. What nobody but the stack knows stays zero.
 */
export function fillHostHeaders(bytes: Uint8Array, length: number, local: string | undefined): void {
  const ip = ETHER_HEADER;
  const isIpv4 = bytes[ip] >> 4 === 4;
  const udp = ip + (isIpv4 ? IPV4_HEADER : IPV6_HEADER);
  if (bytes.length < udp + UDP_HEADER) return;
  const destination = local === undefined ? undefined : parseIp(local);
  if (destination) bytes.set(destination, ip + (isIpv4 ? IPV4_DESTINATION : IPV6_DESTINATION));
  const udpLength = length - udp;
  put16(bytes, udp + UDP_LENGTH, udpLength);
  if (isIpv4) {
    put16(bytes, ip + IPV4_TOTAL_LENGTH, length - ip);
    fillIpv4Checksum(bytes, ip);
  } else {
    put16(bytes, ip + IPV6_PAYLOAD_LENGTH, udpLength);
  }
  putSum(bytes, udp + UDP_CHECKSUM, 0);
  const pseudo = (isIpv4 ? pseudoSum4 : pseudoSum6)(bytes, ip, PROTOCOL_UDP, udpLength);
  if (bytes.length === length) putUdpChecksum(bytes, udp + UDP_CHECKSUM, sum(bytes, udp, udpLength, pseudo));
  else putSum(bytes, udp + UDP_CHECKSUM, pseudo);
}
