/**
 * The sending half that all uplinks share. It collects a run: packets of one flow to one next hop, all of one size but a
 * shorter last one. A run leaves as one UDP super-packet, which costs about as much as a single packet does.
 *
 *     run:   [headers | frame 0] [VXLAN | frame 1] ... [VXLAN | frame n]
 *
 * Headers are written in front of the frames, so no payload is ever copied. A super-frame that the uplink does not take as it
 * is joins the run in segments.
 */
import {
  FLAGS,
  IP_SUM,
  loadWord,
  MTU,
  OUTER_LENGTH,
  PSEUDO_SUM,
  RECORD,
  RESOLVED,
  STATE,
  TEMPLATE,
  UDP_CHECKSUM,
  VIA_HOST,
} from '../../fdb/nexthops.ts';
import { ORDERED_LOADS } from '../../fdb/table.ts';
import * as libc from '../../system/libc.ts';
import { NEEDS_CSUM } from '../../system/vnet.ts';
import { ETHER_HEADER } from '../../wire/ethernet.ts';
import { IPV4_DONT_FRAGMENT, IPV4_FRAGMENT, IPV4_TOS, IPV4_TTL } from '../../wire/ipv4.ts';
import { IPV6_HOP_LIMIT } from '../../wire/ipv6.ts';
import { OUTER_LENGTH_IPV4, VXLAN_HEADER } from '../../wire/vxlan.ts';
import type { Batch } from '../batch.ts';
import { finishChecksum, type Sum } from '../checksum.ts';
import { COUNTER, TX_ERRNO } from '../counters.ts';
import { MARK_DF, MARK_TTL_SHIFT } from '../marks.ts';
import { IOVEC, type PacketMemory } from '../memory.ts';
import { MAX_SEGMENTS, Segmenter } from '../segment.ts';
import type { UplinkOffloads } from './uplink.ts';

/** UDP payload of a run: a UDP socket takes no more, and the outer IPv4 length is 16 bits. */
const MAX_RUN_BYTES = 65507;
/** At most headers and payload a segment. */
const IOVECS_BYTES = 2 * MAX_SEGMENTS * IOVEC;
/** Looks at a record that is being written: the writer needs less than a microsecond, unless it is off the CPU. */
const SEQUENCE_TRIES = 1000;
/** Room for the uplink's virtio header in front of the outer Ethernet header. */
export const VNET_ROOM = 24;

export abstract class Sender {
  protected readonly memory: PacketMemory;
  protected readonly sum: Sum;
  protected readonly counters: Float64Array;
  protected readonly iovecs: number;
  protected udpGso: boolean;
  /** Whether the kernel finishes the inner checksum of a packet that is sent alone. */
  protected abstract readonly leavesChecksums: boolean;
  /** Whether packets go through the host's stack, which finds MAC addresses and fragments. */
  protected abstract readonly isHostPath: boolean;
  readonly #viaHost: Sender | undefined;
  readonly #nextHops: Int32Array;
  readonly #segmenter: Segmenter;

  // The run. Its first packet's outer headers are in place, up to what depends on the whole run.
  protected count = 0;
  protected iovecCount = 0;
  /** Offset of frame 0; its headers end there. */
  protected first = 0;
  /** Length of what follows the headers in iovec 0. */
  protected firstLength = 0;
  /** UDP payload: all segments with their VXLAN headers. */
  protected bytes = 0;
  /** Size of every segment but the last, VXLAN header included. */
  protected segment = 0;
  protected entropyOfRun = 0;
  protected scope = 0;
  /** Length of the outer headers: Ethernet, IP, UDP, VXLAN. */
  protected outer = 0;
  protected ipSum = 0;
  protected pseudoSum = 0;
  protected udpChecksum = false;
  /** What the frames give the outer header, see marks.ts. */
  protected marksOfRun = 0;
  /** Index of the first iovec of each segment; entry `count` is iovecCount. */
  protected readonly iovecOf = new Int32Array(MAX_SEGMENTS + 1);
  // Checksum metadata of frame 0 while it is alone: it is finished here only if a second frame joins.
  protected needsChecksum = 0;
  protected checksumStart = 0;
  protected checksumOffset = 0;
  #mtu = 0;
  #nextHop = -1;
  // The VXLAN header of the run, as 16-bit words (frames are aligned to 2, not to 4, bytes).
  #vxlan0 = 0;
  #vxlan1 = 0;
  #vxlan2 = 0;
  #vxlan3 = 0;

