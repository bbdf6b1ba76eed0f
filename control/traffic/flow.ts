/** Which flow a frame belongs to, in words. */

import { etherTypeName, protocolName } from '../../packets/names.ts';
import { formatIpv4, formatIpv6, formatMac } from '../../wire/address.ts';
import { get16 } from '../../wire/bytes.ts';
import {
  ETHER_DESTINATION,
  ETHER_SOURCE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  networkOffset,
} from '../../wire/ethernet.ts';
import {
  IPV4_DESTINATION,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  ipv4HeaderLength,
  ipv4IsFragment,
  ipv4IsWhole,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_SOURCE, ipv6IsWhole, ipv6Transport } from '../../wire/ipv6.ts';

export interface Flow {
  /** 'TCP', 'ARP'; a number where there is no name. */
  readonly protocol: string;
  /** '10.244.1.2:4433', '[fd00::1]:53', an address without a port, or a MAC. */
  readonly src: string;
  readonly dst: string;
}

/** Of the frame of `length` bytes at `frame`. Nothing is read beyond it; fragments have no ports. */
export function flowOf(bytes: Uint8Array, frame: number, length: number): Flow {
  const network = networkOffset(bytes, frame, length);
  if (network === 0) return { protocol: 'runt', src: '', dst: '' };
  const ip = frame + network;
  const room = length - network;
  const type = etherType(bytes, ip);
  if (type === ETHERTYPE_IPV4 && ipv4IsWhole(bytes, ip, room)) {
    const transport = ipv4IsFragment(bytes, ip) ? room : ipv4HeaderLength(bytes, ip);
    const [src, dst] = [formatIpv4(bytes, ip + IPV4_SOURCE), formatIpv4(bytes, ip + IPV4_DESTINATION)];
    return withPorts(bytes[ip + IPV4_PROTOCOL], src, dst, bytes, ip + transport, room - transport);
  }
  if (type === ETHERTYPE_IPV6 && ipv6IsWhole(bytes, ip, room)) {
    const transport = ipv6Transport(bytes, ip, room);
    const [src, dst] = [formatIpv6(bytes, ip + IPV6_SOURCE), formatIpv6(bytes, ip + IPV6_DESTINATION)];
    return withPorts(transport & 0xff, src, dst, bytes, ip + (transport >>> 8), room - (transport >>> 8));
  }
  return {
    protocol: etherTypeName(type) ?? `0x${type.toString(16).padStart(4, '0')}`,
    src: formatMac(bytes, frame + ETHER_SOURCE),
    dst: formatMac(bytes, frame + ETHER_DESTINATION),
  };
}

function withPorts(number: number, src: string, dst: string, bytes: Uint8Array, transport: number, room: number): Flow {
  const protocol = protocolName(number) ?? `${number}`;
  const hasPorts = number === PROTOCOL_TCP || number === PROTOCOL_UDP || number === PROTOCOL_SCTP;
  if (!hasPorts || room < 4) return { protocol, src, dst };
  const at = (address: string, port: number): string => `${address.includes(':') ? `[${address}]` : address}:${port}`;
  return { protocol, src: at(src, get16(bytes, transport)), dst: at(dst, get16(bytes, transport + 2)) };
}
