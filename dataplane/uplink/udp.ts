/**
 * The uplink over UDP sockets: the kernel adds Ethernet, IP and UDP headers, and its routing, firewall and fragmentation apply.
 * Several sending sockets, each with a source port of its own, spread the flows.
 */
import * as libc from '../../system/libc.ts';
import {
  AF_INET,
  AF_INET6,
  CMSG,
  CMSG_DATA,
  CMSG_LEVEL,
  CMSG_TYPE,
  IP_TOS,
  IP_TTL,
  IPV6_HOPLIMIT,
  IPV6_TCLASS,
  MSG_CONTROL,
  MSG_CONTROL_LENGTH,
  MSG_DONTWAIT,
  MSG_IOV,
  MSG_IOV_LENGTH,
  MSG_NAME,
  MSG_NAME_LENGTH,
  MSGHDR,
  SOCKADDR,
  SOCKADDR_IN,
  SOCKADDR_IN_ADDRESS,
  SOCKADDR_IN6,
  SOCKADDR_IN6_ADDRESS,
  SOCKADDR_IN6_FLOWINFO,
  SOCKADDR_PORT,
  SOL_IP,
  SOL_IPV6,
  SOL_UDP,
  UDP_SEGMENT,
} from '../../system/socket.ts';
import { trafficClass } from '../../wire/ecn.ts';
import { ETHER_HEADER } from '../../wire/ethernet.ts';
import { sourcePort } from '../../wire/flow.ts';
import { IPV4_DESTINATION, IPV4_TOS, IPV4_TTL } from '../../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HOP_LIMIT } from '../../wire/ipv6.ts';
import { UDP_DESTINATION, UDP_HEADER } from '../../wire/udp.ts';
import { OUTER_LENGTH_IPV4, VXLAN_HEADER } from '../../wire/vxlan.ts';
import type { Batch } from '../batch.ts';
import type { Sum } from '../checksum.ts';
import { COUNTER } from '../counters.ts';
import { MARK_DF, MARK_TTL } from '../marks.ts';
import { IOVEC, type PacketMemory } from '../memory.ts';
import type { UdpReceiver } from './receiver.ts';
import { Sender } from './sender.ts';
import type { Uplink, UplinkOffloads } from './uplink.ts';

/** CMSG_LEN of a 16-bit segment size. */
const SEGMENT_CMSG = CMSG_DATA + 2;
/** CMSG_LEN of an int. */
const INT_CMSG = CMSG_DATA + 4;

/** msghdr, address and control messages (TTL, TOS, segment size: a message has some of them that stand together), one behind the other. */
const MESSAGE_BYTES = MSGHDR + SOCKADDR + 3 * CMSG;

export class UdpUplink extends Sender implements Uplink {
  readonly fds: readonly number[];
  protected readonly leavesChecksums = false;
  protected readonly isHostPath = true;
  readonly #sockets: readonly number[];
  /** For packets with DF. */
  readonly #dfSockets: readonly number[];
  readonly #receiver: UdpReceiver | undefined;
  readonly #header: number;
  readonly #name: number;
  /** Control messages: TTL, TOS, and at `#control` the segment size. */
  readonly #control: number;

