// bulkTransfer() of the lab between two sockets of this process: its two processes take longer to start than most of the transfers here.

import { once } from 'node:events';
import { createServer, Socket } from 'node:net';
import * as lab from '../../cli/lab/bulk.ts';
import { type BulkResult, bulkResult } from '../../cli/lab/measure.ts';
import type { Host } from '../../cli/lab/network.ts';
import * as libc from '../../system/libc.ts';
import { AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCKADDR_PORT, sockaddr } from '../../system/socket.ts';
import { parseIp } from '../../wire/address.ts';
import { inside } from './inside.ts';

const SOCK_STREAM = 1;
/** Milliseconds for a transfer, on a path that loses packets and a machine that does other things as well. */
const PATIENCE = 60_000;

/** Sends `bytes` over one TCP connection and throws unless exactly the same bytes arrived (SHA-256). */
export async function bulkTransfer(
  from: Host,
  to: Host,
  address: string,
  bytes = 32 * 1024 * 1024,
): Promise<BulkResult> {
  const ip = parseIp(address)!;
  const any = new Uint8Array(ip.length);
  const [fd, port] = inside(to, () => boundSocket(any));
  const server = createServer({ allowHalfOpen: true }).listen({ fd });
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const sender = new Socket({ fd: inside(from, () => connectingSocket(ip, port)), allowHalfOpen: true });
  const sockets = [sender];
  const timer = setTimeout(() => {
    for (const socket of sockets) socket.destroy(new Error(`${from.name} to ${address}: not within ${PATIENCE} ms`));
    server.close();
    server.emit('error', new Error(`${from.name} to ${address}: no connection within ${PATIENCE} ms`));
  }, PATIENCE);
  try {
    const received = accepted.then(([socket]) => {
      sockets.push(socket);
      return lab.receive(socket);
    });
    const [sent, arrived] = await Promise.all([lab.send(sender, bytes), received]);
    return bulkResult(from, to, bytes, sent, arrived);
  } finally {
    clearTimeout(timer);
    server.close();
    for (const socket of sockets) socket.destroy();
  }
}

function boundSocket(any: Uint8Array): [fd: number, port: number] {
  const fd = tcpSocket(any);
  const address = sockaddr(any, 0);
  libc.check(libc.bind(fd, address, address.length), 'TCP socket', 'bind');
  const length = Buffer.from(new Int32Array([address.length]).buffer);
  libc.check(libc.getsockname(fd, address, length), 'TCP socket', 'getsockname');
  return [fd, address.readUInt16BE(SOCKADDR_PORT)];
}

/** Node waits for the connection, which this only begins. */
function connectingSocket(ip: Uint8Array, port: number): number {
  const fd = tcpSocket(ip);
  const address = sockaddr(ip, port);
  if (libc.connect(fd, address, address.length) < 0 && libc.errno() !== libc.EINPROGRESS)
    throw new libc.SystemError('TCP socket', 'connect', libc.errno());
  return fd;
}

function tcpSocket(ip: Uint8Array): number {
  const type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return libc.check(libc.socket(ip.length === 4 ? AF_INET : AF_INET6, type, 0), 'TCP socket', 'socket');
}
