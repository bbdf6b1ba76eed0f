/** Where the headers of an inner frame are, for whoever wants its transport header: checksums, coalescing, printing. */
import { get16 } from './bytes.ts';
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, etherType, networkOffset } from './ethernet.ts';
import {
  IPV4_PROTOCOL,
  IPV4_TOTAL_LENGTH,
  ipv4HeaderLength,
  ipv4IsFragment,
  ipv4IsWhole,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from './ipv4.ts';
import {
  IPV6_HEADER,
  IPV6_PAYLOAD_LENGTH,
  ipv6IsWhole,
  ipv6Transport,
  isExtensionHeader,
  PROTOCOL_FRAGMENT,
} from './ipv6.ts';
import { TCP_HEADER } from './tcp.ts';
import { UDP_HEADER } from './udp.ts';

/**
 * Offset of the transport header << 16 | offset of the IP header << 8 | protocol, offsets counted from the frame's first
 * byte; 0 when there is no such header: not IP, a fragment (the first one included), or cut off within the headers
 * (TCP's and UDP's fixed ones included). Tells IPv4 from IPv6 by the version in the IP header. Lengths inside
 * the IP, TCP and UDP headers are not looked at.
 */
export function innerLayout(bytes: Uint8Array, frame: number, length: number): number {
  const network = networkOffset(bytes, frame, length);
  if (network === 0) return 0;
  const ip = frame + network;
  const room = length - network;
  const type = etherType(bytes, ip);
  let transport = 0;
  let protocol = 0;
  if (type === ETHERTYPE_IPV4) {
    if (!ipv4IsWhole(bytes, ip, room) || ipv4IsFragment(bytes, ip)) return 0;
    transport = ipv4HeaderLength(bytes, ip);
    protocol = bytes[ip + IPV4_PROTOCOL];
  } else if (type === ETHERTYPE_IPV6) {
    if (!ipv6IsWhole(bytes, ip, room)) return 0;
    const found = ipv6Transport(bytes, ip, room);
    transport = found >>> 8;
    protocol = found & 0xff;
    if (protocol === PROTOCOL_FRAGMENT || isExtensionHeader(protocol)) return 0;
  } else {
    return 0;
  }
  const need = protocol === PROTOCOL_TCP ? TCP_HEADER : protocol === PROTOCOL_UDP ? UDP_HEADER : 0;
  if (transport + need > room) return 0;
  return ((network + transport) << 16) | (network << 8) | protocol;
}

export function layoutTransport(layout: number): number {
  return layout >>> 16;
}

export function layoutNetwork(layout: number): number {
  return (layout >>> 8) & 0xff;
}

export function layoutProtocol(layout: number): number {
  return layout & 0xff;
}

/**
 * End of the IP packet whose header is at `network`, counted from the frame's first byte, as its length field tells it: short
 * frames are padded.
 */
export function ipEnd(bytes: Uint8Array, frame: number, network: number): number {
  const ip = frame + network;
  if (bytes[ip] >> 4 === 4) return network + get16(bytes, ip + IPV4_TOTAL_LENGTH);
  return network + IPV6_HEADER + get16(bytes, ip + IPV6_PAYLOAD_LENGTH);
}
