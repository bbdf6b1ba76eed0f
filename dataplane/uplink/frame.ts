/**
 * The uplink that builds and reads whole outer frames, a virtio header with tunnel fields in front: `redirect`, whose port is a TAP
 * that the kernel redirects to and from the NIC, and `memory`, whose port is an in-memory link.
 */
import {
  DATA_VALID,
  GSO_TUNNEL_IPV4,
  GSO_TUNNEL_IPV6,
  GSO_TYPE_MASK,
  GSO_UDP_L4,
  NEEDS_CSUM,
  UDP_TUNNEL_CSUM,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAGS,
  VNET_GSO_SIZE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
  VNET_INNER_NETWORK,
  VNET_OUTER_TRANSPORT,
  VNET_TUNNEL,
} from '../../system/vnet.ts';
import { get16, put16, swap16 } from '../../wire/bytes.ts';
import { fold, pseudoSum4, pseudoSum6, putChecksum, putSum, putUdpChecksum } from '../../wire/checksum.ts';
import { trafficClass } from '../../wire/ecn.ts';
import { ETHER_HEADER, ETHER_TYPE, ETHERTYPE_IPV4, ETHERTYPE_IPV6, networkOffset } from '../../wire/ethernet.ts';
import { sourcePort } from '../../wire/flow.ts';
import {
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL_LENGTH,
  IPV4_VERSION_IHL,
  PROTOCOL_UDP,
} from '../../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE, IPV6_VERSION } from '../../wire/ipv6.ts';
import { UDP_CHECKSUM, UDP_DESTINATION, UDP_HEADER, UDP_LENGTH } from '../../wire/udp.ts';
import { OUTER_LENGTH_IPV4, VXLAN_HEADER } from '../../wire/vxlan.ts';
import type { Batch } from '../batch.ts';
import type { Sum } from '../checksum.ts';
import { COUNTER } from '../counters.ts';
import { LARGEST_FRAME, type PacketMemory } from '../memory.ts';
import type { Port } from '../port.ts';
import { segmentsOf } from '../segment.ts';
import { Sender, VNET_ROOM } from './sender.ts';
import type { Uplink, UplinkOffloads } from './uplink.ts';

/** Bytes that a receive round reads into: packets lie one behind the other, so small ones share cache lines and pages. */
const ARENA = 20 * 65536;
const MAX_IP_LENGTH = 65535;
const ALIGN = 64;

/** Packet memory that one worker receives frames into; its uplinks share it, since a batch is delivered before the next is read. */
export function takeUplinkArena(memory: PacketMemory): number {
  return memory.take(ARENA);
}

export interface FrameUplinkOptions {
  readonly offloads: UplinkOffloads;
  /** Whether the host's stack routes the packets, so that their Ethernet header does not matter (raw). */
  readonly isHostPath?: boolean;
  /** UDP destination port of packets for us. */
  readonly port: number;
  /** UDP source ports of what we send: from the first to before the second. */
  readonly sourcePorts: readonly [number, number];
  /** Whether packets over IPv6 may do without a UDP checksum. */
  readonly zeroChecksum6?: boolean;
  /** The uplink's own block of counters. */
  readonly scope: number;
  /** Packet memory to receive into, see takeUplinkArena. */
  readonly arena: number;
}

export class FrameUplink extends Sender implements Uplink {
  readonly fds: readonly number[];
  protected readonly leavesChecksums = true;
  protected readonly isHostPath: boolean;
  /** A recorder may stand in front of it. */
  port: Port;
  readonly #tunnelGso: boolean;
  readonly #udpPort: number;
  readonly #firstSource: number;
  readonly #endSource: number;
  readonly #zeroChecksum6: boolean;
  readonly #scope: number;
  readonly #arena: number;
  #id = (Math.random() * 65536) | 0;

