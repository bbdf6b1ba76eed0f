/**
 * flannel's udp backend: IP packets as they are in UDP datagrams, one each, between a TUN device and a socket (flannel: backend/udp/proxy_amd64.c).
 * A thread of its own, which blocks in poll only. IPv4 alone, as there.
 *
 *     tun -> the peer whose subnet has the destination -> TTL - 1 -> sendmsg
 *     recvmmsg -> TTL - 1 -> tun
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import * as libc from '../system/libc.ts';
import {
  AF_INET,
  MMSG_LENGTH,
  MMSGHDR,
  MSG_DONTWAIT,
  MSG_IOV,
  MSG_IOV_LENGTH,
  MSG_NAME,
  MSG_NAME_LENGTH,
  MSGHDR,
  SOCKADDR,
  SOCKADDR_IN,
  SOCKADDR_IN_ADDRESS,
  SOCKADDR_PORT,
} from '../system/socket.ts';
import { get16, get32, put16, put32 } from '../wire/bytes.ts';
import { fillIpv4Checksum, putChecksum, sum } from '../wire/checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMP_CODE,
  ICMP_HEADER,
  ICMP_NET_UNREACHABLE,
  ICMP_TYPE,
  ICMP_UNREACHABLE,
} from '../wire/icmp.ts';
import {
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV4_VERSION_IHL,
  ipv4HeaderLength,
  ipv4IsWhole,
  PROTOCOL_ICMP,
} from '../wire/ipv4.ts';

/** What became of packets; each adds to exactly one of its direction. */
export const UDP_COUNTERS = [
  ...['tx_packets', 'tx_malformed', 'tx_no_route', 'tx_ttl', 'tx_error'],
  ...['rx_packets', 'rx_malformed', 'rx_ttl', 'rx_error'],
] as const;
const [TX, TX_MALFORMED, TX_NO_ROUTE, TX_TTL, TX_ERROR, RX, RX_MALFORMED, RX_TTL, RX_ERROR] = UDP_COUNTERS.keys();

/** Packets a round. */
const BATCH = 32;
/** Longest packet that is taken: what fits a UDP datagram. */
const LARGEST = 65_536;
const IOVEC = 16;
const POLLFD = 8;
const POLLIN = 1;
/** As flannel's has it. */
const ICMP_TTL = 8;
/** Rounds without looking for messages. */
const ROUNDS = 64;

export interface UdpTunnelTask {
  readonly tun: number;
  readonly socket: number;
  readonly eventfd: number;
  /** Of the peers. */
  readonly port: number;
  /** One for each of UDP_COUNTERS. */
  readonly counters: SharedArrayBuffer;
}

/** `routes`: see UdpRoutes. */
export type UdpTunnelCommand = { readonly routes: Int32Array } | { readonly stop: true };

/** Where to send: three words a peer, its subnet's first address, mask and public IP, ordered by the first as unsigned numbers. */
export class UdpRoutes {
  #words: Int32Array = new Int32Array(0);

  set(words: Int32Array): void {
    this.#words = words;
  }

  /** The public IP for a destination; 0 when it is nobody's. Subnets do not overlap. */
  find(destination: number): number {
    const words = this.#words;
    let low = 0;
    let high = words.length / 3;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (words[3 * middle] >>> 0 <= destination >>> 0) low = middle + 1;
      else high = middle;
    }
    const at = 3 * (low - 1);
    return low > 0 && (destination & words[at + 1]) === words[at] ? words[at + 2] : 0;
  }
}

/** Takes one off the TTL of the packet at `ip` and patches its checksum (RFC 1624); false, and nothing changed, when it was the last. */
export function decrementTtl(bytes: Uint8Array, ip: number): boolean {
  if (bytes[ip + IPV4_TTL] <= 1) return false;
  bytes[ip + IPV4_TTL]--;
  const patched = get16(bytes, ip + IPV4_CHECKSUM) + 0x100;
  put16(bytes, ip + IPV4_CHECKSUM, (patched & 0xffff) + (patched >>> 16));
  return true;
}

