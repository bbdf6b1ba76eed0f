/**
 * Cuts a super-frame (TSO, USO) into the frames that a NIC would make of it, without copying payload: each segment is a copy of
 * the headers, adjusted, and a slice of the payload. Linux: net/ipv4/tcp_offload.c, udp_offload.c.
 */
import { GSO_TYPE_MASK, GSO_UDP_L4 } from '../system/vnet.ts';
import { get16, get32, put16, put32, swap16 } from '../wire/bytes.ts';
import { fold, putChecksum, putSum, putUdpChecksum } from '../wire/checksum.ts';
import { ETHER_HEADER, networkOffset } from '../wire/ethernet.ts';
import { IPV4_CHECKSUM, IPV4_ID, IPV4_TOTAL_LENGTH } from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_PAYLOAD_LENGTH } from '../wire/ipv6.ts';
import {
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FLAG_CWR,
  TCP_FLAG_FIN,
  TCP_FLAG_PSH,
  TCP_FLAGS,
  TCP_HEADER,
  TCP_SEQUENCE,
} from '../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH } from '../wire/udp.ts';
import type { Batch } from './batch.ts';
import type { Sum } from './checksum.ts';
import { HEADROOM, type PacketMemory } from './memory.ts';

/** UDP_SEGMENT takes this many segments on every kernel that has it (UDP_MAX_SEGMENTS; 128 since Linux 6.9). */
export const MAX_SEGMENTS = 64;
/** Longest inner headers that are cut: Ethernet, two tags, IPv6 with some extension headers or IPv4 with options, TCP with options. */
const MAX_HEADERS = 192;
const SLOT = 288; // headroom and headers; slots keep the alignment that a frame has
/** A whole run may wait while the segment that does not fit it any more is cut. */
const SLOTS = MAX_SEGMENTS + 1;

/** Segments of `size` bytes, the last of which may be shorter. Not by Math.ceil: V8 throws its code away at the first quotient that is no integer. */
export function segmentsOf(length: number, size: number): number {
  return ((length + size - 1) / size) | 0;
}

export class Segmenter {
  // The segment that `cut` made.
  header = 0;
  headerLength = 0;
  payload = 0;
  payloadLength = 0;
  readonly #memory: PacketMemory;
  readonly #sum: Sum;
  readonly #slots: number;
  // The super-frame.
  #at = 0;
  #end = 0;
  #network = 0;
  #transport = 0;
  #size = 0;
  #segments = 0;
  #udp = false;
  #ipv4 = false;
  #pseudo = 0;

  constructor(memory: PacketMemory, sum: Sum) {
    this.#memory = memory;
    this.#sum = sum;
    this.#slots = memory.take(SLOTS * SLOT);
  }

  close(): void {
    this.#memory.give(this.#slots, SLOTS * SLOT);
  }

  /** Takes on frame `index` of the batch; returns the number of segments, 0 when its metadata or headers make no sense. */
  begin(batch: Batch, index: number): number {
    const { u8 } = this.#memory;
    const at = (this.#at = batch.at[index]);
    const length = batch.length[index];
    const network = (this.#network = networkOffset(u8, at, length));
    const transport = (this.#transport = batch.checksumStart[index]);
    this.#udp = (batch.gsoType[index] & GSO_TYPE_MASK) === GSO_UDP_L4;
    this.#size = batch.gsoSize[index];
    if (network < ETHER_HEADER || transport < network + 20 || transport + UDP_HEADER > length || this.#size === 0)
      return 0;
    this.#ipv4 = u8[at + network] >> 4 === 4;
    if (!this.#ipv4 && transport < network + IPV6_HEADER) return 0;
    const headers = this.#udp ? UDP_HEADER : (u8[at + transport + TCP_DATA_OFFSET] >> 4) * 4;
    if (!this.#udp && headers < TCP_HEADER) return 0;
    this.headerLength = transport + headers;
    if (this.headerLength > MAX_HEADERS || this.headerLength >= length) return 0;
    this.#end = at + length;
    this.#segments = segmentsOf(length - this.headerLength, this.#size);
    // The checksum field holds the pseudo-header's sum for the whole length: take the length out.
    const field = at + transport + (this.#udp ? UDP_CHECKSUM : TCP_CHECKSUM);
    this.#pseudo = fold((u8[field] | (u8[field + 1] << 8)) + (~swap16((length - transport) & 0xffff) & 0xffff));
    return this.#segments;
  }

  /** Makes segment `i`, from 0, in order. Its header bytes hold while MAX_SEGMENTS further ones are cut. */
  cut(i: number): void {
    const memory = this.#memory;
    const { u8 } = memory;
    const header = (this.header = this.#slots + (i % SLOTS) * SLOT + HEADROOM);
    const from = this.#at;
    for (let k = 0; k < this.headerLength; k++) u8[header + k] = u8[from + k];
    this.payload = from + this.headerLength + i * this.#size;
    this.payloadLength = Math.min(this.#size, this.#end - this.payload);
    const l4Length = this.headerLength - this.#transport + this.payloadLength;
    this.#adjustNetwork(header + this.#network, i, l4Length);
    const l4 = header + this.#transport;
    if (this.#udp) put16(u8, l4 + UDP_LENGTH, l4Length);
    else this.#adjustTcp(l4, i);
    // The field is still the template's: set it to the pseudo-header's sum with this length, then sum it all.
    const field = l4 + (this.#udp ? UDP_CHECKSUM : TCP_CHECKSUM);
    const pseudo = fold(this.#pseudo + swap16(l4Length));
    putSum(u8, field, pseudo);
    const headers = this.#sum(l4, this.headerLength - this.#transport);
    const total = fold(headers + this.#sum(this.payload, this.payloadLength));
    // Of the two zeros TCP has 0, as in tcp_gso_segment (RFC 1624, 3): not every receiver's tools take the other.
    if (this.#udp) putUdpChecksum(u8, field, total);
    else putChecksum(u8, field, total);
  }

  #adjustNetwork(ip: number, i: number, l4Length: number): void {
    const { u8 } = this.#memory;
    const toTransport = this.#transport - this.#network;
    if (!this.#ipv4) {
      put16(u8, ip + IPV6_PAYLOAD_LENGTH, toTransport - IPV6_HEADER + l4Length);
      return;
    }
    put16(u8, ip + IPV4_TOTAL_LENGTH, toTransport + l4Length);
    put16(u8, ip + IPV4_ID, get16(u8, ip + IPV4_ID) + i);
    putSum(u8, ip + IPV4_CHECKSUM, 0);
    putChecksum(u8, ip + IPV4_CHECKSUM, this.#sum(ip, toTransport));
  }

  /** The sequence number moves on; CWR stays on the first segment, FIN and PSH on the last. */
  #adjustTcp(tcp: number, i: number): void {
    const { u8 } = this.#memory;
    put32(u8, tcp + TCP_SEQUENCE, get32(u8, tcp + TCP_SEQUENCE) + i * this.#size);
    if (i > 0) u8[tcp + TCP_FLAGS] &= ~TCP_FLAG_CWR;
    if (i < this.#segments - 1) u8[tcp + TCP_FLAGS] &= ~(TCP_FLAG_FIN | TCP_FLAG_PSH);
  }
}
