/**
 * On the ingress of the NIC, in front of the redirect uplink's own program: VXLAN packets with a unicast frame for one of the uplink's
 * devices arrive on the device's TAP, decapsulated as the workers do it. Everything else goes on, and so to them. A wrong outer UDP
 * checksum is not noticed here: RFC 7348, 5, leaves it to the receiver whether to verify it, and the inner packet has its own.
 */
import {
  HELPER_SKB_ADJUST_ROOM,
  REDIRECT_INGRESS,
  ROOM_FIXED_GSO,
  ROOM_MAC,
  SKB_GSO_SIZE,
  SKB_LENGTH,
} from '../../system/bpf/abi.ts';
import { Assembler, type Program } from '../../system/bpf/assembler.ts';
import { familyOf } from '../../wire/address.ts';
import { swap16 } from '../../wire/bytes.ts';
import {
  ETHER_DESTINATION,
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHER_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
} from '../../wire/ethernet.ts';
import { IPV4_DESTINATION, IPV4_HEADER, IPV4_SOURCE, IPV4_TOS, IPV4_TOTAL_LENGTH } from '../../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HEADER, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE, IPV6_VERSION } from '../../wire/ipv6.ts';
import { UDP_CHECKSUM, UDP_LENGTH } from '../../wire/udp.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6, VXLAN_HEADER, VXLAN_I, VXLAN_VNI } from '../../wire/vxlan.ts';
import { IP, matchTunnel } from '../redirect-programs.ts';
import { count, endings, fold, loadBytes, lookUp, redirect, stamp, storeHeaders } from './steps.ts';
import {
  ALLOW_ZERO_CHECKSUM,
  CHECK_SOURCE,
  CHECK_VTEP,
  COUNT_RX_BYTES,
  COUNT_RX_LOST,
  COUNT_RX_PACKETS,
  DEVICE_CHECKS,
  DEVICE_INDEX,
  DEVICE_MAC_HIGH,
  DEVICE_MAC_LOW,
  DEVICE_TAP,
  FDB_KEY_DEVICE,
  FDB_NEXT_HOP,
  FDB_SEEN,
  HOP_HEADERS,
  type OffloadMaps,
} from './tables.ts';

export interface DecapOptions {
  /** The uplink's address and port. */
  readonly local: string;
  readonly port: number;
  /** Descriptor of the map from VNI to device. */
  readonly devices: number;
}

// The stack, counted from its end; the outer headers are where matchTunnel() puts them.
const VXLAN = -72;
const INNER = VXLAN + VXLAN_HEADER;
const KEY = -80;
const NUMBER = -84;
const LENGTH = -86;
/** Device and address of a VTEP. */
const VTEP = -108;

export function decapProgram(maps: OffloadMaps, { local, port, devices }: DecapOptions): Program {
  const p = new Assembler('uvxlan_decap');
  const family = familyOf(local);
  const outer = family === 4 ? OUTER_LENGTH_IPV4 : OUTER_LENGTH_IPV6;
  p.mov('r6', 'r1');
  matchTunnel(p, local, port);
  if (family === 4) checkIpv4(p);
  else checkIpv6(p);
  findDevice(p, devices, outer);
  checkFrame(p);
  checkSuperFrame(p, outer);
  checkVtep(p, maps, family);
  checkSource(p, maps, family);
  p.label('trusted');
  p.note('the headers off');
  p.mov('r1', 'r6');
  p.mov('r2', -outer);
  p.mov('r3', ROOM_MAC);
  p.loadImmediate64('r4', ROOM_FIXED_GSO);
  p.call(HELPER_SKB_ADJUST_ROOM);
  p.jumpIf('r0', '!=', 0, 'next');
  storeHeaders(p, INNER, ETHER_HEADER);
  p.load(32, 'r9', 'r6', SKB_LENGTH);
  count(p, maps.counters, NUMBER, COUNT_RX_PACKETS, COUNT_RX_BYTES, 'r9');
  p.load(32, 'r9', 'r7', DEVICE_TAP);
  redirect(p, 'r9', REDIRECT_INGRESS);
  endings(p, maps.counters, NUMBER, COUNT_RX_LOST);
  return p.assemble();
}

