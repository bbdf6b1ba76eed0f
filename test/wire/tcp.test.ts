import assert from 'node:assert/strict';
import test from 'node:test';
import { get16, get32 } from '../../wire/bytes.ts';
import * as tcp from '../../wire/tcp.ts';
import { hex, placed } from './canvas.ts';

test('reads a header', () => {
  const bytes = placed(hex('0050 c001 81828384 01020304 80 12 fff0 beef 0007 0101080a0000000100000002'), 1);
  assert.equal(get16(bytes, 1 + tcp.TCP_SOURCE), 80);
  assert.equal(get16(bytes, 1 + tcp.TCP_DESTINATION), 0xc001);
  assert.equal(get32(bytes, 1 + tcp.TCP_SEQUENCE), 0x81828384 | 0);
  assert.equal(get32(bytes, 1 + tcp.TCP_ACK), 0x01020304);
  assert.equal(tcp.tcpHeaderLength(bytes, 1), 32);
  assert.equal(bytes[1 + tcp.TCP_FLAGS], tcp.TCP_FLAG_SYN | tcp.TCP_FLAG_ACK);
  assert.equal(get16(bytes, 1 + tcp.TCP_WINDOW), 0xfff0);
  assert.equal(get16(bytes, 1 + tcp.TCP_CHECKSUM), 0xbeef);
  assert.equal(get16(bytes, 1 + tcp.TCP_URGENT), 7);
});
