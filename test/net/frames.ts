// Raw Ethernet frames on a device, as processes:
//   node frames.js send INDEX...          sends the frames of standard input ("HEX" or "HEX COUNT", one a line) on each device; prints "sent N"
//   node frames.js receive INDEX TYPE     prints "listening", then each received frame of that ethertype as a line of HEX
// INDEX is the device's, as `ip link` shows it. What the device has no room for counts as sent: it was offered.

import { readFileSync } from 'node:fs';
import * as libc from '../../system/libc.ts';

const AF_PACKET = 17;
const SOCK_RAW = 3;

/** packet(7): family, protocol (big-endian), interface index, and what only the kernel fills in. */
function openSocket(index: number, etherType: number): number {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(etherType, 2);
  address.writeInt32LE(index, 4);
  const fd = libc.check(libc.socket(AF_PACKET, SOCK_RAW, 0), 'packet socket', 'socket');
  libc.check(libc.bind(fd, address, address.length), `packet socket on device ${index}`, 'bind');
  return fd;
}

const input = process.argv[2] === 'send' ? readFileSync(0, 'utf8').trim().split('\n') : [];

function send(index: number): number {
  const fd = openSocket(index, 0);
  let sent = 0;
  for (const line of input) {
    const [hex, count = '1'] = line.split(' ');
    const frame = Buffer.from(hex!, 'hex');
    const address = libc.addressOf(frame);
    for (let left = Number(count); left > 0; left--) {
      if (libc.write(fd, address, frame.length) < 0 && libc.errno() !== libc.ENOBUFS)
        throw new libc.SystemError(`frame of ${frame.length} bytes`, 'write', libc.errno());
      sent++;
    }
  }
  return sent;
}

function receive(index: number, etherType: number): void {
  const fd = openSocket(index, etherType);
  const buffer = Buffer.alloc(65536);
  const address = libc.addressOf(buffer);
  console.log('listening');
  for (;;) {
    const length = libc.check(libc.read(fd, address, buffer.length), 'packet socket', 'read');
    console.log(buffer.toString('hex', 0, length));
  }
}

const [role, ...numbers] = process.argv.slice(2);
if (role === 'receive') receive(Number(numbers[0]), Number(numbers[1]));
else console.log(`sent ${numbers.map(Number).reduce((sent, index) => sent + send(index), 0)}`);
