/**
 * Addresses as text, as bytes in wire order, and (MAC) as the two numbers that the FDB has for keys. Parsing is strict, and
 * returns undefined for what is not an address: the caller knows what it was to be, and says so.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { get16, get32, put16, put32 } from './bytes.ts';

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

/** Six pairs of hex digits between colons to 6 bytes. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!MAC.test(text)) return undefined;
  return Uint8Array.from(text.split(':'), (pair) => Number.parseInt(pair, 16));
}

export function formatMac(bytes: Uint8Array, offset = 0): string {
  return Buffer.from(bytes.subarray(offset, offset + 6))
    .toString('hex')
    .replace(/..(?!$)/g, '$&:');
}

/** The first two bytes of a MAC address: u16. */
export function macHigh(bytes: Uint8Array, offset: number): number {
  return get16(bytes, offset);
}

/** The last four bytes of a MAC address: int32. */
export function macLow(bytes: Uint8Array, offset: number): number {
  return get32(bytes, offset + 2);
}

/** The 6 bytes that `macHigh` and `macLow` were taken from. */
export function macBytes(high: number, low: number): Uint8Array {
  const bytes = new Uint8Array(6);
  putMac(bytes, 0, high, low);
  return bytes;
}

/** Writes the MAC address that `macHigh` and `macLow` were taken from. */
export function putMac(bytes: Uint8Array, offset: number, high: number, low: number): void {
  put16(bytes, offset, high);
  put32(bytes, offset + 2, low);
}

/** 4 bytes for an IPv4 address, 16 for an IPv6 one. */
export function parseIp(text: string): Uint8Array | undefined {
  return parseIpv4(text) ?? parseIpv6(text);
}

/** The IP version of an address that parseIp() takes, with or without a prefix length. */
export function familyOf(address: string): 4 | 6 {
  return address.includes(':') ? 6 : 4;
}

/** Whether an address is a multicast group's: 224.0.0.0/4 (RFC 5771), ff00::/8 (RFC 4291, 2.7). */
export function isMulticast(address: string): boolean {
  const bytes = parseIp(address);
  if (bytes === undefined) return false;
  return bytes.length === 4 ? bytes[0] >> 4 === 0xe : bytes[0] === 0xff;
}

export function formatIp(bytes: Uint8Array): string {
  return bytes.length === 4 ? formatIpv4(bytes) : formatIpv6(bytes);
}

/** Four decimal numbers, none with a leading zero, to 4 bytes. */
export function parseIpv4(text: string): Uint8Array | undefined {
  return isIPv4(text) ? Uint8Array.from(text.split('.'), Number) : undefined;
}

export function formatIpv4(bytes: Uint8Array, offset = 0): string {
  return bytes.subarray(offset, offset + 4).join('.');
}

/** Any text form of RFC 4291, 2.2, but without a zone ('%eth0'), to 16 bytes. */
export function parseIpv6(text: string): Uint8Array | undefined {
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const [head, tail] = text.split('::');
  const front = groups(head);
  const back = groups(tail);
  const bytes = new Uint8Array(16);
  front.forEach((group, i) => {
    put16(bytes, 2 * i, group);
  });
  back.forEach((group, i) => {
    put16(bytes, 16 - 2 * (back.length - i), group);
  });
  return bytes;
}

/** RFC 5952: lower case, the longest (first) run of two or more zero groups as '::', IPv4-mapped addresses in dots. */
export function formatIpv6(bytes: Uint8Array, offset = 0): string {
  const words = Array.from({ length: 8 }, (_, i) => get16(bytes, offset + 2 * i));
  if (words[5] === 0xffff && words.slice(0, 5).every((word) => word === 0)) {
    return `::ffff:${formatIpv4(bytes, offset + 12)}`;
  }
  let start = 0;
  let longest = 1;
  for (let i = 0; i < 8; i++) {
    let run = 0;
    while (i + run < 8 && words[i + run] === 0) run++;
    if (run > longest) [start, longest] = [i, run];
  }
  const text = (from: number, to?: number) =>
    words
      .slice(from, to)
      .map((word) => word.toString(16))
      .join(':');
  return longest > 1 ? `${text(0, start)}::${text(start + longest)}` : text(0);
}

/** 16-bit groups of a part of an IPv6 address; a trailing dotted IPv4 address makes two. */
function groups(part: string | undefined): number[] {
  if (!part) return [];
  return part.split(':').flatMap((group) => {
    const dotted = parseIpv4(group);
    return dotted ? [get16(dotted, 0), get16(dotted, 2)] : [Number.parseInt(group, 16)];
  });
}
