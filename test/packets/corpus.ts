/**
 * Packets of every kind that is taken apart, and broken ones: the same ones every time. Built byte by byte, without code of
 * packets/ or wire/.
 */
import {
  ACK,
  CWR,
  FIN,
  type FrameSpec,
  frame,
  mac,
  outerFrame,
  PSH,
  payload,
  referenceSum,
  SYN,
  vxlan,
} from '../dataplane/packet.ts';

export interface Sample {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const be16 = (value: number): number[] => [(value >> 8) & 0xff, value & 0xff];
const be32 = (value: number): number[] => [...be16(value >>> 16), ...be16(value & 0xffff)];
const ipv6 = (first: number, last: number): number[] => [...be16(first), ...Array(13).fill(0), last];

/** An Ethernet frame of any type. */
export function ethernet(type: number, body: Iterable<number>, to = mac(2)): Uint8Array {
  return Uint8Array.from([...to, ...mac(1), ...be16(type), ...body]);
}

export interface Ipv4Spec {
  readonly protocol: number;
  readonly options?: readonly number[];
  /** Flags and offset. */
  readonly fragment?: number;
  readonly id?: number;
  readonly ttl?: number;
}

export function ipv4(spec: Ipv4Spec, body: Uint8Array): Uint8Array {
  const { protocol, options = [], fragment = 0, id = 7, ttl = 64 } = spec;
  const length = 20 + options.length;
  const header = [0x40 | (length / 4), 0, ...be16(length + body.length), ...be16(id), ...be16(fragment), ttl, protocol];
  const bytes = Buffer.from([...header, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, ...options]);
  bytes.writeUInt16BE(0xffff ^ referenceSum(bytes), 10);
  return ethernet(0x0800, Buffer.concat([bytes, body]));
}

/** `chain`: extension headers as they are; the first is of the protocol `next`. */
export function ipv6Frame(
  next: number,
  chain: readonly number[],
  body: Uint8Array,
  source = ipv6(0xfe80, 1),
): Uint8Array {
  const header = [0x6a, 0xb1, 0x23, 0x45, ...be16(chain.length + body.length), next, 255];
  return ethernet(0x86dd, [...header, ...source, ...ipv6(0xff02, 2), ...chain, ...body], [0x33, 0x33, 0, 0, 0, 2]);
}

function checksummed(bytes: Uint8Array, initial = 0): Uint8Array {
  const result = Buffer.from(bytes);
  result.writeUInt16BE(0xffff ^ referenceSum(result, initial), 2);
  return result;
}

export function icmp(type: number, code: number, rest: readonly number[], body: Uint8Array): Uint8Array {
  return ipv4({ protocol: 1 }, checksummed(Uint8Array.from([type, code, 0, 0, ...rest, ...body])));
}

export function icmpv6(type: number, code: number, body: readonly number[]): Uint8Array {
  const bytes = [type, code, 0, 0, ...body];
  const pseudo = [...ipv6(0xfe80, 1), ...ipv6(0xff02, 2), ...be32(bytes.length), ...be32(58)];
  return ipv6Frame(58, [], checksummed(Uint8Array.from(bytes), referenceSum(Uint8Array.from(pseudo))));
}

export function arp(operation: number): Uint8Array {
  return ethernet(0x0806, [
    ...[...be16(1), ...be16(0x0800), 6, 4, ...be16(operation)],
    ...[...mac(1), 10, 0, 0, 1, ...mac(2), 10, 0, 0, 2],
    ...new Array(18).fill(0), // Ethernet's smallest frame
  ]);
}

const udp = (length: number): Uint8Array => Uint8Array.from([...be16(4001), ...be16(4002), ...be16(8 + length), 0, 0]);
const datagram = (length: number): Uint8Array => Buffer.concat([udp(length), payload(length)]);

const TCP_OPTIONS: Record<string, number[]> = {
  syn: [2, 4, 5, 180, 4, 2, 8, 10, ...be32(1000), ...be32(0), 1, 3, 3, 7],
  timestamps: [1, 1, 8, 10, ...be32(0x81234567), ...be32(99)],
  sack: [1, 1, 5, 18, ...be32(100), ...be32(200), ...be32(300), ...be32(0xfffffff0)],
  end: [3, 3, 14, 0],
};

const ROUTER_ADVERTISEMENT = [
  ...[64, 0xc0, ...be16(1800), ...be32(30000), ...be32(1000)],
  ...[1, 1, ...mac(1)],
  ...[5, 1, 0, 0, ...be32(1450)],
  ...[3, 4, 64, 0xc0, ...be32(86400), ...be32(14400), ...be32(0), ...ipv6(0xfd00, 0)],
];

/** Frames as hosts send them. */
function frames(): Sample[] {
  const samples: Sample[] = [];
  const add = (name: string, bytes: Uint8Array): void => void samples.push({ name, bytes });
  const spec = (name: string, fields: Partial<FrameSpec>): void =>
    add(name, frame({ payload: payload(11), ...fields }));
  for (const version of [4, 6] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const tags of [[], [5], [0x6064], [0xfff, 0x1002]]) {
        spec(`${protocol} over IPv${version}, ${tags.length} tags`, { version, protocol, tags });
      }
      spec(`${protocol} ${version} tos`, { version, protocol, tos: 0xb9, ttl: 1, id: 0xffff });
      spec(`${protocol} ${version} flow`, { version, protocol, flowLabel: 0xfedcb, dontFragment: false, tos: 0x2b });
      spec(`${protocol} ${version} no payload`, { version, protocol, payload: payload(0) });
      spec(`${protocol} ${version} long`, { version, protocol, payload: payload(1400), tos: 3 });
    }
    for (const [name, options] of Object.entries(TCP_OPTIONS)) {
      spec(`tcp options ${name} ${version}`, { version, tcpOptions: Uint8Array.from(options), flags: SYN });
    }
    for (const flags of [SYN, SYN | ACK, FIN | ACK, PSH | ACK, CWR | ACK, 0x40, 0x20, 4, 0xff]) {
      spec(`tcp flags ${flags} ${version}`, { version, flags, window: flags * 250, sequence: 0xfffffffe });
    }
    spec(`tcp reserved bits ${version}`, { version, reserved: 0xf });
  }
  spec('IPv6 destination options', { version: 6, ipOptions: Uint8Array.from([0, 0, 1, 4, 0, 0, 0, 0]) });
  for (const operation of [1, 2, 9]) add(`arp ${operation}`, arp(operation));
  add('arp, strange sizes', ethernet(0x0806, [...be16(6), ...be16(0x0800), 2, 4, ...be16(1), ...payload(12)]));
  add('echo request', icmp(8, 0, [...be16(77), ...be16(3)], payload(20)));
  add('echo reply', icmp(0, 0, [...be16(77), ...be16(3)], payload(0)));
  const quoted = frame({ protocol: 'udp', payload: payload(40) }).subarray(14, 14 + 28);
  add('fragmentation needed', icmp(3, 4, [0, 0, ...be16(1450)], quoted));
  add('port unreachable', icmp(3, 3, [0, 0, 0, 0], quoted));
  add('time exceeded', icmp(11, 0, [0, 0, 0, 0], quoted));
  add('redirect', icmp(5, 1, [10, 0, 0, 9], quoted));
  add('timestamp', icmp(13, 0, [...be16(1), ...be16(2)], payload(12)));
  add('echo request 6', icmpv6(128, 0, [...be16(77), ...be16(3), ...payload(9)]));
  add('echo reply 6', icmpv6(129, 0, [...be16(77), ...be16(4)]));
  const quoted6 = frame({ version: 6, protocol: 'udp', payload: payload(40) }).subarray(14, 14 + 60);
  add('packet too big', icmpv6(2, 0, [...be32(1430), ...quoted6]));
  add('unreachable 6', icmpv6(1, 4, [...be32(0), ...quoted6]));
  add('router solicitation', icmpv6(133, 0, [...be32(0), 1, 1, ...mac(1)]));
  add('router advertisement', icmpv6(134, 0, ROUTER_ADVERTISEMENT));
  add('neighbor solicitation', icmpv6(135, 0, [...be32(0), ...ipv6(0xfd00, 9), 1, 1, ...mac(1)]));
  add('neighbor advertisement', icmpv6(136, 0, [...be32(0xe0000000), ...ipv6(0xfd00, 9), 2, 1, ...mac(1)]));
  add('nd redirect', icmpv6(137, 0, [...be32(0), ...ipv6(0xfd00, 9), ...ipv6(0xfd00, 8)]));
  add('IPv4 options', ipv4({ protocol: 17, options: [7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0] }, datagram(8)));
  add('IPv4 end of options', ipv4({ protocol: 17, options: [1, 0, 0, 0] }, datagram(8)));
  add('first fragment', ipv4({ protocol: 17, fragment: 0x2000 }, datagram(64)));
  add('middle fragment', ipv4({ protocol: 17, fragment: 0x2009 }, payload(64)));
  add('last fragment', ipv4({ protocol: 6, fragment: 0x0011 }, payload(9)));
  add('evil bit', ipv4({ protocol: 253, fragment: 0xc000, ttl: 0 }, payload(9)));
  add('padded', Buffer.concat([ipv4({ protocol: 17 }, datagram(2)), new Uint8Array(16)]));
  const fragment = (word: number): number[] => [17, 0, ...be16(word), ...be32(0xdeadbeef)];
  add('first fragment 6', ipv6Frame(44, fragment(1), datagram(64)));
  add('middle fragment 6', ipv6Frame(44, fragment(0x49), payload(64)));
  add('atomic fragment 6', ipv6Frame(44, fragment(0), datagram(10)));
  add('hop-by-hop', ipv6Frame(0, [17, 0, 5, 2, 0, 0, 1, 0], datagram(4)));
  add('routing', ipv6Frame(43, [17, 2, 0, 0, ...be32(0), ...ipv6(0xfd00, 1)], datagram(4)));
  add('chain', ipv6Frame(0, [60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, ...fragment(1)], datagram(16)));
  add('no next header', ipv6Frame(59, [], payload(5)));
  add('unknown next header', ipv6Frame(253, [], payload(5)));
  add('unknown type', ethernet(0x88b5, payload(46)));
  add('802.3 length', ethernet(20, [0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0xb5, ...payload(38)]));
  add(
    'tag, then 802.3 length',
    ethernet(0x8100, [0, 5, ...be16(20), 0xaa, 0xaa, 3, 0, 0, 0, 0x88, 0xb5, ...payload(38)]),
  );
  return samples;
}

