/**
 * Receives VXLAN packets from a UDP socket, up to 16 buffers a call. With UDP_GRO a buffer holds a train of packets; on a
 * virtual link (veth: containers, kind) it may also hold a kernel peer's super-frame whole, its inner checksum unfinished.
 */
import * as libc from '../../system/libc.ts';
import {
  AF_INET6,
  CMSG,
  CMSG_DATA,
  CMSG_LEVEL,
  MMSG_LENGTH,
  MMSGHDR,
  MSG_CONTROL,
  MSG_CONTROL_LENGTH,
  MSG_DONTWAIT,
  MSG_FLAGS,
  MSG_IOV,
  MSG_IOV_LENGTH,
  MSG_NAME,
  MSG_NAME_LENGTH,
  MSG_TRUNC,
  SOCKADDR,
  SOCKADDR_IN_ADDRESS,
  SOCKADDR_IN6_ADDRESS,
  SOL_UDP,
} from '../../system/socket.ts';
import { GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM } from '../../system/vnet.ts';
import { pseudoSum4, pseudoSum6 } from '../../wire/checksum.ts';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../../wire/ipv4.ts';
import { innerLayout, ipEnd, layoutNetwork, layoutProtocol, layoutTransport } from '../../wire/layout.ts';
import { TCP_CHECKSUM, tcpHeaderLength } from '../../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER } from '../../wire/udp.ts';
import { VXLAN_HEADER } from '../../wire/vxlan.ts';
import type { Batch } from '../batch.ts';
import { COUNTER } from '../counters.ts';
import { IOVEC, type PacketMemory } from '../memory.ts';
import { segmentsOf } from '../segment.ts';

const MESSAGES = 16;
const BUFFER = 65536 + 64;
/** Two control messages: the TOS, and UDP_GRO's segment size. */
const CONTROLS = 2 * CMSG;
/** MSS for a super-frame whose own is unknown: one that fits every path (the IPv6 minimum MTU, less headers). */
const SAFE_SEGMENT = 1220;

/** Buffers and message headers that one worker receives with; its sockets share them, since a batch is delivered before the next is read. */
export class ReceiveBuffers {
  readonly memory: PacketMemory;
  /** Offset of the message headers. */
  readonly headers: number;
  readonly #first: number;
  readonly #firstName: number;

  constructor(memory: PacketMemory) {
    this.memory = memory;
    this.headers = memory.take(MESSAGES * MMSGHDR);
    const buffers = memory.take(MESSAGES * BUFFER);
    const iovecs = memory.take(MESSAGES * IOVEC);
    const names = memory.take(MESSAGES * SOCKADDR);
    this.#firstName = names;
    const controls = memory.take(MESSAGES * CONTROLS);
    this.#first = buffers + 2; // so that inner IP headers are aligned
    for (let i = 0; i < MESSAGES; i++) {
      const header = this.headers + i * MMSGHDR;
      memory.setIovec(iovecs, i, this.packet(i), BUFFER - 2);
      memory.setPointer(header + MSG_NAME, names + i * SOCKADDR);
      memory.setPointer(header + MSG_IOV, iovecs + i * IOVEC);
      memory.u32[(header + MSG_IOV_LENGTH) >> 2] = 1;
      memory.setPointer(header + MSG_CONTROL, controls + i * CONTROLS);
      this.reset(header);
    }
  }

  /** Offset of the packet that message `i` brings. */
  packet(i: number): number {
    return this.#first + i * BUFFER;
  }

  /** Offset of the address that a message came from. */
  source(header: number): number {
    const { u16 } = this.memory;
    const name = this.#firstName + ((header - this.headers) / MMSGHDR) * SOCKADDR;
    return name + (u16[name >> 1] === AF_INET6 ? SOCKADDR_IN6_ADDRESS : SOCKADDR_IN_ADDRESS);
  }

  /** Sets what the kernel overwrites. */
  reset(header: number): void {
    const { u32 } = this.memory;
    u32[(header + MSG_NAME_LENGTH) >> 2] = SOCKADDR;
    u32[(header + MSG_CONTROL_LENGTH) >> 2] = CONTROLS;
    u32[(header + MSG_FLAGS) >> 2] = 0;
  }
}

export class UdpReceiver {
  readonly fd: number;
  readonly #buffers: ReceiveBuffers;
  readonly #memory: PacketMemory;
  readonly #counters: Float64Array;
  readonly #scope: number;
  readonly #largestFrame: number;
  // Of the message that is being read.
  #segment = 0;
  #tos = 0;

