/**
 * Merges consecutive inner TCP or UDP segments of one flow into one super-frame for the TAP, as the kernel's GRO does: the
 * headers of the first and slices of all payloads go into one writev, and nothing is copied. Every checksum is verified first,
 * since the kernel would trust the merged frame's. What cannot be merged is written as it came.
 * Linux: net/ipv4/tcp_offload.c (tcp_gro_receive), udp_offload.c.
 */

import * as libc from '../system/libc.ts';
import {
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  NEEDS_CSUM,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_GSO_SIZE,
  VNET_HEADER_LENGTH,
  VNET_PLAIN,
} from '../system/vnet.ts';
import { get16, get32, put16 } from '../wire/bytes.ts';
import { fold, pseudoSum4, pseudoSum6, putChecksum, putSum } from '../wire/checksum.ts';
import {
  IPV4_CHECKSUM,
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH } from '../wire/ipv6.ts';
import { innerLayout, ipEnd, layoutNetwork, layoutProtocol, layoutTransport } from '../wire/layout.ts';
import {
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FLAG_ACK,
  TCP_FLAG_PSH,
  TCP_FLAGS,
  TCP_HEADER,
  TCP_SEQUENCE,
  TCP_WINDOW,
  tcpHeaderLength,
} from '../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH } from '../wire/udp.ts';
import type { Sum } from './checksum.ts';
import { COUNTER, RX_ERRNO } from './counters.ts';
import { IOVEC, type PacketMemory } from './memory.ts';
import type { Port } from './port.ts';

const MAX_MERGED = 128;
/** Virtio header, first frame, further payloads. */
const IOVECS_BYTES = (MAX_MERGED + 1) * IOVEC;
/** A merged frame's IP length is 16 bits; the margin is for Ethernet and IPv6 headers. */
const MAX_BYTES = 65535 - 60;

export class Coalescer {
  /** A recorder may stand in front of it. */
  port: Port;
  readonly #memory: PacketMemory;
  readonly #sum: Sum;
  readonly #counters: Float64Array;
  readonly #scope: number;
  readonly #mergeUdp: boolean;
  readonly #iovecs: number;
  readonly #vnet: number;

  // The open super-frame: `count` segments, the first of them at `first`.
  #count = 0;
  #first = 0;
  #network = 0;
  #transport = 0;
  #headerLength = 0;
  #payload = 0; // all payload bytes
  #size = 0; // payload of the first segment: none may be longer
  #length = 0; // of the first segment's frame, without padding
  #udp = false;
  #ipv4 = false;
  #nextSequence = 0;
  #push = 0;
  #closed = false;