  /** `viaHost`: takes what this one cannot carry. */
  constructor(
    memory: PacketMemory,
    sum: Sum,
    counters: Float64Array,
    nextHops: Int32Array,
    offloads: UplinkOffloads,
    viaHost?: Sender,
  ) {
    this.#viaHost = viaHost;
    this.memory = memory;
    this.sum = sum;
    this.counters = counters;
    this.#nextHops = nextHops;
    this.udpGso = offloads.udpGso;
    this.iovecs = memory.take(IOVECS_BYTES);
    this.#segmenter = new Segmenter(memory, sum);
  }

  /** Sends the run, and counts its packets as sent or as dropped under a reason. */
  protected abstract transmitRun(): void;

  /** Sends frame 0, a super-frame, as it is and counts it; false when the uplink does not take it. */
  protected abstract transmitSuperFrame(batch: Batch, index: number): boolean;

  send(batch: Batch, index: number, nextHop: number, entropy: number, scope: number, mayFragment: boolean): number {
    const at = batch.at[index];
    const length = batch.length[index];
    const marks = batch.marks[index];
    if (batch.flags[index] & NEEDS_CSUM && batch.checksumStart[index] + batch.checksumOffset[index] + 2 > length) {
      this.counters[scope + COUNTER.tx_malformed]++;
      return 0;
    }
    if (batch.gsoType[index] !== 0) {
      return this.#sendSuperFrame(batch, index, nextHop, entropy, scope, mayFragment);
    } else if (this.#joins(length, nextHop, entropy, marks)) {
      if (this.needsChecksum) this.#finishFirst();
      if (batch.flags[index] & NEEDS_CSUM) this.#finish(batch, index);
      this.#append(at, length);
    } else {
      this.flush();
      if (batch.flags[index] & NEEDS_CSUM && !this.leavesChecksums) this.#finish(batch, index);
      if (!this.#open(at, length, nextHop, entropy, marks, scope)) {
        return this.#sendViaHost(batch, index, nextHop, entropy, scope);
      }
      if (!this.#fits(length)) {
        if (!mayFragment || this.#hasDf(at)) return this.#refuse();
        if (!this.isHostPath) return this.#sendViaHost(batch, index, nextHop, entropy, scope);
      }
      this.needsChecksum = batch.flags[index] & NEEDS_CSUM;
      this.checksumStart = batch.checksumStart[index];
      this.checksumOffset = batch.checksumOffset[index];
    }
    return 0;
  }

  flush(): void {
    if (this.count === 0) return;
    this.transmitRun();
    this.count = 0;
  }

  /** Gives its packet memory back; its descriptors are the main thread's. */
  close(): void {
    this.memory.give(this.iovecs, IOVECS_BYTES);
    this.#segmenter.close();
    this.#viaHost?.close();
  }

  #sendSuperFrame(
    batch: Batch,
    index: number,
    nextHop: number,
    entropy: number,
    scope: number,
    mayFragment: boolean,
  ): number {
    this.flush();
    const marks = batch.marks[index];
    const segmenter = this.#segmenter;
    const segments = segmenter.begin(batch, index);
    if (segments === 0) {
      this.counters[scope + COUNTER.tx_malformed]++;
      return 0;
    }
    const largest =
      segmenter.headerLength + Math.min(batch.gsoSize[index], batch.length[index] - segmenter.headerLength);
    if (!this.#open(batch.at[index], batch.length[index], nextHop, entropy, marks, scope)) {
      return this.#sendViaHost(batch, index, nextHop, entropy, scope);
    }
    if (!this.#fits(largest)) {
      if (!mayFragment || this.#hasDf(batch.at[index])) return this.#refuse();
      if (!this.isHostPath) return this.#sendViaHost(batch, index, nextHop, entropy, scope);
    }
    const whole = this.transmitSuperFrame(batch, index);
    this.count = 0;
    if (whole) return 0;
    this.counters[scope + COUNTER.tx_segments] += segments - 1;
    for (let i = 0; i < segments; i++) {
      segmenter.cut(i);
      const { header, headerLength, payload, payloadLength } = segmenter;
      if (this.#joins(headerLength + payloadLength, nextHop, entropy, marks)) {
        this.#append(header, headerLength);
      } else {
        this.flush();
        if (!this.#open(header, headerLength, nextHop, entropy, marks, scope)) {
          this.counters[scope + COUNTER.tx_unresolved]++; // since a moment ago
          continue;
        }
        this.segment += payloadLength;
      }
      this.memory.setIovec(this.iovecs, this.iovecCount++, payload, payloadLength);
      this.iovecOf[this.count] = this.iovecCount;
      this.bytes += payloadLength;
    }
    this.flush(); // the segmenter's headers are used again by the next super-frame
    return 0;
  }

  /**
   * What this uplink cannot carry (its next hop's MAC is not known, it does not fit the path and has to be fragmented) goes
   * through the host's own stack, or is dropped where there is no such way.
   */
  #sendViaHost(batch: Batch, index: number, nextHop: number, entropy: number, scope: number): number {
    const reason = this.count > 0 ? COUNTER.tx_too_big : COUNTER.tx_unresolved;
    this.count = 0;
    if (this.#viaHost && this.#nextHops[nextHop * RECORD + STATE] >= RESOLVED) {
      const refused = this.#viaHost.send(batch, index, nextHop, entropy, scope, true);
      this.#viaHost.flush();
      return refused;
    }
    this.counters[scope + reason]++;
    return 0;
  }

