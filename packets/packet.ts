/**
 * A packet taken apart: layers of fields that hold every bit of it once, in order. Plain data, so that it may be printed, sent as
 * JSON or drawn.
 */

export interface Field {
  readonly name: string;
  /** Of the byte that holds its first bit, counted from the packet's first byte. */
  readonly offset: number;
  /** Its first bit within that byte; 0 is the most significant, as RFCs count. */
  readonly bit: number;
  /** Width in bits. */
  readonly bits: number;
  /** A number as it stands in the packet, an address as text, or bytes in hex. */
  readonly value: number | string;
  /** 16 for a number that is usually written in hex. */
  readonly base?: 16;
  readonly meaning?: string;
  /** What is wrong with the value. */
  readonly problem?: string;
  /** Where the field is defined: 'RFC 791, 3.1'. */
  readonly reference: string;
  /** Where the value came from; known only for packets of a running daemon. */
  origin?: string;
}

export interface Layer {
  /** 'IPv4'. */
  readonly name: string;
  /** How many VXLAN headers stand in front: 0 outside, 1 inside. */
  readonly depth: number;
  /** Whether it is part of a packet that an ICMP error quotes. */
  readonly quoted: boolean;
  readonly offset: number;
  /** Of the header, or of the payload, in bytes. */
  readonly length: number;
  /** Where it is defined; '' of payload. */
  readonly reference: string;
  readonly fields: readonly Field[];
}

/** Where taking apart ended before the packet did. What follows `offset` is shown as data. */
export interface Fault {
  readonly offset: number;
  readonly message: string;
}

export interface Packet {
  /** What there is of it. */
  readonly bytes: Uint8Array;
  /** As it was sent, in bytes; more than bytes.length when a capture has cut it off. */
  readonly length: number;
  readonly layers: readonly Layer[];
  readonly fault?: Fault;
}

/** 'outer IPv4', 'inner TCP', 'VXLAN'; 'IPv4' of a packet without VXLAN. */
export function layerTitle(packet: Packet, layer: Layer): string {
  const quoted = layer.quoted ? 'quoted ' : '';
  if (layer.name === 'VXLAN' || !packet.layers.some(({ name }) => name === 'VXLAN')) return `${quoted}${layer.name}`;
  const side = layer.depth === 0 ? 'outer' : layer.depth === 1 ? 'inner' : `inner (${layer.depth})`;
  return `${side} ${quoted}${layer.name}`;
}

/** The value as people write it. */
export function valueText({ value, base, bits }: Field): string {
  return base === 16 ? `0x${value.toString(16).padStart(Math.ceil(bits / 4), '0')}` : `${value}`;
}

/** Whether the value is bytes in hex. */
export function isBytes({ value, bits }: Field): boolean {
  return typeof value === 'string' && value.length === bits / 4 && /^[\da-f]+$/.test(value);
}

/** What is wrong with the packet, in order: the problems of its fields, then the fault. */
export function problemsOf(packet: Packet): string[] {
  const problems = packet.layers.flatMap((layer) =>
    layer.fields.flatMap(({ name, problem }) =>
      problem === undefined ? [] : [`${layerTitle(packet, layer)}, ${name}: ${problem}`],
    ),
  );
  return packet.fault ? [...problems, packet.fault.message] : problems;
}