/** r9 is the packet's length afterwards. */
function checkIpv4(p: Assembler): void {
  p.note('marked with ECN in a way that the inner header has to hear of (RFC 6040)');
  p.load(8, 'r0', 'r10', IP + IPV4_TOS);
  p.jumpIf('r0', '&', 1, 'next');
  p.note('wrong IPv4 checksum');
  p.mov('r0', 0);
  for (let word = 0; word < IPV4_HEADER; word += 4) {
    p.load(32, 'r1', 'r10', IP + word);
    p.alu('add', 'r0', 'r1');
  }
  p.mov('r1', 'r0');
  p.alu('rsh', 'r1', 32);
  p.mov32('r0', 'r0');
  p.alu('add', 'r0', 'r1');
  fold(p, 'r0');
  fold(p, 'r0');
  p.jumpIf('r0', '!=', 0xffff, 'next');
  p.note('lengths that do not agree');
  p.load(16, 'r0', 'r10', IP + IPV4_TOTAL_LENGTH);
  p.toBigEndian(16, 'r0');
  p.load(16, 'r1', 'r10', IP + IPV4_HEADER + UDP_LENGTH);
  p.toBigEndian(16, 'r1');
  p.alu('add', 'r1', IPV4_HEADER);
  p.jumpIf('r0', '!=', 'r1', 'next');
  p.load(32, 'r9', 'r6', SKB_LENGTH);
  p.alu('add', 'r0', ETHER_HEADER);
  p.jumpIf('r0', '!=', 'r9', 'next');
}

function checkIpv6(p: Assembler): void {
  p.note('marked with ECN in a way that the inner header has to hear of (RFC 6040)');
  p.load(8, 'r0', 'r10', IP + IPV6_VERSION + 1);
  p.jumpIf('r0', '&', 1 << 4, 'next');
  p.note('lengths that do not agree');
  p.load(16, 'r0', 'r10', IP + IPV6_PAYLOAD_LENGTH);
  p.toBigEndian(16, 'r0');
  p.load(16, 'r1', 'r10', IP + IPV6_HEADER + UDP_LENGTH);
  p.toBigEndian(16, 'r1');
  p.jumpIf('r0', '!=', 'r1', 'next');
  p.load(32, 'r9', 'r6', SKB_LENGTH);
  p.alu('add', 'r0', ETHER_HEADER + IPV6_HEADER);
  p.jumpIf('r0', '!=', 'r9', 'next');
}

/** r7 = the device of the VNI; r8 = what it checks. VXLAN and inner Ethernet headers are put on the stack. */
function findDevice(p: Assembler, devices: number, outer: number): void {
  p.note('cut off within the inner Ethernet header');
  loadBytes(p, outer - VXLAN_HEADER, VXLAN, VXLAN_HEADER + ETHER_HEADER);
  p.note('another flag than I, or a reserved bit');
  p.load(32, 'r0', 'r10', VXLAN);
  p.jumpIf('r0', '!=', VXLAN_I, 'next');
  p.load(32, 'r0', 'r10', VXLAN + VXLAN_VNI);
  p.store(32, 'r10', NUMBER, 'r0');
  p.note('no device that has the VNI');
  lookUp(p, devices, NUMBER, 'r7');
  p.load(32, 'r0', 'r7', DEVICE_INDEX);
  p.store(32, 'r10', NUMBER, 'r0');
  p.load(32, 'r8', 'r7', DEVICE_CHECKS);
}

function checkFrame(p: Assembler): void {
  p.note('to a multicast MAC');
  p.load(8, 'r0', 'r10', INNER + ETHER_DESTINATION);
  p.jumpIf('r0', '&', 1, 'next');
  p.note('from an invalid MAC');
  p.load(16, 'r1', 'r10', INNER + ETHER_SOURCE);
  p.load(16, 'r2', 'r10', INNER + ETHER_SOURCE + 2);
  p.load(16, 'r3', 'r10', INNER + ETHER_SOURCE + 4);
  p.jumpIf('r1', '&', 1, 'next');
  p.alu('lsh', 'r2', 16);
  p.alu('or', 'r1', 'r2');
  p.mov('r2', 'r1');
  p.alu('or', 'r2', 'r3');
  p.jumpIf('r2', '==', 0, 'next');
  p.store(32, 'r10', KEY, 'r1');
  p.store(16, 'r10', KEY + 4, 'r3');
  p.note('from our own MAC');
  p.load(32, 'r2', 'r7', DEVICE_MAC_LOW);
  p.jumpIf32('r2', '!=', 'r1', 'foreign');
  p.load(32, 'r2', 'r7', DEVICE_MAC_HIGH);
  p.jumpIf32('r2', '==', 'r3', 'next');
  p.label('foreign');
}

