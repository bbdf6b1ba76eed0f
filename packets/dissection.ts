/** What the dissectors of the protocols write to: layers in the making. */
import { formatIpv4, formatIpv6, formatMac } from '../wire/address.ts';
import { get16 } from '../wire/bytes.ts';
import type { Fault, Field, Layer, Packet } from './packet.ts';

/** What a field may have besides its value. */
export interface Extra {
  readonly meaning?: string | undefined;
  readonly problem?: string | undefined;
  readonly base?: 16;
  /** When it differs from the header's. */
  readonly reference?: string;
}

/** VXLAN in VXLAN in ...: nobody nests deeper, and a hostile packet must not end the stack. */
const DEEPEST = 8;

export class Dissection {
  readonly bytes: Uint8Array;
  /** UDP destination ports behind which VXLAN is looked for. */
  readonly vxlanPorts: readonly number[];
  depth = 0;
  quoted = false;
  /** Whether the capture ends before the packet does, so that lengths in headers may exceed what there is. */
  readonly cut: boolean;
  readonly #length: number;
  readonly #layers: Layer[] = [];
  #fault: Fault | undefined;

  constructor(bytes: Uint8Array, length: number, vxlanPorts: readonly number[]) {
    this.bytes = bytes;
    this.vxlanPorts = vxlanPorts;
    this.cut = length > bytes.length;
    this.#length = length;
  }

  get packet(): Packet {
    const { bytes } = this;
    return {
      bytes,
      length: this.#length,
      layers: this.#layers,
      ...(this.#fault === undefined ? {} : { fault: this.#fault }),
    };
  }

  /** Begins a layer of `length` bytes; its fields are added in order. */
  header(name: string, offset: number, length: number, reference: string): Header {
    const header = new Header(this.bytes, offset, reference);
    const { depth, quoted } = this;
    this.#layers.push({ name, depth, quoted, offset, length, reference, fields: header.fields });
    return header;
  }

  /** The rest of what a header announced, up to `end`, as one field. */
  data(name: string, offset: number, end: number, extra?: Extra): void {
    if (end <= offset) return;
    const length = end - offset;
    const bytes = `${length} byte${length === 1 ? '' : 's'}`;
    this.header(name, offset, length, '').hex(name, 0, length, { meaning: bytes, ...extra });
  }

  /**
   * Whether [offset, end) holds a header of `length` bytes. If not it becomes data, and the fault names the header, unless it is the
   * end of a quoted packet, which is always cut off.
   */
  holds(name: string, offset: number, end: number, length: number): boolean {
    if (end - offset >= length) return true;
    const there = `${end - offset} of ${length} bytes are there`;
    const cut = this.cut && end === this.bytes.length;
    this.fail(offset, end, `the ${name} header is cut off${cut ? ' by the capture' : ''}: ${there}`);
    return false;
  }

  /** Ends taking apart: the rest is data. */
  fail(offset: number, end: number, message: string): void {
    if (!this.quoted) this.#fault ??= { offset, message };
    this.data('data', offset, end);
  }

  /** Takes apart what VXLAN carries. */
  deeper(offset: number, end: number, dissect: () => void): void {
    if (this.depth >= DEEPEST) {
      this.fail(offset, end, `more than ${DEEPEST} VXLAN headers one in the other`);
      return;
    }
    this.depth++;
    dissect();
    this.depth--;
  }

  /** Takes apart what an ICMP error quotes. */
  quote(dissect: () => void): void {
    this.quoted = true;
    dissect();
    this.quoted = false;
  }
}

export class Header {
  readonly fields: Field[] = [];
  readonly #bytes: Uint8Array;
  readonly #offset: number;
  readonly #reference: string;

  constructor(bytes: Uint8Array, offset: number, reference: string) {
    this.#bytes = bytes;
    this.#offset = offset;
    this.#reference = reference;
  }

  /** An unsigned number of 1 to 4 bytes. */
  number(name: string, at: number, bytes: number, extra?: Extra): number {
    return this.bits(name, at, 0, bytes * 8, extra);
  }

  /** A field of `bits` bits, at most 32, from bit `bit` of the byte at `at` on. */
  bits(name: string, at: number, bit: number, bits: number, extra?: Extra): number {
    const value = getBits(this.#bytes, this.#offset + at, bit, bits);
    this.#add(name, at, bit, bits, value, extra);
    return value;
  }

  mac(name: string, at: number): void {
    const from = this.#offset + at;
    this.#add(name, at, 0, 48, formatMac(this.#bytes, from), { meaning: macMeaning(this.#bytes, from) });
  }

  ipv4(name: string, at: number, extra?: Extra): void {
    this.#add(name, at, 0, 32, formatIpv4(this.#bytes, this.#offset + at), extra);
  }

  ipv6(name: string, at: number, extra?: Extra): void {
    this.#add(name, at, 0, 128, formatIpv6(this.#bytes, this.#offset + at), extra);
  }

  /** Bytes as they are. */
  hex(name: string, at: number, bytes: number, extra?: Extra): void {
    const from = this.#offset + at;
    this.#add(name, at, 0, bytes * 8, Buffer.from(this.#bytes.subarray(from, from + bytes)).toString('hex'), extra);
  }

  #add(name: string, at: number, bit: number, bits: number, value: number | string, extra: Extra = {}): void {
    const { meaning, problem, base, reference = this.#reference } = extra;
    this.fields.push({
      ...{ name, offset: this.#offset + at, bit, bits, value },
      ...(base === undefined ? {} : { base }),
      ...(meaning === undefined ? {} : { meaning }),
      ...(problem === undefined ? {} : { problem }),
      reference,
    });
  }
}

/** Up to 32 bits from bit `bit` (0 is the most significant) of the byte at `offset` on. */
function getBits(bytes: Uint8Array, offset: number, bit: number, bits: number): number {
  let value = 0;
  const last = (bit + bits + 7) >> 3;
  for (let i = 0; i < last; i++) value = value * 256 + bytes[offset + i];
  const below = last * 8 - bit - bits;
  return Math.floor(value / 2 ** below) % 2 ** bits;
}

function macMeaning(bytes: Uint8Array, at: number): string | undefined {
  if (bytes.subarray(at, at + 6).every((byte) => byte === 0xff)) return 'broadcast';
  if (get16(bytes, at) === 0x3333) return 'multicast of IPv6';
  if (bytes[at] === 0x01 && bytes[at + 1] === 0 && bytes[at + 2] === 0x5e) return 'multicast of IPv4';
  if (bytes[at] & 1) return 'multicast';
  return bytes[at] & 2 ? 'locally administered' : undefined;
}
