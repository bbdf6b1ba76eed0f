/**
 * Netlink sockets (netlink(7)): requests to the kernel, which has answered them when they are sent. Linux: include/uapi/linux/netlink.h.
 *
 *     struct nlmsghdr   length 0 (u32) | type 4 (u16) | flags 6 (u16) | number 8 (u32) | port 12 (u32) | a header of the type's own 16
 *     struct nlattr     length 0 (u16) | type 2 (u16) | value 4                  each padded to 4 bytes, numbers in the host's byte order
 */
import * as libc from './libc.ts';
import { SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './socket.ts';

const AF_NETLINK = 16;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

export const NLM_F_REQUEST = 0x001;
const NLM_F_ACK = 0x004;
const NLM_F_DUMP_INTR = 0x010;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_CREATE = 0x400;
const NLM_F_DUMP = 0x300;

const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSGERR_ATTR_MSG = 1;
export const HEADER = 16;
const ATTRIBUTE = 4;
/** Where an error's attributes begin: behind its code and the header of what was asked. */
const ERROR_ATTRIBUTES = HEADER + 4 + HEADER;

/** Room for what the kernel hands out at once (netlink_dump() makes at most 32 kB). */
const BUFFER = 1 << 16;
/** Requests sent at once: the answer to each takes about 800 bytes of the receive buffer, 200 kB by default. */
const BATCH = 64;
/** How often a list is read again that has changed meanwhile. */
const READINGS = 10;

/** One message, being written. */
export class NetlinkMessage {
  #bytes = new Uint8Array(128);
  #view = new DataView(this.#bytes.buffer);
  #length: number;

  /** `header`: bytes of the header of the type's own, zero until set. */
  constructor(type: number, flags: number, header: number) {
    this.#length = HEADER + header;
    this.#view.setUint16(4, type, true);
    this.#view.setUint16(6, flags | NLM_F_REQUEST, true);
  }

  /** Fields of the type's own header, from its beginning. */
  set8(offset: number, value: number): this {
    this.#view.setUint8(HEADER + offset, value);
    return this;
  }

  set16(offset: number, value: number): this {
    this.#view.setUint16(HEADER + offset, value, true);
    return this;
  }

  set32(offset: number, value: number): this {
    this.#view.setUint32(HEADER + offset, value, true);
    return this;
  }

  add(type: number, value: Uint8Array): this {
    const at = this.#length;
    this.#length = at + padded(ATTRIBUTE + value.length);
    if (this.#length > this.#bytes.length) throw new RangeError('a netlink message is too long');
    this.#view.setUint16(at, ATTRIBUTE + value.length, true);
    this.#view.setUint16(at + 2, type, true);
    this.#bytes.set(value, at + ATTRIBUTE);
    return this;
  }

  add32(type: number, value: number): this {
    return this.add(type, new Uint8Array(Uint32Array.of(value).buffer));
  }

  /** As the message of that number. */
  finish(number: number, moreFlags: number): Uint8Array {
    this.#view.setUint32(0, this.#length, true);
    this.#view.setUint16(6, this.#view.getUint16(6, true) | moreFlags, true);
    this.#view.setUint32(8, number, true);
    return this.#bytes.subarray(0, this.#length);
  }
}

/** What the kernel refuses. `reason` is in its own words where it has some (extended ACK), else the name of the errno. */
export interface Refusal {
  readonly errno: string;
  readonly reason: string;
}

/** Takes a message of the kernel's: `bytes` from its header on, valid until it returns. */
export type TakeMessage = (type: number, bytes: DataView) => void;

export class NetlinkSocket {
  readonly #fd: number;
  readonly #bytes = new Uint8Array(BUFFER);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #address = libc.addressOf(this.#bytes);

  /** Of this process's network namespace. Throws SystemError. */
  constructor(protocol: number) {
    const type = SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK;
    this.#fd = libc.check(libc.socket(AF_NETLINK, type, protocol), 'netlink', 'socket');
    // Errors in words, and without what was asked.
    const on = new Uint8Array(Int32Array.of(1).buffer);
    for (const option of [NETLINK_EXT_ACK, NETLINK_CAP_ACK]) libc.setsockopt(this.#fd, SOL_NETLINK, option, on, 4);
  }

  close(): void {
    libc.close(this.#fd);
  }

  /** Makes changes, one after the other; one that is refused does not keep back the others. Returns refusals by index. Throws SystemError. */
  change(messages: readonly NetlinkMessage[]): Map<number, Refusal> {
    const refusals = new Map<number, Refusal>();
    for (let start = 0; start < messages.length; start += BATCH) {
      const batch = messages.slice(start, start + BATCH);
      this.#send(batch.map((message, i) => message.finish(start + i, NLM_F_ACK)));
      for (let answers = 0; answers < batch.length; ) {
        this.#receive((type, bytes) => {
          if (type !== NLMSG_ERROR) return;
          answers++;
          const refusal = refusalOf(bytes);
          if (refusal) refusals.set(bytes.getUint32(8, true), refusal);
        });
      }
    }
    return refusals;
  }

  /** Asks for one thing. Returns why it is refused, if it is. Throws SystemError. */
  get(message: NetlinkMessage, take: TakeMessage): Refusal | undefined {
    return this.#ask(message, 0, take);
  }

  /** All that there is of something. `begin` is called before the first, and again when it changed meanwhile and is read anew. */
  dump(message: NetlinkMessage, begin: () => void, take: TakeMessage): Refusal | undefined {
    for (let reading = 1; ; reading++) {
      begin();
      let isInterrupted = false;
      const refusal = this.#ask(message, NLM_F_DUMP, (type, bytes) => {
        if (bytes.getUint16(6, true) & NLM_F_DUMP_INTR) isInterrupted = true;
        take(type, bytes);
      });
      if (refusal || !isInterrupted || reading === READINGS) return refusal;
    }
  }

  #ask(message: NetlinkMessage, flags: number, take: TakeMessage): Refusal | undefined {
    // An ACK follows an answer, as DONE follows a list.
    this.#send([message.finish(0, flags || NLM_F_ACK)]);
    let refusal: Refusal | undefined;
    for (let isDone = false; !isDone; ) {
      this.#receive((type, bytes) => {
        isDone ||= type === NLMSG_ERROR || type === NLMSG_DONE;
        if (type === NLMSG_ERROR) refusal = refusalOf(bytes);
        else if (type !== NLMSG_DONE) take(type, bytes);
      });
    }
    return refusal;
  }

  #send(messages: readonly Uint8Array[]): void {
    let length = 0;
    for (const message of messages) {
      this.#bytes.set(message, length);
      length += message.length;
    }
    libc.check(libc.write(this.#fd, this.#address, length), 'netlink', 'write');
  }

  #receive(take: TakeMessage): void {
    const length = libc.check(libc.read(this.#fd, this.#address, BUFFER), 'netlink', 'read');
    for (let at = 0; at + HEADER <= length; ) {
      const size = this.#view.getUint32(at, true);
      take(this.#view.getUint16(at + 4, true), new DataView(this.#bytes.buffer, at, size));
      at += padded(size);
    }
  }
}

/** The attributes of a message, behind a header of so many bytes of the type's own, by type. */
export function* attributes(bytes: DataView, header: number): Generator<[type: number, value: Uint8Array]> {
  for (let at = HEADER + header; at + ATTRIBUTE <= bytes.byteLength; ) {
    const size = bytes.getUint16(at, true);
    if (size < ATTRIBUTE) return;
    const type = bytes.getUint16(at + 2, true) & 0x3fff; // without the flags for nested and big-endian ones
    yield [type, new Uint8Array(bytes.buffer, bytes.byteOffset + at + ATTRIBUTE, size - ATTRIBUTE)];
    at += padded(size);
  }
}

/** Of the answer to a change; undefined: it was made. */
function refusalOf(bytes: DataView): Refusal | undefined {
  const code = -bytes.getInt32(HEADER, true);
  if (code === 0) return undefined;
  const errno = libc.errnoName(code);
  for (const [type, value] of attributes(bytes, ERROR_ATTRIBUTES - HEADER)) {
    if (type === NLMSGERR_ATTR_MSG) return { errno, reason: Buffer.from(value).toString('latin1').replace(/\0+$/, '') };
  }
  return { errno, reason: errno };
}

function padded(length: number): number {
  return (length + 3) & ~3;
}
