/**
 * Which worker gets a packet. Of itself the kernel lets a TAP's queue follow the packets that come the other way
 * (tun_automq_select_queue): with its first answer a flow moves to another worker, which may overtake the one that still has packets of
 * the flow. Programs of ours decide instead:
 *
 *     from the network   by the outer flow, so that a train of packets is always the same worker's
 *     to the network     UDP by the flow alone: it stays where it is. TCP and pings, which wait for answers, follow the answers: it is
 *                        quicker (a fifth, one stream) when one worker does both ways
 */
import {
  HELPER_MAP_LOOKUP,
  HELPER_SKB_LOAD_BYTES,
  HELPER_SKB_LOAD_BYTES_RELATIVE,
  PROGRAM_SOCKET_FILTER,
  RELATIVE_TO_NETWORK,
} from '../system/bpf/abi.ts';
import { Assembler, type Program } from '../system/bpf/assembler.ts';
import { BpfMap, MAP_ARRAY } from '../system/bpf/map.ts';
import { loadProgram } from '../system/bpf/program.ts';
import * as libc from '../system/libc.ts';
import { steerSockets } from '../system/socket.ts';
import { steerTap, type TapDevice } from '../system/tun.ts';
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
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_SOURCE } from '../wire/ipv6.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6 } from '../wire/vxlan.ts';

/** Flows whose worker is remembered; two that share a place follow the same one. */
const PLACES = 65536;
/** Where programs have what they have read, what they remember, and the key of the map; counted from the end of the stack. */
const READ = -IPV6_HEADER;
const SAVED = READ - 8;
const KEY = SAVED - 8;
/** 2^32 divided by the golden ratio: multiplying by it spreads neighbouring numbers (Knuth, The Art of Computer Programming, 6.4). */
const SPREAD = 0x9e3779b1 | 0;

/** Of this process, for all its devices and uplinks: a device may change its uplink. */
let shared: Steering | undefined;

/** undefined where it is not to be had (without CAP_BPF), and the kernel goes on by itself. */
export function steering(): Steering | undefined {
  shared ??= Steering.open();
  return shared;
}

class Steering {
  /** By flow: the number whose remainder is the worker that its answers come to; 0 when there was none yet. */
  readonly #answered: BpfMap;

