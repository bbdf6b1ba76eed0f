// The first ping inside of VXLAN that passes a device of this network namespace, as a process:
//   node packet-socket.js DEVICE    prints "capturing", then the packet's bytes, from the Ethernet header on, as hex digits
// tcpdump(1) would do, but as Debian builds it, it changes its user at start, which cannot be done in a user namespace.

import { dissect } from '../../packets/dissect.ts';
import { addressOf, bind, check, ifIndex, poll, read, socket } from '../../system/libc.ts';
import { ICMP_ECHO_REQUEST, ICMP_TYPE } from '../../wire/icmp.ts';

/** packet(7), linux/if_packet.h. Protocols are in network byte order. */
const AF_PACKET = 17;
const SOCK_RAW = 3;
const ETH_P_ALL = 0x0003;
const SOCKADDR_LL = 20;
const SOCKADDR_LL_PROTOCOL = 2;
const SOCKADDR_LL_IFINDEX = 4;

const POLLIN = 1;
/** Milliseconds without any packet, after which it gives up. */
const PATIENCE = 5_000;

function openPacketSocket(device: string): number {
  const address = Buffer.alloc(SOCKADDR_LL);
  new Uint16Array(address.buffer, address.byteOffset, 1)[0] = AF_PACKET;
  address.writeUInt16BE(ETH_P_ALL, SOCKADDR_LL_PROTOCOL);
  new Int32Array(address.buffer, address.byteOffset + SOCKADDR_LL_IFINDEX, 1)[0] = ifIndex(device);
  // Protocol 0: nothing comes before it is bound to the device.
  const fd = check(socket(AF_PACKET, SOCK_RAW, 0), device, 'socket(AF_PACKET)');
  check(bind(fd, address, SOCKADDR_LL), device, 'bind(AF_PACKET)');
  return fd;
}

function isPing(packet: Uint8Array): boolean {
  const { layers } = dissect(packet);
  const icmp = layers.find(({ name }) => name === 'ICMP');
  const inVxlan = layers.some(({ name }) => name === 'VXLAN');
  return inVxlan && icmp !== undefined && packet[icmp.offset + ICMP_TYPE] === ICMP_ECHO_REQUEST;
}

const device = process.argv[2];
const buffer = Buffer.alloc(0x1_0000);
const fd = openPacketSocket(device);
const pollfd = new Int32Array([fd, POLLIN]);
console.log('capturing');
for (;;) {
  if (poll(addressOf(new Uint8Array(pollfd.buffer)), 1, PATIENCE) <= 0)
    throw new Error(`${device}: no ping in VXLAN passed`);
  const packet = buffer.subarray(0, check(read(fd, addressOf(buffer), buffer.length), device, 'read'));
  if (!isPing(packet)) continue;
  console.log(packet.toString('hex'));
  break;
}
