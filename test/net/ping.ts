// Pings from this process. ping(8) gives up late answers as soon as one has come: after the last request it waits for no more than the
// interval or twice the longest round trip so far (iputils, ping_common.h: schedule_exit), which a busy machine makes a loss of.

import { setTimeout as sleep } from 'node:timers/promises';
import type * as lab from '../../cli/lab/measure.ts';
import type { Host } from '../../cli/lab/network.ts';
import * as libc from '../../system/libc.ts';
import {
  AF_INET,
  AF_INET6,
  IP_MTU_DISCOVER,
  IP_PMTUDISC_DO,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPV6_MTU_DISCOVER,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
  sockaddr,
} from '../../system/socket.ts';
import { parseIp } from '../../wire/address.ts';
import { putChecksum, putSum, sum } from '../../wire/checksum.ts';
import {
  ICMP_CHECKSUM,
  ICMP_ECHO_ID,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_ECHO_SEQUENCE,
  ICMP_HEADER,
  ICMP_TYPE,
} from '../../wire/icmp.ts';
import { ipv4HeaderLength } from '../../wire/ipv4.ts';
import { inside } from './inside.ts';
import { noise } from './raw.ts';

/** RFC 4443, sections 4.1 and 4.2. */
const ICMPV6_ECHO_REQUEST = 128;
const ICMPV6_ECHO_REPLY = 129;
const IPV6_DONTFRAG = 62;
/** Milliseconds after the last request: with no answer at all, and when some have come, so that the others may. */
const SILENCE = 1_000;
const PATIENCE = 3_000;
const ROOM = 8 << 20;
/** Sequence numbers. */
const MOST = 0xffff;

/** As for the lab's; `interval` is 0.02 seconds by default. */
export interface PingOptions extends Omit<lab.PingOptions, 'flood'> {
  /** Ends the sending, instead of `count`. */
  until?: AbortSignal;
}

export interface PingResult extends Omit<lab.PingResult, 'rtt'> {
  /** What the host said of requests that it did not send, or heard of others. */
  errors: string[];
}

let pings = 0;

/** Total loss is a result and not an error: the caller asserts. An answer that is not what was sent is one. */
export async function ping(from: Host, address: string, options: PingOptions = {}): Promise<PingResult> {
  const { until, count = until ? MOST : 3, interval = 0.02, size = 56, dontFragment = false } = options;
  const socket = new EchoSocket(from, address, size, dontFragment);
  try {
    let sent = 0;
    while (sent < count && !until?.aborted) {
      if (sent > 0) await sleep(interval * 1000);
      socket.send(++sent);
      socket.receive();
    }
    const last = Date.now();
    const patience = () => (socket.answered.size > 0 ? PATIENCE : SILENCE);
    while (socket.answered.size + socket.errors.length < sent && Date.now() - last < patience()) {
      await sleep(2);
      socket.receive();
    }
    const received = socket.answered.size;
    const { duplicates, errors } = socket;
    return { sent, received, duplicates, loss: (sent - received) / sent, errors };
  } finally {
    socket.close();
  }
}

class EchoSocket {
  readonly answered = new Set<number>();
  readonly errors: string[] = [];
  duplicates = 0;
  readonly #isIpv4: boolean;
  readonly #fd: number;
  readonly #id = ++pings & 0xffff;
  readonly #request: Buffer;
  readonly #buffer = Buffer.alloc(0x1_0000);

  constructor(host: Host, address: string, size: number, dontFragment: boolean) {
    const ip = parseIp(address)!;
    this.#isIpv4 = ip.length === 4;
    this.#request = Buffer.concat([Buffer.alloc(ICMP_HEADER), noise(size)]);
    this.#request[ICMP_TYPE] = this.#isIpv4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
    this.#request.writeUInt16BE(this.#id, ICMP_ECHO_ID);
    const [family, protocol] = this.#isIpv4 ? [AF_INET, IPPROTO_ICMP] : [AF_INET6, IPPROTO_ICMPV6];
    const type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
    this.#fd = inside(host, () => libc.check(libc.socket(family, type, protocol), `ping ${address}`, 'socket'));
    // It gets a copy of every ICMP packet of the address, those of others too.
    this.#set(SOL_SOCKET, SO_RCVBUFFORCE, ROOM);
    if (dontFragment) {
      if (this.#isIpv4) this.#set(SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
      else for (const [name, value] of DONT_FRAGMENT6) this.#set(SOL_IPV6, name, value);
    }
    const peer = sockaddr(ip, 0);
    if (libc.connect(this.#fd, peer, peer.length) < 0) this.#note('connect');
  }

  send(sequence: number): void {
    this.#request.writeUInt16BE(sequence, ICMP_ECHO_SEQUENCE);
    // Of ICMPv6 the kernel fills it in.
    putSum(this.#request, ICMP_CHECKSUM, 0);
    if (this.#isIpv4) putChecksum(this.#request, ICMP_CHECKSUM, sum(this.#request, 0, this.#request.length));
    if (libc.send(this.#fd, this.#request, this.#request.length, 0) < 0) this.#note('send');
  }

  /** Takes what has come. */
  receive(): void {
    for (;;) {
      const length = libc.recv(this.#fd, this.#buffer, this.#buffer.length, 0);
      if (length >= 0) this.#take(this.#buffer.subarray(this.#isIpv4 ? ipv4HeaderLength(this.#buffer, 0) : 0, length));
      else if (libc.errno() === libc.EAGAIN) return;
      else this.#note('recv');
    }
  }

  close(): void {
    libc.close(this.#fd);
  }

  #take(packet: Buffer): void {
    const type = this.#isIpv4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
    if (packet[ICMP_TYPE] !== type || packet.readUInt16BE(ICMP_ECHO_ID) !== this.#id) return;
    if (!packet.subarray(ICMP_HEADER).equals(this.#request.subarray(ICMP_HEADER)))
      throw new Error(`an answer of ${packet.length} bytes that differs from its request`);
    const sequence = packet.readUInt16BE(ICMP_ECHO_SEQUENCE);
    if (this.answered.has(sequence)) this.duplicates++;
    this.answered.add(sequence);
  }

  #note(call: string): void {
    this.errors.push(`${call}: ${libc.errnoName(libc.errno())}`);
  }

  #set(level: number, name: number, value: number): void {
    const bytes = Buffer.from(new Int32Array([value]).buffer);
    libc.check(libc.setsockopt(this.#fd, level, name, bytes, bytes.length), 'ping', `setsockopt ${level}/${name}`);
  }
}

const DONT_FRAGMENT6 = [
  [IPV6_MTU_DISCOVER, IP_PMTUDISC_DO],
  [IPV6_DONTFRAG, 1],
] as const;
