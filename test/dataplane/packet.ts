/**
 * Packets for the tests of the dataplane, built and read byte by byte. Nothing here shares code with wire/ or dataplane/, so that a
 * mistake there cannot hide itself here. A "packet" has a virtio header in front, as TAPs give and take it; a "frame" has none.
 */
import assert from 'node:assert/strict';

/** RFC 1071, 1: big-endian words, an odd last byte padded with zero, folded, not complemented. */
export function referenceSum(bytes: Uint8Array, initial = 0): number {
  let total = initial;
  for (let i = 0; i < bytes.length; i += 2) total += (bytes[i] << 8) | (bytes[i + 1] ?? 0);
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return total;
}

export interface FrameSpec {
  /** VLAN ids, the outermost first. */
  readonly tags: readonly number[];
  readonly version: 4 | 6;
  readonly protocol: 'tcp' | 'udp';
  /** Last byte of the source and destination addresses, MAC and IP. */
  readonly from: number;
  readonly to: number;
  readonly tos: number;
  readonly ttl: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly flowLabel: number;
  /** IPv4 options, or IPv6 destination options as a whole extension header (its first byte is set here). */
  readonly ipOptions: Uint8Array;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly ack: number;
  readonly flags: number;
  /** The four bits behind TCP's data offset. */
  readonly reserved: number;
  readonly window: number;
  readonly tcpOptions: Uint8Array;
  readonly payload: Uint8Array;
}

export const FIN = 0x01;
export const SYN = 0x02;
export const PSH = 0x08;
export const ACK = 0x10;
export const CWR = 0x80;

const DEFAULTS: FrameSpec = {
  tags: [],
  version: 4,
  protocol: 'tcp',
  from: 1,
  to: 2,
  tos: 0,
  ttl: 64,
  id: 0x1234,
  dontFragment: true,
  flowLabel: 0,
  ipOptions: new Uint8Array(0),
  sourcePort: 40000,
  destinationPort: 5201,
  sequence: 1000,
  ack: 2000,
  flags: ACK,
  reserved: 0,
  window: 501,
  tcpOptions: new Uint8Array(0),
  payload: new Uint8Array(0),
};

/** Payload that tells where it was cut: byte i is a function of i. */
export function payload(length: number, seed = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) * 13 + seed) & 0xff);
}

/** An Ethernet frame with TCP or UDP inside, all checksums finished. */
export function frame(spec: Partial<FrameSpec> = {}): Uint8Array {
  const s = { ...DEFAULTS, ...spec };
  const l4 = Buffer.concat([s.protocol === 'tcp' ? tcpHeader(s) : udpHeader(s), s.payload]);
  const ip = s.version === 4 ? ipv4Header(s, l4.length) : ipv6Header(s, l4.length);
  const type = s.version === 4 ? 0x0800 : 0x86dd;
  const tags = s.tags.flatMap((id, i) => [...be16(i === 0 && s.tags.length > 1 ? 0x88a8 : 0x8100), ...be16(id)]);
  const ethernet = [...mac(s.to), ...mac(s.from), ...tags, ...be16(type)];
  const bytes = new Uint8Array(Buffer.concat([Uint8Array.from(ethernet), ip, l4]));
  const at = shape(bytes);
  return finish(setPseudo(bytes), at.transport, at.checksum - at.transport);
}

const be16 = (value: number): number[] => [(value >> 8) & 0xff, value & 0xff];
export const mac = (last: number): number[] => [0x02, 0, 0, 0, 0, last];

function tcpHeader(s: FrameSpec): Uint8Array {
  const bytes = Buffer.alloc(20 + s.tcpOptions.length);
  bytes.writeUInt16BE(s.sourcePort, 0);
  bytes.writeUInt16BE(s.destinationPort, 2);
  bytes.writeUInt32BE(s.sequence >>> 0, 4);
  bytes.writeUInt32BE(s.ack >>> 0, 8);
  bytes[12] = ((bytes.length / 4) << 4) | s.reserved;
  bytes[13] = s.flags;
  bytes.writeUInt16BE(s.window, 14);
  bytes.set(s.tcpOptions, 20);
  return bytes;
}

function udpHeader(s: FrameSpec): Uint8Array {
  return Uint8Array.from([...be16(s.sourcePort), ...be16(s.destinationPort), ...be16(8 + s.payload.length), ...[0, 0]]);
}

