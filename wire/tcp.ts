/**
 * TCP. RFC 9293, 3.1.
 *
 *      0                   1                   2                   3
 *      0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *     +-------------------------------+-------------------------------+
 *   0 |          source port          |       destination port        |
 *   4 |                        sequence number                        |
 *   8 |                     acknowledgment number                     |
 *  12 | offset|  rsv  |C|E|U|A|P|R|S|F|            window             |
 *  16 |           checksum            |        urgent pointer         |
 *     +---------------------------------------------------------------+
 */

export const TCP_SOURCE = 0;
export const TCP_DESTINATION = 2;
export const TCP_SEQUENCE = 4;
export const TCP_ACK = 8;
export const TCP_DATA_OFFSET = 12;
export const TCP_FLAGS = 13;
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;
/** Length of a header without options. */
export const TCP_HEADER = 20;

/** Bits of the byte at TCP_FLAGS. */
export const TCP_FLAG_FIN = 0x01;
export const TCP_FLAG_SYN = 0x02;
export const TCP_FLAG_RST = 0x04;
export const TCP_FLAG_PSH = 0x08;
export const TCP_FLAG_ACK = 0x10;
export const TCP_FLAG_URG = 0x20;
export const TCP_FLAG_ECE = 0x40;
export const TCP_FLAG_CWR = 0x80;

/** In bytes, options included; less than TCP_HEADER is malformed. */
export function tcpHeaderLength(bytes: Uint8Array, tcp: number): number {
  return (bytes[tcp + TCP_DATA_OFFSET] >>> 4) << 2;
}
