import assert from 'node:assert/strict';
import test from 'node:test';
import { ARP_FRAME, ARP_PACKET, ARP_TARGET_IP, arpIsIpv4, writeArpReply } from '../../wire/arp.ts';
import { get32 } from '../../wire/bytes.ts';
import { guarded, hex, placed } from './canvas.ts';

/** 10.1.0.1 at 02:00:00:00:00:01 asks for 10.1.0.2. */
const REQUEST = hex('0001 0800 06 04 0001  020000000001 0a010001  000000000000 0a010002');

test('knows a request for an IPv4 address, whole', () => {
  for (let length = 0; length <= ARP_PACKET; length++) {
    const bytes = guarded(placed(REQUEST.subarray(0, length), 3), 3, length);
    assert.equal(arpIsIpv4(bytes, 3, length), length === ARP_PACKET);
  }
  assert.equal(get32(REQUEST, ARP_TARGET_IP), 0x0a010002);
});

test('refuses other protocols and lengths of addresses', () => {
  for (const [offset, value] of [
    [2, 0x86],
    [3, 0x06],
    [4, 8],
    [5, 16],
  ]) {
    const bytes = REQUEST.slice();
    bytes[offset] = value;
    assert.equal(arpIsIpv4(bytes, 0, bytes.length), false);
  }
});

test('answers the sender of a request', () => {
  const bytes = placed(REQUEST, 200);
  writeArpReply(bytes, 11, 200, 0x0200, 0x00000002);
  assert.equal(
    Buffer.from(bytes.subarray(11, 11 + ARP_FRAME)).toString('hex'),
    Buffer.from(
      hex(`020000000001 020000000002 0806
           0001 0800 06 04 0002  020000000002 0a010002  020000000001 0a010001`),
    ).toString('hex'),
  );
  assert.deepEqual([bytes[10], bytes[11 + ARP_FRAME]], [0xa5, 0xa5]);
});
