/**
 * Hears what routers say of IPv6 packets that do not fit their next link: ICMPv6 Packet Too Big (RFC 4443 section 3.2; routers fragment
 * IPv4, never IPv6). The kernel tells the socket that has sent the packet, and keeps the path's MTU. What the redirect uplink has
 * sent is no socket's, so that the kernel drops the message and goes on knowing nothing.
 */
import * as libc from '../system/libc.ts';
import { openTooBigSocket } from '../system/socket.ts';
import { formatIp } from '../wire/address.ts';
import { get16 } from '../wire/bytes.ts';
import { PROTOCOL_UDP } from '../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HEADER, IPV6_NEXT_HEADER } from '../wire/ipv6.ts';
import { UDP_DESTINATION } from '../wire/udp.ts';

/** Milliseconds between two looks at the socket: a path that shrinks is followed within a second. */
const PERIOD = 200;
/** The MTU, then the packet that was too big, or what of it fits (RFC 4443 section 3.2). */
const MTU = 4;
const PACKET = 8;
const SHORTEST = PACKET + IPV6_HEADER + 8;

export class TooBig {
  readonly #fd: number;
  readonly #timer: NodeJS.Timeout;
  readonly #bytes = Buffer.alloc(2048);
  readonly #onTooBig: (destination: string, port: number, mtu: number) => void;

  /** Calls back with the UDP destination of a packet that did not fit, and how large it may be. Throws without CAP_NET_RAW. */
  constructor(onTooBig: (destination: string, port: number, mtu: number) => void) {
    this.#onTooBig = onTooBig;
    this.#fd = openTooBigSocket();
    this.#timer = setInterval(() => this.#read(), PERIOD).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    libc.close(this.#fd);
  }

  #read(): void {
    const bytes = this.#bytes;
    const address = libc.addressOf(bytes);
    for (;;) {
      const length = libc.read(this.#fd, address, bytes.length);
      if (length < 0) return;
      if (length < SHORTEST || bytes[PACKET + IPV6_NEXT_HEADER] !== PROTOCOL_UDP) continue;
      const destination = PACKET + IPV6_DESTINATION;
      const port = get16(bytes, PACKET + IPV6_HEADER + UDP_DESTINATION);
      this.#onTooBig(formatIp(bytes.subarray(destination, destination + 16)), port, bytes.readUInt32BE(MTU));
    }
  }
}