  constructor(memory: PacketMemory, port: Port, sum: Sum, counters: Float64Array, scope: number, mergeUdp: boolean) {
    this.#memory = memory;
    this.port = port;
    this.#sum = sum;
    this.#counters = counters;
    this.#scope = scope;
    this.#mergeUdp = mergeUdp;
    this.#iovecs = memory.take(IOVECS_BYTES);
    this.#vnet = memory.take(VNET_PLAIN);
    memory.setIovec(this.#iovecs, 0, this.#vnet, VNET_PLAIN);
  }

  /**
   * Takes a frame without offload metadata. It may be held until `flush`. `maybeUnfinished`: the uplink cannot tell whether
   * checksums are finished, so look.
   */
  add(frame: number, length: number, maybeUnfinished: boolean): void {
    const { u8 } = this.#memory;
    const layout = innerLayout(u8, frame, length);
    const protocol = layoutProtocol(layout);
    if (layout !== 0 && (protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP)) {
      const network = layoutNetwork(layout);
      const transport = layoutTransport(layout);
      const ip = frame + network;
      const ipv4 = u8[ip] >> 4 === 4;
      const total = ipEnd(u8, frame, network);
      const tcp = protocol === PROTOCOL_TCP;
      if (total <= length && total >= transport + (tcp ? TCP_HEADER : UDP_HEADER)) {
        // Options and extension headers are not compared, so what has any is not merged. A merged frame gets an IPv4
        // checksum of its own, which must not hide that a segment's was wrong.
        const plain = ipv4
          ? transport === network + IPV4_HEADER && this.#sum(ip, IPV4_HEADER) === 0xffff
          : transport === network + IPV6_HEADER;
        if (tcp) this.#addTcp(frame, length, network, transport, total, plain, maybeUnfinished);
        else this.#addUdp(frame, length, network, transport, total, plain, maybeUnfinished);
        return;
      }
    }
    this.flush();
    this.#writeAsIs(frame, length);
  }

  /** Takes a frame with offload metadata, offsets relative to the frame, and writes it as it is. */
  pass(
    frame: number,
    length: number,
    gsoType: number,
    gsoSize: number,
    headerLength: number,
    checksumStart: number,
    checksumOffset: number,
  ): void {
    this.flush();
    const { u16 } = this.#memory;
    const vnet = this.#vnet >> 1;
    u16[vnet] = NEEDS_CSUM | (gsoType << 8);
    u16[vnet + (VNET_HEADER_LENGTH >> 1)] = headerLength;
    u16[vnet + (VNET_GSO_SIZE >> 1)] = gsoSize;
    u16[vnet + (VNET_CHECKSUM_START >> 1)] = checksumStart;
    u16[vnet + (VNET_CHECKSUM_OFFSET >> 1)] = checksumOffset;
    this.#memory.setIovec(this.#iovecs, 1, frame, length);
    this.#write(2, length, 1);
  }

  flush(): void {
    if (this.#count === 0) return;
    if (this.#count === 1) this.#writeAsIs(this.#first, this.#length);
    else this.#writeMerged();
    this.#count = 0;
  }

  close(): void {
    this.#memory.give(this.#iovecs, IOVECS_BYTES);
    this.#memory.give(this.#vnet, VNET_PLAIN);
  }

  #addTcp(
    frame: number,
    length: number,
    network: number,
    transport: number,
    total: number,
    plain: boolean,
    maybeUnfinished: boolean,
  ): void {
    const { u8 } = this.#memory;
    const tcp = frame + transport;
    const headerLength = transport + tcpHeaderLength(u8, tcp);
    const payload = total - headerLength;
    const flags = u8[tcp + TCP_FLAGS];
    const mergeable =
      plain && payload > 0 && headerLength >= transport + TCP_HEADER && (flags & ~TCP_FLAG_PSH) === TCP_FLAG_ACK;
    if (mergeable || maybeUnfinished) {
      if (!this.#verified(frame, length, network, transport, total, TCP_CHECKSUM, maybeUnfinished)) return;
    }
    if (!mergeable) {
      this.flush();
      this.#writeAsIs(frame, length);
      return;
    }
    const sequence = get32(u8, tcp + TCP_SEQUENCE);
    if (
      this.#joins(frame, network, transport, headerLength, payload, false) &&
      sequence === this.#nextSequence &&
      this.#equal(frame, transport + TCP_ACK, 5) && // and the data offset with its reserved bits
      this.#equal(frame, transport + TCP_WINDOW, 2) &&
      this.#equal(frame, transport + TCP_HEADER, headerLength - transport - TCP_HEADER)
    ) {
      this.#append(frame + headerLength, payload);
    } else {
      this.#open(frame, network, transport, headerLength, payload, total, false);
    }
    this.#nextSequence = (sequence + payload) | 0;
    this.#push = flags & TCP_FLAG_PSH;
    if (this.#push) this.#closed = true;
  }

  #addUdp(
    frame: number,
    length: number,
    network: number,
    transport: number,
    total: number,
    plain: boolean,
    maybeUnfinished: boolean,
  ): void {
    const { u8 } = this.#memory;
    const udp = frame + transport;
    const headerLength = transport + UDP_HEADER;
    const payload = total - headerLength;
    const mergeable =
      this.#mergeUdp &&
      plain &&
      payload > 0 &&
      get16(u8, udp + UDP_LENGTH) === payload + UDP_HEADER &&
      get16(u8, udp + UDP_CHECKSUM) !== 0; // zero: nothing to verify it by
    if (mergeable || maybeUnfinished) {
      if (!this.#verified(frame, length, network, transport, total, UDP_CHECKSUM, maybeUnfinished)) return;
    }
    if (!mergeable) {
      this.flush();
      this.#writeAsIs(frame, length);
    } else if (this.#joins(frame, network, transport, headerLength, payload, true)) {
      this.#append(frame + headerLength, payload);
    } else {
      this.#open(frame, network, transport, headerLength, payload, total, true);
    }
  }

  /**
   * Whether the frame's checksum holds. If not, the frame is written here: an unfinished checksum (the pseudo-header's sum, as a
   * virtual link leaves it) for the kernel to finish, a wrong one as it came, for the receiver to see.
   */
  #verified(
    frame: number,
    length: number,
    network: number,
    transport: number,
    total: number,
    checksumOffset: number,
    maybeUnfinished: boolean,
  ): boolean {
    const { u8 } = this.#memory;
    const field = frame + transport + checksumOffset;
    const stored = u8[field] | (u8[field + 1] << 8);
    const udp = checksumOffset === UDP_CHECKSUM;
    if (udp && stored === 0) return true;
    const pseudo = this.#pseudoSum(frame + network, udp, total - transport);
    if (fold(pseudo + this.#sum(frame + transport, total - transport)) === 0xffff) return true;
    if (maybeUnfinished && stored === pseudo) {
      this.pass(frame, total, 0, 0, 0, transport, checksumOffset);
    } else {
      this.flush();
      this.#writeAsIs(frame, length);
    }
    return false;
  }

  #pseudoSum(ip: number, udp: boolean, l4Length: number): number {
    const { u8 } = this.#memory;
    const protocol = udp ? PROTOCOL_UDP : PROTOCOL_TCP;
    return u8[ip] >> 4 === 4 ? pseudoSum4(u8, ip, protocol, l4Length) : pseudoSum6(u8, ip, protocol, l4Length);
  }

  /** Whether headers match the open super-frame's, up to what TCP checks on its own, and the payload fits. */
  #joins(
    frame: number,
    network: number,
    transport: number,
    headerLength: number,
    payload: number,
    udp: boolean,
  ): boolean {
    if (
      this.#count === 0 ||
      this.#closed ||
      this.#udp !== udp ||
      network !== this.#network ||
      transport !== this.#transport ||
      headerLength !== this.#headerLength ||
      payload > this.#size ||
      this.#count >= MAX_MERGED ||
      this.#payload + payload > MAX_BYTES - headerLength
    ) {
      return false;
    }
    const same = this.#ipv4
      ? this.#equal(frame, network, IPV4_TOTAL_LENGTH) && // version, header length, TOS
        this.#equal(frame, network + IPV4_FRAGMENT, 4) && // flags, TTL, protocol
        this.#equal(frame, network + IPV4_SOURCE, 8) &&
        this.#continuesId(frame + network)
      : this.#equal(frame, network, IPV6_PAYLOAD_LENGTH) && // version, traffic class, flow label
        this.#equal(frame, network + IPV6_NEXT_HEADER, 34);
    return same && this.#equal(frame, transport, 4) && this.#equal(frame, 0, network);
  }

  /**
   * Whether the IPv4 id is the one that segmentation would give the next segment. Where DF is set an id means nothing (RFC 6864, 4).
   */
  #continuesId(ip: number): boolean {
    const { u8 } = this.#memory;
    if ((u8[ip + IPV4_FRAGMENT] & (IPV4_DONT_FRAGMENT >> 8)) !== 0) return true;
    return get16(u8, ip + IPV4_ID) === ((get16(u8, this.#first + this.#network + IPV4_ID) + this.#count) & 0xffff);
  }

  /** Whether `length` bytes at an offset of the frame equal the open super-frame's. */
  #equal(frame: number, offset: number, length: number): boolean {
    const { u8 } = this.#memory;
    const a = frame + offset;
    const b = this.#first + offset;
    for (let i = 0; i < length; i++) if (u8[a + i] !== u8[b + i]) return false;
    return true;
  }

  #open(
    frame: number,
    network: number,
    transport: number,
    headerLength: number,
    payload: number,
    total: number,
    udp: boolean,
  ): void {
    this.flush();
    this.#count = 1;
    this.#first = frame;
    this.#network = network;
    this.#transport = transport;
    this.#headerLength = headerLength;
    this.#payload = this.#size = payload;
    this.#length = total;
    this.#udp = udp;
    this.#ipv4 = this.#memory.u8[frame + network] >> 4 === 4;
    this.#push = 0;
    this.#closed = false;
    this.#memory.setIovec(this.#iovecs, 1, frame, total);
  }

  #append(payload: number, length: number): void {
    this.#memory.setIovec(this.#iovecs, ++this.#count, payload, length);
    this.#payload += length;
    if (length < this.#size) this.#closed = true; // only the last segment may be shorter
  }

  #writeMerged(): void {
    const { u8, u16 } = this.#memory;
    const ip = this.#first + this.#network;
    const transport = this.#first + this.#transport;
    const l4Length = this.#headerLength - this.#transport + this.#payload;
    if (this.#ipv4) {
      put16(u8, ip + IPV4_TOTAL_LENGTH, IPV4_HEADER + l4Length);
      putSum(u8, ip + IPV4_CHECKSUM, 0);
      putChecksum(u8, ip + IPV4_CHECKSUM, this.#sum(ip, IPV4_HEADER));
    } else {
      put16(u8, ip + IPV6_PAYLOAD_LENGTH, l4Length);
    }
    if (this.#udp) put16(u8, transport + UDP_LENGTH, l4Length);
    else u8[transport + TCP_FLAGS] |= this.#push;
    const checksumOffset = this.#udp ? UDP_CHECKSUM : TCP_CHECKSUM;
    const pseudo = this.#pseudoSum(ip, this.#udp, l4Length);
    putSum(u8, transport + checksumOffset, pseudo);
    const type = this.#udp ? GSO_UDP_L4 : this.#ipv4 ? GSO_TCPV4 : GSO_TCPV6;
    const vnet = this.#vnet >> 1;
    u16[vnet] = NEEDS_CSUM | (type << 8);
    u16[vnet + (VNET_HEADER_LENGTH >> 1)] = this.#headerLength;
    u16[vnet + (VNET_GSO_SIZE >> 1)] = this.#size;
    u16[vnet + (VNET_CHECKSUM_START >> 1)] = this.#transport;
    u16[vnet + (VNET_CHECKSUM_OFFSET >> 1)] = checksumOffset;
    this.#write(this.#count + 1, this.#headerLength + this.#payload, this.#count);
  }

  #writeAsIs(frame: number, length: number): void {
    this.#memory.u8.fill(0, this.#vnet, this.#vnet + VNET_PLAIN);
    this.#memory.setIovec(this.#iovecs, 1, frame, length);
    this.#write(2, length, 1);
  }

  #write(iovecs: number, bytes: number, frames: number): void {
    const counters = this.#counters;
    const scope = this.#scope;
    counters[scope + COUNTER.rx_writes]++;
    if (this.port.writev(this.#iovecs, iovecs) >= 0) {
      counters[scope + COUNTER.rx_frames] += frames;
      counters[scope + COUNTER.rx_bytes] += bytes;
    } else {
      const errno = this.port.errno();
      if (errno !== libc.EIO) counters[scope + RX_ERRNO] = errno;
      counters[scope + (errno === libc.EIO ? COUNTER.rx_device_down : COUNTER.rx_device_error)] += frames;
    }
  }
}
