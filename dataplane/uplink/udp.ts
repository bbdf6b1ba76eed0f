/**
 * The uplink over UDP sockets: the kernel adds Ethernet, IP and UDP headers, and its routing, firewall and fragmentation apply.
 * Several sending sockets, each with a source port of its own, spread the flows.
 */
import * as libc from '../../system/libc.ts';
import {
  AF_INET,
  CMSG,
  CMSG_DATA,
  CMSG_LEVEL,
  CMSG_TYPE,
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
  SOL_UDP,
  UDP_SEGMENT,
} from '../../system/socket.ts';
import { ETHER_HEADER } from '../../wire/ethernet.ts';
import { sourcePort } from '../../wire/flow.ts';
import { IPV4_DESTINATION } from '../../wire/ipv4.ts';
import { UDP_DESTINATION, UDP_HEADER } from '../../wire/udp.ts';
import { VXLAN_HEADER } from '../../wire/vxlan.ts';
import type { Batch } from '../batch.ts';
import type { Sum } from '../checksum.ts';
import { COUNTER } from '../counters.ts';
import { IOVEC, type PacketMemory } from '../memory.ts';
import type { UdpReceiver } from './receiver.ts';
import { Sender } from './sender.ts';
import type { Uplink, UplinkOffloads } from './uplink.ts';

/** CMSG_LEN of a 16-bit segment size. */
const SEGMENT_CMSG = CMSG_DATA + 2;

export class UdpUplink extends Sender implements Uplink {
  readonly fds: readonly number[];
  protected readonly leavesChecksums = false;
  readonly #sockets: readonly number[];
  readonly #receiver: UdpReceiver;
  readonly #header: number;
  readonly #name: number;
  readonly #control: number;

  constructor(
    sockets: readonly number[],
    receiver: UdpReceiver,
    memory: PacketMemory,
    sum: Sum,
    counters: Float64Array,
    nextHops: Int32Array,
    offloads: UplinkOffloads,
  ) {
    super(memory, sum, counters, nextHops, offloads);
    this.#sockets = sockets;
    this.#receiver = receiver;
    this.fds = [receiver.fd];
    this.#header = memory.take(MSGHDR);
    this.#name = memory.take(SOCKADDR);
    this.#control = memory.take(CMSG);
    memory.setPointer(this.#header + MSG_NAME, this.#name);
    memory.u32[(this.#header + MSG_NAME_LENGTH) >> 2] = SOCKADDR_IN;
    memory.setPointer(this.#header + MSG_CONTROL, this.#control);
    memory.u16[this.#name >> 1] = AF_INET;
    memory.u32[this.#control >> 2] = SEGMENT_CMSG;
    memory.u32[(this.#control + CMSG_LEVEL) >> 2] = SOL_UDP;
    memory.u32[(this.#control + CMSG_TYPE) >> 2] = UDP_SEGMENT;
  }

  /** The number of a socket. */
  entropy(hash: number): number {
    return sourcePort(hash, 0, this.#sockets.length);
  }

  receive(batch: Batch): number {
    return this.#receiver.receive(batch);
  }

  protected transmitSuperFrame(_batch: Batch, _index: number): boolean {
    return false; // a socket takes UDP payload only: the super-frame is cut up here, and the pieces leave as one run
  }

  protected transmitRun(): void {
    const { memory } = this;
    // The template tells the destination: its bytes stand in front of the first frame.
    const ip = this.first - this.outer + ETHER_HEADER;
    const udp = this.first - VXLAN_HEADER - UDP_HEADER;
    memory.u8.copyWithin(this.#name + 2, udp + UDP_DESTINATION, udp + UDP_DESTINATION + 2);
    memory.u8.copyWithin(this.#name + 4, ip + IPV4_DESTINATION, ip + IPV4_DESTINATION + 4);
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
    // EIO: the NIC cannot compute checksums, so that the kernel refuses to segment. From now on packet by packet.
    if (errno === libc.EIO || errno === libc.EINVAL) this.udpGso = false;
    this.#sendOneByOne();
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
    memory.u32[(header + MSG_CONTROL_LENGTH) >> 2] = segmented ? CMSG : 0;
    this.counters[this.scope + COUNTER.tx_writes]++;
    return libc.sendmsg(this.#sockets[this.entropyOfRun], memory.address + header, MSG_DONTWAIT);
  }
}
