/**
 * The Internet checksum. RFC 1071.
 *
 * Sums are of little-endian 16-bit words, folded to 16 bits, not complemented: so that these agree with the SIMD kernel's.
 * Stored little-endian again, the result is right on the wire (RFC 1071, 2 (B), byte order independence).
 */
import { swap16 } from './bytes.ts';
import { IPV4_CHECKSUM, IPV4_SOURCE, ipv4HeaderLength } from './ipv4.ts';
import { IPV6_SOURCE } from './ipv6.ts';

/**
 * Sum of `length` bytes, at most 128 kB, and of the earlier sum `initial`. An odd last byte counts as a word whose second
 * byte is zero, so only the last piece of a sum in pieces may have an odd length.
 */
export function sum(bytes: Uint8Array, offset: number, length: number, initial = 0): number {
  // First and second bytes apart: both stay small integers, where a sum of words would overflow into doubles.
  let first = 0;
  let second = 0;
  const end = offset + (length & ~1);
  for (let i = offset; i < end; i += 2) {
    first += bytes[i];
    second += bytes[i + 1];
  }
  if (length & 1) first += bytes[end];
  return fold(initial + first + second * 256);
}

/** Folds a sum of sums, less than 2^32, to 16 bits. */
export function fold(total: number): number {
  total = (total & 0xffff) + (total >>> 16);
  return (total & 0xffff) + (total >>> 16);
}

/** Sum of the pseudo-header of TCP and UDP over the IPv4 header at `ip` (RFC 768); `length` is the transport's, in bytes. */
export function pseudoSum4(bytes: Uint8Array, ip: number, protocol: number, length: number): number {
  return sum(bytes, ip + IPV4_SOURCE, 8, (protocol << 8) + swap16(length));
}

/** As `pseudoSum4`, over the IPv6 header at `ip` (RFC 8200, 8.1). */
export function pseudoSum6(bytes: Uint8Array, ip: number, protocol: number, length: number): number {
  return sum(bytes, ip + IPV6_SOURCE, 32, (protocol << 8) + swap16(length & 0xffff) + swap16(length >>> 16));
}

/** Stores a folded sum as it is: the pseudo-header's, in a packet whose checksum the device finishes. */
export function putSum(bytes: Uint8Array, offset: number, total: number): void {
  bytes[offset] = total;
  bytes[offset + 1] = total >>> 8;
}

/** Stores the complement of a folded sum: a finished checksum. */
export function putChecksum(bytes: Uint8Array, offset: number, total: number): void {
  putSum(bytes, offset, ~total);
}

/** As `putChecksum` for UDP, where zero would mean that there is no checksum: 0xffff, the other zero (RFC 768). */
export function putUdpChecksum(bytes: Uint8Array, offset: number, total: number): void {
  putSum(bytes, offset, total === 0xffff ? total : ~total);
}

/** Computes and stores the checksum of the header at `ip`, options included. */
export function fillIpv4Checksum(bytes: Uint8Array, ip: number): void {
  putSum(bytes, ip + IPV4_CHECKSUM, 0);
  putChecksum(bytes, ip + IPV4_CHECKSUM, sum(bytes, ip, ipv4HeaderLength(bytes, ip)));
}
