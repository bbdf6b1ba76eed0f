/**
 * UDP sockets, and the layouts that sendmsg and recvmmsg take on 64-bit hosts. Linux: include/uapi/linux/udp.h, bits/socket.h.
 *
 *     struct msghdr   name 0 | namelen 8 (u32) | iov 16 | iovlen 24 | control 32 | controllen 40 | flags 48      56 bytes
 *     struct mmsghdr  msghdr | len 56 (u32)                                                                      64 bytes
 *     struct cmsghdr  len 0 (u64) | level 8 (i32) | type 12 (i32) | data 16
 */
import * as libc from './libc.ts';

export const MSGHDR = 56;
export const MMSGHDR = 64;
export const MSG_NAME = 0;
export const MSG_NAME_LENGTH = 8;
export const MSG_IOV = 16;
export const MSG_IOV_LENGTH = 24;
export const MSG_CONTROL = 32;
export const MSG_CONTROL_LENGTH = 40;
export const MSG_FLAGS = 48;
export const MMSG_LENGTH = 56;
/** CMSG_SPACE of a control message that carries up to 8 bytes. */
export const CMSG = 24;
export const CMSG_LEVEL = 8;
export const CMSG_TYPE = 12;
export const CMSG_DATA = 16;
export const MSG_DONTWAIT = 0x40;
export const MSG_TRUNC = 0x20;

export const AF_INET = 2;
export const AF_INET6 = 10;
/** struct sockaddr_in: family, port, address; sockaddr_in6: family, port, flow information, address, scope. */
export const SOCKADDR_PORT = 2;
export const SOCKADDR_IN = 16;
export const SOCKADDR_IN_ADDRESS = 4;
export const SOCKADDR_IN6 = 28;
export const SOCKADDR_IN6_FLOWINFO = 4;
export const SOCKADDR_IN6_ADDRESS = 8;
/** Room for a sockaddr of either family. */
export const SOCKADDR = 32;
export const SOL_UDP = 17;
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;
export const UDP_NO_CHECK6_TX = 101;
export const UDP_NO_CHECK6_RX = 102;
/** Of socketpair(2). */
export const AF_UNIX = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_NO_CHECK = 11;
export const SO_REUSEPORT = 15;
export const SO_BINDTODEVICE = 25;
export const SO_ATTACH_REUSEPORT_EBPF = 52;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
/** Nine u32 (SK_MEMINFO_*, include/uapi/linux/sock_diag.h). */
export const SO_MEMINFO = 55;
export const MEMINFO = 36;
export const MEMINFO_DROPS = 32;
export const SOL_IP = 0;
export const IP_TOS = 1;
export const IP_TTL = 2;
export const IP_MTU_DISCOVER = 10;
export const IP_PMTUDISC_DONT = 0;
export const IP_PMTUDISC_DO = 2;
export const IP_RECVTOS = 13;
export const IP_MULTICAST_TTL = 33;
export const IP_MULTICAST_LOOP = 34;
export const IP_ADD_MEMBERSHIP = 35;
export const SOL_IPV6 = 41;
export const IPV6_UNICAST_HOPS = 16;
export const IPV6_MULTICAST_HOPS = 18;
export const IPV6_MULTICAST_LOOP = 19;
export const IPV6_ADD_MEMBERSHIP = 20;
export const IPV6_MTU_DISCOVER = 23;
export const IPV6_V6ONLY = 26;
export const IPV6_FLOWINFO_SEND = 33;
export const IPV6_HOPLIMIT = 52;
export const IPV6_RECVTCLASS = 66;
export const IPV6_TCLASS = 67;
export const IPV6_AUTOFLOWLABEL = 70;
export const IPPROTO_ICMP = 1;
export const ICMP_DEST_UNREACH = 3;
export const SOL_RAW = 255;
export const ICMP_FILTER = 1;
export const IPPROTO_ICMPV6 = 58;
export const ICMPV6_FILTER = 1;
export const ICMPV6_PACKET_TOO_BIG = 2;

