/**
 * On the egress of a device's TAP: frames of TCP, UDP and the like to a known unicast MAC leave through the NIC, encapsulated as the
 * workers do it. Everything else goes on to the TAP, and so to them. What a device is set to is constants in its program.
 */
import {
  HELPER_RANDOM,
  HELPER_SKB_ADJUST_ROOM,
  ROOM_ENCAP_ETHERNET,
  ROOM_ENCAP_IPV4,
  ROOM_ENCAP_IPV6,
  ROOM_ENCAP_UDP,
  ROOM_FIXED_GSO,
  ROOM_MAC,
  SKB_GSO_SIZE,
  SKB_LENGTH,
  SKB_PROTOCOL,
  SKB_VLAN_PRESENT,
} from '../../system/bpf/abi.ts';
import { Assembler, type Program } from '../../system/bpf/assembler.ts';
import { swap16 } from '../../wire/bytes.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../wire/ethernet.ts';
import {
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL_LENGTH,
  IPV4_VERSION_IHL,
  PROTOCOL_ICMPV6,
  PROTOCOL_SCTP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE, IPV6_VERSION } from '../../wire/ipv6.ts';
import { TCP_DATA_OFFSET } from '../../wire/tcp.ts';
import { UDP_HEADER, UDP_LENGTH, UDP_SOURCE } from '../../wire/udp.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6 } from '../../wire/vxlan.ts';
import { count, endings, fold, loadBytes, lookUp, redirect, stamp, storeHeaders } from './steps.ts';
import {
  COUNT_TX_BYTES,
  COUNT_TX_LOST,
  COUNT_TX_PACKETS,
  FDB_KEY_DEVICE,
  FDB_NEXT_HOP,
  FDB_USED,
  HOP_HEADERS,
  HOP_IP_SUM,
  HOP_MTU,
  HOP_NIC,
  type OffloadMaps,
} from './tables.ts';

export interface EncapOptions {
  /** The device's number. */
  readonly device: number;
  /** Of the outer packets. */
  readonly family: 4 | 6;
  /** Outer source ports, from the first to before the second. */
  readonly sourcePorts: readonly [number, number];
}

// The stack, counted from its end. Headers begin at 2 mod 8, so that the outer IP header is aligned.
const KEY = -8;
const HEADERS = -94;
const DEVICE = -100;
const HOP = -104;
const PORTS = -108;
const DATA_OFFSET = -109;
const PROTOCOL = -110;
const TRAFFIC_CLASS = -111;
const IP = -152;

const MAX_IP_LENGTH = 65535;

// The numbers of wire/flow.ts, which has them in place for speed; a test holds the two together.
const FLOW_FACTOR = 0x9e3779b1;
const FLOW_SHIFT = 15;
const FINISH_FACTORS = [0x85ebca6b, 0xc2b2ae35] as const;
const FINISH_SHIFTS = [16, 13, 16] as const;

export function encapProgram(maps: OffloadMaps, { device, family, sourcePorts }: EncapOptions): Program {
  const p = new Assembler('uvxlan_encap');
  const outer = family === 4 ? OUTER_LENGTH_IPV4 : OUTER_LENGTH_IPV6;
  p.mov('r6', 'r1');
  p.store(32, 'r10', DEVICE, device);
  p.note('a VLAN tag');
  p.load(32, 'r0', 'r6', SKB_VLAN_PRESENT);
  p.jumpIf('r0', '!=', 0, 'next');
  findNextHop(p, maps, device, HEADERS + outer);
  p.note('another network protocol than IP');
  p.load(32, 'r1', 'r6', SKB_PROTOCOL);
  p.jumpIf('r1', '==', swap16(ETHERTYPE_IPV4), 'ipv4');
  p.jumpIf('r1', '!=', swap16(ETHERTYPE_IPV6), 'next');
  hashIpv6(p);
  p.label('ipv4');
  hashIpv4(p);
  p.label('ports');
  hashPorts(p);
  p.label('hashed');
  finishHash(p, sourcePorts);
  checkSize(p, outer);
  writeHeaders(p, family);
  p.note('room for them');
  p.mov('r1', 'r6');
  p.mov('r2', outer);
  p.mov('r3', ROOM_MAC);
  const ip = family === 4 ? ROOM_ENCAP_IPV4 : ROOM_ENCAP_IPV6;
  p.loadImmediate64('r4', ROOM_FIXED_GSO | ip | ROOM_ENCAP_UDP | ROOM_ENCAP_ETHERNET);
  p.call(HELPER_SKB_ADJUST_ROOM);
  p.jumpIf('r0', '!=', 0, 'next');
  storeHeaders(p, HEADERS, outer + ETHER_HEADER);
  p.load(32, 'r9', 'r6', SKB_LENGTH);
  p.alu('sub', 'r9', outer);
  count(p, maps.counters, DEVICE, COUNT_TX_PACKETS, COUNT_TX_BYTES, 'r9');
  p.load(32, 'r9', 'r8', HOP_NIC);
  redirect(p, 'r9', 0);
  endings(p, maps.counters, DEVICE, COUNT_TX_LOST);
  return p.assemble();
}

