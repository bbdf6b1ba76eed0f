/**
 * Addresses as text, as bytes in wire order, and (MAC) as the two numbers that the FDB has for keys. Parsing is strict, and
 * returns undefined for what is not an address: the caller knows what it was to be, and says so.
 */
import { isIPv6 } from 'node:net';
import { get16, get32, put16, put32 } from './bytes.ts';

const COLON = 0x3a;
const DOT = 0x2e;
const ZERO = 0x30;
/** Each byte as two hex digits. */
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

/** Six pairs of hex digits between colons to 6 bytes. Digit by digit: a table of 100,000 entries takes a million of these, and of a regular expression ten times as long. */
export function parseMac(text: string): Uint8Array | undefined {
  if (text.length !== 17) return undefined;
  const bytes = new Uint8Array(6);
  for (let i = 0, at = 0; i < 6; i++, at += 3) {
    const byte = (hexDigit(text.charCodeAt(at)) << 4) | hexDigit(text.charCodeAt(at + 1));
    if (byte < 0 || (i < 5 && text.charCodeAt(at + 2) !== COLON)) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

export function formatMac(bytes: Uint8Array, offset = 0): string {
  let text = HEX[bytes[offset]];
  for (let i = 1; i < 6; i++) text += `:${HEX[bytes[offset + i]]}`;
  return text;
}

/** -1 for what is none. */
function hexDigit(code: number): number {
  if (code >= ZERO && code < ZERO + 10) return code - ZERO;
  const letter = (code | 0x20) - 0x61; // a to f
  return letter >= 0 && letter < 6 ? letter + 10 : -1;
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
  const bytes = new Uint8Array(4);
  let at = 0;
  for (let i = 0; i < 4; i++) {
    let value = -1;
    for (; at < text.length; at++) {
      const digit = text.charCodeAt(at) - ZERO;
      if (digit < 0 || digit > 9) break;
      if (value === 0) return undefined;
      value = value < 0 ? digit : 10 * value + digit;
      if (value > 255) return undefined;
    }
    if (value < 0 || (i < 3 && text.charCodeAt(at++) !== DOT)) return undefined;
    bytes[i] = value;
  }
  return at === text.length ? bytes : undefined;
}

export function formatIpv4(bytes: Uint8Array, offset = 0): string {
  return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}`;
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
