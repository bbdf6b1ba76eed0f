import assert from 'node:assert/strict';
import test from 'node:test';
import { get16, get32 } from '../../wire/bytes.ts';
import { fillIpv4Checksum } from '../../wire/checksum.ts';
import * as ipv4 from '../../wire/ipv4.ts';
import { guarded, hex, placed, written } from './canvas.ts';

// The example of Wikipedia's "Internet checksum" article, whose checksum is b861.
const EXAMPLE = '45 00 0073 0000 4000 40 11 b861 c0a80001 c0a800c7';
const HEADER = {
  tos: 0,
  totalLength: 0x73,
  id: 0,
  dontFragment: true,
  ttl: 64,
  protocol: ipv4.PROTOCOL_UDP,
  source: hex('c0a80001'),
  destination: hex('c0a800c7'),
};

test('writes a header, then its checksum', () => {
  const bytes = written(20, (b, at) => {
    ipv4.writeIpv4Header(b, at, HEADER);
    assert.equal(get16(b, at + ipv4.IPV4_CHECKSUM), 0);
    fillIpv4Checksum(b, at);
  });
  assert.equal(bytes, EXAMPLE.replaceAll(' ', ''));
});

test('writes every field to its place', () => {
  const bytes = written(20, (b, at) =>
    ipv4.writeIpv4Header(b, at, { ...HEADER, tos: 0xb9, totalLength: 0x1234, id: 0x5678, dontFragment: false, ttl: 9 }),
  );
  assert.equal(bytes, '45b912345678000009110000c0a80001c0a800c7');
});

test('reads a header', () => {
  const bytes = placed(hex(EXAMPLE), 3);
  assert.equal(ipv4.ipv4HeaderLength(bytes, 3), 20);
  assert.equal(get16(bytes, 3 + ipv4.IPV4_TOTAL_LENGTH), 0x73);
  assert.equal(get16(bytes, 3 + ipv4.IPV4_FRAGMENT), ipv4.IPV4_DONT_FRAGMENT);
  assert.equal(bytes[3 + ipv4.IPV4_TTL], 64);
  assert.equal(bytes[3 + ipv4.IPV4_PROTOCOL], ipv4.PROTOCOL_UDP);
  assert.equal(get32(bytes, 3 + ipv4.IPV4_SOURCE), 0xc0a80001 | 0);
  assert.equal(get32(bytes, 3 + ipv4.IPV4_DESTINATION), 0xc0a800c7 | 0);
});

test('a header is whole when it is of version 4 and all of it is there', () => {
  const cases: [number, number, boolean][] = [
    [0x45, 20, true],
    [0x45, 19, false],
    [0x45, 0, false],
    [0x46, 24, true],
    [0x46, 23, false],
    [0x4f, 60, true],
    [0x44, 60, false],
    [0x65, 60, false],
  ];
  for (const [first, length, whole] of cases) {
    const bytes = new Uint8Array(64).fill(0xa5).with(1, first);
    assert.equal(ipv4.ipv4IsWhole(guarded(bytes, 1, length), 1, length), whole, `${first.toString(16)}, ${length}`);
  }
});

test('first, middle and last fragments are fragments; DF and the reserved bit say nothing', () => {
  const cases: [string, boolean][] = [
    ['2000', true],
    ['2001', true],
    ['0001', true],
    ['1fff', true],
    ['4000', false],
    ['8000', false],
    ['0000', false],
  ];
  for (const [field, fragment] of cases) {
    assert.equal(ipv4.ipv4IsFragment(hex(EXAMPLE.replace('4000', field)), 0), fragment, field);
  }
});

test('the checksum covers options', () => {
  const bytes = hex('46 00 0018 0000 0000 40 01 a5a5 0a000001 0a000002 94040000');
  fillIpv4Checksum(bytes, 0);
  assert.equal(get16(bytes, ipv4.IPV4_CHECKSUM), 0xd1de);
});