/** r8 = the next hop of the destination MAC. The Ethernet header is put on the stack at `ethernet`. */
function findNextHop(p: Assembler, maps: OffloadMaps, device: number, ethernet: number): void {
  p.note('shorter than an Ethernet header');
  loadBytes(p, 0, ethernet, ETHER_HEADER);
  p.note('broadcast or multicast');
  p.load(8, 'r1', 'r10', ethernet);
  p.jumpIf('r1', '&', 1, 'next');
  p.load(32, 'r1', 'r10', ethernet);
  p.load(16, 'r2', 'r10', ethernet + 4);
  p.store(32, 'r10', KEY, 'r1');
  p.store(16, 'r10', KEY + 4, 'r2');
  p.store(16, 'r10', KEY + FDB_KEY_DEVICE, device);
  p.note('no entry of its own');
  lookUp(p, maps.fdb, KEY, 'r7');
  p.load(32, 'r1', 'r7', FDB_NEXT_HOP);
  p.store(32, 'r10', HOP, 'r1');
  lookUp(p, maps.nextHops, HOP, 'r8');
  p.note('a next hop that the workers have to send to');
  p.load(32, 'r1', 'r8', HOP_NIC);
  p.jumpIf('r1', '==', 0, 'next');
  stamp(p, 'r7', FDB_USED, 'used');
}

/** As hashIpv4() of wire/flow.ts. r7 = the hash; r9 = offset of the transport header. */
function hashIpv4(p: Assembler): void {
  p.note('IPv4, cut off or of another version');
  loadBytes(p, ETHER_HEADER, IP, IPV4_HEADER);
  p.load(8, 'r9', 'r10', IP + IPV4_VERSION_IHL);
  p.mov('r1', 'r9');
  p.alu('rsh', 'r1', 4);
  p.jumpIf('r1', '!=', 4, 'next');
  p.alu('and', 'r9', 15);
  p.alu('lsh', 'r9', 2);
  p.jumpIf('r9', '<', IPV4_HEADER, 'next');
  p.alu('add', 'r9', ETHER_HEADER);
  p.load(32, 'r1', 'r6', SKB_LENGTH);
  p.jumpIf('r9', '>', 'r1', 'next');
  p.load(8, 'r1', 'r10', IP + IPV4_TOS);
  p.store(8, 'r10', TRAFFIC_CLASS, 'r1');
  p.load(8, 'r1', 'r10', IP + IPV4_PROTOCOL);
  p.store(8, 'r10', PROTOCOL, 'r1');
  p.note("the flow's hash");
  p.mov32('r7', 0);
  mixWord(p, IP + IPV4_SOURCE);
  mixWord(p, IP + IPV4_DESTINATION);
  p.load(16, 'r1', 'r10', IP + IPV4_FRAGMENT);
  p.jumpIf('r1', '&', swap16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET), 'hashed');
}