  /** Gives up the run that was just opened: how long its inner IP packet may be. */
  #refuse(): number {
    this.count = 0;
    return this.#mtu - this.outer;
  }

  /** Whether the outer header in front of the frame at `at` says DF, which IPv4 alone has. */
  #hasDf(at: number): boolean {
    if (this.outer !== OUTER_LENGTH_IPV4) return false;
    return (this.memory.u8[at - OUTER_LENGTH_IPV4 + ETHER_HEADER + IPV4_FRAGMENT] & (IPV4_DONT_FRAGMENT >> 8)) !== 0;
  }

  /** Whether a packet of `length` bytes can be the run's next segment. */
  #joins(length: number, nextHop: number, entropy: number, marks: number): boolean {
    return (
      this.count > 0 &&
      length + VXLAN_HEADER <= this.segment &&
      nextHop === this.#nextHop &&
      entropy === this.entropyOfRun &&
      marks === this.marksOfRun &&
      this.udpGso &&
      this.udpChecksum && // a super-packet is always sent with checksums
      this.count < MAX_SEGMENTS &&
      this.bytes === this.count * this.segment && // none shorter yet
      this.bytes + length + VXLAN_HEADER <= MAX_RUN_BYTES
    );
  }

  #append(at: number, length: number): void {
    const { u16 } = this.memory;
    const word = (at - VXLAN_HEADER) >> 1;
    u16[word] = this.#vxlan0;
    u16[word + 1] = this.#vxlan1;
    u16[word + 2] = this.#vxlan2;
    u16[word + 3] = this.#vxlan3;
    this.memory.setIovec(this.iovecs, this.iovecCount++, at - VXLAN_HEADER, length + VXLAN_HEADER);
    this.iovecOf[++this.count] = this.iovecCount;
    this.bytes += length + VXLAN_HEADER;
  }

  /** Starts a run with the frame at `at`: writes the next hop's headers in front of it. False: it cannot be sent to from here. */
  #open(at: number, length: number, nextHop: number, entropy: number, marks: number, scope: number): boolean {
    this.scope = scope;
    if (!this.#copyTemplate(at, nextHop)) return false;
    if (marks !== 0) this.#mark(at, marks);
    this.marksOfRun = marks;
    const { u16 } = this.memory;
    const word = (at - VXLAN_HEADER) >> 1;
    this.#vxlan0 = u16[word];
    this.#vxlan1 = u16[word + 1];
    this.#vxlan2 = u16[word + 2];
    this.#vxlan3 = u16[word + 3];
    this.#nextHop = nextHop;
    this.entropyOfRun = entropy;
    this.first = at;
    this.firstLength = length;
    this.bytes = this.segment = length + VXLAN_HEADER;
    this.count = this.iovecCount = this.iovecOf[1] = 1;
    this.needsChecksum = 0;
    return true;
  }

  /**
   * Copies the next hop's template to the bytes before `at`. The writer makes the record's sequence odd while it changes it, so a
   * copy is whole when the sequence was even and is the same afterwards. False when the record is not usable, or is being
   * written for longer than a writer that runs takes.
   */
  #copyTemplate(at: number, nextHop: number): boolean {
    const records = this.#nextHops;
    const record = nextHop * RECORD;
    const { u32, u16 } = this.memory;
    for (let tries = 0; tries < SEQUENCE_TRIES; tries++) {
      const sequence = Atomics.load(records, record);
      if ((sequence & 1) !== 0) continue;
      const state = loadWord(records, record + STATE);
      if (state !== RESOLVED && (state !== VIA_HOST || !this.isHostPath)) return false;
      const outer = (this.outer = loadWord(records, record + OUTER_LENGTH));
      const start = at - outer - VNET_ROOM; // a multiple of 4, since frames start at 2 mod 4
      const words = (VNET_ROOM + outer) >> 2;
      const to = start >> 2;
      const from = record + TEMPLATE;
      // As in loadWord(): on ARM plain loads may be later than the second look at the sequence.
      if (ORDERED_LOADS) for (let i = 0; i < words; i++) u32[to + i] = records[from + i];
      else for (let i = 0; i < words; i++) u32[to + i] = Atomics.load(records, from + i);
      u16[(at - 2) >> 1] = loadWord(records, from + words);
      this.ipSum = loadWord(records, record + IP_SUM);
      this.pseudoSum = loadWord(records, record + PSEUDO_SUM);
      this.udpChecksum = (loadWord(records, record + FLAGS) & UDP_CHECKSUM) !== 0;
      this.#mtu = loadWord(records, record + MTU);
      if (Atomics.load(records, record) === sequence) return true;
    }
    return false;
  }

  /** Adds what the frame decides to the headers in front of `at`: the template has zeros there. */
  #mark(at: number, marks: number): void {
    const { u8 } = this.memory;
    const ip = at - this.outer + ETHER_HEADER;
    const tos = marks & 0xff;
    const ttl = (marks >> MARK_TTL_SHIFT) & 0xff;
    if (this.outer === OUTER_LENGTH_IPV4) {
      const df = marks & MARK_DF ? IPV4_DONT_FRAGMENT >> 8 : 0;
      u8[ip + IPV4_TOS] |= tos;
      u8[ip + IPV4_FRAGMENT] |= df;
      u8[ip + IPV4_TTL] |= ttl;
      this.ipSum += (tos << 8) + df + ttl; // of little-endian words; folded with the rest
    } else {
      u8[ip] |= tos >> 4;
      u8[ip + 1] |= (tos & 0xf) << 4;
      u8[ip + IPV6_HOP_LIMIT] |= ttl;
    }
  }

  /** Whether an inner frame of `length` bytes fits the path, as far as it is known: a next hop of the host's stack may have no MTU. */
  #fits(length: number): boolean {
    return length + this.outer - ETHER_HEADER <= this.#mtu || this.#mtu === 0;
  }

  /** Finishes a frame's checksum, once: with head-end replication the same frame is sent several times. */
  #finish(batch: Batch, index: number): void {
    const start = batch.checksumStart[index];
    finishChecksum(this.memory, this.sum, batch.at[index], batch.length[index], start, batch.checksumOffset[index]);
    batch.flags[index] = 0;
  }

  #finishFirst(): void {
    finishChecksum(this.memory, this.sum, this.first, this.firstLength, this.checksumStart, this.checksumOffset);
    this.needsChecksum = 0;
  }

  /** The drop reason for a failed send. */
  protected reason(errno: number): number {
    switch (errno) {
      case libc.EAGAIN:
      case libc.ENOBUFS:
        return COUNTER.tx_uplink_full;
      case libc.EMSGSIZE:
        return COUNTER.tx_too_big;
      case libc.EIO: // a TAP that is down
      case libc.ENETDOWN:
      case libc.ENODEV:
        return COUNTER.tx_uplink_down;
      case libc.ENETUNREACH:
      case libc.EHOSTUNREACH:
        return COUNTER.tx_unresolved;
      case libc.EPERM:
      case libc.EACCES:
        return COUNTER.tx_refused;
      default:
        this.counters[this.scope + TX_ERRNO] = errno;
        return COUNTER.tx_uplink_error;
    }
  }
}