/**
 * Writes "network unreachable" about the packet at `ip` to `to`; returns its length, 0 where nothing may be said (RFC 1122, 3.2.2). It comes
 * from where the packet was to go: from an address of this host the kernel would not take it off a device (fib_validate_source).
 */
export function writeNetUnreachable(bytes: Uint8Array, to: number, ip: number, length: number): number {
  if (bytes[ip + IPV4_PROTOCOL] === PROTOCOL_ICMP) return 0;
  if ((get16(bytes, ip + IPV4_FRAGMENT) & IPV4_FRAGMENT_OFFSET) !== 0) return 0;
  const quoted = Math.min(length, ipv4HeaderLength(bytes, ip) + 8);
  const icmp = to + IPV4_HEADER;
  bytes.fill(0, to, icmp + ICMP_HEADER);
  bytes[to + IPV4_VERSION_IHL] = 0x45;
  bytes[to + IPV4_TOS] = 0;
  put16(bytes, to + IPV4_TOTAL_LENGTH, IPV4_HEADER + ICMP_HEADER + quoted);
  put16(bytes, to + IPV4_ID, 0);
  bytes[to + IPV4_TTL] = ICMP_TTL;
  bytes[to + IPV4_PROTOCOL] = PROTOCOL_ICMP;
  bytes.copyWithin(to + IPV4_SOURCE, ip + IPV4_DESTINATION, ip + IPV4_DESTINATION + 4);
  bytes.copyWithin(to + IPV4_DESTINATION, ip + IPV4_SOURCE, ip + IPV4_SOURCE + 4);
  fillIpv4Checksum(bytes, to);
  bytes[icmp + ICMP_TYPE] = ICMP_UNREACHABLE;
  bytes[icmp + ICMP_CODE] = ICMP_NET_UNREACHABLE;
  bytes.copyWithin(icmp + ICMP_HEADER, ip, ip + quoted);
  putChecksum(bytes, icmp + ICMP_CHECKSUM, sum(bytes, icmp, ICMP_HEADER + quoted));
  return IPV4_HEADER + ICMP_HEADER + quoted;
}

/** Moves packets until it is told to stop. */
class UdpTunnel {
  readonly #task: UdpTunnelTask;
  readonly #routes = new UdpRoutes();
  readonly #counters: Float64Array;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #address: number;
  /** Offsets in the memory: pollfds, the header that sends, its address and iovec, those that receive, the packets. */
  readonly #polled = 0;
  readonly #send = 64;
  readonly #sendName = this.#send + MSGHDR + 8;
  readonly #sendIov = this.#sendName + SOCKADDR;
  readonly #receive = this.#sendIov + IOVEC;
  readonly #receiveIovs = this.#receive + BATCH * MMSGHDR;
  readonly #packets = 4096;
  readonly #scratch = this.#packets + BATCH * LARGEST;