/** As hashIpv6() of wire/flow.ts; packets with extension headers are left to the workers. */
function hashIpv6(p: Assembler): void {
  p.note('IPv6, cut off or of another version');
  loadBytes(p, ETHER_HEADER, IP, IPV6_HEADER);
  p.load(16, 'r1', 'r10', IP + IPV6_VERSION);
  p.toBigEndian(16, 'r1');
  p.mov('r2', 'r1');
  p.alu('rsh', 'r2', 12);
  p.jumpIf('r2', '!=', 6, 'next');
  p.alu('rsh', 'r1', 4);
  p.store(8, 'r10', TRAFFIC_CLASS, 'r1');
  p.note('something else behind the IPv6 header');
  p.load(8, 'r1', 'r10', IP + IPV6_NEXT_HEADER);
  p.store(8, 'r10', PROTOCOL, 'r1');
  for (const protocol of [PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_ICMPV6]) p.jumpIf('r1', '==', protocol, 'transport');
  p.jumpIf('r1', '!=', PROTOCOL_SCTP, 'next');
  p.label('transport');
  p.note("the flow's hash");
  p.mov('r9', ETHER_HEADER + IPV6_HEADER);
  p.mov32('r7', 0);
  for (let word = IPV6_SOURCE; word < IPV6_HEADER; word += 4) mixWord(p, IP + word);
  p.jump('ports');
}

function hashPorts(p: Assembler): void {
  p.load(8, 'r1', 'r10', PROTOCOL);
  mix(p);
  p.load(8, 'r1', 'r10', PROTOCOL);
  for (const protocol of [PROTOCOL_TCP, PROTOCOL_UDP]) p.jumpIf('r1', '==', protocol, 'with ports');
  p.jumpIf('r1', '!=', PROTOCOL_SCTP, 'hashed');
  p.label('with ports');
  loadBytes(p, 'r9', PORTS, 4, 'hashed');
  mixWord(p, PORTS);
}

/** Mixes the big-endian word at a place on the stack into the hash. */
function mixWord(p: Assembler, at: number): void {
  p.load(32, 'r1', 'r10', at);
  p.toBigEndian(32, 'r1');
  mix(p);
}

/** Mixes r1 into r7: mix() of wire/flow.ts. */
function mix(p: Assembler): void {
  p.alu32('xor', 'r7', 'r1');
  p.alu32('mul', 'r7', FLOW_FACTOR);
  xorShifted(p, FLOW_SHIFT);
}

/** r7 = the source port: finish() and sourcePort() of wire/flow.ts. */
function finishHash(p: Assembler, [first, end]: readonly [number, number]): void {
  for (const [i, factor] of FINISH_FACTORS.entries()) {
    xorShifted(p, FINISH_SHIFTS[i]);
    p.alu32('mul', 'r7', factor);
  }
  xorShifted(p, FINISH_SHIFTS[2]);
  p.note('the source port');
  p.mov32('r1', 'r7');
  p.alu32('lsh', 'r1', 16);
  p.alu32('xor', 'r7', 'r1');
  p.alu('mul', 'r7', end - first);
  p.alu('rsh', 'r7', 32);
  p.alu('add', 'r7', first);
}

function xorShifted(p: Assembler, bits: number): void {
  p.mov32('r1', 'r7');
  p.alu32('rsh', 'r1', bits);
  p.alu32('xor', 'r7', 'r1');
}

/** Packets, and super-frames' segments, that do not fit the path are the workers' to answer or to have fragmented. */
function checkSize(p: Assembler, outer: number): void {
  p.load(32, 'r1', 'r6', SKB_LENGTH);
  p.load(32, 'r3', 'r6', SKB_GSO_SIZE);
  p.load(32, 'r4', 'r8', HOP_MTU);
  p.jumpIf('r3', '==', 0, 'sized');
  p.note('a super-frame that is too long with its headers, or of another kind than TCP and UDP');
  p.jumpIf('r1', '>', MAX_IP_LENGTH + ETHER_HEADER - outer, 'next');
  p.load(8, 'r5', 'r10', PROTOCOL);
  p.mov('r1', UDP_HEADER);
  p.jumpIf('r5', '==', PROTOCOL_UDP, 'headers');
  p.jumpIf('r5', '!=', PROTOCOL_TCP, 'next');
  p.mov('r5', 'r9');
  p.alu('add', 'r5', TCP_DATA_OFFSET);
  loadBytes(p, 'r5', DATA_OFFSET, 1);
  p.load(8, 'r1', 'r10', DATA_OFFSET);
  p.alu('rsh', 'r1', 4);
  p.alu('lsh', 'r1', 2);
  p.load(32, 'r3', 'r6', SKB_GSO_SIZE);
  p.load(32, 'r4', 'r8', HOP_MTU);
  p.label('headers');
  p.alu('add', 'r1', 'r9');
  p.alu('add', 'r1', 'r3');
  p.label('sized');
  p.note('does not fit the path');
  p.alu('add', 'r1', outer - ETHER_HEADER);
  p.jumpIf('r1', '>', 'r4', 'next');
}

