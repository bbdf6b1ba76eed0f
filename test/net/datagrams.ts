// UDP datagrams over IPv4, as processes:
//   node datagrams.js send ADDRESS     sends what standard input says, one a line: SOURCE DESTINATION SEGMENT HEX. The ports;
//                                      source 0 is any. With a segment size above 0 it is one super-frame of datagrams.
//   node datagrams.js receive PORT     prints "listening", then each datagram as a line of HEX

import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import * as libc from '../../system/libc.ts';
import {
  AF_INET,
  CMSG,
  CMSG_DATA,
  CMSG_LEVEL,
  CMSG_TYPE,
  MSG_CONTROL,
  MSG_CONTROL_LENGTH,
  MSG_IOV,
  MSG_IOV_LENGTH,
  MSG_NAME,
  MSG_NAME_LENGTH,
  MSGHDR,
  SOCKADDR_IN,
  SOL_UDP,
  UDP_SEGMENT,
} from '../../system/socket.ts';

const SOCK_DGRAM = 2;
const IOVEC = 16;

function send(address: string): void {
  const sockets = new Map<number, number>();
  for (const line of readFileSync(0, 'utf8').trimEnd().split('\n')) {
    const [source, destination, segment, hex] = line.split(' ');
    const port = Number(source);
    const fd = sockets.get(port) ?? openSocket(port);
    sockets.set(port, fd);
    sendOne(fd, name(address, Number(destination)), Number(segment), Buffer.from(hex, 'hex'));
  }
}

/** A blocking socket: it waits for room instead of dropping. */
function openSocket(port: number): number {
  const fd = libc.check(libc.socket(AF_INET, SOCK_DGRAM, 0), 'UDP socket', 'socket');
  libc.check(libc.bind(fd, name('0.0.0.0', port), SOCKADDR_IN), `UDP port ${port}`, 'bind');
  return fd;
}

function name(address: string, port: number): Buffer {
  const bytes = Buffer.alloc(SOCKADDR_IN);
  bytes.writeUInt16LE(AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(address.split('.').map(Number), 4);
  return bytes;
}

function sendOne(fd: number, to: Buffer, segment: number, payload: Buffer): void {
  const iovec = Buffer.alloc(IOVEC);
  iovec.writeBigUInt64LE(BigInt(payload.length === 0 ? 0 : libc.addressOf(payload)), 0);
  iovec.writeBigUInt64LE(BigInt(payload.length), 8);
  const control = Buffer.alloc(CMSG);
  control.writeBigUInt64LE(BigInt(CMSG_DATA + 2), 0);
  control.writeInt32LE(SOL_UDP, CMSG_LEVEL);
  control.writeInt32LE(UDP_SEGMENT, CMSG_TYPE);
  control.writeUInt16LE(segment, CMSG_DATA);
  const header = Buffer.alloc(MSGHDR);
  header.writeBigUInt64LE(BigInt(libc.addressOf(to)), MSG_NAME);
  header.writeUInt32LE(SOCKADDR_IN, MSG_NAME_LENGTH);
  header.writeBigUInt64LE(BigInt(libc.addressOf(iovec)), MSG_IOV);
  header.writeUInt32LE(1, MSG_IOV_LENGTH);
  if (segment > 0) {
    header.writeBigUInt64LE(BigInt(libc.addressOf(control)), MSG_CONTROL);
    header.writeUInt32LE(CMSG, MSG_CONTROL_LENGTH);
  }
  libc.check(libc.sendmsg(fd, libc.addressOf(header), 0), `datagram of ${payload.length} bytes`, 'sendmsg');
}

function receive(port: number): void {
  const socket = createSocket('udp4');
  socket.on('message', (payload) => console.log(payload.toString('hex')));
  socket.bind(port, () => console.log('listening'));
}

const [role, where] = process.argv.slice(2);
if (role === 'receive') receive(Number(where));
else send(where!);