export interface UdpSocketOptions {
  /** Local IPv4 or IPv6 address: 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** Local port; 0: one that the kernel picks. */
  readonly port: number;
  /** Several sockets of ours share the port, and the kernel spreads flows over them. */
  readonly reusePort?: boolean;
  /** Segments of one size come merged, with their size in a control message. */
  readonly gro?: boolean;
  /** Nothing is read from it. */
  readonly sendOnly?: boolean;
  readonly ttl?: number;
  /** TOS or traffic class of what is sent. */
  readonly tos?: number;
  /** Set DF, so that what does not fit the path is refused with EMSGSIZE; IPv4 only. */
  readonly dontFragment?: boolean;
  /** A flow label is sent: each message's address has it (IPv6). */
  readonly flowLabel?: boolean;
  /** Send no UDP checksums; on IPv6 take packets without one as well (RFC 6936). */
  readonly noChecksum?: boolean;
  readonly takesNoChecksum?: boolean;
  /** TOS or traffic class of what is received comes in a control message. */
  readonly tellsTos?: boolean;
  /** `address` is a multicast group: join it on the device of this number. */
  readonly joinOn?: number;
  /** Use this network device only. */
  readonly device?: string | undefined;
}

const BUFFER_BYTES = 8 * 1024 * 1024;

/**
 * A bound, non-blocking UDP socket over IPv4 or IPv6, with 8 MB of buffers each way. The caller closes it.
 * Throws a SystemError: EADDRINUSE when the port is taken, EADDRNOTAVAIL when the address is not this host's.
 */
export function openUdpSocket(options: UdpSocketOptions): number {
  const address = sockaddr(options.address, options.port);
  const ipv6 = options.address.length === 16;
  const subject = `UDP port ${options.port}`;
  const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const fd = libc.check(libc.socket(ipv6 ? AF_INET6 : AF_INET, type, 0), subject, 'socket');
  try {
    if (options.reusePort) setOption(fd, subject, SOL_SOCKET, SO_REUSEPORT, 1);
    if (options.noChecksum)
      setOption(fd, subject, ipv6 ? SOL_UDP : SOL_SOCKET, ipv6 ? UDP_NO_CHECK6_TX : SO_NO_CHECK, 1);
    if (options.takesNoChecksum && ipv6) setOption(fd, subject, SOL_UDP, UDP_NO_CHECK6_RX, 1);
    if (options.tos) setOption(fd, subject, ipv6 ? SOL_IPV6 : SOL_IP, ipv6 ? IPV6_TCLASS : IP_TOS, options.tos);
    if (options.tellsTos) setOption(fd, subject, ipv6 ? SOL_IPV6 : SOL_IP, ipv6 ? IPV6_RECVTCLASS : IP_RECVTOS, 1);
    if (ipv6) {
      setOption(fd, subject, SOL_IPV6, IPV6_V6ONLY, 1);
      // As the kernel's device: the label that was given, else none.
      setOption(fd, subject, SOL_IPV6, IPV6_AUTOFLOWLABEL, 0);
      if (options.flowLabel) setOption(fd, subject, SOL_IPV6, IPV6_FLOWINFO_SEND, 1);
    }
    if (options.ttl) setOption(fd, subject, ipv6 ? SOL_IPV6 : SOL_IP, ipv6 ? IPV6_UNICAST_HOPS : IP_TTL, options.ttl);
    if (options.device) {
      const name = Buffer.from(`${options.device}\0`, 'latin1');
      libc.check(libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length), subject, 'SO_BINDTODEVICE');
    }
    // Without DF the kernel fragments what does not fit.
    const [level, name] = ipv6 ? [SOL_IPV6, IPV6_MTU_DISCOVER] : [SOL_IP, IP_MTU_DISCOVER];
    setOption(fd, subject, level, name, options.dontFragment && !ipv6 ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT);
    // The FORCE variants need CAP_NET_ADMIN, which a TAP needs as well; without it the default size has to do.
    libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, int32(BUFFER_BYTES), 4);
    // A socket that only sends is never read: what others send to it must not tie up memory.
    libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, int32(options.sendOnly ? 0 : BUFFER_BYTES), 4);
    if (options.sendOnly) {
      // As the kernel's vxlan: a group is near by default, and what is sent to it does not come back.
      const [ttl, loop] = ipv6 ? [IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP] : [IP_MULTICAST_TTL, IP_MULTICAST_LOOP];
      setOption(fd, subject, level, ttl, options.ttl || 1);
      setOption(fd, subject, level, loop, 0);
    }
    if (options.joinOn) join(fd, subject, options.address, options.joinOn);
    if (options.gro) setOption(fd, subject, SOL_UDP, UDP_GRO, 1);
    libc.check(libc.bind(fd, address, address.length), subject, 'bind', bindAdvice(options.port));
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

/** A loaded socket filter says which of the sockets that share a port gets a packet, counted in the order in which they were bound. */
export function steerSockets(oneOfThem: number, program: number): void {
  setOption(oneOfThem, 'UDP sockets', SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program);
}

