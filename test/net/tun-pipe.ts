// A NIC without link-layer addresses: a TUN device whose packets go to another of its kind in UDP datagrams.
//   node tun-pipe.js NAME LOCAL REMOTE    prints "ready" when the device NAME is there; the addresses are IPv4, the port is 5000

import { createSocket } from 'node:dgram';
import * as libc from '../../system/libc.ts';

const TUNSETIFF = 0x400454ca;
const IFF_TUN = 1;
const IFF_NO_PI = 0x1000;
const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const PORT = 5000;

const [name, local, remote] = process.argv.slice(2) as [string, string, string];
const fd = libc.check(libc.open('/dev/net/tun', O_RDWR | O_NONBLOCK), '/dev/net/tun', 'open');
const request = Buffer.alloc(40);
request.write(name, 'latin1');
request.writeUInt16LE(IFF_TUN | IFF_NO_PI, 16);
libc.check(libc.ioctl(fd, TUNSETIFF, request), name, 'TUNSETIFF');

const socket = createSocket('udp4');
socket.on('message', (packet) => libc.write(fd, libc.addressOf(packet), packet.length));
socket.bind(PORT, local, () => {
  socket.setRecvBufferSize(4 * 1024 * 1024);
  console.log('ready');
  forward();
});

function forward(): void {
  for (;;) {
    const packet = Buffer.alloc(2048);
    const length = libc.read(fd, libc.addressOf(packet), packet.length);
    if (length <= 0) break;
    socket.send(packet.subarray(0, length), PORT, remote);
  }
  setTimeout(forward, 1);
}