  private constructor() {
    this.#answered = new BpfMap({
      ...{ name: 'uvxlan_flows', type: MAP_ARRAY, keySize: 4, valueSize: 4, maxEntries: PLACES },
    });
  }

  static open(): Steering | undefined {
    try {
      return new Steering();
    } catch (error) {
      return unavailable(error);
    }
  }

  /** Steers what the host sends on a device's TAP. False where the kernel does not take it (before Linux 4.16). */
  device(tap: TapDevice): boolean {
    return tap.queues.length > 1 && attach(toNetwork(this.#answered.fd), (program) => steerTap(tap, program));
  }

  /** Steers what comes in by an uplink's TAP. */
  uplink(tap: TapDevice, family: 4 | 6): boolean {
    const program = fromNetwork(this.#answered.fd, family, tap.queues.length, 'frame');
    return tap.queues.length > 1 && attach(program, (fd) => steerTap(tap, fd));
  }

  /** Steers what comes in by sockets that share a port, one a worker (Linux 4.19). */
  sockets(sockets: readonly number[], family: 4 | 6): boolean {
    const program = fromNetwork(this.#answered.fd, family, sockets.length, 'socket');
    return sockets.length > 1 && attach(program, (fd) => steerSockets(sockets[0], fd));
  }
}

function attach(program: Program, to: (fd: number) => void): boolean {
  let fd = -1;
  try {
    fd = loadProgram(program, 0, PROGRAM_SOCKET_FILTER);
    to(fd);
    return true;
  } catch (error) {
    return unavailable(error) ?? false;
  } finally {
    if (fd >= 0) libc.close(fd);
  }
}

/** Whatever keeps the kernel from it, it steers by itself then. */
function unavailable(error: unknown): undefined {
  if (error instanceof libc.SystemError) return undefined;
  throw error;
}

/** On a device's TAP: a number for each flow, of which the kernel takes the remainder by the number of queues. */
export function toNetwork(answered: number): Program {
  const program = new Assembler('uvxlan_steer_tx');
  program.mov('r6', 'r1');
  hashFlow(program, 0, 'frame', { follows: 'follows', stays: 'stays' });
  program.label('follows');
  program.note('where its answers come to');
  findPlace(program, answered, 'stays');
  program.load(32, 'r0', 'r0', 0);
  program.jumpIf('r0', '!=', 0, 'end');
  program.label('stays');
  program.mov('r0', 'r7');
  program.label('end');
  program.exit();
  return program.assemble();
}

/** On an uplink: a number for each outer flow, and where TCP and pings are in it, a note that their answers come to it. */
export function fromNetwork(answered: number, family: 4 | 6, workers: number, from: Source): Program {
  const program = new Assembler('uvxlan_steer_rx');
  program.mov('r6', 'r1');
  hashFlow(program, 0, from, { follows: 'outer', stays: 'outer' }, 'outer ');
  program.label('outer');
  program.store(64, 'r10', SAVED, 'r7');
  const inner = family === 4 ? OUTER_LENGTH_IPV4 : OUTER_LENGTH_IPV6;
  hashFlow(program, inner, from, { follows: 'follows', stays: 'end' }, 'inner ');
  program.label('follows');
  program.note('the answers to its packets go on coming to this worker');
  findPlace(program, answered, 'end');
  program.load(64, 'r1', 'r10', SAVED);
  program.load(32, 'r2', 'r0', 0);
  program.jumpIf('r1', '==', 'r2', 'end');
  program.store(32, 'r0', 0, 'r1');
  program.label('end');
  program.load(64, 'r0', 'r10', SAVED);
  // A TAP takes the remainder itself, sockets want the number of one of them.
  program.alu('mod', 'r0', workers);
  program.exit();
  return program.assemble();
}

/** What programs see: a frame from its Ethernet header on, or what is for a socket, from its IP header on. */
type Source = 'frame' | 'socket';

/**
 * r7 = a 32-bit number for the flow of the frame at `at`, the same for both directions: from the addresses and, where every packet of
 * the flow has them, the ports of TCP and UDP. Fragments go by addresses, what is not IP by MAC addresses. Jumps to `follows` for TCP
 * and ICMP, to `stays` for everything else.
 */
function hashFlow(
  program: Assembler,
  at: number,
  from: Source,
  { follows, stays }: { follows: string; stays: string },
  prefix = '',
): void {
  const label = (name: string) => `${prefix}${name}`;
  const read = (offset: number | 'r9', length: number, otherwise: string) =>
    readBytes(program, from, offset, length, otherwise);
  program.mov('r7', 0);
  if (from === 'socket' && at === 0) {
    program.note('which IP, says its first byte');
    read(ETHER_HEADER, 1, stays);
    program.load(8, 'r0', 'r10', READ);
    program.alu('rsh', 'r0', 4);
    program.jumpIf('r0', '==', 6, label('IPv6'));
    program.jump(label('IPv4'));
  } else {
    program.note('no Ethernet header');
    read(at + ETHER_TYPE, 2, stays);
    program.load(16, 'r0', 'r10', READ);
    program.jumpIf('r0', '==', swap16(ETHERTYPE_IPV4), label('IPv4'));
    program.jumpIf('r0', '==', swap16(ETHERTYPE_IPV6), label('IPv6'));
  }

  program.label(label('other'));
  program.note('by MAC addresses');
  read(at, ETHER_TYPE, stays);
  mix(program, 0, 0);
  mix(program, 4, 4);
  mix(program, 8, 8);
  finish(program);
  program.jump(stays);

  program.label(label('IPv4'));
  program.note('by addresses');
  read(at + ETHER_HEADER, IPV4_HEADER, label('other'));
  mix(program, IPV4_SOURCE, IPV4_SOURCE + 4);
  program.note('where ports are: behind as many words as the header has');
  program.load(8, 'r8', 'r10', READ + IPV4_PROTOCOL);
  program.load(8, 'r9', 'r10', READ + IPV4_VERSION_IHL);
  program.alu('and', 'r9', 0x0f);
  program.alu('lsh', 'r9', 2);
  program.alu('add', 'r9', at + ETHER_HEADER);
  program.note('a fragment has none');
  program.load(16, 'r0', 'r10', READ + IPV4_FRAGMENT);
  program.jumpIf('r0', '&', swap16(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET), label('addresses'));
  program.jump(label('ports'));

  program.label(label('IPv6'));
  program.note('by addresses');
  read(at + ETHER_HEADER, IPV6_HEADER, label('other'));
  for (let i = 0; i < 16; i += 4) mix(program, IPV6_SOURCE + i, IPV6_SOURCE + 16 + i);
  program.load(8, 'r8', 'r10', READ + IPV6_NEXT_HEADER);
  program.mov('r9', at + ETHER_HEADER + IPV6_HEADER);

  program.label(label('ports'));
  program.note('by ports');
  program.jumpIf('r8', '==', PROTOCOL_TCP, label('read ports'));
  program.jumpIf('r8', '!=', PROTOCOL_UDP, label('no ports'));
  program.label(label('read ports'));
  read('r9', 4, label('addresses'));
  program.load(16, 'r0', 'r10', READ);
  program.load(16, 'r1', 'r10', READ + 2);
  program.alu('add', 'r0', 'r1');
  program.alu('add', 'r7', 'r0');
  program.alu('mul', 'r7', SPREAD);
  program.label(label('no ports'));
  finish(program);
  program.jumpIf('r8', '==', PROTOCOL_TCP, follows);
  program.jumpIf('r8', '==', PROTOCOL_ICMP, follows);
  program.jumpIf('r8', '==', PROTOCOL_ICMPV6, follows);
  program.jump(stays);
  program.label(label('addresses'));
  finish(program);
  program.jump(stays);
}

/** Copies bytes of the packet to READ; jumps when it ends before. Offsets count from an Ethernet header, whether there is one or not. */
function readBytes(program: Assembler, from: Source, offset: number | 'r9', length: number, otherwise: string): void {
  program.mov('r1', 'r6');
  program.mov('r2', offset);
  program.mov('r3', 'r10');
  program.alu('add', 'r3', READ);
  program.mov('r4', length);
  if (from === 'socket') {
    program.alu('sub', 'r2', ETHER_HEADER);
    program.mov('r5', RELATIVE_TO_NETWORK);
  }
  program.call(from === 'socket' ? HELPER_SKB_LOAD_BYTES_RELATIVE : HELPER_SKB_LOAD_BYTES);
  program.jumpIf('r0', '!=', 0, otherwise);
}

/** r7 takes in the sum of two words that were read, a source's and a destination's. */
function mix(program: Assembler, source: number, destination: number): void {
  program.load(32, 'r0', 'r10', READ + source);
  program.load(32, 'r1', 'r10', READ + destination);
  program.alu('add', 'r0', 'r1');
  program.alu('add', 'r7', 'r0');
  program.alu('mul', 'r7', SPREAD);
}

/** The upper half of the product has something of every bit. */
function finish(program: Assembler): void {
  program.alu('rsh', 'r7', 32);
}

/** r0 = the address of what is remembered for the flow r7; jumps to `otherwise` where there is no place, which cannot be. */
function findPlace(program: Assembler, answered: number, otherwise: string): void {
  program.mov('r1', 'r7');
  program.alu('and', 'r1', PLACES - 1);
  program.store(32, 'r10', KEY, 'r1');
  program.loadMap('r1', answered);
  program.mov('r2', 'r10');
  program.alu('add', 'r2', KEY);
  program.call(HELPER_MAP_LOOKUP);
  program.jumpIf('r0', '==', 0, otherwise);
}
