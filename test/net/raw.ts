// Frames and datagrams of any content, sent and received in a host.

import type { Host } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import * as libc from '../../system/libc.ts';
import {
  AF_INET,
  CMSG,
  CMSG_DATA,
  CMSG_LEVEL,
  CMSG_TYPE,
  MSG_CONTROL,
  MSG_CONTROL_LENGTH,
  MSG_IOV,
  MSG_IOV_LENGTH,
  MSG_NAME,
  MSG_NAME_LENGTH,
  MSGHDR,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOCKADDR,
  SOCKADDR_IN,
  SOCKADDR_IN_ADDRESS,
  SOL_SOCKET,
  SOL_UDP,
  sockaddr,
  UDP_SEGMENT,
} from '../../system/socket.ts';
import { parseIpv4 } from '../../wire/address.ts';
import { fillIpv4Checksum, fold, pseudoSum4, putSum, putUdpChecksum, sum } from '../../wire/checksum.ts';
import { IPV4_HEADER, PROTOCOL_UDP, writeIpv4Header } from '../../wire/ipv4.ts';
import { UDP_CHECKSUM, UDP_HEADER, writeUdpHeader } from '../../wire/udp.ts';
import { inside } from './inside.ts';

const AF_PACKET = 17;
/** struct sockaddr_ll (packet(7)): family, protocol (big-endian), interface index, and what only the kernel fills in. */
const SOCKADDR_LL = 20;
const IOVEC = 16;
const ANY = '0.0.0.0';
/** Bytes that a listener's socket holds until somebody looks. */
const ROOM = 8 << 20;

export interface Datagram {
  /** Source address and port; default any. */
  source?: string;
  from?: number;
  /** Destination port. */
  to: number;
  /** Bytes: send the payload as one super-frame, cut every so many bytes (UDP_SEGMENT). */
  segment?: number;
  payload: Uint8Array;
}

/**
 * Sends each frame `count` times on a device, or on one after the other, the Ethernet header included. Without pause: more may be sent
 * than fits.
 */
export function sendFrames(
  host: Host,
  devices: string | readonly string[],
  frames: readonly Uint8Array[],
  count = 1,
): void {
  for (const device of [devices].flat()) {
    const fd = inside(host, () => packetSocket(device, 0));
    try {
      for (const frame of frames) {
        const bytes = Buffer.from(frame);
        const address = libc.addressOf(bytes);
        for (let sent = 0; sent < count; sent++) {
          // What the device has no room for counts as sent: it was offered.
          if (libc.write(fd, address, bytes.length) < 0 && libc.errno() !== libc.ENOBUFS)
            throw new libc.SystemError(`frame of ${bytes.length} bytes on ${device}`, 'write', libc.errno());
        }
      }
    } finally {
      libc.close(fd);
    }
  }
}

/** Sends datagrams to an IPv4 address, in order; waits for room rather than to drop one. Throws what the host says to one. */
export function sendDatagrams(host: Host, address: string, datagrams: readonly Datagram[]): void {
  const sockets = new Map<string, number>();
  try {
    for (const { source = ANY, from = 0, to, segment = 0, payload } of datagrams) {
      const end = `${source}:${from}`;
      const fd = sockets.get(end) ?? inside(host, () => udpSocket(udpAddress(source, from), 0));
      sockets.set(end, fd);
      sendDatagram(fd, udpAddress(address, to), segment, Buffer.from(payload));
    }
  } finally {
    for (const fd of sockets.values()) libc.close(fd);
  }
}

/** What has arrived at one place, in order. */
export class Listener {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(0x1_0000);
  readonly #from = Buffer.alloc(SOCKADDR);
  readonly #received: string[] = [];
  readonly #sources: string[] = [];
  #open = true;

