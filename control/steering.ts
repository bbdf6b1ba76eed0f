/**
 * Which queue of a TAP a packet goes to. The kernel of itself learns it from the packets that come the other way
 * (tun_automq_select_queue): with the first answer a flow moves to another worker, which may be quicker than the one that still has
 * packets of the flow. A program of ours decides by the flow alone, so that a flow keeps its worker, and its order.
 */
import { HELPER_SKB_LOAD_BYTES, PROGRAM_SOCKET_FILTER } from '../system/bpf/abi.ts';
import { Assembler, type Program } from '../system/bpf/assembler.ts';
import { loadProgram } from '../system/bpf/program.ts';
import * as libc from '../system/libc.ts';
import { setSteering, type TapDevice } from '../system/tun.ts';
import { swap16 } from '../wire/bytes.ts';
import { ETHER_HEADER, ETHER_TYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../wire/ethernet.ts';
import {
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_VERSION_IHL,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_SOURCE } from '../wire/ipv6.ts';

/** Where the program has what it has read, counted from the end of its stack. */
const READ = -IPV6_HEADER;
/** 2^32 divided by the golden ratio: multiplying by it spreads neighbouring numbers (Knuth, The Art of Computer Programming, 6.4). */
const SPREAD = 0x9e3779b1 | 0;

/**
 * Steers a TAP's packets by flow; false where that is not to be had (before Linux 4.16, without CAP_BPF), and the kernel goes on by
 * itself.
 */
export function steerByFlow(tap: TapDevice): boolean {
  if (tap.queues.length < 2) return false;
  let program = -1;
  try {
    program = loadProgram(steeringProgram(), 0, PROGRAM_SOCKET_FILTER);
    setSteering(tap, program);
    return true;
  } catch (error) {
    if (error instanceof libc.SystemError) return false;
    throw error;
  } finally {
    if (program >= 0) libc.close(program);
  }
}

/**
 * A number for each flow, of which the kernel takes the remainder by the number of queues: from the addresses and, where every packet of
 * the flow has them, the ports of TCP and UDP. Fragments go by addresses, everything that is not IP by MAC addresses.
 */
export function steeringProgram(): Program {
  const program = new Assembler('uvxlan_steer');
  program.mov('r6', 'r1');
  program.mov('r7', 0);
  program.note('no Ethernet header');
  read(program, ETHER_TYPE, 2, 'end');
  program.load(16, 'r0', 'r10', READ);
  program.jumpIf('r0', '==', swap16(ETHERTYPE_IPV4), 'IPv4');
  program.jumpIf('r0', '==', swap16(ETHERTYPE_IPV6), 'IPv6');

  program.label('other');
  program.note('by MAC addresses');
  read(program, 0, ETHER_TYPE, 'end');
  mix(program, 0, ETHER_TYPE);
  program.jump('end');

  program.label('IPv4');
  program.note('by addresses');
  read(program, ETHER_HEADER, IPV4_HEADER, 'other');
  mix(program, IPV4_SOURCE, 8);
  program.note('a fragment has no ports');
  program.load(16, 'r0', 'r10', READ + IPV4_FRAGMENT);
  program.jumpIf('r0', '&', swap16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET), 'end');
  program.note('where the ports are: behind as many words as the header has');
  program.load(8, 'r8', 'r10', READ + IPV4_PROTOCOL);
  program.load(8, 'r9', 'r10', READ + IPV4_VERSION_IHL);
  program.alu('and', 'r9', 0x0f);
  program.alu('lsh', 'r9', 2);
  program.alu('add', 'r9', ETHER_HEADER);
  program.jump('ports');

  program.label('IPv6');
  program.note('by addresses');
  read(program, ETHER_HEADER, IPV6_HEADER, 'other');
  mix(program, IPV6_SOURCE, 32);
  program.load(8, 'r8', 'r10', READ + IPV6_NEXT_HEADER);
  program.mov('r9', ETHER_HEADER + IPV6_HEADER);

  program.label('ports');
  program.note('by ports');
  program.jumpIf('r8', '==', PROTOCOL_TCP, 'read ports');
  program.jumpIf('r8', '!=', PROTOCOL_UDP, 'end');
  program.label('read ports');
  read(program, 'r9', 4, 'end');
  mix(program, 0, 4);

  program.label('end');
  program.note('the upper half of the product has something of every bit');
  program.mov('r0', 'r7');
  program.alu('rsh', 'r0', 32);
  program.exit();
  return program.assemble();
}

/** Copies bytes of the packet to READ; jumps when it ends before. */
function read(program: Assembler, from: number | 'r9', length: number, otherwise: string): void {
  program.mov('r1', 'r6');
  program.mov('r2', from);
  program.mov('r3', 'r10');
  program.alu('add', 'r3', READ);
  program.mov('r4', length);
  program.call(HELPER_SKB_LOAD_BYTES);
  program.jumpIf('r0', '!=', 0, otherwise);
}

/** r7 takes in the words that were read: `length` bytes from `from` on. */
function mix(program: Assembler, from: number, length: number): void {
  for (let i = 0; i < length; i += 4) {
    program.load(32, 'r0', 'r10', READ + from + i);
    program.alu('add', 'r7', 'r0');
    program.alu('mul', 'r7', SPREAD);
  }
}