  /** Without a receiver it only sends: the way through the host's stack of an uplink that builds whole frames. */
  constructor(
    { senders, dfSenders = senders }: { readonly senders: readonly number[]; readonly dfSenders?: readonly number[] },
    receiver: UdpReceiver | undefined,
    memory: PacketMemory,
    sum: Sum,
    counters: Float64Array,
    nextHops: Int32Array,
    offloads: UplinkOffloads,
  ) {
    super(memory, sum, counters, nextHops, offloads);
    this.#sockets = senders;
    this.#dfSockets = dfSenders.length > 0 ? dfSenders : senders;
    this.#receiver = receiver;
    this.fds = receiver ? [receiver.fd] : [];
    this.#header = memory.take(MESSAGE_BYTES);
    this.#name = this.#header + MSGHDR;
    this.#control = this.#name + SOCKADDR + 2 * CMSG;
    memory.setPointer(this.#header + MSG_NAME, this.#name);
    memory.u32[this.#control >> 2] = SEGMENT_CMSG;
    memory.u32[(this.#control + CMSG_LEVEL) >> 2] = SOL_UDP;
    memory.u32[(this.#control + CMSG_TYPE) >> 2] = UDP_SEGMENT;
  }

  /** The number of a socket. */
  entropy(hash: number): number {
    return sourcePort(hash, 0, this.#sockets.length);
  }

  receive(batch: Batch): number {
    return this.#receiver ? this.#receiver.receive(batch) : 0;
  }

  override close(): void {
    super.close();
    this.memory.give(this.#header, MESSAGE_BYTES);
  }

  protected transmitSuperFrame(_batch: Batch, _index: number): boolean {
    return false; // a socket takes UDP payload only: the super-frame is cut up here, and the pieces leave as one run
  }

  protected transmitRun(): void {
    const { memory } = this;
    // The template tells the destination: its bytes stand in front of the first frame.
    const ip = this.first - this.outer + ETHER_HEADER;
    const udp = this.first - VXLAN_HEADER - UDP_HEADER;
    memory.u8.copyWithin(this.#name + SOCKADDR_PORT, udp + UDP_DESTINATION, udp + UDP_DESTINATION + 2);
    if (this.outer === OUTER_LENGTH_IPV4)
      this.#setName(AF_INET, SOCKADDR_IN, SOCKADDR_IN_ADDRESS, ip + IPV4_DESTINATION, 4);
    else {
      this.#setName(AF_INET6, SOCKADDR_IN6, SOCKADDR_IN6_ADDRESS, ip + IPV6_DESTINATION, 16);
      this.#setFlowLabel(ip);
    }
    if (this.marksOfRun !== 0) this.#setMarks(ip);
    memory.setIovec(this.iovecs, 0, this.first - VXLAN_HEADER, this.firstLength + VXLAN_HEADER);
    memory.u16[(this.#control + CMSG_DATA) >> 1] = this.segment;
    const sent = this.#sendmsg(0, this.iovecCount, this.count > 1);
    if (sent >= 0) {
      this.counters[this.scope + COUNTER.tx_packets] += this.count;
      return;
    }
    const errno = libc.errno();
    if (this.count === 1) {
      this.counters[this.scope + this.reason(errno)]++;
      return;
    }
    // EIO: the NIC cannot compute checksums, so that the kernel refuses to segment. From now on packet by packet. Other errors
    // are this run's: EMSGSIZE, on older kernels EINVAL, when its segments have to be fragmented.
    if (errno === libc.EIO) this.udpGso = false;
    this.#sendOneByOne();
  }

  #setName(family: number, size: number, addressAt: number, from: number, length: number): void {
    const { u8, u16, u32 } = this.memory;
    u16[this.#name >> 1] = family;
    u32[(this.#header + MSG_NAME_LENGTH) >> 2] = size;
    u8.copyWithin(this.#name + addressAt, from, from + length);
  }

  #setFlowLabel(ip: number): void {
    const { u8 } = this.memory;
    const to = this.#name + SOCKADDR_IN6_FLOWINFO;
    u8[to + 1] = u8[ip + 1] & 0x0f;
    u8[to + 2] = u8[ip + 2];
    u8[to + 3] = u8[ip + 3];
  }

  /** What frames decide: the socket has the rest. */
  #setMarks(ip: number): void {
    const { u8 } = this.memory;
    const ipv4 = this.outer === OUTER_LENGTH_IPV4;
    const level = ipv4 ? SOL_IP : SOL_IPV6;
    const tos = ipv4 ? u8[ip + IPV4_TOS] : trafficClass(u8, ip);
    this.#setControl(this.#control - CMSG, level, ipv4 ? IP_TOS : IPV6_TCLASS, tos);
    const ttl = u8[ip + (ipv4 ? IPV4_TTL : IPV6_HOP_LIMIT)];
    this.#setControl(this.#control - 2 * CMSG, level, ipv4 ? IP_TTL : IPV6_HOPLIMIT, ttl);
  }

  #setControl(at: number, level: number, type: number, value: number): void {
    const { u32 } = this.memory;
    u32[at >> 2] = INT_CMSG;
    u32[(at + CMSG_LEVEL) >> 2] = level;
    u32[(at + CMSG_TYPE) >> 2] = type;
    u32[(at + CMSG_DATA) >> 2] = value;
  }

  #sendOneByOne(): void {
    for (let i = 0; i < this.count; i++) {
      const from = i === 0 ? 0 : this.iovecOf[i];
      const sent = this.#sendmsg(from, this.iovecOf[i + 1] - from, false);
      this.counters[this.scope + (sent >= 0 ? COUNTER.tx_packets : this.reason(libc.errno()))]++;
    }
  }

  #sendmsg(firstIovec: number, iovecs: number, segmented: boolean): number {
    const { memory } = this;
    const header = this.#header;
    memory.setPointer(header + MSG_IOV, this.iovecs + firstIovec * IOVEC);
    memory.u32[(header + MSG_IOV_LENGTH) >> 2] = iovecs;
    const marks = this.marksOfRun;
    const inFront = marks === 0 ? 0 : (marks & MARK_TTL) === 0 ? CMSG : 2 * CMSG;
    memory.setPointer(header + MSG_CONTROL, this.#control - inFront);
    memory.u32[(header + MSG_CONTROL_LENGTH) >> 2] = inFront + (segmented ? CMSG : 0);
    this.counters[this.scope + COUNTER.tx_writes]++;
    const sockets = marks & MARK_DF ? this.#dfSockets : this.#sockets;
    const socket = sockets[this.entropyOfRun % sockets.length];
    return libc.sendmsg(socket, memory.address + header, MSG_DONTWAIT);
  }
}
