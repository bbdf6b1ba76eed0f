/**
 * Big-endian numbers in a Uint8Array, at any alignment. Offsets are not checked: whoever calls has compared them with the
 * length once.
 */

export function get16(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] << 8) | bytes[offset + 1];
}

export function put16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 8;
  bytes[offset + 1] = value;
}

export function get24(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] << 16) | (bytes[offset + 1] << 8) | bytes[offset + 2];
}

export function put24(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 16;
  bytes[offset + 1] = value >>> 8;
  bytes[offset + 2] = value;
}

/** A signed 32-bit number, which V8 keeps unboxed; `>>> 0` makes it unsigned. */
export function get32(bytes: Uint8Array, offset: number): number {
  return (bytes[offset] << 24) | (bytes[offset + 1] << 16) | (bytes[offset + 2] << 8) | bytes[offset + 3];
}

/** Takes signed and unsigned numbers alike. */
export function put32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}

/** The 16-bit value as the other byte order sees it: a host-order number as a summand of a little-endian checksum. */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
}

/** Copies `count` bytes to a place that may be aligned otherwise: for some hundred bytes this takes less than making a view of them, and leaves no garbage. */
export function copyBytes(source: DataView, from: number, target: DataView, to: number, count: number): void {
  const whole = count & ~3;
  for (let i = 0; i < whole; i += 4) target.setInt32(to + i, source.getInt32(from + i, true), true);
  for (let i = whole; i < count; i++) target.setUint8(to + i, source.getUint8(from + i));
}
