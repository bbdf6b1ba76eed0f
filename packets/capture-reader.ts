/**
 * Reads captures, pcap and pcapng, packet by packet from a stream of bytes: memory is bounded by the longest packet, whatever the
 * length of the capture. draft-ietf-opsawg-pcap; draft-ietf-opsawg-pcapng.
 */
import { ByteQueue } from './byte-queue.ts';
import {
  BYTE_ORDER_MAGIC,
  ENHANCED_PACKET,
  EPB_FLAGS,
  IF_NAME,
  IF_TSRESOL,
  INBOUND,
  INTERFACE_DESCRIPTION,
  LINKTYPE_ETHERNET,
  OPT_COMMENT,
  OPT_END,
  OUTBOUND,
  SECTION_HEADER,
  SIMPLE_PACKET,
} from './pcapng.ts';

export interface ReadPacket {
  /** Counted from 1. */
  readonly number: number;
  readonly bytes: Uint8Array;
  /** As it was on the wire. */
  readonly length: number;
  /** Milliseconds since 1970; absent in a capture without times. */
  readonly time?: number;
  readonly linkType: 'ethernet' | 'ip';
  /** Name of the interface; absent when the capture has none. */
  readonly interface?: string;
  readonly direction?: 'in' | 'out';
  readonly comments: readonly string[];
}

/** The capture is broken or of a kind that is not read; `message` says what and where. */
export class CaptureError extends Error {}

/** Longer blocks are taken for broken: a super-frame has 64 kB, and a comment at most as much. */
const LONGEST = 16 * 1024 * 1024;
const PCAP = new Map([
  [0xa1b2c3d4, 1e3],
  [0xa1b23c4d, 1e6],
]);
const GZIP = 0x1f8b;
/** Ethernet, and raw IP in the numbers that systems have for it. */
const LINK_TYPES = new Map<number, ReadPacket['linkType']>([
  [LINKTYPE_ETHERNET, 'ethernet'],
  [12, 'ip'],
  [101, 'ip'],
  [228, 'ip'],
  [229, 'ip'],
]);

