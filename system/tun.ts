/** TAP devices: opening them, and which offloads their reader takes. Linux: drivers/net/tun.c, include/uapi/linux/if_tun.h. */
import * as libc from './libc.ts';

export const TUNSETIFF = 0x400454ca;
export const TUNSETOFFLOAD = 0x400454d0;
export const TUNSETVNETHDRSZ = 0x400454d8;
export const TUNSETPERSIST = 0x400454cb;
export const TUNSETSTEERINGEBPF = 0x800454e0;
export const TUNGETIFF = 0x800454d2;
export const TUNGETDEVNETNS = 0x54e3;
export const SIOCGIFHWADDR = 0x8927;
export const IFF_TUN = 0x0001;
export const IFF_TAP = 0x0002;
export const IFF_MULTI_QUEUE = 0x0100;
export const IFF_NO_PI = 0x1000;
export const IFF_VNET_HDR = 0x4000;
export const IFF_TUN_EXCL = 0x8000;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;
export const IFNAMSIZ = 16;

/** An open TAP: one descriptor a queue. It goes away with its last descriptor, unless it is persistent. */
export interface TapDevice {
  readonly name: string;
  readonly queues: readonly number[];
}

/**
 * Creates the TAP device `name` with that many queues and a virtio header of `headerSize` bytes (12 or 24).
 * `name` may hold %d, as in 'uvx%d'; the kernel then picks the number.
 * `takeOver`: a persistent TAP of that name that nobody has open is opened instead of a new one; since the number of queues may change from
 * one run to the next, such TAPs are multi-queue ones also with a single queue.
 * Throws a SystemError: EBUSY when a device of that name exists, EPERM without CAP_NET_ADMIN, ENOENT without /dev/net/tun.
 */
export function createTap(
  name: string,
  queueCount: number,
  headerSize: number,
  offloads: number,
  takeOver = false,
): TapDevice {
  const queues: number[] = [];
  let actual = name;
  try {
    for (let i = 0; i < queueCount; i++) {
      const fd = openTunDriver();
      queues.push(fd);
      const flags =
        IFF_TAP |
        IFF_NO_PI |
        IFF_VNET_HDR |
        (queueCount > 1 || takeOver ? IFF_MULTI_QUEUE : 0) |
        (i === 0 && !takeOver ? IFF_TUN_EXCL : 0);
      actual = attach(fd, actual, flags);
      const size = Buffer.alloc(4);
      size.writeInt32LE(headerSize);
      libc.check(libc.ioctl(fd, TUNSETVNETHDRSZ, size), actual, 'TUNSETVNETHDRSZ');
      setOffloads(fd, actual, offloads);
    }
  } catch (error) {
    for (const fd of queues) libc.close(fd);
    throw error;
  }
  return { name: actual, queues };
}

/**
 * Opens the TUN device `name`, whose packets begin with their IP header, and makes it when it is not there. It is persistent. Throws as createTap().
 */
export function openTun(name: string): number {
  const fd = openTunDriver();
  try {
    attach(fd, name, IFF_TUN | IFF_NO_PI);
    libc.check(libc.ioctlValue(fd, TUNSETPERSIST, 1), name, 'TUNSETPERSIST');
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return fd;
}

function openTunDriver(): number {
  const fd = libc.open('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC);
  return libc.check(fd, '/dev/net/tun', 'open', openAdvice(libc.errno()));
}

/** Makes the descriptor a queue of the device, and the device when there is none; returns its name. */
function attach(fd: number, name: string, flags: number): string {
  const request = Buffer.alloc(40); // struct ifreq: name, then a union whose first member is the flags
  request.write(name, 0, IFNAMSIZ - 1, 'latin1');
  request.writeUInt16LE(flags, IFNAMSIZ);
  libc.check(libc.ioctl(fd, TUNSETIFF, request), name, 'TUNSETIFF', attachAdvice(name, libc.errno()));
  return request.toString('latin1', 0, request.indexOf(0));
}

export function closeTap(tap: TapDevice): void {
  for (const fd of tap.queues) libc.close(fd);
}

/** Whether the TAP stays when its last descriptor is closed. */
export function setPersistent(tap: TapDevice, persistent: boolean): void {
  const result = libc.ioctlValue(tap.queues[0], TUNSETPERSIST, persistent ? 1 : 0);
  libc.check(result, tap.name, 'TUNSETPERSIST');
}

/** A loaded socket filter says which queue a packet goes to (Linux 4.16). The TAP keeps the program. */
export function steerTap(tap: TapDevice, program: number): void {
  const argument = Buffer.alloc(4);
  argument.writeInt32LE(program);
  libc.check(libc.ioctl(tap.queues[0], TUNSETSTEERINGEBPF, argument), tap.name, 'TUNSETSTEERINGEBPF');
}

/** The TAP's name as it is now, renamed or moved to another namespace; undefined when it was deleted. */
export function tapName(tap: TapDevice): string | undefined {
  const request = Buffer.alloc(40);
  if (libc.ioctl(tap.queues[0], TUNGETIFF, request) < 0) return undefined;
  return request.toString('latin1', 0, request.indexOf(0));
}

/** The TAP's MAC address as it is now, 6 bytes; undefined when it was deleted. */
export function tapMac(tap: TapDevice): Uint8Array | undefined {
  const request = Buffer.alloc(40);
  if (libc.ioctl(tap.queues[0], SIOCGIFHWADDR, request) < 0) return undefined;
  return request.subarray(IFNAMSIZ + 2, IFNAMSIZ + 8); // struct sockaddr: family, then the address
}

/** A descriptor of the network namespace that the TAP is in now, to be closed; -1 where the kernel does not tell (before 5.2). */
export function tapNamespace(tap: TapDevice): number {
  return libc.ioctlValue(tap.queues[0], TUNGETDEVNETNS, 0);
}

/** Says which TUN_F_* the reader takes. Throws EINVAL on a kernel that does not know one of them. */
export function setOffloads(fd: number, name: string, offloads: number): void {
  libc.check(libc.ioctlValue(fd, TUNSETOFFLOAD, offloads), name, 'TUNSETOFFLOAD');
}

/** What to do when /dev/net/tun cannot be opened. */
export function openAdvice(errno: number): string {
  switch (errno) {
    case libc.EACCES:
      return '/dev/net/tun may not be opened by this user: run as root, or let the user read and write it';
    case libc.EPERM: // the devices cgroup
      return 'this container may not use /dev/net/tun: start it with the device (docker run --device /dev/net/tun)';
    default:
      return 'uvxlan needs the TUN driver: modprobe tun; in a container mount /dev/net/tun';
  }
}

/** What to do when the kernel does not make the device. */
export function attachAdvice(name: string, errno: number): string {
  switch (errno) {
    case libc.EBUSY:
      return `a device of that name exists: choose another name ('ip link show ${name}' shows the device)`;
    case libc.EPERM:
      return 'creating a device needs CAP_NET_ADMIN: run as root';
    default:
      return '';
  }
}