/**
 * Packets for the socket that the kernel has dropped: for which the receive buffer had no room, or whose UDP checksum was wrong.
 * A train that GRO has merged counts one. 0 where the kernel does not tell (before Linux 4.12).
 */
export function socketDrops(fd: number): number {
  const values = Buffer.alloc(MEMINFO);
  const failed = libc.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, values, int32(MEMINFO)) < 0;
  return failed ? 0 : values.readUInt32LE(MEMINFO_DROPS);
}

/**
 * A raw, non-blocking socket that receives what says that a packet was too big: ICMP "destination unreachable" with the IP header in front,
 * or ICMPv6 "packet too big" from the ICMPv6 header on. Throws EPERM without CAP_NET_RAW.
 */
export function openIcmpSocket(family: 4 | 6): number {
  const type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const subject = family === 4 ? 'ICMP' : 'ICMPv6';
  const [domain, protocol] = family === 4 ? [AF_INET, IPPROTO_ICMP] : [AF_INET6, IPPROTO_ICMPV6];
  const fd = libc.check(libc.socket(domain, type, protocol), subject, 'socket');
  // A bit for each type that is not let through (raw(7); RFC 3542, section 3.2).
  const filter = Buffer.alloc(family === 4 ? 4 : 32, 0xff);
  filter[0] &= ~(1 << (family === 4 ? ICMP_DEST_UNREACH : ICMPV6_PACKET_TOO_BIG));
  const [level, option] = family === 4 ? [SOL_RAW, ICMP_FILTER] : [IPPROTO_ICMPV6, ICMPV6_FILTER];
  if (libc.setsockopt(fd, level, option, filter, filter.length) === 0) return fd;
  const error = libc.errno();
  libc.close(fd);
  throw new libc.SystemError(subject, `${subject} filter`, error);
}

/** Whether UDP sockets here know an option of level SOL_UDP: UDP_SEGMENT (Linux 4.18), UDP_GRO (5.0). */
export function udpOptionWorks(option: number, value: number): boolean {
  const fd = libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const works = libc.setsockopt(fd, SOL_UDP, option, int32(value), 4) === 0;
  libc.close(fd);
  return works;
}

/** struct ip_mreqn: group, address, interface; struct ipv6_mreq: group, interface. */
function join(fd: number, subject: string, group: Uint8Array, device: number): void {
  const ipv6 = group.length === 16;
  const request = Buffer.alloc(ipv6 ? 20 : 12);
  request.set(group);
  request.writeUInt32LE(device, ipv6 ? 16 : 8);
  const [level, name] = ipv6 ? [SOL_IPV6, IPV6_ADD_MEMBERSHIP] : [SOL_IP, IP_ADD_MEMBERSHIP];
  libc.check(libc.setsockopt(fd, level, name, request, request.length), subject, 'joining the group');
}

function setOption(fd: number, subject: string, level: number, name: number, value: number): void {
  libc.check(libc.setsockopt(fd, level, name, int32(value), 4), subject, `setsockopt ${level}/${name}`);
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

/** A struct sockaddr_in or sockaddr_in6. */
export function sockaddr(address: Uint8Array, port: number): Buffer {
  const ipv6 = address.length === 16;
  const bytes = Buffer.alloc(ipv6 ? SOCKADDR_IN6 : SOCKADDR_IN);
  bytes.writeUInt16LE(ipv6 ? AF_INET6 : AF_INET, 0);
  bytes.writeUInt16BE(port, SOCKADDR_PORT);
  bytes.set(address, ipv6 ? SOCKADDR_IN6_ADDRESS : SOCKADDR_IN_ADDRESS);
  return bytes;
}

function bindAdvice(port: number): string {
  switch (libc.errno()) {
    case libc.EADDRINUSE:
      return (
        `port ${port} is held by the kernel's own vxlan device or by another process: see 'ip -d link show type vxlan' ` +
        `and 'ss -ulnp sport = :${port}', or choose another with 'dstport'`
      );
    case libc.EADDRNOTAVAIL:
      return "the address is not one of this host's: see 'ip addr'";
    default:
      return '';
  }
}

/** Two connected sockets that keep the bounds of what is written, as a TAP does; neither blocks. */
export function openSocketPair(): [number, number] {
  const fds = new Int32Array(2);
  const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  libc.check(libc.socketpair(AF_UNIX, type, 0, fds), 'warm-up', 'socketpair');
  return [fds[0], fds[1]];
}