  constructor(
    port: Port,
    memory: PacketMemory,
    sum: Sum,
    counters: Float64Array,
    nextHops: Int32Array,
    options: FrameUplinkOptions,
    viaHost?: Sender,
  ) {
    super(memory, sum, counters, nextHops, options.offloads, viaHost);
    this.isHostPath = options.isHostPath ?? false;
    this.port = port;
    this.fds = port.fd < 0 ? [] : [port.fd];
    this.#tunnelGso = options.offloads.tunnelGso;
    this.#udpPort = options.port;
    [this.#firstSource, this.#endSource] = options.sourcePorts;
    this.#zeroChecksum6 = options.zeroChecksum6 ?? false;
    this.#scope = options.scope;
    this.#arena = options.arena;
  }

  entropy(hash: number): number {
    return sourcePort(hash, this.#firstSource, this.#endSource);
  }

  protected transmitRun(): void {
    const { u8, u16 } = this.memory;
    const udp = this.first - VXLAN_HEADER - UDP_HEADER;
    const vnet = (this.first - this.outer - VNET_ROOM) >> 1;
    const udpLength = this.bytes + UDP_HEADER;
    this.#finishNetwork(udpLength, this.count);
    put16(u8, udp, this.entropyOfRun);
    put16(u8, udp + UDP_LENGTH, udpLength);
    putSum(u8, udp + UDP_CHECKSUM, 0);
    if (this.needsChecksum) {
      // Alone, its inner checksum unfinished: leave that to the NIC. The outer one follows from the headers alone, since the
      // rest sums to the complement of what the inner field holds (local checksum offload, Linux: lco_csum).
      u16[vnet] = NEEDS_CSUM;
      u16[vnet + (VNET_CHECKSUM_START >> 1)] = this.outer + this.checksumStart;
      u16[vnet + (VNET_CHECKSUM_OFFSET >> 1)] = this.checksumOffset;
      if (this.udpChecksum) this.#localChecksum(udp, udpLength);
    } else if (this.udpChecksum) {
      u16[vnet] = NEEDS_CSUM;
      u16[vnet + (VNET_CHECKSUM_START >> 1)] = this.outer - VXLAN_HEADER - UDP_HEADER;
      u16[vnet + (VNET_CHECKSUM_OFFSET >> 1)] = UDP_CHECKSUM;
      putSum(u8, udp + UDP_CHECKSUM, fold(this.pseudoSum + swap16(udpLength)));
      if (this.count > 1) {
        u16[vnet] = NEEDS_CSUM | (GSO_UDP_L4 << 8);
        u16[vnet + (VNET_HEADER_LENGTH >> 1)] = this.outer - VXLAN_HEADER;
        u16[vnet + (VNET_GSO_SIZE >> 1)] = this.segment;
      }
    }
    this.#write();
  }

  protected transmitSuperFrame(batch: Batch, index: number): boolean {
    const length = batch.length[index];
    if (!this.#tunnelGso || length + this.outer - ETHER_HEADER > MAX_IP_LENGTH || !(batch.flags[index] & NEEDS_CSUM))
      return false;
    // The metadata moves by the outer length; nothing else changes, and the kernel or the NIC cuts it up.
    const { u8, u16 } = this.memory;
    const udp = this.first - VXLAN_HEADER - UDP_HEADER;
    const vnet = (this.first - this.outer - VNET_ROOM) >> 1;
    const udpLength = this.bytes + UDP_HEADER;
    this.#finishNetwork(udpLength, segmentsOf(length, batch.gsoSize[index]));
    put16(u8, udp, this.entropyOfRun);
    put16(u8, udp + UDP_LENGTH, udpLength);
    putSum(u8, udp + UDP_CHECKSUM, this.udpChecksum ? fold(this.pseudoSum + swap16(udpLength)) : 0);
    const tunnel = this.#isIpv4() ? GSO_TUNNEL_IPV4 : GSO_TUNNEL_IPV6;
    u16[vnet] = NEEDS_CSUM | (this.udpChecksum ? UDP_TUNNEL_CSUM : 0) | ((batch.gsoType[index] | tunnel) << 8);
    u16[vnet + (VNET_HEADER_LENGTH >> 1)] = this.outer + batch.headerLength[index];
    u16[vnet + (VNET_GSO_SIZE >> 1)] = batch.gsoSize[index];
    u16[vnet + (VNET_CHECKSUM_START >> 1)] = this.outer + batch.checksumStart[index];
    u16[vnet + (VNET_CHECKSUM_OFFSET >> 1)] = batch.checksumOffset[index];
    u16[vnet + (VNET_OUTER_TRANSPORT >> 1)] = this.outer - VXLAN_HEADER - UDP_HEADER;
    u16[vnet + (VNET_INNER_NETWORK >> 1)] = this.outer + networkOffset(u8, this.first, length);
    this.#write();
    return true;
  }

  #isIpv4(): boolean {
    return this.outer === OUTER_LENGTH_IPV4;
  }

  /** Fills in what depends on the length: IPv4 total length, identification and checksum. The packets take that many ids. */
  #finishNetwork(udpLength: number, packets: number): void {
    const { u8 } = this.memory;
    const ip = this.first - this.outer + ETHER_HEADER;
    if (!this.#isIpv4()) {
      put16(u8, ip + IPV6_PAYLOAD_LENGTH, udpLength);
      return;
    }
    const length = udpLength + IPV4_HEADER;
    const id = this.#id;
    this.#id = (id + packets) & 0xffff;
    put16(u8, ip + IPV4_TOTAL_LENGTH, length);
    put16(u8, ip + IPV4_ID, id);
    putChecksum(u8, ip + IPV4_CHECKSUM, fold(this.ipSum + swap16(length) + swap16(id)));
  }

  /** Stores the finished outer UDP checksum of a packet whose inner checksum field holds its pseudo-header's sum. */
  #localChecksum(udp: number, udpLength: number): void {
    const { u8 } = this.memory;
    const start = this.first + this.checksumStart;
    const field = start + this.checksumOffset;
    const headers = this.sum(udp, start - udp);
    const rest = ~(u8[field] | (u8[field + 1] << 8)) & 0xffff;
    putUdpChecksum(u8, udp + UDP_CHECKSUM, fold(this.pseudoSum + swap16(udpLength) + headers + rest));
  }

