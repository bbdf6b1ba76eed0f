/**
 * Practice for a worker that has just started, while nothing comes by: V8 runs code that it has not seen often some ten times slower,
 * so that the first thousands of packets would take long (flood ping: 150 us instead of 45), and bursts of them be lost.
 *
 * What practises is another worker in the same thread, which shares the compiled code and the packet memory: it has tables and counters
 * of its own, and sockets in the place of the TAPs. It sends to itself. The packet memory is shared because the checksum's WebAssembly
 * instance belongs to it: code that V8 has optimised for calls of one instance is thrown away when another one is called.
 */
import { Lists } from '../fdb/lists.ts';
import { Mdb } from '../fdb/mdb.ts';
import { NeighborTable } from '../fdb/neighbors.ts';
import { NextHops } from '../fdb/nexthops.ts';
import { STATE_BITS } from '../fdb/state.ts';
import { FdbTable } from '../fdb/table.ts';
import { buildTemplate } from '../fdb/template.ts';
import * as libc from '../system/libc.ts';
import { openSocketPair } from '../system/socket.ts';
import {
  GSO_TCPV4,
  GSO_TCPV6,
  NEEDS_CSUM,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAGS,
  VNET_GSO_SIZE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
  VNET_PLAIN,
} from '../system/vnet.ts';
import { fillIpv4Checksum, pseudoSum4, pseudoSum6, putSum } from '../wire/checksum.ts';
import { ETHER_HEADER, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../wire/ethernet.ts';
import {
  IPV4_HEADER,
  IPV4_PROTOCOL,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../wire/ipv4.ts';
import { IPV6_HEADER, IPV6_NEXT_HEADER } from '../wire/ipv6.ts';
import { TCP_CHECKSUM, TCP_HEADER } from '../wire/tcp.ts';
import { UDP_CHECKSUM } from '../wire/udp.ts';
import { BusyPoll, DEFAULT_BUSY_POLL } from './busy-poll.ts';
import { allocateCounters } from './counters.ts';
import { DEVICE_FLAGS, DEVICE_RECORD, LEARNING, MAX_DEVICES } from './device.ts';
import { FdPort } from './port.ts';
import { allocateReports } from './reports.ts';
import { Worker } from './worker.ts';

/** Turns after which a flood ping is hardly slower than later: some 300 ms in all. */
const TURNS = 500;
const SMALL = 8;
/** Every so many turns a burst of this size, after which a worker lets others have the CPU. */
const BURST_TURNS = 16;
const BURST = 40;
/** Bytes of the largest frame, and of room for what comes back. */
const LARGEST = 8192;
const ARENA = 65536;
const VNI = 1;
const PORT = 8472;

const SOURCE = [2, 0, 0, 0, 0, 3];
const KNOWN = [2, 0, 0, 0, 0, 2];
const UNKNOWN = [2, 0, 0, 0, 0, 4];
const BROADCAST = [255, 255, 255, 255, 255, 255];
const ALL_ROUTERS = [0x33, 0x33, 0, 0, 0, 2];
/** UDP and TCP headers between ports 1000 and 2000; the TCP one carries ACK. An ICMP echo request's. */
const UDP = [3, 232, 7, 208, 0, 72, 0, 0];
const TCP = [3, 232, 7, 208, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
const ICMP = [8, 0, 0, 0, 0, 1, 0, 1];
const ARP_REQUEST = [0, 1, 8, 0, 6, 4, 0, 1, ...SOURCE, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];
const ROUTER_SOLICITATION = [133, 0, 0, 0, 0, 0, 0, 0];

/** What a host sends all the time: what has not been seen yet would throw compiled code away when it comes. */
const FRAMES: readonly Uint8Array[] = [
  ...([4, 6] as const).flatMap((version) => [
    frame(KNOWN, ip(version, PROTOCOL_UDP, UDP, 64), { transport: UDP_CHECKSUM }),
    frame(KNOWN, ip(version, PROTOCOL_TCP, TCP, 0), { transport: TCP_CHECKSUM }),
    frame(KNOWN, ip(version, PROTOCOL_TCP, TCP, 1000), { transport: TCP_CHECKSUM }),
    frame(KNOWN, ip(version, PROTOCOL_TCP, TCP, 7000), { transport: TCP_CHECKSUM, segment: 1360 }),
    frame(UNKNOWN, ip(version, PROTOCOL_UDP, UDP, 64), { transport: UDP_CHECKSUM }),
  ]),
  frame(KNOWN, ip(4, PROTOCOL_ICMP, ICMP, 56)),
  frame(BROADCAST, ARP_REQUEST, {}, ETHERTYPE_ARP),
  frame(ALL_ROUTERS, ip(6, PROTOCOL_ICMPV6, ROUTER_SOLICITATION, 0)),
];

export class WarmUp {
  #left = TURNS;
  readonly counters: Float64Array;
  readonly #worker: Worker;
  readonly #fdb: FdbTable;
  /** The far ends of what stands for the device's TAP and for the uplink's. */
  readonly #host: FdPort;
  readonly #network: FdPort;
  readonly #fds: number[];
  readonly #busy = new BusyPoll(DEFAULT_BUSY_POLL);
  /** Where the frames to send lie, and where what comes is put. */
  readonly #frames: readonly (readonly [at: number, length: number])[];
  readonly #arena: number;

  /** `host`: the worker that is to be quick, and does nothing while this one practises. */
  constructor(host: Worker) {
    const nextHops = new NextHops({ onNextHop() {}, onRelease() {} }, 64);
    const fdb = new FdbTable(64);
    this.#fdb = fdb;
    const lists = new Lists(64);
    const shared = {
      packets: host.memory,
      counters: allocateCounters(1),
      fdb: fdb.buffer,
      nextHops: nextHops.buffer,
      peers: nextHops.peers.buffer,
      lists: lists.buffer,
      reports: allocateReports(1),
      neighbors: new NeighborTable(64).buffer,
      mdb: new Mdb(nextHops, lists, 0, 64).buffer,
      devices: new SharedArrayBuffer(MAX_DEVICES * DEVICE_RECORD * 4),
      control: new SharedArrayBuffer(64),
    };
    new Int32Array(shared.devices)[DEVICE_FLAGS] = LEARNING;
    const vteps = ['192.0.2.1', '192.0.2.2'].map((destination) => {
      const index = nextHops.acquire({ device: 0, ip: destination, port: PORT, vni: VNI, via: '' }, 0);
      const template = buildTemplate({
        ...{ sourceMac: '02:00:00:00:00:01', destinationMac: '02:00:00:00:00:02' },
        ...{ source: '192.0.2.1', destination, port: PORT, vni: VNI, ttl: 64, tos: 0, df: false },
        ...{ udpChecksum: true, uplink: 0, mtu: 1500 },
      });
      nextHops.publish(index, template);
      return index;
    });
    const [self, other] = vteps;
    fdb.insert(0, 0x0200, 0x00000002, other << 1, STATE_BITS.static, 0);
    fdb.insert(0, 0x0200, 0x00000003, self << 1, STATE_BITS.static, 0);
    fdb.insert(0, 0, 0, (lists.create(vteps, 0) << 1) | 1, STATE_BITS.static, 0);
    this.counters = new Float64Array(shared.counters);
    this.#worker = new Worker(0, shared, host);
    const { memory } = this.#worker;
    const [tap, far] = openSocketPair();
    const [uplink, network] = openSocketPair();
    this.#fds = [tap, far, uplink, network];
    this.#host = new FdPort(far, memory);
    this.#network = new FdPort(network, memory);
    this.#worker.addFrameUplink(
      {
        ...{ index: 0, kind: 'redirect', offloads: { tunnelGso: true, udpGso: true }, socketGso: true },
        ...{ port: PORT, family: 4, sourcePorts: [32768, 61000], largestFrame: 1522, tap: uplink, receiver: -1 },
        ...{ senders: [], dfSenders: [], groupReceivers: [], zeroChecksum6: false },
      },
      new FdPort(uplink, memory),
    );
    this.#worker.addDevice({ index: 0, vni: VNI, uplink: 0, tap, mergeUdp: true }, new FdPort(tap, memory));
    this.#arena = memory.take(ARENA);
    this.#frames = FRAMES.map((bytes) => {
      const at = memory.take(LARGEST);
      memory.u8.set(bytes, at);
      return [at, bytes.length];
    });
  }

  /** Practises a little, well under a millisecond; false: that was all, and everything is given back. */
  step(): boolean {
    this.#fdb.setClock(this.#left); // entries are stamped anew, as once a second later
    const isBurst = this.#left % BURST_TURNS === 0;
    for (let i = 0; i < (isBurst ? BURST : SMALL); i++) {
      const [at, length] = this.#frames[isBurst ? 0 : (this.#left + (i >> 1)) % this.#frames.length];
      this.#host.write(at, length);
    }
    this.#busy.waited(isBurst ? 1 : 0); // long and short, in milliseconds
    this.#worker.turn();
    // What was sent comes back.
    for (;;) {
      const size = this.#network.read(this.#arena, ARENA);
      if (size <= 0) break;
      this.#network.write(this.#arena, size);
    }
    this.#worker.turn();
    while (this.#host.read(this.#arena, ARENA) > 0);
    if (--this.#left > 0) return true;
    this.close();
    return false;
  }

  close(): void {
    if (this.#fds.length === 0) return;
    this.#worker.removeDevice(0);
    this.#worker.removeUplink(0);
    const { memory } = this.#worker;
    for (const [at] of this.#frames) memory.give(at, LARGEST);
    memory.give(this.#arena, ARENA);
    for (const fd of this.#fds.splice(0)) libc.close(fd);
  }
}

/** An IP packet; its transport checksum is what `frame` says. */
function ip(version: 4 | 6, protocol: number, l4: readonly number[], payload: number): number[] {
  const length = l4.length + payload;
  const total = IPV4_HEADER + length;
  const rest = [...l4, ...new Uint8Array(payload)];
  if (version === 6) {
    const addresses = [1, 2].flatMap((last) => [0xfd, ...new Uint8Array(14), last]);
    return [0x60, 0, 0, 0, length >> 8, length & 0xff, protocol, 64, ...addresses, ...rest];
  }
  const lengths = [total >> 8, total & 0xff];
  return [0x45, 0, ...lengths, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, ...rest];
}

interface Unfinished {
  /** Offset of the checksum in the transport header; without: the checksum is nobody's business. */
  readonly transport?: number;
  /** Bytes of payload of a packet, when the frame is a super-frame of TCP. */
  readonly segment?: number;
}

/** What the host would write: a virtio header and a frame. */
function frame(
  destination: readonly number[],
  packet: readonly number[],
  { transport, segment }: Unfinished = {},
  type = packet[0] === 0x45 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6,
): Uint8Array {
  const bytes = Uint8Array.from([
    ...new Uint8Array(VNET_PLAIN),
    ...destination,
    ...SOURCE,
    type >> 8,
    type & 0xff,
    ...packet,
  ]);
  const network = VNET_PLAIN + ETHER_HEADER;
  const isIPv4 = type === ETHERTYPE_IPV4;
  if (isIPv4) fillIpv4Checksum(bytes, network);
  if (transport === undefined) return bytes;
  const start = isIPv4 ? IPV4_HEADER : IPV6_HEADER;
  const protocol = bytes[network + (isIPv4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER)];
  const pseudo = isIPv4 ? pseudoSum4 : pseudoSum6;
  putSum(bytes, network + start + transport, pseudo(bytes, network, protocol, packet.length - start));
  const header = new DataView(bytes.buffer);
  header.setUint8(VNET_FLAGS, NEEDS_CSUM);
  header.setUint16(VNET_CHECKSUM_START, ETHER_HEADER + start, true);
  header.setUint16(VNET_CHECKSUM_OFFSET, transport, true);
  if (segment === undefined) return bytes;
  header.setUint8(VNET_GSO_TYPE, isIPv4 ? GSO_TCPV4 : GSO_TCPV6);
  header.setUint16(VNET_GSO_SIZE, segment, true);
  header.setUint16(VNET_HEADER_LENGTH, ETHER_HEADER + start + TCP_HEADER, true);
  return bytes;
}
