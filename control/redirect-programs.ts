/** The redirect uplink's two eBPF programs. Addresses, port and devices are constants in them: an uplink has its own. */
import {
  HELPER_REDIRECT,
  HELPER_SKB_LOAD_BYTES,
  PACKET_OTHERHOST,
  SKB_PACKET_TYPE,
  SKB_PROTOCOL,
  SKB_VLAN_PRESENT,
  TCX_NEXT,
} from '../system/bpf/abi.ts';
import { Assembler, type Program } from '../system/bpf/assembler.ts';
import { parseIp } from '../wire/address.ts';
import { swap16 } from '../wire/bytes.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../wire/ethernet.ts';
import {
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_VERSION_IHL,
  PROTOCOL_UDP,
} from '../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_VERSION } from '../wire/ipv6.ts';
import { UDP_DESTINATION, UDP_HEADER } from '../wire/udp.ts';

/** Where the program has the outer IP and UDP headers on its stack, counted from its end: the IP header's first byte. */
export const IP = -(IPV6_HEADER + UDP_HEADER);

/** On the uplink TAP's ingress: everything leaves through the NIC, numbered `nic`. */
export function sendProgram(nic: number): Program {
  const program = new Assembler('uvxlan_send');
  redirect(program, nic);
  return program.assemble();
}

/**
 * On the NIC's ingress: what the uplink can take as it is goes to the uplink TAP, numbered `uplink`. That is UDP to our address
 * and port, without IP options or extension headers, not a fragment. Everything else is left to others' programs and the stack.
 */
export function receiveProgram(uplink: number, local: string, port: number): Program {
  const program = new Assembler('uvxlan_receive');
  program.mov('r6', 'r1');
  matchTunnel(program, local, port);
  redirect(program, uplink);
  program.label('next');
  program.note('not ours');
  program.mov('r0', TCX_NEXT);
  program.exit();
  return program.assemble();
}

/** Goes on, with the outer headers on the stack, for what receiveProgram() takes; to the label `next` for all else. r6: the packet. */
export function matchTunnel(program: Assembler, local: string, port: number): void {
  const address = parseIp(local);
  if (address === undefined) throw new Error(`${local} is not an IP address`);
  program.note("for another host's MAC address: the stack would drop it");
  program.load(32, 'r0', 'r6', SKB_PACKET_TYPE);
  program.jumpIf('r0', '==', PACKET_OTHERHOST, 'next');
  program.note('of a VLAN: not for the address on this device');
  program.load(32, 'r0', 'r6', SKB_VLAN_PRESENT);
  program.jumpIf('r0', '!=', 0, 'next');
  if (address.length === 4) matchIpv4(program, address, port);
  else matchIpv6(program, address, port);
}

/** RFC 791, 3.1. */
function matchIpv4(program: Assembler, address: Uint8Array, port: number): void {
  loadHeaders(program, ETHERTYPE_IPV4, IPV4_HEADER + UDP_HEADER);
  program.note('version 4, and 20 bytes of header: no options');
  program.load(8, 'r0', 'r10', IP + IPV4_VERSION_IHL);
  program.jumpIf('r0', '!=', 0x45, 'next');
  program.note('a fragment');
  program.load(16, 'r0', 'r10', IP + IPV4_FRAGMENT);
  program.jumpIf('r0', '&', swap16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET), 'next');
  program.load(8, 'r0', 'r10', IP + IPV4_PROTOCOL);
  program.jumpIf('r0', '!=', PROTOCOL_UDP, 'next');
  matchDestination(program, address, IP + IPV4_DESTINATION, port, IP + IPV4_HEADER + UDP_DESTINATION);
}

/** RFC 8200, 3. */
function matchIpv6(program: Assembler, address: Uint8Array, port: number): void {
  loadHeaders(program, ETHERTYPE_IPV6, IPV6_HEADER + UDP_HEADER);
  program.note('version 6');
  program.load(8, 'r0', 'r10', IP + IPV6_VERSION);
  program.alu('rsh', 'r0', 4);
  program.jumpIf('r0', '!=', 6, 'next');
  program.note('UDP at once: no extension headers');
  program.load(8, 'r0', 'r10', IP + IPV6_NEXT_HEADER);
  program.jumpIf('r0', '!=', PROTOCOL_UDP, 'next');
  matchDestination(program, address, IP + IPV6_DESTINATION, port, IP + IPV6_HEADER + UDP_DESTINATION);
}

/**
 * Copies the IP and UDP headers to the stack, wherever the packet has them: those of a super-frame may lie outside of the linear
 * area that a program can read.
 */
function loadHeaders(program: Assembler, ethertype: number, length: number): void {
  program.note('another network protocol');
  program.load(32, 'r0', 'r6', SKB_PROTOCOL);
  program.jumpIf('r0', '!=', swap16(ethertype), 'next');
  program.note('a packet that ends in its headers');
  program.mov('r1', 'r6');
  program.mov('r2', ETHER_HEADER);
  program.mov('r3', 'r10');
  program.alu('add', 'r3', IP);
  program.mov('r4', length);
  program.call(HELPER_SKB_LOAD_BYTES);
  program.jumpIf('r0', '!=', 0, 'next');
}

/** Numbers that the wire has big-endian are compared as the host, little-endian, reads them. */
function matchDestination(program: Assembler, address: Uint8Array, at: number, port: number, portAt: number): void {
  program.note('another port');
  program.load(16, 'r0', 'r10', portAt);
  program.jumpIf('r0', '!=', swap16(port), 'next');
  program.note('another address');
  const view = new DataView(address.buffer, address.byteOffset);
  for (let i = 0; i < address.length; i += 4) {
    program.load(32, 'r0', 'r10', at + i);
    program.jumpIf32('r0', '!=', view.getUint32(i, true), 'next');
  }
}

function redirect(program: Assembler, ifindex: number): void {
  program.note(`leaves through device ${ifindex}`);
  program.mov('r1', ifindex);
  program.mov('r2', 0);
  program.call(HELPER_REDIRECT);
  program.exit();
}