  #write(): void {
    const start = this.first - this.outer - VNET_ROOM;
    this.counters[this.scope + COUNTER.tx_writes]++;
    let written: number;
    if (this.iovecCount === 1) {
      written = this.port.write(start, this.first + this.firstLength - start);
    } else {
      this.memory.setIovec(this.iovecs, 0, start, this.first + this.firstLength - start);
      written = this.port.writev(this.iovecs, this.iovecCount);
    }
    const counter = written >= 0 ? COUNTER.tx_packets : this.reason(this.port.errno());
    this.counters[this.scope + counter] += this.count;
  }

  receive(batch: Batch): number {
    batch.count = 0;
    const end = this.#arena + ARENA - LARGEST_FRAME;
    let at = this.#arena;
    let packets = 0;
    // A read may bring a train of 64 packets. What came is delivered before much more is read: a burst of small datagrams
    // overflows its receiver's socket, which holds some 160 of them by default (2 % lost at 100,000 a second, against 0.2 %).
    for (let reads = 0; reads < batch.capacity && packets < batch.capacity && at <= end; reads++) {
      const size = this.port.read(at, LARGEST_FRAME);
      if (size <= 0) break;
      packets += this.#parse(batch, at, size);
      at = (at + size + ALIGN - 1) & ~(ALIGN - 1);
    }
    return packets;
  }

  /** Checks the outer headers of the packet at `at` and adds it to the batch, or counts why not. Returns its VXLAN packets. */
  #parse(batch: Batch, at: number, size: number): number {
    const { u8, u16 } = this.memory;
    const ip = at + VNET_TUNNEL + ETHER_HEADER;
    const end = at + size;
    const udp = this.#findUdp(ip, end);
    if (udp === 0 || get16(u8, udp + UDP_DESTINATION) !== this.#udpPort) return this.#drop(COUNTER.rx_outer_malformed);
    const udpLength = get16(u8, udp + UDP_LENGTH);
    if (udpLength < UDP_HEADER || udp + udpLength > end) return this.#drop(COUNTER.rx_outer_malformed);
    const vnet = at >> 1;
    const flags = u8[at + VNET_FLAGS];
    const gso = u8[at + VNET_GSO_TYPE];
    const vxlan = udp + UDP_HEADER;
    const inner = vxlan + VXLAN_HEADER - at - VNET_TUNNEL; // offset of the inner frame in the outer one
    const start = u16[vnet + (VNET_CHECKSUM_START >> 1)];
    // The IPv4 header's checksum is always there; UDP's may not have been computed yet, or was verified by the NIC.
    const ipHolds = udp - ip !== IPV4_HEADER || this.sum(ip, IPV4_HEADER) === 0xffff;
    if (!ipHolds || ((flags & (NEEDS_CSUM | DATA_VALID)) === 0 && !this.#udpChecksumHolds(ip, udp, udpLength))) {
      return this.#drop(COUNTER.rx_outer_checksum);
    }
    const i = batch.add(vxlan, udpLength - UDP_HEADER);
    batch.tos[i] = udp - ip === IPV4_HEADER ? u8[ip + IPV4_TOS] : trafficClass(u8, ip);
    batch.source[i] = ip + (udp - ip === IPV4_HEADER ? IPV4_SOURCE : IPV6_SOURCE);
    if ((flags & NEEDS_CSUM) !== 0 && start >= inner) {
      batch.flags[i] = NEEDS_CSUM;
      batch.checksumStart[i] = start - inner;
      batch.checksumOffset[i] = u16[vnet + (VNET_CHECKSUM_OFFSET >> 1)];
      if (gso !== 0) {
        batch.gsoType[i] = gso & ~(GSO_TUNNEL_IPV4 | GSO_TUNNEL_IPV6);
        batch.gsoSize[i] = u16[vnet + (VNET_GSO_SIZE >> 1)];
        batch.headerLength[i] = Math.max(0, u16[vnet + (VNET_HEADER_LENGTH >> 1)] - inner);
      }
    } else if ((gso & GSO_TYPE_MASK) === GSO_UDP_L4 && udpLength > UDP_HEADER) {
      const train = (batch.train[i] = u16[vnet + (VNET_GSO_SIZE >> 1)]);
      if (train > 0) return this.#count(segmentsOf(udpLength - UDP_HEADER, train));
    }
    return this.#count(1);
  }

  /** Offset of the UDP header behind an IP header without options, extension headers or fragmentation; 0 when there is none. */
  #findUdp(ip: number, end: number): number {
    const { u8 } = this.memory;
    if (ip + IPV4_HEADER + UDP_HEADER > end) return 0;
    switch (get16(u8, ip - ETHER_HEADER + ETHER_TYPE)) {
      case ETHERTYPE_IPV4: {
        const total = get16(u8, ip + IPV4_TOTAL_LENGTH);
        const whole = u8[ip + IPV4_VERSION_IHL] === 0x45 && (get16(u8, ip + IPV4_FRAGMENT) & 0x3fff) === 0;
        if (!whole || u8[ip + IPV4_PROTOCOL] !== PROTOCOL_UDP || ip + total > end) return 0;
        return total >= IPV4_HEADER + get16(u8, ip + IPV4_HEADER + UDP_LENGTH) ? ip + IPV4_HEADER : 0;
      }
      case ETHERTYPE_IPV6: {
        const udp = ip + IPV6_HEADER;
        const payload = get16(u8, ip + IPV6_PAYLOAD_LENGTH);
        if (udp + UDP_HEADER > end || u8[ip + IPV6_VERSION] >> 4 !== 6 || udp + payload > end) return 0;
        if (u8[ip + IPV6_NEXT_HEADER] !== PROTOCOL_UDP) return 0;
        return payload >= get16(u8, udp + UDP_LENGTH) ? udp : 0;
      }
      default:
        return 0;
    }
  }

  /** Zero means that the sender computed none, which IPv6 allows for tunnels that agree on it (RFC 768; RFC 8200 section 8.1, RFC 6936). */
  #udpChecksumHolds(ip: number, udp: number, udpLength: number): boolean {
    const { u8 } = this.memory;
    const ipv4 = udp - ip === IPV4_HEADER;
    if (get16(u8, udp + UDP_CHECKSUM) === 0) return ipv4 || this.#zeroChecksum6;
    const pseudo = ipv4 ? pseudoSum4(u8, ip, PROTOCOL_UDP, udpLength) : pseudoSum6(u8, ip, PROTOCOL_UDP, udpLength);
    return fold(pseudo + this.sum(udp, udpLength)) === 0xffff;
  }

  #count(packets: number): number {
    this.counters[this.#scope + COUNTER.rx_packets] += packets;
    return packets;
  }

  #drop(counter: number): number {
    this.counters[this.#scope + counter]++;
    return this.#count(1);
  }
}
