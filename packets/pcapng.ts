/**
 * Writes pcapng: the blocks of a capture with two interfaces or more, comments on packets, and statistics at its end.
 * draft-ietf-opsawg-pcapng. Little-endian, as the hosts that this runs on, times in microseconds. Every function returns one whole block.
 *
 *      0            4              8                 length - 4
 *      +------------+--------------+------ ... ------+--------------+
 *      | block type | block length | body, options   | block length |
 *      +------------+--------------+------ ... ------+--------------+
 */

export const SECTION_HEADER = 0x0a0d0d0a;
export const INTERFACE_DESCRIPTION = 1;
export const SIMPLE_PACKET = 3;
export const INTERFACE_STATISTICS = 5;
export const ENHANCED_PACKET = 6;
/** Of the section header: tells the byte order. */
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
export const LINKTYPE_ETHERNET = 1;

// Options, by block (draft-ietf-opsawg-pcapng, 3.5 and 4).
export const OPT_END = 0;
export const OPT_COMMENT = 1;
const SHB_USERAPPL = 4;
export const IF_NAME = 2;
const IF_DESCRIPTION = 3;
export const IF_TSRESOL = 9;
const IF_FILTER = 11;
export const EPB_FLAGS = 2;
const EPB_DROPCOUNT = 4;
const ISB_IFRECV = 4;
const ISB_IFDROP = 5;
const ISB_USRDELIV = 8;

/** Bits 0 and 1 of the flags of an enhanced packet. */
export const INBOUND = 1;
export const OUTBOUND = 2;

export interface CapturedPacket {
  /** Its interface's number, in the order of their blocks. */
  readonly interface: number;
  /** Milliseconds since 1970, with fractions. */
  readonly time: number;
  readonly bytes: Uint8Array;
  /** As it was on the wire; more than bytes.length when it is cut off. */
  readonly length: number;
  readonly direction?: typeof INBOUND | typeof OUTBOUND;
  readonly comments?: readonly string[];
  /** Packets lost between the one before and this one. */
  readonly lost?: number;
}

export function sectionHeader(application: string): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(BYTE_ORDER_MAGIC, 0);
  body.writeUInt16LE(1, 4); // version 1.0
  body.writeBigInt64LE(-1n, 8); // length of the section: not known
  return block(SECTION_HEADER, [body, text(SHB_USERAPPL, application)]);
}

/** `snapLength`: 0 when packets are whole. */
export function interfaceDescription(
  name: string,
  description: string,
  { snapLength = 0, filter = '' }: { snapLength?: number; filter?: string } = {},
): Buffer {
  const body = Buffer.alloc(8);
  body.writeUInt16LE(LINKTYPE_ETHERNET, 0);
  body.writeUInt32LE(snapLength, 4);
  const options = [text(IF_NAME, name), text(IF_DESCRIPTION, description)];
  // The first byte says that what follows is text and no byte code.
  if (filter !== '') options.push(option(IF_FILTER, Buffer.from(`\0${filter}`)));
  return block(INTERFACE_DESCRIPTION, [body, ...options]);
}

export function enhancedPacket(packet: CapturedPacket): Buffer {
  const { bytes, time, length } = packet;
  const options = packetOptions(packet);
  const block = Buffer.alloc(enhancedPacketLength(bytes.length, options));
  const words = new Int32Array(block.buffer, block.byteOffset);
  block.set(bytes, putEnhancedPacket(words, block, 0, packet.interface, time, bytes.length, length, options));
  return block;
}

/** The options of an enhanced packet, with their end; none when there is nothing to say. */
export function packetOptions({
  comments = [],
  direction,
  lost = 0,
}: Pick<CapturedPacket, 'comments' | 'direction' | 'lost'>): Buffer {
  const options = comments.map((comment) => text(OPT_COMMENT, comment));
  if (direction !== undefined) options.push(number32(EPB_FLAGS, direction));
  if (lost > 0) options.push(number64(EPB_DROPCOUNT, lost));
  if (options.length > 0) options.push(Buffer.alloc(4)); // OPT_END
  return Buffer.concat(options);
}

/** Bytes of a block with `captured` bytes of a packet. */
export function enhancedPacketLength(captured: number, options: Uint8Array): number {
  return 32 + ((captured + 3) & ~3) + options.length;
}

/**
 * Writes a block at `at`, a multiple of 4, all of it but the packet's `captured` bytes: returns where they belong. For those who write many:
 * other than enhancedPacket() it makes no buffers. `words`, `bytes`: of the same memory. `time`, `length`: as in CapturedPacket.
 */
export function putEnhancedPacket(
  words: Int32Array,
  bytes: Uint8Array,
  at: number,
  index: number,
  time: number,
  captured: number,
  length: number,
  options: Uint8Array,
): number {
  const size = enhancedPacketLength(captured, options);
  const microseconds = Math.round(time * 1000);
  const word = at >> 2;
  const end = at + size - 4;
  words[(end - options.length - 1) >> 2] = 0; // what pads the packet
  words[word] = ENHANCED_PACKET;
  words[word + 1] = size;
  words[word + 2] = index;
  words[word + 3] = Math.floor(microseconds / 2 ** 32);
  words[word + 4] = microseconds % 2 ** 32;
  words[word + 5] = captured;
  words[word + 6] = length;
  words[end >> 2] = size;
  bytes.set(options, end - options.length);
  return at + 28;
}

/** `received`: by the interface. `lost`: of these, by the capture. `delivered`: written. */
export function interfaceStatistics(
  index: number,
  time: number,
  counts: { received: number; lost: number; delivered: number },
): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt32LE(index, 0);
  writeTime(body, 4, time);
  const options = [
    number64(ISB_IFRECV, counts.received),
    number64(ISB_IFDROP, counts.lost),
    number64(ISB_USRDELIV, counts.delivered),
  ];
  return block(INTERFACE_STATISTICS, [body, ...options]);
}

/** The packets that a block of statistics, as interfaceStatistics() makes it, calls lost. */
export function lostOf(block: Buffer): number {
  for (let at = 8 + 12; at + 4 <= block.length; ) {
    const code = block.readUInt16LE(at);
    if (code === ISB_IFDROP) return Number(block.readBigUInt64LE(at + 4));
    at += 4 + ((block.readUInt16LE(at + 2) + 3) & ~3);
  }
  return 0;
}

function writeTime(body: Buffer, at: number, milliseconds: number): void {
  const microseconds = Math.round(milliseconds * 1000);
  body.writeUInt32LE(Math.floor(microseconds / 2 ** 32), at);
  body.writeUInt32LE(microseconds % 2 ** 32, at + 4);
}

/** The last option is followed by the end of options; a body without any has none. */
function block(type: number, [body, ...rest]: readonly Uint8Array[]): Buffer {
  const parts = [body, ...rest];
  if (rest.length > 0) parts.push(Buffer.alloc(4)); // OPT_END
  const length = 12 + parts.reduce((sum, part) => sum + part.length, 0);
  const head = Buffer.alloc(8);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(length, 4);
  return Buffer.concat([head, ...parts, head.subarray(4)], length);
}

function option(code: number, value: Uint8Array): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(value.length, 2);
  return Buffer.concat([head, padded(value)]);
}

function text(code: number, value: string): Buffer {
  return option(code, Buffer.from(value).subarray(0, 0xffff));
}

function number32(code: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value, 0);
  return option(code, bytes);
}

function number64(code: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value), 0);
  return option(code, bytes);
}

/** To a multiple of 4 bytes. */
function padded(bytes: Uint8Array): Uint8Array {
  const missing = -bytes.length & 3;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}
