import { type Packet, problemsOf, valueText } from '../../packets/packet.ts';

/** A packet with all that is known of it: what `uvxlan explain` shows. */
export interface Explained {
  /** 'Packet 3, 2026-11-27 13:00:00.123456, eth0, out'. */
  readonly title: string;
  readonly packet: Packet;
  /** Comments of the capture. */
  readonly comments: readonly string[];
  /** What was looked up for it, in order, with the answers; only where a daemon was asked. */
  readonly lookups: readonly Lookup[];
  /** What becomes of it. */
  readonly verdict?: string;
}

export interface Lookup {
  readonly question: string;
  readonly answer: string;
}

/** One object a packet, for `-j`. */
export function explainedJson({ title, packet, comments, lookups, verdict }: Explained): unknown {
  return {
    title,
    length: packet.length,
    captured: packet.bytes.length,
    bytes: Buffer.from(packet.bytes).toString('hex'),
    layers: packet.layers.map((layer) => ({
      ...layer,
      fields: layer.fields.map((field) => ({ ...field, text: valueText(field) })),
    })),
    problems: problemsOf(packet),
    ...(packet.fault === undefined ? {} : { fault: packet.fault }),
    ...(comments.length === 0 ? {} : { comments }),
    ...(lookups.length === 0 ? {} : { lookups }),
    ...(verdict === undefined ? {} : { verdict }),
  };
}

/** The bits of a field that do not fill bytes, '....0100', or its first bytes in hex. */
export function bitsText(bytes: Uint8Array, offset: number, bit: number, bits: number, most: number): string {
  const count = (bit + bits + 7) >> 3;
  const shown = Array.from(bytes.subarray(offset, offset + Math.min(count, most)));
  if (bit === 0 && bits % 8 === 0) {
    return shown.map((byte) => byte.toString(16).padStart(2, '0')).join(' ') + (count > most ? ' ...' : '');
  }
  const digits = shown.map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const masked = Array.from(digits, (digit, i) => (i >= bit && i < bit + bits ? digit : '.')).join('');
  return masked.replace(/.{8}(?=.)/g, '$& ');
}
