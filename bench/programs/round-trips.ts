// Round trips of UDP datagrams, one after the other, as two processes:
//   node round-trips.js serve ADDRESS                   sends back what comes; prints "listening PORT"
//   node round-trips.js measure ADDRESS PORT SECONDS    prints one JSON line: see RoundTrips
//
// sockperf's ping-pong waits for an answer that was lost until its time is up (client.h, client_receive): of a lossy path it shows what was
// before the first loss. Its under-load mode goes on, but spins between packets, and so takes a CPU from what is measured.

import { writeSync } from 'node:fs';
import * as libc from '../../system/libc.ts';
import {
  AF_INET,
  AF_INET6,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCKADDR,
  SOCKADDR_PORT,
  SOL_SOCKET,
  sockaddr,
} from '../../system/socket.ts';
import { parseIp } from '../../wire/address.ts';

export interface RoundTrips {
  readonly sent: number;
  /** One a datagram that was answered, in the order of sending. */
  readonly microseconds: readonly number[];
}

/** Bytes of UDP payload; the first four are the number of the datagram. */
const SIZE = 64;
/** Milliseconds without any answer after which the next is sent. */
const NEXT = 10;
/** Milliseconds after the last one until what has not come is lost. */
const PATIENCE = 1000;
/** Milliseconds in front that do not count: until V8 has compiled what is hot, and the other traffic flows. */
const WARM_UP = 500;
/** Datagrams: more than a second can have, times 60. */
const MOST = 1 << 23;
const SO_RCVTIMEO = 20;

/** A blocking UDP socket. */
function open(address: Uint8Array): number {
  const type = SOCK_DGRAM | SOCK_CLOEXEC;
  return libc.check(libc.socket(address.length === 4 ? AF_INET : AF_INET6, type, 0), 'UDP socket', 'socket');
}

function serve(address: Uint8Array): void {
  const fd = open(address);
  const local = sockaddr(address, 0);
  libc.check(libc.bind(fd, local, local.length), 'UDP socket', 'bind');
  const [bytes, from, length] = [Buffer.alloc(SIZE), Buffer.alloc(SOCKADDR), Buffer.alloc(4)];
  length.writeUInt32LE(SOCKADDR);
  libc.check(libc.getsockname(fd, from, length), 'UDP socket', 'getsockname');
  writeSync(1, `listening ${from.readUInt16BE(SOCKADDR_PORT)}\n`);
  for (;;) {
    length.writeUInt32LE(SOCKADDR);
    const n = libc.recvfrom(fd, bytes, SIZE, 0, from, length);
    if (n > 0) libc.sendto(fd, bytes, n, 0, from, length.readUInt32LE());
  }
}

function measure(address: Uint8Array, port: number, seconds: number): RoundTrips {
  const fd = open(address);
  const remote = sockaddr(address, port);
  libc.check(libc.connect(fd, remote, remote.length), `UDP port ${port}`, 'connect');
  // struct timeval: seconds, microseconds.
  const timeout = new BigInt64Array([0n, BigInt(NEXT * 1000)]);
  const option = new Uint8Array(timeout.buffer);
  libc.check(libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, option, option.length), 'UDP socket', 'SO_RCVTIMEO');
  const bytes = Buffer.alloc(SIZE);
  const sentAt = new Float64Array(MOST);
  const taken = new Float64Array(MOST);
  let answered = 0;
  /** The number of the next answer; -1 when none has come for NEXT milliseconds. */
  const answer = (): number => {
    if (libc.recv(fd, bytes, SIZE, 0) !== SIZE) return -1;
    const now = performance.now();
    const number = bytes.readUInt32LE();
    if (taken[number] === 0) {
      taken[number] = now - sentAt[number]!;
      answered++;
    }
    return number;
  };
  const begin = performance.now() + WARM_UP;
  const end = begin + seconds * 1000;
  let [sent, warm] = [0, 0];
  for (let now = performance.now(); now < end && sent < MOST; now = performance.now()) {
    if (now < begin) warm = sent + 1;
    bytes.writeUInt32LE(sent);
    sentAt[sent] = now;
    // What it tells of an earlier one (ECONNREFUSED) is nothing new; what was not sent is lost.
    libc.send(fd, bytes, SIZE, 0);
    for (let number = answer(); number !== sent && number >= 0; ) number = answer();
    sent++;
  }
  while (answered < sent && performance.now() < end + PATIENCE) answer();
  libc.close(fd);
  const counted = taken.subarray(warm, sent).filter((time) => time > 0);
  return { sent: sent - warm, microseconds: Array.from(counted, (time) => Math.round(time * 1e4) / 10) };
}

const [role, address, ...rest] = process.argv.slice(2);
if (role === 'serve') serve(parseIp(address!)!);
else console.log(JSON.stringify(measure(parseIp(address!)!, Number(rest[0]), Number(rest[1]))));