  constructor(task: UdpTunnelTask) {
    this.#task = task;
    this.#counters = new Float64Array(task.counters);
    const memory = new SharedArrayBuffer(this.#scratch + LARGEST);
    this.#bytes = new Uint8Array(memory);
    this.#words = new Uint32Array(memory);
    this.#address = libc.addressOf(this.#bytes);
    this.#layOut();
  }

  run(): void {
    const { eventfd } = this.#task;
    for (;;) {
      libc.poll(this.#address + this.#polled, 3, -1);
      if (this.#revents(0) !== 0) {
        libc.read(eventfd, this.#address + this.#scratch, 8);
        if (!this.#takeMessages()) return;
      }
      for (let i = 0; i < ROUNDS && this.#turn() > 0; i++);
    }
  }

  #turn(): number {
    let moved = 0;
    while (moved < BATCH && this.#sendOne()) moved++;
    return moved + this.#receiveSome();
  }

  /** From the TUN device to a peer; false when there is no packet. */
  #sendOne(): boolean {
    const bytes = this.#bytes;
    const at = this.#packets;
    const length = libc.read(this.#task.tun, this.#address + at, LARGEST);
    if (length < 0) return false;
    if (!ipv4IsWhole(bytes, at, length)) {
      this.#counters[TX_MALFORMED]++; // IPv6, mostly: the device's own multicast
      return true;
    }
    const peer = this.#routes.find(get32(bytes, at + IPV4_DESTINATION));
    if (peer === 0) {
      this.#counters[TX_NO_ROUTE]++;
      const answer = writeNetUnreachable(bytes, this.#scratch, at, length);
      if (answer > 0) libc.write(this.#task.tun, this.#address + this.#scratch, answer);
      return true;
    }
    if (!decrementTtl(bytes, at)) {
      this.#counters[TX_TTL]++;
      return true;
    }
    put32(bytes, this.#sendName + SOCKADDR_IN_ADDRESS, peer);
    this.#words[(this.#sendIov + 8) >> 2] = length;
    const sent = libc.sendmsg(this.#task.socket, this.#address + this.#send, MSG_DONTWAIT);
    this.#counters[sent < 0 ? TX_ERROR : TX]++;
    return true;
  }

  #receiveSome(): number {
    const bytes = this.#bytes;
    const count = libc.recvmmsg(this.#task.socket, this.#address + this.#receive, BATCH, MSG_DONTWAIT, 0);
    for (let i = 0; i < count; i++) {
      const at = this.#packets + i * LARGEST;
      const length = this.#words[(this.#receive + i * MMSGHDR + MMSG_LENGTH) >> 2];
      if (!ipv4IsWhole(bytes, at, length)) this.#counters[RX_MALFORMED]++;
      else if (!decrementTtl(bytes, at)) this.#counters[RX_TTL]++;
      else this.#counters[libc.write(this.#task.tun, this.#address + at, length) < 0 ? RX_ERROR : RX]++;
    }
    return Math.max(count, 0);
  }

  /** False when it is to stop. */
  #takeMessages(): boolean {
    for (;;) {
      const received = receiveMessageOnPort(parentPort!) as { message: UdpTunnelCommand } | undefined;
      if (!received) return true;
      if ('stop' in received.message) return false;
      this.#routes.set(received.message.routes);
    }
  }

  #revents(i: number): number {
    return this.#words[(this.#polled + i * POLLFD + 4) >> 2] >>> 16;
  }

  #layOut(): void {
    const view = new DataView(this.#bytes.buffer);
    const pointer = (at: number, to: number) => view.setBigUint64(at, BigInt(this.#address + to), true);
    const { eventfd, tun, socket, port } = this.#task;
    [eventfd, tun, socket].forEach((fd, i) => {
      view.setInt32(this.#polled + i * POLLFD, fd, true);
      view.setUint16(this.#polled + i * POLLFD + 4, POLLIN, true);
    });
    view.setUint16(this.#sendName, AF_INET, true);
    view.setUint16(this.#sendName + SOCKADDR_PORT, port, false);
    pointer(this.#send + MSG_NAME, this.#sendName);
    view.setUint32(this.#send + MSG_NAME_LENGTH, SOCKADDR_IN, true);
    pointer(this.#send + MSG_IOV, this.#sendIov);
    view.setUint32(this.#send + MSG_IOV_LENGTH, 1, true);
    pointer(this.#sendIov, this.#packets);
    for (let i = 0; i < BATCH; i++) {
      const iov = this.#receiveIovs + i * IOVEC;
      pointer(this.#receive + i * MMSGHDR + MSG_IOV, iov);
      view.setUint32(this.#receive + i * MMSGHDR + MSG_IOV_LENGTH, 1, true);
      pointer(iov, this.#packets + i * LARGEST);
      view.setUint32(iov + 8, LARGEST, true);
    }
  }
}

if (parentPort && (workerData as { udpTunnel?: UdpTunnelTask } | null)?.udpTunnel) {
  new UdpTunnel((workerData as { udpTunnel: UdpTunnelTask }).udpTunnel).run();
}
