// Numbers and layouts of the kernel's interface, by architecture, with where Linux has them. Those of x64 and arm64 are the same but
// for system call numbers (both take include/uapi/asm-generic for the rest): what is not, the code has to choose by
// process.arch. O_DIRECTORY, O_NOFOLLOW, O_DIRECT and O_LARGEFILE differ as well, and are not used.

import assert from 'node:assert/strict';
import { constants } from 'node:fs';
import os from 'node:os';
import test from 'node:test';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../../dataplane/pool.ts';
import * as libc from '../../system/libc.ts';

import * as socket from '../../system/socket.ts';
import * as tun from '../../system/tun.ts';
import * as vnet from '../../system/vnet.ts';

const ARCHITECTURES = ['x64', 'arm64'] as const;

/** include/uapi/asm-generic/ioctl.h; arch/x86 and arch/arm64 include it as it is. Direction: 0 none, 1 write, 2 read. */
function ioctl(direction: number, type: string, number: number, size: number): number {
  return ((direction << 30) | (size << 16) | (type.charCodeAt(0) << 8) | number) >>> 0;
}

/** name: [ours, x64, arm64, source]. */
const NUMBERS: Readonly<Record<string, readonly [ours: unknown, x64: number, arm64: number, source: string]>> = {
  bpf: [libc.BPF_SYSCALL, 321, 280, 'arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h'],
  ...both('include/uapi/linux/if_tun.h', {
    TUNSETIFF: [tun.TUNSETIFF, ioctl(1, 'T', 202, 4)],
    TUNSETSTEERINGEBPF: [tun.TUNSETSTEERINGEBPF, ioctl(2, 'T', 224, 4)],
    TUNSETPERSIST: [tun.TUNSETPERSIST, ioctl(1, 'T', 203, 4)],
    TUNSETOFFLOAD: [tun.TUNSETOFFLOAD, ioctl(1, 'T', 208, 4)],
    TUNGETIFF: [tun.TUNGETIFF, ioctl(2, 'T', 210, 4)],
    TUNSETVNETHDRSZ: [tun.TUNSETVNETHDRSZ, ioctl(1, 'T', 216, 4)],
    TUNGETDEVNETNS: [tun.TUNGETDEVNETNS, ioctl(0, 'T', 227, 0)],
    IFF_TUN: [tun.IFF_TUN, 1],
    IFF_TAP: [tun.IFF_TAP, 2],
    IFF_MULTI_QUEUE: [tun.IFF_MULTI_QUEUE, 0x100],
    IFF_NO_PI: [tun.IFF_NO_PI, 0x1000],
    IFF_VNET_HDR: [tun.IFF_VNET_HDR, 0x4000],
    IFF_TUN_EXCL: [tun.IFF_TUN_EXCL, 0x8000],
    TUN_F_CSUM: [vnet.TUN_F_CSUM, 1],
    TUN_F_TSO4: [vnet.TUN_F_TSO4, 2],
    TUN_F_TSO6: [vnet.TUN_F_TSO6, 4],
    TUN_F_USO4: [vnet.TUN_F_USO4, 0x20],
    TUN_F_USO6: [vnet.TUN_F_USO6, 0x40],
    TUN_F_UDP_TUNNEL_GSO: [vnet.TUN_F_UDP_TUNNEL_GSO, 0x80],
    TUN_F_UDP_TUNNEL_GSO_CSUM: [vnet.TUN_F_UDP_TUNNEL_GSO_CSUM, 0x100],
  }),
  ...both('include/uapi/linux/sockios.h', { SIOCGIFHWADDR: [tun.SIOCGIFHWADDR, 0x8927] }),
  // arch/arm64/include/uapi/asm/fcntl.h has others for what is not used here.
  ...both('include/uapi/asm-generic/fcntl.h', {
    O_RDWR: [tun.O_RDWR, 2],
    O_NONBLOCK: [tun.O_NONBLOCK, 0o4000],
    O_CLOEXEC: [tun.O_CLOEXEC, 0o2000000],
  }),
  ...both('include/linux/net.h, include/uapi/linux/eventfd.h', {
    SOCK_DGRAM: [socket.SOCK_DGRAM, 2],
    SOCK_RAW: [socket.SOCK_RAW, 3],
    SOCK_NONBLOCK: [socket.SOCK_NONBLOCK, 0o4000],
    SOCK_CLOEXEC: [socket.SOCK_CLOEXEC, 0o2000000],
    EFD_NONBLOCK: [EFD_NONBLOCK, 0o4000],
    EFD_CLOEXEC: [EFD_CLOEXEC, 0o2000000],
  }),
  ...both('include/uapi/asm-generic/socket.h', {
    SOL_SOCKET: [socket.SOL_SOCKET, 1],
    SO_NO_CHECK: [socket.SO_NO_CHECK, 11],
    SO_REUSEPORT: [socket.SO_REUSEPORT, 15],
    SO_BINDTODEVICE: [socket.SO_BINDTODEVICE, 25],
    SO_SNDBUFFORCE: [socket.SO_SNDBUFFORCE, 32],
    SO_RCVBUFFORCE: [socket.SO_RCVBUFFORCE, 33],
    SO_MEMINFO: [socket.SO_MEMINFO, 55],
  }),
  ...both('include/linux/socket.h', {
    AF_INET: [socket.AF_INET, 2],
    AF_INET6: [socket.AF_INET6, 10],
    SOL_UDP: [socket.SOL_UDP, 17],
    SOL_IPV6: [socket.SOL_IPV6, 41],
    MSG_TRUNC: [socket.MSG_TRUNC, 0x20],
    MSG_DONTWAIT: [socket.MSG_DONTWAIT, 0x40],
  }),
  ...both('include/uapi/linux/udp.h, in.h, in6.h, icmpv6.h', {
    UDP_SEGMENT: [socket.UDP_SEGMENT, 103],
    UDP_GRO: [socket.UDP_GRO, 104],
    IP_TTL: [socket.IP_TTL, 2],
    IP_MTU_DISCOVER: [socket.IP_MTU_DISCOVER, 10],
    IPV6_UNICAST_HOPS: [socket.IPV6_UNICAST_HOPS, 16],
    IPV6_MTU_DISCOVER: [socket.IPV6_MTU_DISCOVER, 23],
    IPV6_V6ONLY: [socket.IPV6_V6ONLY, 26],
    IPPROTO_ICMP: [socket.IPPROTO_ICMP, 1],
    ICMP_DEST_UNREACH: [socket.ICMP_DEST_UNREACH, 3],
    SOL_RAW: [socket.SOL_RAW, 255],
    ICMP_FILTER: [socket.ICMP_FILTER, 1],
    IPPROTO_ICMPV6: [socket.IPPROTO_ICMPV6, 58],
    ICMPV6_FILTER: [socket.ICMPV6_FILTER, 1],
  }),
};