/** The next hop's headers, with what depends on the frame: its length, ECN (RFC 6040), an id and the checksum, the source port. */
function writeHeaders(p: Assembler, family: 4 | 6): void {
  const ip = HEADERS + ETHER_HEADER;
  const udp = ip + (family === 4 ? IPV4_HEADER : IPV6_HEADER);
  copyHeaders(p, family === 4 ? OUTER_LENGTH_IPV4 : OUTER_LENGTH_IPV6);
  if (family === 4) {
    p.note('IPv4 id');
    p.call(HELPER_RANDOM);
    p.store(16, 'r10', ip + IPV4_ID, 'r0');
    p.alu('and', 'r0', 0xffff);
  }
  p.note('ECN');
  p.load(8, 'r1', 'r10', TRAFFIC_CLASS);
  p.alu('and', 'r1', 3);
  p.jumpIf('r1', '!=', 3, 'marked');
  p.mov('r1', 2);
  p.label('marked');
  p.load(32, 'r2', 'r6', SKB_LENGTH);
  p.alu('add', 'r2', UDP_HEADER + 8);
  if (family === 4) writeIpv4(p, ip);
  else writeIpv6(p, ip);
  p.toBigEndian(16, 'r2');
  p.store(16, 'r10', udp + UDP_LENGTH, 'r2');
  p.toBigEndian(16, 'r7');
  p.store(16, 'r10', udp + UDP_SOURCE, 'r7');
}

/** r0: id; r1: ECN; r2: UDP length, kept. */
function writeIpv4(p: Assembler, ip: number): void {
  p.note('IPv4 length and checksum');
  p.load(8, 'r3', 'r10', ip + IPV4_TOS);
  p.alu('or', 'r3', 'r1');
  p.store(8, 'r10', ip + IPV4_TOS, 'r3');
  // TOS is the second byte: the upper half of a little-endian word.
  p.alu('lsh', 'r1', 8);
  p.alu('add', 'r0', 'r1');
  p.mov('r3', 'r2');
  p.alu('add', 'r3', IPV4_HEADER);
  p.toBigEndian(16, 'r3');
  p.store(16, 'r10', ip + IPV4_TOTAL_LENGTH, 'r3');
  p.alu('add', 'r0', 'r3');
  p.load(32, 'r3', 'r8', HOP_IP_SUM);
  p.alu('add', 'r0', 'r3');
  fold(p, 'r0');
  p.alu('xor', 'r0', 0xffff);
  p.store(16, 'r10', ip + IPV4_CHECKSUM, 'r0');
}

/** r1: ECN, whose bits are the upper half of the second byte's; r2: UDP length, kept. */
function writeIpv6(p: Assembler, ip: number): void {
  p.note('IPv6 length');
  p.alu('lsh', 'r1', 4);
  p.load(8, 'r3', 'r10', ip + IPV6_VERSION + 1);
  p.alu('or', 'r3', 'r1');
  p.store(8, 'r10', ip + IPV6_VERSION + 1, 'r3');
  p.mov('r3', 'r2');
  p.toBigEndian(16, 'r3');
  p.store(16, 'r10', ip + IPV6_PAYLOAD_LENGTH, 'r3');
}

function copyHeaders(p: Assembler, length: number): void {
  p.note("the next hop's headers");
  const copy = (bits: 16 | 32 | 64, at: number): void => {
    p.load(bits, 'r1', 'r8', HOP_HEADERS + at);
    p.store(bits, 'r10', HEADERS + at, 'r1');
  };
  copy(16, 0);
  copy(32, 2);
  let at = 6;
  for (; at + 8 <= length; at += 8) copy(64, at);
  if (at < length) copy(32, at);
}