  /** `largestFrame`: longer inner frames than this are super-frames. */
  constructor(fd: number, buffers: ReceiveBuffers, counters: Float64Array, scope: number, largestFrame: number) {
    this.fd = fd;
    this.#buffers = buffers;
    this.#memory = buffers.memory;
    this.#counters = counters;
    this.#scope = scope;
    this.#largestFrame = largestFrame;
  }

  /** Reads a round of packets into the batch; returns how many VXLAN packets there were. */
  receive(batch: Batch): number {
    batch.count = 0;
    const { address, u32 } = this.#memory;
    const buffers = this.#buffers;
    const count = libc.recvmmsg(this.fd, address + buffers.headers, MESSAGES, MSG_DONTWAIT, 0);
    let packets = 0;
    for (let i = 0; i < count; i++) {
      const header = buffers.headers + i * MMSGHDR;
      const length = u32[(header + MMSG_LENGTH) >> 2];
      packets += this.#add(batch, buffers.packet(i), length, header);
      buffers.reset(header);
    }
    if (packets > 0) this.#counters[this.#scope + COUNTER.rx_packets] += packets;
    return packets;
  }

  #add(batch: Batch, at: number, length: number, header: number): number {
    if (this.#memory.u32[(header + MSG_FLAGS) >> 2] & MSG_TRUNC) {
      this.#counters[this.#scope + COUNTER.rx_outer_malformed]++;
      return 1;
    }
    this.#readControls(header);
    const segment = this.#segment;
    const i = batch.add(at, length);
    batch.source[i] = this.#buffers.source(header);
    batch.tos[i] = this.#tos;
    if ((segment > 0 && segment < length) || length - VXLAN_HEADER > this.#largestFrame) {
      if (this.#addSuperFrame(batch, i, segment)) return 1;
      if (segment > 0) batch.train[i] = segment;
    }
    return batch.train[i] > 0 ? segmentsOf(length, segment) : 1;
  }

  /** Reads the control messages: sets #segment to UDP_GRO's size and #tos, each 0 without one. */
  #readControls(header: number): void {
    const { u8, u32 } = this.#memory;
    this.#segment = 0;
    this.#tos = 0;
    const begin = this.#controlOf(header);
    const end = begin + u32[(header + MSG_CONTROL_LENGTH) >> 2];
    for (let at = begin; at + CMSG_DATA < end; at += Math.max(CMSG, (u32[at >> 2] + 7) & ~7)) {
      const level = u32[(at + CMSG_LEVEL) >> 2];
      if (level === SOL_UDP) this.#segment = u32[(at + CMSG_DATA) >> 2];
      else this.#tos = u8[at + CMSG_DATA]; // a byte of IPv4, an int of IPv6
    }
  }

  #controlOf(header: number): number {
    const { u32, address } = this.#memory;
    const word = (header + MSG_CONTROL) >> 2;
    return u32[word] + u32[word + 1] * 2 ** 32 - address;
  }

  /**
   * Packet `i` may be one super-frame instead of a train: then the inner IP length is that of the whole, the inner checksum has yet
   * to be computed, and the size in the control message is the inner segment size. Splitting by it would corrupt. A large frame
   * whose checksum is finished is none (the peer's MTU is larger than ours): cutting that up would hide damage, and tear datagrams.
   */
  #addSuperFrame(batch: Batch, i: number, segment: number): boolean {
    const { u8 } = this.#memory;
    const frame = batch.at[i] + VXLAN_HEADER;
    const length = batch.length[i] - VXLAN_HEADER;
    const layout = innerLayout(u8, frame, length);
    const protocol = layoutProtocol(layout);
    if (layout === 0 || (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP)) return false;
    const network = layoutNetwork(layout);
    const transport = layoutTransport(layout);
    const ip = frame + network;
    const ipv4 = u8[ip] >> 4 === 4;
    const total = ipEnd(u8, frame, network);
    if (total !== length) return false;
    const tcp = protocol === PROTOCOL_TCP;
    if (!tcp && segment === 0) return false; // a large datagram: a super-frame of them has a size (Linux: udp_cmsg_recv)
    const checksumOffset = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    const field = frame + transport + checksumOffset;
    const pseudo = (ipv4 ? pseudoSum4 : pseudoSum6)(u8, ip, protocol, total - transport);
    if ((u8[field] | (u8[field + 1] << 8)) !== pseudo) return false;
    const headerLength = transport + (tcp ? tcpHeaderLength(u8, frame + transport) : UDP_HEADER);
    batch.flags[i] = NEEDS_CSUM;
    batch.checksumStart[i] = transport;
    batch.checksumOffset[i] = checksumOffset;
    batch.gsoType[i] = tcp ? (ipv4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_UDP_L4;
    batch.gsoSize[i] = segment > 0 ? segment : SAFE_SEGMENT;
    batch.headerLength[i] = headerLength;
    return true;
  }
}
