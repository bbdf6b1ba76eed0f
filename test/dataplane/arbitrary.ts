/** Random frames for properties. */
import fc from 'fast-check';
import { ACK, CWR, FIN, type FrameSpec, frame, PSH, payload, superFrame } from './packet.ts';
import { random } from './rig.ts';

/** Random bytes: cheaper, and shorter to print, than fast-check's own arrays. */
export function bytes(length: fc.Arbitrary<number>): fc.Arbitrary<Uint8Array> {
  return fc.tuple(length, fc.nat(0xffff)).map(([n, seed]) => {
    const next = random(2 * seed + 1);
    return Uint8Array.from({ length: n }, () => next(256));
  });
}

const flags = fc.subarray([FIN, PSH, CWR, 0x20, 0x40]).map((bits) => bits.reduce((all, bit) => all | bit, ACK));

/** Options are zeros, which end the list of TCP's and IPv4's, and pad IPv6's; whole words, or 8 bytes for IPv6. */
const ipOptions = (version: 4 | 6) =>
  version === 4 ? fc.nat(10).map((words) => new Uint8Array(4 * words)) : fc.nat(1).map((n) => new Uint8Array(8 * n));

export interface HeaderOptions {
  /** Only what GRO merges: no flags but PSH, no IP options. */
  readonly plain?: boolean;
}

/** Headers of every kind that carries TCP or UDP. */
export function headers({ plain = false }: HeaderOptions = {}): fc.Arbitrary<FrameSpec> {
  return fc.constantFrom<4 | 6>(4, 6).chain((version) =>
    fc.record({
      tags: fc.array(fc.integer({ min: 1, max: 4094 }), { maxLength: 2 }),
      version: fc.constant(version),
      protocol: fc.constantFrom('tcp', 'udp'),
      from: fc.integer({ min: 1, max: 9 }),
      to: fc.integer({ min: 11, max: 19 }),
      tos: fc.nat(255),
      ttl: fc.integer({ min: 1, max: 255 }),
      id: fc.nat(0xffff),
      dontFragment: fc.boolean(),
      flowLabel: fc.nat(0xfffff),
      ipOptions: plain ? fc.constant(new Uint8Array(0)) : ipOptions(version),
      sourcePort: fc.nat(0xffff),
      destinationPort: fc.nat(0xffff),
      sequence: fc.oneof(fc.nat(0xffffffff), fc.integer({ min: 0xffff0000, max: 0xffffffff })),
      ack: fc.nat(0xffffffff),
      flags: plain ? fc.constantFrom(ACK, ACK | PSH) : flags,
      reserved: fc.constantFrom(0, 1),
      window: fc.nat(0xffff),
      tcpOptions: fc.nat(10).chain((words) => bytes(fc.constant(4 * words))),
      payload: fc.constant(new Uint8Array(0)),
    }),
  );
}

export class SuperFrame {
  readonly spec: FrameSpec;
  /** Payload of a segment. */
  readonly size: number;
  /** With the virtio header of a TAP. */
  readonly packet: Uint8Array;

  constructor(spec: FrameSpec, size: number) {
    this.spec = spec;
    this.size = size;
    this.packet = superFrame(frame(spec), size);
  }

  /** How a counterexample is printed: without 64 kB of payload. */
  [fc.toStringMethod](): string {
    const { payload, ...rest } = this.spec;
    return fc.stringify({ ...rest, payloadLength: payload.length, size: this.size });
  }
}

/** Super-frames of up to `segments` segments, but never longer than an IP packet can be with VXLAN headers around it. */
export function superFrames(segments: number, options?: HeaderOptions): fc.Arbitrary<SuperFrame> {
  const sizes = fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 500, max: 1500 }), fc.constant(8950));
  return fc.tuple(headers(options), sizes, fc.nat(), fc.nat(255)).map(([spec, size, length, seed]) => {
    const most = Math.min(segments * size, 65_000);
    return new SuperFrame({ ...spec, payload: payload(1 + (length % most), seed) }, size);
  });
}
