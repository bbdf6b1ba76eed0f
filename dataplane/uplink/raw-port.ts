/**
 * The port of the `raw` uplink: sends each packet by one call of the raw-socket package, IP header included, as a straightforward Node
 * program would. A baseline for benchmarks and lessons. The package works on the main thread only. Nothing is read here: packets
 * come in on the UDP socket of the VXLAN port.
 */
import { createRequire } from 'node:module';
import * as libc from '../../system/libc.ts';
import { NEEDS_CSUM, VNET_CHECKSUM_OFFSET, VNET_CHECKSUM_START, VNET_FLAGS, VNET_TUNNEL } from '../../system/vnet.ts';
import { formatIpv4, formatIpv6 } from '../../wire/address.ts';
import { ETHER_HEADER } from '../../wire/ethernet.ts';
import { IPV4_DESTINATION } from '../../wire/ipv4.ts';
import { IPV6_DESTINATION } from '../../wire/ipv6.ts';
import { finishChecksum, type Sum } from '../checksum.ts';
import { IOVEC, LARGEST_FRAME, type PacketMemory } from '../memory.ts';
import type { Port } from '../port.ts';

/** What we use of the package. */
interface RawSocket {
  send(packet: Buffer, offset: number, length: number, address: string, done: (error: Error | null) => void): void;
  on(event: 'error', listener: (error: Error) => void): void;
  close(): void;
}
interface RawSocketModule {
  createSocket(options: { protocol: number; addressFamily: number }): RawSocket;
  readonly AddressFamily: { readonly IPv4: number; readonly IPv6: number };
}

/** IPPROTO_RAW: the IP header is ours, in either family, and nothing is ever received (raw(7); Linux: inet6_create). */
const PROTOCOL_RAW = 255;

/** Packets that wait for the event loop; further ones are refused with ENOBUFS. */
const MAX_QUEUED = 1024;

export class RawPort implements Port {
  readonly fd = -1;
  readonly #memory: PacketMemory;
  readonly #sum: Sum;
  readonly #socket: RawSocket;
  readonly #family: 4 | 6;
  readonly #gathered: number;
  /** Whose the packets are that are written now; `onRefused` gets it back. */
  scope = 0;
  /** Called when the kernel has refused a packet that `write` had taken. */
  onRefused: (scope: number, errno: number) => void = () => {};
  #queued = 0;
  #errno = 0;

  /** Throws when the package is not installed: it is optional, and compiled at install. */
  constructor(memory: PacketMemory, sum: Sum, family: 4 | 6) {
    this.#memory = memory;
    this.#sum = sum;
    this.#family = family;
    this.#gathered = memory.take(LARGEST_FRAME);
    const { createSocket, AddressFamily } = loadPackage();
    this.#socket = createSocket({ protocol: PROTOCOL_RAW, addressFamily: AddressFamily[`IPv${family}`] });
    this.#socket.on('error', () => {}); // of one packet: its own callback tells
  }

  read(): number {
    return this.#fail(libc.EAGAIN);
  }

  write(at: number, length: number): number {
    const { u8, u16 } = this.#memory;
    if (this.#queued >= MAX_QUEUED) return this.#fail(libc.ENOBUFS);
    const frame = at + VNET_TUNNEL;
    if (u8[at + VNET_FLAGS] & NEEDS_CSUM) {
      const start = u16[(at + VNET_CHECKSUM_START) >> 1];
      const offset = u16[(at + VNET_CHECKSUM_OFFSET) >> 1];
      finishChecksum(this.#memory, this.#sum, frame, length - VNET_TUNNEL, start, offset);
    }
    const ip = frame + ETHER_HEADER;
    // A copy: the package sends later, when packet memory is in use for others.
    const packet = Buffer.from(u8.slice(ip, at + length));
    const { scope } = this;
    const to = this.#family === 4 ? formatIpv4(packet, IPV4_DESTINATION) : formatIpv6(packet, IPV6_DESTINATION);
    this.#queued++;
    this.#socket.send(packet, 0, packet.length, to, (error) => {
      this.#queued--;
      if (error) this.onRefused(scope, libc.errnoOf(error.message));
    });
    return length;
  }

  /** A segment of a super-frame: headers and a slice of payload. */
  writev(iovecs: number, count: number): number {
    const { u8, u32, address } = this.#memory;
    let length = 0;
    for (let i = 0; i < count; i++) {
      const word = (iovecs + i * IOVEC) >> 2;
      const at = u32[word] + u32[word + 1] * 2 ** 32 - address;
      u8.copyWithin(this.#gathered + length, at, at + u32[word + 2]);
      length += u32[word + 2];
    }
    return this.write(this.#gathered, length);
  }

  errno(): number {
    return this.#errno;
  }

  close(): void {
    this.#memory.give(this.#gathered, LARGEST_FRAME);
    this.#socket.close();
  }

  #fail(errno: number): number {
    this.#errno = errno;
    return -1;
  }
}

/** Throws one sentence when the package is not there. */
export function loadPackage(): RawSocketModule {
  try {
    return createRequire(import.meta.url)('raw-socket') as RawSocketModule;
  } catch (error) {
    const { message } = error as Error;
    throw new Error(
      `uplink raw needs the raw-socket package, which is compiled at install: npm install raw-socket (${message.split('\n')[0]})`,
    );
  }
}