/**
 * A super-frame of one inner packet is taken whole; a train of VXLAN packets (UDP GRO) is not. The kernel does not tell which it
 * is, but the length of the first inner packet does. r9: length of the outer packet.
 */
function checkSuperFrame(p: Assembler, outer: number): void {
  p.load(32, 'r0', 'r6', SKB_GSO_SIZE);
  p.jumpIf('r0', '==', 0, 'whole');
  p.note('a train of packets');
  p.alu('sub', 'r9', outer + ETHER_HEADER);
  p.load(16, 'r0', 'r10', INNER + ETHER_TYPE);
  p.jumpIf('r0', '==', swap16(ETHERTYPE_IPV4), 'inner ipv4');
  p.jumpIf('r0', '!=', swap16(ETHERTYPE_IPV6), 'next');
  p.alu('sub', 'r9', IPV6_HEADER);
  loadBytes(p, outer + ETHER_HEADER + IPV6_PAYLOAD_LENGTH, LENGTH, 2);
  p.jump('inner length');
  p.label('inner ipv4');
  loadBytes(p, outer + ETHER_HEADER + IPV4_TOTAL_LENGTH, LENGTH, 2);
  p.label('inner length');
  p.load(16, 'r0', 'r10', LENGTH);
  p.toBigEndian(16, 'r0');
  p.jumpIf('r0', '!=', 'r9', 'next');
  p.label('whole');
}

/** r8: what the device checks. */
function checkVtep(p: Assembler, maps: OffloadMaps, family: 4 | 6): void {
  if (family === 6) {
    p.note('IPv6 without a UDP checksum');
    p.load(16, 'r0', 'r10', IP + IPV6_HEADER + UDP_CHECKSUM);
    p.jumpIf('r0', '!=', 0, 'summed');
    p.mov('r0', 'r8');
    p.alu('and', 'r0', ALLOW_ZERO_CHECKSUM);
    p.jumpIf('r0', '==', 0, 'next');
    p.label('summed');
  }
  p.mov('r0', 'r8');
  p.alu('and', 'r0', CHECK_VTEP);
  p.jumpIf('r0', '==', 0, 'known');
  p.note('from a VTEP that is not known');
  p.load(32, 'r0', 'r10', NUMBER);
  p.store(32, 'r10', VTEP, 'r0');
  for (let word = 0; word < 16; word += 4) {
    if (word < addressBytes(family)) {
      p.load(32, 'r0', 'r10', sourceAddress(family) + word);
      p.store(32, 'r10', VTEP + 4 + word, 'r0');
    } else {
      p.store(32, 'r10', VTEP + 4 + word, 0);
    }
  }
  lookUp(p, maps.vteps, VTEP, 'r0');
  p.label('known');
}

/** r8: what the device checks. */
function checkSource(p: Assembler, maps: OffloadMaps, family: 4 | 6): void {
  p.mov('r0', 'r8');
  p.alu('and', 'r0', CHECK_SOURCE);
  p.jumpIf('r0', '==', 0, 'trusted');
  p.note('from a MAC that has no entry');
  p.load(32, 'r0', 'r10', NUMBER);
  p.store(16, 'r10', KEY + FDB_KEY_DEVICE, 'r0');
  lookUp(p, maps.fdb, KEY, 'r9');
  p.load(32, 'r0', 'r9', FDB_NEXT_HOP);
  p.store(32, 'r10', VTEP, 'r0');
  lookUp(p, maps.nextHops, VTEP, 'r8');
  p.note('from a MAC that is said to be elsewhere');
  const ip = HOP_HEADERS + ETHER_HEADER;
  const remote = family === 4 ? ip + IPV4_DESTINATION : ip + IPV6_DESTINATION;
  for (let word = 0; word < addressBytes(family); word += 4) {
    p.load(32, 'r0', 'r10', sourceAddress(family) + word);
    p.load(32, 'r1', 'r8', remote + word);
    p.jumpIf32('r0', '!=', 'r1', 'next');
  }
  stamp(p, 'r9', FDB_SEEN, 'seen');
}

function addressBytes(family: 4 | 6): number {
  return family === 4 ? 4 : 16;
}

/** Where the outer source address is on the stack. */
function sourceAddress(family: 4 | 6): number {
  return IP + (family === 4 ? IPV4_SOURCE : IPV6_SOURCE);
}
