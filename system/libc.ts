/**
 * System calls, through koffi: the only file that imports it.
 *
 * Memory is passed as an address (a Number: with BigInt a call costs a third more, Node 20) of bytes that outlive the
 * call, taken once with `addressOf`. A call costs 70-200 ns above the system call itself. A wrong address ends the process.
 */
import fs from 'node:fs';
import os from 'node:os';
import { promisify } from 'node:util';
import koffi from 'koffi';

const library = koffi.load('libc.so.6');

export const open = library.func('int open(const char*, int)') as (path: string, flags: number) => number;
export const close = library.func('int close(int)') as (fd: number) => number;
/** close(2) on a thread of Node's: with the last descriptor of a TAP or a TCX link the kernel waits, 40 ms say, until nobody uses it. */
export const closeAside = (fd: number): Promise<void> => promisify(fs.close)(fd);
export const read = library.func('long read(int, uintptr_t, size_t)') as Transfer;
export const write = library.func('long write(int, uintptr_t, size_t)') as Transfer;
/** writev(fd, address of iovecs, count): bytes written or -1. */
export const writev = library.func('long writev(int, uintptr_t, int)') as Transfer;
/** poll(address of pollfds, count, milliseconds): ready descriptors, 0 on timeout, -1. */
export const poll = library.func('int poll(uintptr_t, ulong, int)') as Transfer;
export const schedYield = library.func('int sched_yield()') as () => number;
export const ioctl = library.func('int ioctl(int, ulong, void*)') as (fd: number, op: number, at: Uint8Array) => number;
export const ioctlValue = library.func('ioctl', 'int', ['int', 'ulong', 'ulong']) as Transfer;
export const socket = library.func('int socket(int, int, int)') as Transfer;
export const bind = library.func('int bind(int, void*, int)') as (fd: number, addr: Uint8Array, n: number) => number;
export const connect = library.func('int connect(int, void*, int)') as (
  fd: number,
  addr: Uint8Array,
  n: number,
) => number;
export const send = library.func('long send(int, void*, size_t, int)') as (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
) => number;
export const recv = library.func('long recv(int, void*, size_t, int)') as typeof send;
export const getsockname = library.func('int getsockname(int, void*, void*)') as (
  fd: number,
  addr: Uint8Array,
  n: Uint8Array,
) => number;
export const socketpair = library.func('int socketpair(int, int, int, void*)') as (
  family: number,
  type: number,
  protocol: number,
  fds: Int32Array,
) => number;
export const setsockopt = library.func('int setsockopt(int, int, int, void*, int)') as (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  n: number,
) => number;
export const getsockopt = library.func('int getsockopt(int, int, int, void*, void*)') as (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  n: Uint8Array,
) => number;
/** sendmsg(fd, address of a msghdr, flags): bytes sent or -1. */
export const sendmsg = library.func('long sendmsg(int, uintptr_t, int)') as Transfer;
export const sendto = library.func('long sendto(int, void*, size_t, int, void*, int)') as (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
  address: Uint8Array,
  addressLength: number,
) => number;
export const recvfrom = library.func('long recvfrom(int, void*, size_t, int, void*, void*)') as (
  fd: number,
  bytes: Uint8Array,
  length: number,
  flags: number,
  address: Uint8Array,
  addressLength: Uint8Array,
) => number;
/** recvmmsg(fd, address of mmsghdrs, count, flags, 0): messages received or -1. */
export const recvmmsg = library.func('int recvmmsg(int, uintptr_t, uint, int, uintptr_t)') as (
  fd: number,
  at: number,
  count: number,
  flags: number,
  timeout: number,
) => number;
/** setns(2): moves the calling thread alone. */
export const setns = library.func('int setns(int, int)') as (fd: number, type: number) => number;
export const eventfd = library.func('int eventfd(uint, int)') as (initial: number, flags: number) => number;
/** The number of a network device in this process's namespace; 0 when there is none of that name. */
export const ifIndex = library.func('uint if_nametoindex(const char*)') as (name: string) => number;

/** Numbers of bpf(2) by `process.arch`, which the C library has no function for. */
export const BPF_SYSCALL: Readonly<Record<string, number>> = { x64: 321, arm64: 280 };
const syscall = library.func('long syscall(long, long, uintptr_t, ulong)') as (
  number: number,
  command: number,
  at: number,
  n: number,
) => number;
/** bpf(command, address of the attributes, their length); ENOSYS on other architectures. */
export const bpf: Transfer = (command, at, n) => syscall(BPF_SYSCALL[process.arch] ?? -1, command, at, n);

type Transfer = (fd: number, at: number, n: number) => number;

/** errno of the calling thread's last failed call. */
export const errno = (): number => koffi.errno();

/** The address of the first byte of `bytes`; take it once, for memory that never moves (shared memory). */
export const addressOf = (bytes: Uint8Array): number => Number(koffi.address(bytes));

const names = new Map(Object.entries(os.constants.errno).map(([name, code]) => [code, name]));

/** 'ENODEV' for 19; the number as text where the platform has no name for it. */
export const errnoName = (code: number): string => names.get(code) ?? `errno ${code}`;

const strerror = library.func('const char* strerror(int)') as (code: number) => string;
const texts = new Map(Object.values(os.constants.errno).map((code) => [strerror(code), code]));

/** 90 for 'Message too long', where a library passes on no more than the C library's text; EINVAL where it is none. */
export const errnoOf = (text: string): number => texts.get(text) ?? os.constants.errno.EINVAL;

export const {
  EAGAIN,
  EBUSY,
  EINVAL,
  EIO,
  EINTR,
  EINPROGRESS,
  ENOBUFS,
  EMSGSIZE,
  EADDRINUSE,
  EADDRNOTAVAIL,
  EPERM,
  EACCES,
  ENOENT,
  ENODEV,
  ENOSYS,
  E2BIG,
  ENETDOWN,
  ENETUNREACH,
  EHOSTUNREACH,
} = os.constants.errno;

/** A system call that failed while something was being set up: says on what, in which call, why, and what to do. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  constructor(subject: string, call: string, code: number, advice = '') {
    super(`${subject}: ${call}: ${errnoName(code)}${advice && `; ${advice}`}`);
    this.name = 'SystemError';
    this.code = errnoName(code);
    this.errno = code;
  }
}

/** Passes a call's result on, or throws a SystemError when it is negative. */
export function check(result: number, subject: string, call: string, advice = ''): number {
  if (result >= 0) return result;
  throw new SystemError(subject, call, errno(), advice);
}
