/**
 * Netlink sockets (netlink(7)): questions to the kernel, which has answered them when they are sent. Linux: include/uapi/linux/netlink.h.
 *
 *     struct nlmsghdr   length 0 (u32) | type 4 (u16) | flags 6 (u16) | number 8 (u32) | port 12 (u32) | a header of the type's own 16
 *     struct nlattr     length 0 (u16) | type 2 (u16) | value 4                  each padded to 4 bytes, numbers in the host's byte order
 */
import * as libc from './libc.ts';
import { SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './socket.ts';

const AF_NETLINK = 16;
export const NETLINK_NETFILTER = 12;

const NLM_F_REQUEST = 0x1;
const NLM_F_ACK = 0x4;
const NLMSG_ERROR = 2;
const HEADER = 16;
const ATTRIBUTE = 4;
const BUFFER = 8192;

export class NetlinkSocket {
  readonly #fd: number;
  readonly #bytes = new Uint8Array(BUFFER);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #address = libc.addressOf(this.#bytes);

  /** Of this process's network namespace. Throws SystemError. */
  constructor(protocol: number) {
    const type = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK;
    this.#fd = libc.check(libc.socket(AF_NETLINK, type, protocol), 'netlink', 'socket');
  }

  close(): void {
    libc.close(this.#fd);
  }

  /**
   * Asks with a message of `header` zero bytes; `take` gets what answers, from its header on, valid until it returns. Throws SystemError
   * with what the kernel refuses it for.
   */
  ask(type: number, header: number, take: (answer: DataView) => void): void {
    this.#bytes.fill(0, 0, HEADER + header);
    this.#view.setUint32(0, HEADER + header, true);
    this.#view.setUint16(4, type, true);
    this.#view.setUint16(6, NLM_F_REQUEST | NLM_F_ACK, true);
    libc.check(libc.write(this.#fd, this.#address, HEADER + header), 'netlink', 'write');
    // The ACK comes last; its code is 0, or -errno.
    for (let isDone = false; !isDone; ) {
      const length = libc.check(libc.read(this.#fd, this.#address, BUFFER), 'netlink', 'read');
      for (let at = 0; at + HEADER <= length; ) {
        const size = this.#view.getUint32(at, true);
        isDone = this.#view.getUint16(at + 4, true) === NLMSG_ERROR;
        const code = isDone ? -this.#view.getInt32(at + HEADER, true) : 0;
        if (code !== 0) throw new libc.SystemError('netlink', `message ${type}`, code);
        if (!isDone) take(new DataView(this.#bytes.buffer, at, size));
        at += padded(size);
      }
    }
  }
}

/** The attributes of a message, behind a header of so many bytes of the type's own. */
export function* attributes(message: DataView, header: number): Generator<[type: number, value: DataView]> {
  for (let at = HEADER + header; at + ATTRIBUTE <= message.byteLength; ) {
    const size = message.getUint16(at, true);
    if (size < ATTRIBUTE) return;
    const value = new DataView(message.buffer, message.byteOffset + at + ATTRIBUTE, size - ATTRIBUTE);
    yield [message.getUint16(at + 2, true), value];
    at += padded(size);
  }
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
