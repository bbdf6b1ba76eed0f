import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { get16, get24, get32, put16, put24, put32, swap16 } from '../../wire/bytes.ts';
import { hex, written } from './canvas.ts';

test('numbers are big-endian, at odd offsets too', () => {
  const bytes = hex('00 81828384');
  assert.equal(get16(bytes, 1), 0x8182);
  assert.equal(get24(bytes, 1), 0x818283);
  assert.equal(get32(bytes, 1), 0x81828384 | 0, 'signed');
  assert.equal(
    written(2, (b, at) => put16(b, at, 0x8182)),
    '8182',
  );
  assert.equal(
    written(3, (b, at) => put24(b, at, 0x818283)),
    '818283',
  );
  assert.equal(
    written(4, (b, at) => put32(b, at, 0x81828384)),
    '81828384',
  );
  assert.equal(
    written(4, (b, at) => put32(b, at, -1)),
    'ffffffff',
  );
});

test('put and get agree with DataView', () => {
  fc.assert(
    fc.property(fc.integer(), fc.nat(5), (value, at) => {
      const bytes = new Uint8Array(9).fill(0xa5);
      const view = new DataView(bytes.buffer);
      put32(bytes, at, value);
      assert.equal(view.getInt32(at), value);
      assert.equal(get32(bytes, at), value);
      assert.equal(get16(bytes, at), view.getUint16(at));
      assert.equal(swap16(get16(bytes, at)), view.getUint16(at, true));
    }),
  );
});