  private constructor(fd: number) {
    this.#fd = fd;
    const room = Buffer.from(new Int32Array([ROOM]).buffer);
    libc.check(libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, room, room.length), 'listener', 'setsockopt');
  }

  /** Frames of one ethertype that a device receives. */
  static frames(host: Host, device: string, etherType: string): Listener {
    return new Listener(inside(host, () => packetSocket(device, Number.parseInt(etherType, 16))));
  }

  /** Payloads of datagrams for a UDP port. */
  static datagrams(host: Host, port: number): Listener {
    return new Listener(inside(host, () => udpSocket(udpAddress(ANY, port), SOCK_NONBLOCK)));
  }

  /** As hex. */
  get received(): readonly string[] {
    this.#take();
    return [...this.#received];
  }

  /** Of datagrams: the address that each came from. */
  get sources(): readonly string[] {
    this.#take();
    return [...this.#sources];
  }

  /** Resolves with all that has arrived when it is `count` or more. */
  async atLeast(count: number): Promise<string[]> {
    await eventually(`${count} packets received`, () => this.received.length >= count);
    return [...this.received];
  }

  stop(): void {
    if (!this.#open) return;
    this.#open = false;
    libc.close(this.#fd);
  }

  #take(): void {
    while (this.#open) {
      const size = Buffer.from(new Int32Array([SOCKADDR]).buffer);
      const length = libc.recvfrom(this.#fd, this.#buffer, this.#buffer.length, 0, this.#from, size);
      if (length < 0 && libc.errno() === libc.EAGAIN) return;
      this.#received.push(this.#buffer.toString('hex', 0, libc.check(length, 'listener', 'recvfrom')));
      this.#sources.push(this.#from.subarray(SOCKADDR_IN_ADDRESS, SOCKADDR_IN_ADDRESS + 4).join('.'));
    }
  }
}

/** On a device of this thread's namespace; with an ethertype it receives such frames, without blocking. */
function packetSocket(device: string, etherType: number): number {
  const address = Buffer.alloc(SOCKADDR_LL);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(etherType, 2);
  address.writeInt32LE(libc.ifIndex(device), 4);
  const type = SOCK_RAW | SOCK_CLOEXEC | (etherType === 0 ? 0 : SOCK_NONBLOCK);
  const fd = libc.check(libc.socket(AF_PACKET, type, 0), device, 'socket(AF_PACKET)');
  libc.check(libc.bind(fd, address, address.length), device, 'bind(AF_PACKET)');
  return fd;
}

/** In this thread's namespace. A blocking one waits for room instead of dropping. */
function udpSocket(address: Buffer, flags: number): number {
  const fd = libc.check(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | flags, 0), 'UDP socket', 'socket');
  libc.check(libc.bind(fd, address, address.length), 'UDP socket', 'bind');
  return fd;
}

function udpAddress(address: string, port: number): Buffer {
  return sockaddr(parseIpv4(address)!, port);
}

function sendDatagram(fd: number, to: Buffer, segment: number, payload: Buffer): void {
  const iovec = Buffer.alloc(IOVEC);
  iovec.writeBigUInt64LE(BigInt(payload.length === 0 ? 0 : libc.addressOf(payload)), 0);
  iovec.writeBigUInt64LE(BigInt(payload.length), 8);
  const control = Buffer.alloc(CMSG);
  control.writeBigUInt64LE(BigInt(CMSG_DATA + 2), 0);
  control.writeInt32LE(SOL_UDP, CMSG_LEVEL);
  control.writeInt32LE(UDP_SEGMENT, CMSG_TYPE);
  control.writeUInt16LE(segment, CMSG_DATA);
  const header = Buffer.alloc(MSGHDR);
  header.writeBigUInt64LE(BigInt(libc.addressOf(to)), MSG_NAME);
  header.writeUInt32LE(SOCKADDR_IN, MSG_NAME_LENGTH);
  header.writeBigUInt64LE(BigInt(libc.addressOf(iovec)), MSG_IOV);
  header.writeUInt32LE(1, MSG_IOV_LENGTH);
  if (segment > 0) {
    header.writeBigUInt64LE(BigInt(libc.addressOf(control)), MSG_CONTROL);
    header.writeUInt32LE(CMSG, MSG_CONTROL_LENGTH);
  }
  libc.check(libc.sendmsg(fd, libc.addressOf(header), 0), `datagram of ${payload.length} bytes`, 'sendmsg');
}

/** An Ethernet frame; MAC addresses as text, the ethertype, tags in front of it included, as hex. */
export function frame(destination: string, source: string, etherType: string, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${destination}${source}${etherType}`.replaceAll(':', ''), 'hex'), payload]);
}

export interface UdpPacket {
  source: string;
  destination: string;
  /** Source and destination port. */
  ports: readonly [number, number];
  payload: Uint8Array;
}

/** An IPv4 packet with its UDP datagram, checksums included. */
export function udpPacket({ source, destination, ports, payload }: UdpPacket): Buffer {
  const length = UDP_HEADER + payload.length;
  const bytes = Buffer.alloc(IPV4_HEADER + length);
  writeIpv4Header(bytes, 0, {
    totalLength: bytes.length,
    protocol: PROTOCOL_UDP,
    tos: 0,
    id: 1,
    dontFragment: false,
    ttl: 64,
    source: parseIpv4(source)!,
    destination: parseIpv4(destination)!,
  });
  fillIpv4Checksum(bytes, 0);
  writeUdpHeader(bytes, IPV4_HEADER, ports[0], ports[1], length);
  bytes.set(payload, IPV4_HEADER + UDP_HEADER);
  putSum(bytes, IPV4_HEADER + UDP_CHECKSUM, fold(pseudoSum4(bytes, 0, PROTOCOL_UDP, length)));
  putUdpChecksum(bytes, IPV4_HEADER + UDP_CHECKSUM, fold(sum(bytes, IPV4_HEADER, length)));
  return bytes;
}

/** Bytes that look random and are the same every time: a linear congruential generator (Numerical Recipes). */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