/** Throws CaptureError; what was whole before the fault has been yielded then. */
export async function* readCapture(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ReadPacket, void> {
  const input = new ByteQueue(chunks);
  if (!(await input.fill(4))) {
    throw new CaptureError(
      input.length === 0 ? 'the capture is empty: not even a header' : 'this is no capture: 4 bytes are too few',
    );
  }
  const head = input.peek(4);
  if (head.readUInt32LE(0) === SECTION_HEADER) yield* readPcapng(input);
  else if (PCAP.has(head.readUInt32LE(0)) || PCAP.has(head.readUInt32BE(0))) yield* readPcap(input);
  else if (head.readUInt16BE(0) === GZIP) throw new CaptureError('the capture is compressed: gunzip it first');
  else {
    const magic = head.toString('hex');
    throw new CaptureError(`this is no capture: it begins with ${magic}, which neither pcap nor pcapng does`);
  }
}

async function* readPcap(input: ByteQueue): AsyncGenerator<ReadPacket, void> {
  await need(input, 24, "the capture's header");
  const header = input.take(24);
  const little = PCAP.has(header.readUInt32LE(0));
  const get32 = (bytes: Buffer, at: number): number => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const unit = PCAP.get(get32(header, 0))!;
  const linkType = linkTypeOf(get32(header, 20) & 0xffff);
  for (let number = 1; await input.fill(1); number++) {
    await need(input, 16, `the header of packet ${number}`);
    const record = input.take(16);
    const captured = get32(record, 8);
    if (captured > LONGEST) throw new CaptureError(`packet ${number} claims ${captured} bytes ${where(input)}`);
    await need(input, captured, `packet ${number}`);
    const time = get32(record, 0) * 1e3 + get32(record, 4) / unit;
    const length = Math.max(captured, get32(record, 12));
    yield { number, bytes: input.take(captured), length, time, linkType, comments: [] };
  }
}

interface Interface {
  readonly linkType: number;
  readonly name: string | undefined;
  readonly snapLength: number;
  /** Milliseconds a unit. */
  readonly unit: number;
}

async function* readPcapng(input: ByteQueue): AsyncGenerator<ReadPacket, void> {
  let order = new Order(true);
  let interfaces: Interface[] = [];
  for (let number = 1; await input.fill(1); ) {
    await need(input, 12, 'a block');
    const head = input.peek(12);
    if (head.readUInt32LE(0) === SECTION_HEADER) {
      const little = head.readUInt32LE(8) === BYTE_ORDER_MAGIC;
      if (!little && head.readUInt32BE(8) !== BYTE_ORDER_MAGIC) {
        throw new CaptureError(`a section without byte order ${where(input)}`);
      }
      order = new Order(little);
      interfaces = [];
    }
    const type = order.get32(head, 0);
    const length = order.get32(head, 4);
    if (length < 12 || length % 4 !== 0 || length > LONGEST) {
      throw new CaptureError(`a block claims a length of ${length} bytes ${where(input)}`);
    }
    await need(input, length, 'a block');
    const block = input.take(length);
    if (order.get32(block, length - 4) !== length) {
      throw new CaptureError(`the two lengths of a block differ ${where(input)}`);
    }
    const body = block.subarray(8, length - 4);
    if (type === INTERFACE_DESCRIPTION) interfaces.push(order.interface(body, where(input)));
    if (type !== ENHANCED_PACKET && type !== SIMPLE_PACKET) continue;
    const read = type === ENHANCED_PACKET ? order.enhanced : order.simple;
    yield read.call(order, number++, body, interfaces, where(input));
  }
}

/** Reads blocks in the byte order of their section. */
class Order {
  readonly #little: boolean;

  constructor(little: boolean) {
    this.#little = little;
  }

  get32(bytes: Buffer, at: number): number {
    return this.#little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at);
  }

  #get16(bytes: Buffer, at: number): number {
    return this.#little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at);
  }

  interface(body: Buffer, place: string): Interface {
    if (body.length < 8) throw new CaptureError(`an interface without link type ${place}`);
    let name: string | undefined;
    let unit = 1e-3;
    for (const { code, value } of this.#options(body, 8)) {
      if (code === IF_NAME) name = value.toString();
      if (code === IF_TSRESOL && value.length === 1) {
        unit = 1e3 * (value[0] & 0x80 ? 2 ** -(value[0] & 0x7f) : 10 ** -value[0]);
      }
    }
    return { linkType: this.#get16(body, 0), snapLength: this.get32(body, 4), name, unit };
  }

  enhanced(number: number, body: Buffer, interfaces: readonly Interface[], place: string): ReadPacket {
    if (body.length < 20) throw new CaptureError(`packet ${number} has no header ${place}`);
    const { linkType, unit, name } = interfaceOf(interfaces, this.get32(body, 0), number, place);
    const captured = this.get32(body, 12);
    if (captured > body.length - 20) throw new CaptureError(`packet ${number} is longer than its block ${place}`);
    const comments: string[] = [];
    let direction: ReadPacket['direction'];
    for (const { code, value } of this.#options(body, 20 + ((captured + 3) & ~3))) {
      if (code === OPT_COMMENT) comments.push(value.toString());
      if (code !== EPB_FLAGS || value.length !== 4) continue;
      const bits = this.get32(value, 0) & 3;
      direction = bits === INBOUND ? 'in' : bits === OUTBOUND ? 'out' : undefined;
    }
    return {
      number,
      bytes: body.subarray(20, 20 + captured),
      length: Math.max(captured, this.get32(body, 16)),
      time: (this.get32(body, 4) * 2 ** 32 + this.get32(body, 8)) * unit,
      linkType: linkTypeOf(linkType),
      ...(name === undefined ? {} : { interface: name }),
      ...(direction === undefined ? {} : { direction }),
      comments,
    };
  }

  /** A packet of the first interface, without a time. */
  simple(number: number, body: Buffer, interfaces: readonly Interface[], place: string): ReadPacket {
    if (body.length < 4) throw new CaptureError(`packet ${number} has no header ${place}`);
    const { linkType, snapLength } = interfaceOf(interfaces, 0, number, place);
    const length = this.get32(body, 0);
    const captured = Math.min(length, body.length - 4, snapLength || length);
    return { number, bytes: body.subarray(4, 4 + captured), length, linkType: linkTypeOf(linkType), comments: [] };
  }

  *#options(body: Buffer, start: number): Generator<{ code: number; value: Buffer }, void> {
    for (let at = start; at + 4 <= body.length; ) {
      const code = this.#get16(body, at);
      const length = this.#get16(body, at + 2);
      if (code === OPT_END || at + 4 + length > body.length) return;
      yield { code, value: body.subarray(at + 4, at + 4 + length) };
      at += 4 + ((length + 3) & ~3);
    }
  }
}

function interfaceOf(interfaces: readonly Interface[], index: number, number: number, place: string): Interface {
  const found = interfaces[index];
  if (!found) throw new CaptureError(`packet ${number} is of interface ${index}, which was not described ${place}`);
  return found;
}

function linkTypeOf(number: number): ReadPacket['linkType'] {
  const linkType = LINK_TYPES.get(number);
  if (linkType) return linkType;
  throw new CaptureError(`link type ${number} is not known here: Ethernet (1) and raw IP (101, 228, 229) are`);
}

async function need(input: ByteQueue, bytes: number, what: string): Promise<void> {
  if (await input.fill(bytes)) return;
  throw new CaptureError(
    `the capture ends within ${what}: ${input.length} of ${bytes} bytes are there ${where(input)}`,
  );
}

function where(input: ByteQueue): string {
  return `(at byte ${input.position})`;
}
