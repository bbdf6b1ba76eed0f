// Needs root (CAP_BPF): runs the programs on packets. Attaches nothing.

import assert from 'node:assert/strict';
import test from 'node:test';
import { receiveProgram, sendProgram } from '../../control/redirect-programs.ts';
import { TC_ACT_REDIRECT, TCX_INGRESS, TCX_NEXT } from '../../system/bpf/abi.ts';
import { loadProgram, testRun } from '../../system/bpf/program.ts';
import { close } from '../../system/libc.ts';
import { lackingBpf } from '../system/bpf/requirement.ts';

const skip = lackingBpf();
const UPLINK = 7;

// Packets in hexadecimal. The destination MAC address is the loopback device's, on which the kernel runs them.
const MACS = '000000000000 020000000001';
/** To 192.0.2.1, port 8472 (0x2118): don't fragment, no checksums. */
const IPV4 = `${MACS} 0800 45000032 00004000 40110000 c0000202 c0000201 9c402118 001e0000`;
/** To 2001:db8::1, port 8472. */
const IPV6 = `${MACS} 86dd 60000000 001e1140 20010db8 00000000 00000000 00000002 20010db8 00000000 00000000 00000001 9c402118 001e0000`;
const VXLAN = '08000000 00000100';
const INNER = '00'.repeat(14);

function bytes(packet: string, payload = `${VXLAN} ${INNER}`): Uint8Array {
  return Buffer.from(`${packet} ${payload}`.replaceAll(' ', ''), 'hex');
}

/** Our packet with one thing changed. */
function changed(packet: string, from: string, to: string): Uint8Array {
  assert.ok(packet.includes(from), from);
  return bytes(packet.replace(from, to));
}

const OURS = TC_ACT_REDIRECT;
const NOT_OURS = TCX_NEXT;
const OTHER_HOST = '020000000099 020000000001';

const CASES: [local: string, what: string, packet: Uint8Array, result: number][] = [
  ['192.0.2.1', 'our address and port', bytes(IPV4), OURS],
  ['192.0.2.1', 'any TOS and TTL', changed(IPV4, '45000032 00004000 40', '45b80032 12340000 01'), OURS],
  ['192.0.2.1', 'its headers and no more', bytes(IPV4, ''), OURS],
  ['192.0.2.1', 'another port', changed(IPV4, '2118', '12b5'), NOT_OURS],
  ['192.0.2.1', 'our port as the source', changed(IPV4, '9c402118', '21189c40'), NOT_OURS],
  ['192.0.2.1', 'another address', changed(IPV4, 'c0000201', 'c0000203'), NOT_OURS],
  ['192.0.2.1', 'our address as the source', changed(IPV4, 'c0000202 c0000201', 'c0000201 c0000202'), NOT_OURS],
  ['192.0.2.1', 'a first fragment', changed(IPV4, '00004000', '00002000'), NOT_OURS],
  ['192.0.2.1', 'a middle fragment', changed(IPV4, '00004000', '000020b9'), NOT_OURS],
  ['192.0.2.1', 'a last fragment', changed(IPV4, '00004000', '000000b9'), NOT_OURS],
  ['192.0.2.1', 'IP options', changed(IPV4, '45000032', '46000032'), NOT_OURS],
  ['192.0.2.1', 'a broken version', changed(IPV4, '45000032', '55000032'), NOT_OURS],
  ['192.0.2.1', 'TCP', changed(IPV4, '4011', '4006'), NOT_OURS],
  ['192.0.2.1', 'ARP', changed(IPV4, '0800', '0806'), NOT_OURS],
  ['192.0.2.1', 'a tag in the frame', changed(IPV4, '0800', '8100 0005 0800'), NOT_OURS],
  ['192.0.2.1', "another host's MAC address", changed(IPV4, MACS, OTHER_HOST), NOT_OURS],
  ['192.0.2.1', 'a packet that ends in its UDP header', bytes(IPV4, '').subarray(0, -1), NOT_OURS],
  // The kernel runs nothing on packets that are shorter.
  ['192.0.2.1', 'a packet that ends with its IP header', bytes(IPV4, '').subarray(0, 34), NOT_OURS],
  ['192.0.2.1', 'IPv6', bytes(IPV6), NOT_OURS],
  ['2001:db8::1', 'our address and port', bytes(IPV6), OURS],
  ['2001:db8::1', 'any traffic class, flow label and hop limit', changed(IPV6, '60000000', '6fedcba9'), OURS],
  ['2001:db8::1', 'its headers and no more', bytes(IPV6, ''), OURS],
  ['2001:db8::1', 'another port', changed(IPV6, '2118', '12b5'), NOT_OURS],
  ['2001:db8::1', 'our port as the source', changed(IPV6, '9c402118', '21189c40'), NOT_OURS],
  ...[0, 1, 2, 3].map((word): [string, string, Uint8Array, number] => {
    const packet = bytes(IPV6);
    packet[14 + 24 + 4 * word + 3] ^= 0x80;
    return ['2001:db8::1', `an address that differs in word ${word}`, packet, NOT_OURS];
  }),
  ['2001:db8::1', 'a broken version', changed(IPV6, '60000000', '40000000'), NOT_OURS],
  ['2001:db8::1', 'TCP', changed(IPV6, '1140', '0640'), NOT_OURS],
  ['2001:db8::1', 'a fragment', changed(IPV6, '1140', '2c40'), NOT_OURS],
  ['2001:db8::1', 'an extension header', changed(IPV6, '1140', '3c40'), NOT_OURS],
  ['2001:db8::1', "another host's MAC address", changed(IPV6, MACS, OTHER_HOST), NOT_OURS],
  ['2001:db8::1', 'a packet that ends in its UDP header', bytes(IPV6, '').subarray(0, -1), NOT_OURS],
  ['2001:db8::1', 'IPv4', bytes(IPV4), NOT_OURS],
];

for (const [local, what, packet, result] of CASES) {
  test(`for ${local}, ${what} ${result === OURS ? 'goes to the uplink' : 'is left to others'}`, { skip }, () => {
    const fd = loadProgram(receiveProgram(UPLINK, local, 8472), TCX_INGRESS);
    assert.deepEqual(testRun(fd, packet), { result, packet: new Uint8Array(packet) });
    close(fd);
  });
}

test('everything from the uplink TAP leaves through the NIC', { skip }, () => {
  const fd = loadProgram(sendProgram(UPLINK), TCX_INGRESS);
  for (const packet of [bytes(IPV4), bytes(IPV6), bytes(`${MACS} 88b5`)]) {
    assert.equal(testRun(fd, packet).result, TC_ACT_REDIRECT);
  }
  close(fd);
});

test('an address of neither family is refused', () => {
  assert.throws(() => receiveProgram(UPLINK, '192.0.2.256', 8472), /192.0.2.256 is not an IP address/);
});