function ipv4Header(s: FrameSpec, l4Length: number): Uint8Array {
  const bytes = Buffer.alloc(20 + s.ipOptions.length);
  bytes[0] = 0x40 | (bytes.length / 4);
  bytes[1] = s.tos;
  bytes.writeUInt16BE(bytes.length + l4Length, 2);
  bytes.writeUInt16BE(s.id, 4);
  bytes[6] = s.dontFragment ? 0x40 : 0;
  bytes[8] = s.ttl;
  bytes[9] = s.protocol === 'tcp' ? 6 : 17;
  bytes.set([10, 0, 0, s.from, 10, 0, 0, s.to], 12);
  bytes.set(s.ipOptions, 20);
  bytes.writeUInt16BE(0xffff ^ referenceSum(bytes), 10);
  return bytes;
}

function ipv6Header(s: FrameSpec, l4Length: number): Uint8Array {
  const bytes = Buffer.alloc(40 + s.ipOptions.length);
  const protocol = s.protocol === 'tcp' ? 6 : 17;
  bytes.writeUInt32BE((0x60000000 | (s.tos << 20) | s.flowLabel) >>> 0, 0);
  bytes.writeUInt16BE(s.ipOptions.length + l4Length, 4);
  bytes[6] = s.ipOptions.length > 0 ? 60 : protocol;
  bytes[7] = s.ttl;
  bytes.set([0xfd, 0, 0, s.from], 8);
  bytes.set([0xfd, 0, 0, s.to], 24);
  bytes.set(s.ipOptions, 40);
  if (s.ipOptions.length > 0) bytes[40] = protocol;
  return bytes;
}

/** A frame that is no IP: ARP, say. */
export function otherFrame(type: number, length: number, from = 1, to = 2): Uint8Array {
  return Uint8Array.from([...mac(to), ...mac(from), ...be16(type), ...payload(length)]);
}

/** Where the headers of a TCP or UDP frame are, from its first byte. */
export interface Shape {
  readonly version: 4 | 6;
  readonly tcp: boolean;
  readonly network: number;
  readonly transport: number;
  /** Of the checksum field. */
  readonly checksum: number;
  readonly payload: number;
}

