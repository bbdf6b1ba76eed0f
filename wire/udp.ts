/**
 * UDP. RFC 768.
 *
 *      0             2                  4        6          8
 *      +-------------+------------------+--------+----------+
 *      | source port | destination port | length | checksum |  payload ...
 *      +-------------+------------------+--------+----------+
 *
 * The length counts header and payload. A checksum of zero says that there is none.
 */
import { put16 } from './bytes.ts';

export const UDP_SOURCE = 0;
export const UDP_DESTINATION = 2;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6;
export const UDP_HEADER = 8;

/** Writes a header with a zero checksum; `length` is in bytes, the header included. */
export function writeUdpHeader(
  bytes: Uint8Array,
  udp: number,
  source: number,
  destination: number,
  length: number,
): void {
  put16(bytes, udp + UDP_SOURCE, source);
  put16(bytes, udp + UDP_DESTINATION, destination);
  put16(bytes, udp + UDP_LENGTH, length);
  put16(bytes, udp + UDP_CHECKSUM, 0);
}
