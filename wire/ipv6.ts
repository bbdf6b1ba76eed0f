/**
 * IPv6 and the extension headers that lead to the transport header. RFC 8200, 3 and 4.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------+---------------+---------------------------------------+
 *   0 |version| traffic class |              flow label               |
 *   4 |        payload length         |  next header  |   hop limit   |
 *   8 |                  source address (16 bytes)                    |
 *  24 |                destination address (16 bytes)                 |
 *     +---------------------------------------------------------------+
 */
import { put16, put32 } from './bytes.ts';

export const IPV6_VERSION = 0;
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_HOP_LIMIT = 7;
export const IPV6_SOURCE = 8;
export const IPV6_DESTINATION = 24;
/** Length of the fixed header. */
export const IPV6_HEADER = 40;

/** Extension headers that `ipv6Transport` skips: next header, length in 8 bytes beyond the first 8, options. */
export const PROTOCOL_HOP_BY_HOP = 0;
export const PROTOCOL_ROUTING = 43;
export const PROTOCOL_DESTINATION_OPTIONS = 60;
/** It stops at this one: next header, reserved, offset and more-flag (2 bytes), id (4 bytes). */
export const PROTOCOL_FRAGMENT = 44;

/** More in one packet than any sender has reason for (RFC 8200, 4.1, names four), and an end to the walk. */
const EXTENSION_LIMIT = 8;

/** Whether `length` bytes hold a whole fixed header. */
export function ipv6IsWhole(bytes: Uint8Array, ip: number, length: number): boolean {
  return length >= IPV6_HEADER && bytes[ip + IPV6_VERSION] >>> 4 === 6;
}

/** Whether a next header is one that leads on to the transport header, and is no fragment header. */
export function isExtensionHeader(protocol: number): boolean {
  return protocol === PROTOCOL_HOP_BY_HOP || protocol === PROTOCOL_ROUTING || protocol === PROTOCOL_DESTINATION_OPTIONS;
}

/**
 * Finds the first header that is not hop-by-hop, routing or destination options. Returns its offset from `ip` << 8 | its
 * protocol number. That is the transport header, or where the walk had to stop: PROTOCOL_FRAGMENT, or an extension
 * header that is cut off or one too many. The offset is at most `length`; the header itself may be cut off.
 */
export function ipv6Transport(bytes: Uint8Array, ip: number, length: number): number {
  let protocol = bytes[ip + IPV6_NEXT_HEADER];
  let offset = IPV6_HEADER;
  for (let skipped = 0; skipped < EXTENSION_LIMIT; skipped++) {
    if (!isExtensionHeader(protocol) || offset + 8 > length) break;
    const end = offset + ((bytes[ip + offset + 1] + 1) << 3);
    if (end > length) break;
    protocol = bytes[ip + offset];
    offset = end;
  }
  return (offset << 8) | protocol;
}

export interface Ipv6Header {
  readonly trafficClass: number;
  /** 20 bits. */
  readonly flowLabel: number;
  /** What follows the fixed header, in bytes. */
  readonly payloadLength: number;
  readonly nextHeader: number;
  readonly hopLimit: number;
  /** 16 bytes. */
  readonly source: Uint8Array;
  /** 16 bytes. */
  readonly destination: Uint8Array;
}

export function writeIpv6Header(bytes: Uint8Array, ip: number, header: Ipv6Header): void {
  put32(bytes, ip + IPV6_VERSION, (6 << 28) | (header.trafficClass << 20) | header.flowLabel);
  put16(bytes, ip + IPV6_PAYLOAD_LENGTH, header.payloadLength);
  bytes[ip + IPV6_NEXT_HEADER] = header.nextHeader;
  bytes[ip + IPV6_HOP_LIMIT] = header.hopLimit;
  bytes.set(header.source, ip + IPV6_SOURCE);
  bytes.set(header.destination, ip + IPV6_DESTINATION);
}
