import assert from 'node:assert/strict';
import test from 'node:test';
import * as arp from '../../wire/arp.ts';
import { get16, get32 } from '../../wire/bytes.ts';
import { hex, placed } from './canvas.ts';

const REPLY = hex('0001 0800 06 04 0002  0200000000aa c0000201  0200000000bb c0000202');

test('reads a reply', () => {
  const bytes = placed(REPLY, 1);
  assert.equal(REPLY.length, arp.ARP_PACKET);
  assert.equal(arp.arpIsIpv4(bytes, 1, REPLY.length), true);
  assert.equal(get16(bytes, 1 + arp.ARP_OPERATION), arp.ARP_REPLY);
  assert.equal(bytes[1 + arp.ARP_SENDER_MAC + 5], 0xaa);
  assert.equal(get32(bytes, 1 + arp.ARP_SENDER_IP), 0xc0000201 | 0);
  assert.equal(bytes[1 + arp.ARP_TARGET_MAC + 5], 0xbb);
  assert.equal(get32(bytes, 1 + arp.ARP_TARGET_IP), 0xc0000202 | 0);
});

test('takes nothing else for ARP over IPv4 and Ethernet', () => {
  assert.equal(arp.arpIsIpv4(REPLY, 0, arp.ARP_PACKET - 1), false, 'cut off');
  for (let i = 0; i < arp.ARP_OPERATION; i++) {
    const other = REPLY.with(i, REPLY[i] ^ 1);
    assert.equal(arp.arpIsIpv4(other, 0, other.length), false, `byte ${i}`);
  }
});