function both(source: string, numbers: Record<string, readonly [ours: number, value: number]>) {
  return Object.fromEntries(
    Object.entries(numbers).map(([name, [ours, value]]) => [name, [ours, value, value, source] as const]),
  );
}

for (const [index, architecture] of ARCHITECTURES.entries()) {
  test(`numbers on ${architecture}`, () => {
    for (const [name, [ours, ...values]] of Object.entries(NUMBERS)) {
      const actual = typeof ours === 'object' ? (ours as Record<string, number>)[architecture] : ours;
      assert.equal(actual, values[index], `${name} (${values[2]})`);
    }
  });
}

/** C types of the 64-bit ABIs of both (System V AMD64, AAPCS64): size, which is the alignment too. */
const C = { pointer: 8, size_t: 8, u64: 8, int: 4, u32: 4, u16: 2, u8: 1 } as const;

/** Offsets of a structure's members, and its size, last. */
function layout(...types: (keyof typeof C)[]): number[] {
  let at = 0;
  const offsets: number[] = [];
  for (const type of types) {
    at = Math.ceil(at / C[type]) * C[type];
    offsets.push(at);
    at += C[type];
  }
  const widest = Math.max(...types.map((type) => C[type]));
  return [...offsets, Math.ceil(at / widest) * widest];
}

test('structures, the same on every 64-bit architecture', () => {
  // struct user_msghdr, include/linux/socket.h: name, namelen, iov, iovlen, control, controllen, flags.
  const msghdr = layout('pointer', 'int', 'pointer', 'size_t', 'pointer', 'size_t', 'u32');
  const { MSG_NAME, MSG_NAME_LENGTH, MSG_IOV, MSG_IOV_LENGTH, MSG_CONTROL, MSG_CONTROL_LENGTH } = socket;
  const ours = [MSG_NAME, MSG_NAME_LENGTH, MSG_IOV, MSG_IOV_LENGTH, MSG_CONTROL, MSG_CONTROL_LENGTH];
  assert.deepEqual([...ours, socket.MSG_FLAGS, socket.MSGHDR], msghdr);
  // struct mmsghdr: msg_hdr, msg_len.
  assert.equal(socket.MMSG_LENGTH, socket.MSGHDR);
  assert.equal(socket.MMSGHDR, Math.ceil((socket.MSGHDR + C.u32) / C.pointer) * C.pointer);
  // struct cmsghdr: len, level, type; the data follow.
  const [, level, type, data] = layout('size_t', 'int', 'int');
  assert.deepEqual([socket.CMSG_LEVEL, socket.CMSG_TYPE, socket.CMSG_DATA], [level, type, data]);
  assert.equal(socket.CMSG, data! + 8);
  // struct virtio_net_hdr_v1_hash_tunnel, include/uapi/linux/virtio_net.h: all of its members keep their place in the packet.
  const header = layout('u8', 'u8', ...Array<'u16'>(5).fill('u16'), 'u32', ...Array<'u16'>(4).fill('u16'));
  const { VNET_FLAGS, VNET_GSO_TYPE, VNET_HEADER_LENGTH, VNET_GSO_SIZE, VNET_CHECKSUM_START, VNET_CHECKSUM_OFFSET } =
    vnet;
  assert.deepEqual(header.slice(0, 6), [
    ...[VNET_FLAGS, VNET_GSO_TYPE, VNET_HEADER_LENGTH, VNET_GSO_SIZE, VNET_CHECKSUM_START, VNET_CHECKSUM_OFFSET],
  ]);
  assert.equal(header[7], vnet.VNET_PLAIN);
  assert.deepEqual(header.slice(-3), [vnet.VNET_OUTER_TRANSPORT, vnet.VNET_INNER_NETWORK, vnet.VNET_TUNNEL]);
});

test('what Node knows of this host agrees', () => {
  assert.equal(os.endianness(), 'LE', 'virtio headers and ifreq are written little-endian');
  assert.ok((ARCHITECTURES as readonly string[]).includes(process.arch), process.arch);
  assert.deepEqual([tun.O_RDWR, tun.O_NONBLOCK], [constants.O_RDWR, constants.O_NONBLOCK]);
  const { EAGAIN, EIO, EMSGSIZE, ENETDOWN } = os.constants.errno;
  assert.deepEqual([libc.EAGAIN, libc.EIO, libc.EMSGSIZE, libc.ENETDOWN], [EAGAIN, EIO, EMSGSIZE, ENETDOWN]);
});