export function shape(bytes: Uint8Array): Shape {
  const view = viewOf(bytes);
  let network = 14;
  while ([0x8100, 0x88a8].includes(view.getUint16(network - 2))) network += 4;
  const version = view.getUint16(network - 2) === 0x0800 ? 4 : 6;
  let transport = network + (version === 4 ? (bytes[network] & 15) * 4 : 40);
  let protocol = version === 4 ? bytes[network + 9] : bytes[network + 6];
  if (protocol === 60) {
    protocol = bytes[transport];
    transport += 8 * (bytes[transport + 1] + 1);
  }
  const tcp = protocol === 6;
  const header = tcp ? (bytes[transport + 12] >> 4) * 4 : 8;
  return { version, tcp, network, transport, checksum: transport + (tcp ? 16 : 6), payload: transport + header };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The pseudo-header's sum for everything from the transport header to the frame's end. */
function pseudo(bytes: Uint8Array): number {
  const { version, tcp, network, transport } = shape(bytes);
  const addresses =
    version === 4 ? bytes.subarray(network + 12, network + 20) : bytes.subarray(network + 8, network + 40);
  return referenceSum(addresses, bytes.length - transport + (tcp ? 6 : 17));
}

/** The frame with its checksum unfinished, as the kernel leaves it to a device: the field holds the pseudo-header's sum. */
export function setPseudo(bytes: Uint8Array): Uint8Array {
  const result = new Uint8Array(bytes); // a Buffer's slice() would be no copy
  viewOf(result).setUint16(shape(result).checksum, pseudo(result));
  return result;
}

/** What a NIC does with an unfinished checksum. Of the two zeros it stores ffff, which UDP needs and TCP may have; when it cuts TCP, 0. */
export function finish(bytes: Uint8Array, start: number, offset: number, zero = 0xffff): Uint8Array {
  const result = new Uint8Array(bytes); // a Buffer's slice() would be no copy
  assert.ok(start + offset + 2 <= result.length, 'the checksum field is within the packet');
  viewOf(result).setUint16(start + offset, 0xffff ^ referenceSum(result.subarray(start)) || zero);
  return result;
}

/** Whether the transport checksum holds; a UDP checksum of zero does. */
export function checksumHolds(bytes: Uint8Array): boolean {
  const { tcp, transport, checksum } = shape(bytes);
  if (!tcp && bytes[checksum] === 0 && bytes[checksum + 1] === 0) return true;
  return referenceSum(bytes.subarray(transport), pseudo(bytes)) === 0xffff;
}

// virtio headers: little-endian, see system/vnet.ts for the drawing.

export interface Vnet {
  readonly flags: number;
  readonly type: number;
  readonly headerLength: number;
  readonly size: number;
  readonly start: number;
  readonly offset: number;
  readonly outerTransport: number;
  readonly innerNetwork: number;
}

export function readVnet(packet: Uint8Array, tunnel: boolean): Vnet {
  const view = viewOf(packet);
  return {
    flags: packet[0],
    type: packet[1],
    headerLength: view.getUint16(2, true),
    size: view.getUint16(4, true),
    start: view.getUint16(6, true),
    offset: view.getUint16(8, true),
    outerTransport: tunnel ? view.getUint16(20, true) : 0,
    innerNetwork: tunnel ? view.getUint16(22, true) : 0,
  };
}

/** Puts a virtio header of 12 or (tunnel) 24 bytes in front of a frame. */
export function packet(bytes: Uint8Array, vnet: Partial<Vnet> = {}, tunnel = false): Uint8Array {
  const result = new Uint8Array((tunnel ? 24 : 12) + bytes.length);
  const view = viewOf(result);
  result[0] = vnet.flags ?? 0;
  result[1] = vnet.type ?? 0;
  view.setUint16(2, vnet.headerLength ?? 0, true);
  view.setUint16(4, vnet.size ?? 0, true);
  view.setUint16(6, vnet.start ?? 0, true);
  view.setUint16(8, vnet.offset ?? 0, true);
  if (tunnel) {
    view.setUint16(20, vnet.outerTransport ?? 0, true);
    view.setUint16(22, vnet.innerNetwork ?? 0, true);
  }
  result.set(bytes, result.length - bytes.length);
  return result;
}

/** A TAP's packet whose checksum is unfinished. */
export function unfinished(bytes: Uint8Array): Uint8Array {
  const { transport, checksum } = shape(bytes);
  return packet(setPseudo(bytes), { flags: 1, start: transport, offset: checksum - transport });
}

/** A TAP's super-frame, to be cut every `size` bytes of payload. */
export function superFrame(bytes: Uint8Array, size: number): Uint8Array {
  const { version, tcp, transport, checksum, payload } = shape(bytes);
  const type = tcp ? (version === 4 ? 1 : 4) : 5;
  const vnet = { flags: 1, type, headerLength: payload, size, start: transport, offset: checksum - transport };
  return packet(setPseudo(bytes), vnet);
}

/**
 * What the kernel makes of a packet on its way to a device without any offload: frames as they are on the wire, every
 * checksum finished. Fails where metadata and headers contradict each other.
 */
export function onWire(bytes: Uint8Array, tunnel = false): Uint8Array[] {
  const vnet = readVnet(bytes, tunnel);
  const rest = new Uint8Array(bytes.subarray(tunnel ? 24 : 12));
  if (vnet.type & 0x60) return cutTunnel(rest, vnet);
  if ((vnet.flags & 1) === 0) {
    assert.equal(vnet.type, 0, 'segmentation needs an unfinished checksum');
    return [rest];
  }
  return vnet.type === 0 ? [finish(rest, vnet.start, vnet.offset)] : cut(rest, vnet, vnet.type);
}

function cut(whole: Uint8Array, { start, offset, size }: Vnet, type: number): Uint8Array[] {
  const at = shape(whole);
  assert.equal(type & 0x1f, at.tcp ? (at.version === 4 ? 1 : 4) : 5, 'GSO type');
  assert.equal(start, at.transport, 'csum_start');
  assert.equal(start + offset, at.checksum, 'csum_offset');
  assert.equal(viewOf(whole).getUint16(at.checksum), pseudo(whole), "the checksum field holds the pseudo-header's sum");
  assertNetwork(whole, at);
  assert.ok(size > 0, 'gso_size');
  const segments: Uint8Array[] = [];
  for (let from = at.payload; from < whole.length; from += size) {
    const piece = whole.subarray(from, from + size);
    const bytes = new Uint8Array(Buffer.concat([whole.subarray(0, at.payload), piece]));
    const view = viewOf(bytes);
    setNetworkLength(bytes, at, segments.length);
    if (at.tcp) {
      view.setUint32(at.transport + 4, view.getUint32(at.transport + 4) + segments.length * size);
      if (segments.length > 0) bytes[at.transport + 13] &= ~CWR;
      if (from + size < whole.length) bytes[at.transport + 13] &= ~(FIN | PSH);
    } else {
      view.setUint16(at.transport + 4, 8 + piece.length);
    }
    segments.push(finish(setPseudo(bytes), at.transport, at.checksum - at.transport, at.tcp ? 0 : 0xffff));
  }
  return segments;
}

function assertNetwork(bytes: Uint8Array, { version, network, transport }: Shape): void {
  const view = viewOf(bytes);
  const length = version === 4 ? view.getUint16(network + 2) : 40 + view.getUint16(network + 4);
  assert.equal(length, bytes.length - network, 'IP length of the whole');
  if (version === 4) assert.equal(referenceSum(bytes.subarray(network, transport)), 0xffff, 'IP checksum');
}

/** Makes the IP header that of a packet which ends with `bytes`, the `index`th of its super-frame. */
function setNetworkLength(bytes: Uint8Array, { version, network, transport }: Shape, index: number): void {
  const view = viewOf(bytes);
  if (version === 6) {
    view.setUint16(network + 4, bytes.length - network - 40);
    return;
  }
  view.setUint16(network + 2, bytes.length - network);
  view.setUint16(network + 4, view.getUint16(network + 4) + index);
  view.setUint16(network + 10, 0);
  view.setUint16(network + 10, 0xffff ^ referenceSum(bytes.subarray(network, transport)));
}

function cutTunnel(whole: Uint8Array, vnet: Vnet): Uint8Array[] {
  const outer = shape(whole);
  assert.equal((vnet.type & 0x60) >> 5, outer.version === 4 ? 1 : 2, 'tunnel type');
  assert.equal(vnet.outerTransport, outer.transport, 'outer_th_offset');
  assertNetwork(whole, outer);
  const udpSum = viewOf(whole).getUint16(outer.checksum);
  assert.equal(udpSum, vnet.flags & 8 ? pseudo(whole) : 0, 'outer UDP checksum field');
  const start = outer.payload + 8; // of the inner frame
  const inner = whole.slice(start);
  assert.equal(vnet.innerNetwork - start, shape(inner).network, 'inner_nh_offset');
  assert.equal(vnet.flags & 1, 1, 'NEEDS_CSUM');
  return cut(inner, { ...vnet, start: vnet.start - start }, vnet.type & 0x1f).map((segment, i) => {
    const bytes = new Uint8Array(Buffer.concat([whole.subarray(0, start), segment]));
    setNetworkLength(bytes, outer, i);
    viewOf(bytes).setUint16(outer.transport + 4, bytes.length - outer.transport);
    return vnet.flags & 8 ? finish(setPseudo(bytes), outer.transport, 6) : bytes;
  });
}

/** A VXLAN packet on the wire, taken apart. */
export interface Encapsulated {
  /** IPv4 as usual, IPv6 as 32 hex digits. */
  readonly destination: string;
  readonly sourcePort: number;
  readonly id: number;
  readonly vni: number;
  readonly inner: Uint8Array;
}

/** Takes a frame from the wire apart, and fails when any outer field is not right. */
export function decapsulate(bytes: Uint8Array, port: number): Encapsulated {
  const view = viewOf(bytes);
  const outer = shape(bytes);
  const { version, network, transport, payload } = outer;
  assert.deepEqual([outer.tcp, network, transport], [false, 14, version === 4 ? 34 : 54]);
  assertNetwork(bytes, outer);
  assert.equal(view.getUint16(transport + 2), port, 'outer destination port');
  assert.equal(view.getUint16(transport + 4), bytes.length - transport, 'outer UDP length');
  assert.ok(checksumHolds(bytes), 'outer UDP checksum');
  assert.equal(view.getUint32(payload), 0x08000000, 'VXLAN flags');
  assert.equal(bytes[payload + 7], 0, 'reserved byte behind the VNI');
  return {
    destination: version === 4 ? bytes.subarray(30, 34).join('.') : hex(bytes.subarray(38, 54)),
    sourcePort: view.getUint16(transport),
    id: version === 4 ? view.getUint16(18) : 0,
    vni: view.getUint32(payload + 4) >>> 8,
    inner: bytes.slice(payload + 8),
  };
}

/** An outer frame to `port` that holds `vxlan`, checksum finished. */
export function outerFrame(vxlan: Uint8Array, port: number, spec: Partial<FrameSpec> = {}): Uint8Array {
  return frame({ protocol: 'udp', from: 0xb, to: 0xa, destinationPort: port, payload: vxlan, ...spec });
}

/** A VXLAN header and an inner frame. */
export function vxlan(vni: number, inner: Uint8Array): Uint8Array {
  return Uint8Array.from([8, 0, 0, 0, vni >> 16, (vni >> 8) & 0xff, vni & 0xff, 0, ...inner]);
}

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Compares lists of frames, and shows the first that differs. */
export function assertFrames(actual: readonly Uint8Array[], expected: readonly Uint8Array[], message = ''): void {
  for (let i = 0; i < Math.min(actual.length, expected.length); i++) {
    if (Buffer.compare(actual[i], expected[i]) !== 0) {
      assert.equal(hex(actual[i]), hex(expected[i]), `${message} frame ${i} of ${expected.length}`);
    }
  }
  assert.equal(actual.length, expected.length, `${message} number of frames`);
}