/** Each of them inside VXLAN, over IPv4 and IPv6 in turn. */
function encapsulated(inner: readonly Sample[]): Sample[] {
  return inner.map(({ name, bytes }, i) => {
    const version = i % 2 === 0 ? 4 : 6;
    const spec = { version, tos: i & 0xff, ttl: 1 + (i % 255), sourcePort: 32768 + i, id: i } as const;
    return { name: `VXLAN: ${name}`, bytes: outerFrame(vxlan(i * 9973, bytes), i % 3 === 0 ? 4789 : 8472, spec) };
  });
}

/** What no receiver takes, or few do. */
function broken(): Sample[] {
  const inner = frame({ payload: payload(30) });
  const whole = Buffer.from(outerFrame(vxlan(42, inner), 4789));
  const changed = (name: string, at: number, value: number): Sample => {
    const bytes = Buffer.from(whole);
    bytes[at] = value;
    return { name, bytes };
  };
  const cuts = [0, 3, 13, 14, 20, 33, 34, 38, 41, 42, 46, 49, 50, 57, 63, 64, 70, 83, 84, 95, 103, 104, 110];
  const v6 = Buffer.from(outerFrame(vxlan(42, inner), 4789, { version: 6 }));
  return [
    ...cuts.slice(1).map((length) => ({ name: `cut at ${length}`, bytes: whole.subarray(0, length) })),
    ...[30, 53, 54, 61, 66].map((length) => ({ name: `IPv6 cut at ${length}`, bytes: v6.subarray(0, length) })),
    changed('outer version 5', 14, 0x55),
    changed('outer header length 4', 14, 0x44),
    changed('outer header length 15', 14, 0x4f),
    changed('outer total length 10', 17, 10),
    changed('outer total length long', 16, 0x10),
    changed('outer checksum', 24, 0xee),
    changed('UDP length 7', 39, 7),
    changed('UDP length long', 38, 9),
    changed('UDP checksum', 40, 0x55),
    changed('VXLAN without I', 42, 0),
    changed('VXLAN all flags', 42, 0xff),
    changed('VXLAN reserved', 45, 1),
    changed('VXLAN reserved byte', 49, 0xff),
    changed('inner version', 64, 0x95),
    changed('inner TCP header length', 64 + 20 + 12, 0x10),
    changed('inner TCP header length 60', 64 + 20 + 12, 0xf0),
    ...[
      [2, 9, 1, 1],
      [5, 1, 1, 1],
      [8, 4, 0, 0],
      [1, 1, 1, 5],
    ].map((options) => ({
      name: `TCP options ${options}`,
      bytes: frame({ tcpOptions: Uint8Array.from(options), flags: SYN }),
    })),
    ...[
      [7, 0, 0, 0],
      [7, 9, 4, 0],
      [1, 1, 1, 148],
    ].map((options) => ({
      name: `IPv4 options ${options}`,
      bytes: ipv4({ protocol: 17, options }, datagram(3)),
    })),
    { name: 'ND option without length', bytes: icmpv6(135, 0, [...be32(0), ...ipv6(0xfd00, 9), 1, 0, ...mac(1)]) },
    { name: 'ND option cut off', bytes: icmpv6(135, 0, [...be32(0), ...ipv6(0xfd00, 9), 1, 2, ...mac(1)]) },
    { name: 'extension header cut off', bytes: ipv6Frame(0, [17, 9, 1, 4, 0, 0, 0, 0], new Uint8Array()) },
    { name: 'extension option', bytes: ipv6Frame(0, [17, 0, 5, 9, 0, 0, 1, 0], datagram(4)) },
    { name: 'ARP cut off', bytes: arp(1).subarray(0, 30) },
    { name: 'VLAN cut off', bytes: ethernet(0x8100, [0, 5]) },
    { name: 'group policy', bytes: policy(0x88, 0x48, 513) },
    { name: 'group policy, other bits', bytes: policy(0x88, 0xb7, 65535) },
  ];
}

/** VXLAN with a group policy. */
function policy(flags: number, bits: number, id: number): Uint8Array {
  const header = [flags, bits, ...be16(id), 0, 0, 9, 0];
  return outerFrame(Uint8Array.from([...header, ...frame({ protocol: 'udp', payload: payload(5) })]), 4789);
}

/** One byte of each encapsulated packet changed, in the headers. */
function damaged(samples: readonly Sample[]): Sample[] {
  return samples.map(({ name, bytes }, i) => {
    const at = 12 + ((i * 37) % Math.min(120, bytes.length - 12));
    const value = (bytes[at] + 1 + ((i * 89) % 255)) & 0xff;
    const changed = Uint8Array.from(bytes);
    changed[at] = value;
    return { name: `${name}, byte ${at} is ${value}`, bytes: changed };
  });
}

export function corpus(): Sample[] {
  const plain = frames();
  const carried = encapsulated(plain);
  return [...plain, ...carried, ...broken(), ...damaged(carried)];
}
