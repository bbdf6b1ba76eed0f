/**
 * Cuts a recorded super-frame, or a run of VXLAN packets, into the packets that come onto the wire, and finishes checksums that were left to
 * the NIC. Pure, and for looking only: what the dataplane sends it cuts itself, without copying (dataplane/segment.ts).
 */
import { get16, get32, put16, put32 } from '../wire/bytes.ts';
import {
  fillIpv4Checksum,
  pseudoSum4,
  pseudoSum6,
  putChecksum,
  putSum,
  putUdpChecksum,
  sum,
} from '../wire/checksum.ts';
import { ETHER_HEADER, networkOffset } from '../wire/ethernet.ts';
import { IPV4_HEADER, IPV4_ID, IPV4_TOTAL_LENGTH, PROTOCOL_TCP, PROTOCOL_UDP } from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_PAYLOAD_LENGTH } from '../wire/ipv6.ts';
import {
  TCP_CHECKSUM,
  TCP_FLAG_CWR,
  TCP_FLAG_FIN,
  TCP_FLAG_PSH,
  TCP_FLAGS,
  TCP_SEQUENCE,
  tcpHeaderLength,
} from '../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH } from '../wire/udp.ts';
import { VXLAN_HEADER } from '../wire/vxlan.ts';

/** Offload metadata of a packet, as in a virtio header; offsets count from the packet's first byte. */
export interface Offload {
  /** Whether the checksum at checksumStart + checksumOffset is unfinished. */
  readonly isUnfinished: boolean;
  readonly segments: 'none' | 'tcp' | 'udp';
  /** Whether the segments are those of an inner frame, and the outer headers go in front of each. */
  readonly isTunnel: boolean;
  /** Bytes of payload of each segment but the last. */
  readonly size: number;
  readonly checksumStart: number;
  readonly checksumOffset: number;
}

/** Copies; one when there is nothing to cut. A packet whose metadata contradicts its headers comes back as it is. */
export function segmentsOf(bytes: Uint8Array, offload: Offload): Uint8Array[] {
  const { segments, size, checksumStart: transport } = offload;
  if (segments === 'none') return [finished(bytes, offload)];
  const inner = offload.isTunnel ? innerFrame(bytes) : 0;
  const network = inner + networkOffset(bytes, inner, bytes.length - inner);
  const isTcp = segments === 'tcp';
  const payload = transport + (isTcp ? tcpHeaderLength(bytes, transport) : UDP_HEADER);
  if (size === 0 || network < ETHER_HEADER || transport < network + IPV4_HEADER || payload >= bytes.length)
    return [bytes];
  const count = Math.ceil((bytes.length - payload) / size);
  return Array.from({ length: count }, (_, i) => {
    const part = bytes.subarray(payload + i * size, payload + (i + 1) * size);
    const segment = new Uint8Array(payload + part.length);
    segment.set(bytes.subarray(0, payload));
    segment.set(part, payload);
    adjustNetwork(segment, network, i);
    if (isTcp) adjustTcp(segment, transport, i, i === count - 1, size);
    finishTransport(segment, network, transport, isTcp);
    if (inner > 0) adjustOuter(segment, inner, i);
    return segment;
  });
}

function finished(bytes: Uint8Array, { isUnfinished, checksumStart, checksumOffset }: Offload): Uint8Array {
  const copy = Uint8Array.from(bytes);
  const field = checksumStart + checksumOffset;
  if (isUnfinished && field + 2 <= copy.length) {
    putUdpChecksum(copy, field, sum(copy, checksumStart, copy.length - checksumStart));
  }
  return copy;
}

/** Where the inner frame begins behind outer headers without options. */
function innerFrame(bytes: Uint8Array): number {
  const isIpv4 = bytes[ETHER_HEADER] >> 4 === 4;
  return ETHER_HEADER + (isIpv4 ? IPV4_HEADER : IPV6_HEADER) + UDP_HEADER + VXLAN_HEADER;
}

/** Each segment has an identification of its own (Linux: inet_gso_segment). */
function adjustNetwork(segment: Uint8Array, ip: number, i: number): void {
  if (segment[ip] >> 4 === 4) {
    put16(segment, ip + IPV4_TOTAL_LENGTH, segment.length - ip);
    put16(segment, ip + IPV4_ID, get16(segment, ip + IPV4_ID) + i);
    fillIpv4Checksum(segment, ip);
  } else {
    put16(segment, ip + IPV6_PAYLOAD_LENGTH, segment.length - ip - IPV6_HEADER);
  }
}

/** CWR stays on the first segment, FIN and PSH on the last (Linux: tcp_gso_segment). */
function adjustTcp(segment: Uint8Array, tcp: number, i: number, isLast: boolean, size: number): void {
  put32(segment, tcp + TCP_SEQUENCE, get32(segment, tcp + TCP_SEQUENCE) + i * size);
  if (i > 0) segment[tcp + TCP_FLAGS] &= ~TCP_FLAG_CWR;
  if (!isLast) segment[tcp + TCP_FLAGS] &= ~(TCP_FLAG_FIN | TCP_FLAG_PSH);
}

function finishTransport(segment: Uint8Array, ip: number, transport: number, isTcp: boolean): void {
  const length = segment.length - transport;
  if (!isTcp) put16(segment, transport + UDP_LENGTH, length);
  const field = transport + (isTcp ? TCP_CHECKSUM : UDP_CHECKSUM);
  putSum(segment, field, 0);
  const pseudo = segment[ip] >> 4 === 4 ? pseudoSum4 : pseudoSum6;
  const total = sum(segment, transport, length, pseudo(segment, ip, isTcp ? PROTOCOL_TCP : PROTOCOL_UDP, length));
  if (isTcp) putChecksum(segment, field, total);
  else putUdpChecksum(segment, field, total);
}

function adjustOuter(segment: Uint8Array, inner: number, i: number): void {
  const udp = inner - VXLAN_HEADER - UDP_HEADER;
  const hasChecksum = get16(segment, udp + UDP_CHECKSUM) !== 0;
  adjustNetwork(segment, ETHER_HEADER, i);
  if (hasChecksum) finishTransport(segment, ETHER_HEADER, udp, false);
  else put16(segment, udp + UDP_LENGTH, segment.length - udp);
}
