import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { PROTOCOL_TCP, PROTOCOL_UDP } from '../../wire/ipv4.ts';
import * as ipv6 from '../../wire/ipv6.ts';
import { guarded, hex, placed, written } from './canvas.ts';

const SOURCE = '20010db8000000000000000000000001';
const DESTINATION = '20010db8000000000000000000000002';
const fixed = (next: string) => `6000000000 00 ${next} 40 ${SOURCE} ${DESTINATION}`;

test('writes a header', () => {
  const bytes = written(40, (b, at) =>
    ipv6.writeIpv6Header(b, at, {
      trafficClass: 0xb9,
      flowLabel: 0xabcde,
      payloadLength: 0x1234,
      nextHeader: PROTOCOL_UDP,
      hopLimit: 64,
      source: hex(SOURCE),
      destination: hex(DESTINATION),
    }),
  );
  assert.equal(bytes, `6b9abcde12341140${SOURCE}${DESTINATION}`);
});

test('a header is whole when it is of version 6 and all of it is there', () => {
  assert.equal(ipv6.ipv6IsWhole(hex(fixed('11')), 0, 40), true);
  assert.equal(ipv6.ipv6IsWhole(hex(fixed('11')), 0, 39), false);
  assert.equal(ipv6.ipv6IsWhole(hex('45'), 0, 40), false);
  assert.equal(ipv6.ipv6IsWhole(guarded(hex('60'), 0, 0), 0, 0), false);
});

const OPTIONS_8 = '00 010400000000';
const OPTIONS_16 = '01 0104000000000104000000000000';

test('finds the transport header behind extension headers', () => {
  const cases: [string, number, number][] = [
    [fixed('06'), 40, PROTOCOL_TCP],
    [`${fixed('00')} 11${OPTIONS_8}`, 48, PROTOCOL_UDP],
    [`${fixed('00')} 3c${OPTIONS_8} 2b${OPTIONS_16} 06${OPTIONS_8}`, 72, PROTOCOL_TCP],
    [`${fixed('00')} 2c${OPTIONS_8} 11 00 0001 00000001`, 48, ipv6.PROTOCOL_FRAGMENT],
    [`${fixed('3b')} 0000`, 40, 59],
  ];
  for (const [packet, offset, protocol] of cases) {
    const { length } = hex(packet);
    const found = ipv6.ipv6Transport(guarded(placed(hex(packet), 1), 1, length), 1, length);
    assert.deepEqual([found >>> 8, found & 0xff], [offset, protocol], packet);
  }
});

test('stops at an extension header that is cut off', () => {
  const packet = hex(`${fixed('00')} 3c${OPTIONS_8} 06${OPTIONS_16}`);
  const at = (length: number) => ipv6.ipv6Transport(guarded(packet, 0, length), 0, length);
  for (let length = 40; length < 48; length++) assert.equal(at(length), 40 << 8);
  for (let length = 48; length < 64; length++) assert.equal(at(length), (48 << 8) | 60);
  assert.equal(at(64), (64 << 8) | PROTOCOL_TCP);
});

test('gives up on an endless chain', () => {
  const packet = new Uint8Array(4096).fill(0);
  packet[0] = 0x60;
  assert.equal(ipv6.ipv6Transport(packet, 0, packet.length), (40 + 8 * 8) << 8);
});

test('never reads or points beyond the length', () => {
  const next = fc.constantFrom(0, 6, 17, 43, 44, 60);
  const octet = fc.oneof(next, fc.nat(255));
  fc.assert(
    fc.property(next, fc.array(octet, { maxLength: 200 }), (first, rest) => {
      const packet = Uint8Array.from([...hex(fixed('00')).with(6, first), ...rest]);
      const found = ipv6.ipv6Transport(guarded(placed(packet, 5), 5, packet.length), 5, packet.length);
      assert.ok(found >>> 8 >= 40 && found >>> 8 <= packet.length);
    }),
  );
});
