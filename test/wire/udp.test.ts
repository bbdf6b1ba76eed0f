import assert from 'node:assert/strict';
import test from 'node:test';
import { get16 } from '../../wire/bytes.ts';
import * as udp from '../../wire/udp.ts';
import { hex, placed, written } from './canvas.ts';

test('writes a header', () => {
  const bytes = written(8, (b, at) => udp.writeUdpHeader(b, at, 0xc001, 8472, 0x1234));
  assert.equal(bytes, 'c001211812340000');
});

test('reads a header', () => {
  const bytes = placed(hex('c001 2118 1234 beef'), 1);
  assert.equal(get16(bytes, 1 + udp.UDP_SOURCE), 0xc001);
  assert.equal(get16(bytes, 1 + udp.UDP_DESTINATION), 8472);
  assert.equal(get16(bytes, 1 + udp.UDP_LENGTH), 0x1234);
  assert.equal(get16(bytes, 1 + udp.UDP_CHECKSUM), 0xbeef);
});
