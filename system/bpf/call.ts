/** bpf(2): its commands, and the attributes that one call takes. Linux: include/uapi/linux/bpf.h, union bpf_attr. */
import * as libc from '../libc.ts';

export const BPF_MAP_CREATE = 0;
export const BPF_MAP_LOOKUP_ELEM = 1;
export const BPF_MAP_UPDATE_ELEM = 2;
export const BPF_MAP_DELETE_ELEM = 3;
export const BPF_PROG_LOAD = 5;
export const BPF_OBJ_PIN = 6;
export const BPF_PROG_TEST_RUN = 10;
export const BPF_LINK_CREATE = 28;

const NAMES: Readonly<Record<number, string>> = {
  [BPF_MAP_CREATE]: 'BPF_MAP_CREATE',
  [BPF_MAP_LOOKUP_ELEM]: 'BPF_MAP_LOOKUP_ELEM',
  [BPF_MAP_UPDATE_ELEM]: 'BPF_MAP_UPDATE_ELEM',
  [BPF_MAP_DELETE_ELEM]: 'BPF_MAP_DELETE_ELEM',
  [BPF_PROG_LOAD]: 'BPF_PROG_LOAD',
  [BPF_OBJ_PIN]: 'BPF_OBJ_PIN',
  [BPF_PROG_TEST_RUN]: 'BPF_PROG_TEST_RUN',
  [BPF_LINK_CREATE]: 'BPF_LINK_CREATE',
};

/** What the largest of these commands takes. The kernel takes a longer one than it knows when the rest is zero. */
const ATTRIBUTES = 80;

/** The attributes of a call, all zero at first. Memory that they point to is kept as long as they are. */
export class Attributes {
  readonly #bytes = new Uint8Array(ATTRIBUTES);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #address = libc.addressOf(this.#bytes);
  readonly #pointedTo: Uint8Array[] = [];

  /** Sets a number of 32 bits. */
  set(offset: number, value: number): this {
    this.#view.setUint32(offset, value, true);
    return this;
  }

  get(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  setText(offset: number, text: string): this {
    this.#bytes.set(Buffer.from(text, 'latin1'), offset);
    return this;
  }

  /** Sets a pointer of 64 bits to `bytes`, which must not be resized. */
  point(offset: number, bytes: Uint8Array): this {
    this.#pointedTo.push(bytes);
    this.#view.setBigUint64(offset, BigInt(libc.addressOf(bytes)), true);
    return this;
  }

  /** Makes the call: its result, or -1 and errno. */
  try(command: number): number {
    return libc.bpf(command, this.#address, ATTRIBUTES);
  }

  /** Makes the call. Throws a SystemError that says what to do. */
  call(command: number, subject: string): number {
    const result = this.try(command);
    if (result < 0) throw failure(command, subject);
    return result;
  }
}

/** The error for a command that has just failed. */
export function failure(command: number, subject: string): libc.SystemError {
  const errno = libc.errno();
  return new libc.SystemError(subject, NAMES[command], errno, advice(command, errno));
}

function advice(command: number, errno: number): string {
  switch (errno) {
    case libc.EPERM:
      return (
        'eBPF needs CAP_BPF and CAP_NET_ADMIN outside of any user namespace, and neither kernel lockdown nor seccomp may ' +
        'forbid it; before Linux 5.11 also a larger RLIMIT_MEMLOCK'
      );
    case libc.ENOSYS:
      return 'the kernel has no eBPF (CONFIG_BPF_SYSCALL), or this is neither x64 nor arm64';
    case libc.E2BIG:
      return command === BPF_MAP_UPDATE_ELEM ? 'the map is full' : 'the kernel is too old for this';
    case libc.EINVAL:
      return command === BPF_LINK_CREATE ? 'TCX links need Linux 6.6' : '';
    default:
      return '';
  }
}
