/**
 * Hears what routers say of our packets that do not fit their next link: ICMP "fragmentation needed" of IPv4 packets with DF (RFC 1191), ICMPv6
 * "packet too big" of all IPv6 packets (RFC 4443 section 3.2). The kernel tells the socket that has sent the packet, and keeps the
 * path's MTU. What the redirect uplink has sent is no socket's, so that the kernel goes on knowing nothing; and what a socket's packet
 * has brought to light the kernel tells nobody else.
 *
 * Whoever can send us packets can send such errors (RFC 5927 section 7). So the packet that one quotes has to be one of ours: UDP to a VTEP's
 * port, from our address, VXLAN as far as it is quoted, larger than the MTU that is told, and of IPv4 with DF.
 */
import * as libc from '../system/libc.ts';
import { openIcmpSocket } from '../system/socket.ts';
import { formatIp } from '../wire/address.ts';
import { get16, get32 } from '../wire/bytes.ts';
import { ICMP_CODE, ICMP_FRAGMENTATION_NEEDED, ICMP_HEADER } from '../wire/icmp.ts';
import {
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT,
  IPV4_HEADER,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  ipv4HeaderLength,
  ipv4IsWhole,
  PROTOCOL_UDP,
} from '../wire/ipv4.ts';
import {
  IPV6_DESTINATION,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  ipv6IsWhole,
} from '../wire/ipv6.ts';
import { UDP_DESTINATION, UDP_HEADER } from '../wire/udp.ts';
import { VXLAN_FLAGS, VXLAN_HEADER, VXLAN_I, vxlanVni } from '../wire/vxlan.ts';

/** Milliseconds between two looks at the socket: a path that shrinks is followed within a second. */
const PERIOD = 200;
/** Of an ICMP error: the MTU, of IPv4 in the lower half; behind the header is the packet, or what of it fits. */
const MTU = 4;
/** What an error says: packets of ours to a VTEP may have so many bytes. */
export interface PathLimit {
  /** The quoted packet's addresses, and its UDP destination port. */
  readonly source: string;
  readonly destination: string;
  readonly port: number;
  /** undefined: the error does not quote so much. */
  readonly vni: number | undefined;
  /** Bytes of the outer IP packet; 0 from a router from before RFC 1191. */
  readonly mtu: number;
}

/**
 * What an ICMP message of `length` bytes says, as a raw socket hands it over: of IPv4 with its IP header. undefined when it is no such error, or
 * does not quote a VXLAN packet that it could be about.
 */
export function readPathLimit(bytes: Uint8Array, length: number, family: 4 | 6): PathLimit | undefined {
  const icmp = family === 4 ? ipv4HeaderLength(bytes, 0) : 0;
  const quoted = icmp + ICMP_HEADER;
  const room = length - quoted;
  const isIpv4 = family === 4;
  if (isIpv4 && (!ipv4IsWhole(bytes, 0, length) || !ipv4IsWhole(bytes, quoted, room))) return undefined;
  if (!isIpv4 && !ipv6IsWhole(bytes, quoted, room)) return undefined;
  const header = isIpv4 ? IPV4_HEADER : IPV6_HEADER;
  if (isIpv4 && (bytes[icmp + ICMP_CODE] !== ICMP_FRAGMENTATION_NEEDED || !isPlain(bytes, quoted))) return undefined;
  if (bytes[quoted + (isIpv4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER)] !== PROTOCOL_UDP) return undefined;
  if (room < header + UDP_HEADER) return undefined;
  const mtu = isIpv4 ? get16(bytes, icmp + MTU + 2) : get32(bytes, icmp + MTU) >>> 0;
  const size = isIpv4
    ? get16(bytes, quoted + IPV4_TOTAL_LENGTH)
    : IPV6_HEADER + get16(bytes, quoted + IPV6_PAYLOAD_LENGTH);
  if (mtu >= size) return undefined;
  const udp = quoted + header;
  const vxlan = udp + UDP_HEADER;
  const hasVxlan = length >= vxlan + VXLAN_HEADER;
  if (hasVxlan && (bytes[vxlan + VXLAN_FLAGS] & VXLAN_I) === 0) return undefined;
  const address = (offset: number) => formatIp(bytes.subarray(quoted + offset, quoted + offset + (isIpv4 ? 4 : 16)));
  return {
    source: address(isIpv4 ? IPV4_SOURCE : IPV6_SOURCE),
    destination: address(isIpv4 ? IPV4_DESTINATION : IPV6_DESTINATION),
    port: get16(bytes, udp + UDP_DESTINATION),
    vni: hasVxlan ? vxlanVni(bytes, vxlan) : undefined,
    mtu,
  };
}

/** Whether an IPv4 packet is of the kind that we send: no options, no fragment, and DF, without which nobody sends such an error. */
function isPlain(bytes: Uint8Array, ip: number): boolean {
  return ipv4HeaderLength(bytes, ip) === IPV4_HEADER && get16(bytes, ip + IPV4_FRAGMENT) === IPV4_DONT_FRAGMENT;
}

export class TooBigListener {
  readonly #fd: number;
  readonly #family: 4 | 6;
  readonly #timer: NodeJS.Timeout;
  readonly #bytes = Buffer.alloc(2048);
  readonly #onLimit: (limit: PathLimit) => void;

  /** Calls back with each limit that is heard of. Throws without CAP_NET_RAW. */
  constructor(family: 4 | 6, onLimit: (limit: PathLimit) => void) {
    this.#family = family;
    this.#onLimit = onLimit;
    this.#fd = openIcmpSocket(family);
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
      const limit = readPathLimit(bytes, length, this.#family);
      if (limit) this.#onLimit(limit);
    }
  }
}
