import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { get16, swap16 } from '../../wire/bytes.ts';
import * as checksum from '../../wire/checksum.ts';
import { hex, placed, written } from './canvas.ts';

/** RFC 1071, 1: big-endian words, an odd last byte padded with zero, end-around carry after each addition. */
function reference(bytes: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    total += (bytes[i] << 8) | (bytes[i + 1] ?? 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

test('sums the example of RFC 1071, 3', () => {
  const bytes = hex('0001 f203 f4f5 f6f7');
  assert.equal(swap16(checksum.sum(bytes, 0, 8)), 0xddf2);
});

test('agrees with RFC 1071 at any offset and length', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(3), (data, at) => {
      assert.equal(swap16(checksum.sum(placed(data, at), at, data.length)), reference(data));
    }),
  );
});

test('does not overflow on the longest packet', () => {
  const data = new Uint8Array(2 ** 17).fill(0xff);
  assert.equal(checksum.sum(data, 0, data.length, 0xffff), 0xffff);
  assert.equal(swap16(checksum.sum(data, 0, 65535)), reference(data.subarray(0, 65535)));
});

test('sums in pieces', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 99 }), fc.nat(49), (data, words) => {
      const first = Math.min(2 * words, data.length & ~1);
      const sum = checksum.sum(data, 0, first);
      assert.equal(checksum.sum(data, first, data.length - first, sum), checksum.sum(data, 0, data.length));
    }),
  );
});

test('folds every carry', () => {
  assert.equal(checksum.fold(0xffff), 0xffff);
  assert.equal(checksum.fold(0x10000), 1);
  assert.equal(checksum.fold(0x1ffff), 1);
  assert.equal(checksum.fold(0xffffffff), 0xffff);
});

test('pseudo-headers are those of RFC 768 and RFC 8200', () => {
  const bytes = fc.uint8Array({ minLength: 40, maxLength: 40 });
  fc.assert(
    fc.property(bytes, fc.nat(255), fc.nat(0xffff), fc.nat(2 ** 31 - 1), (ip, protocol, length4, length6) => {
      const addresses4 = [...ip.subarray(12, 20)];
      assert.equal(
        swap16(checksum.pseudoSum4(placed(ip, 3), 3, protocol, length4)),
        reference([...addresses4, 0, protocol, length4 >> 8, length4 & 0xff]),
      );
      const length = [length6 >>> 24, (length6 >>> 16) & 0xff, (length6 >>> 8) & 0xff, length6 & 0xff];
      assert.equal(
        swap16(checksum.pseudoSum6(placed(ip, 3), 3, protocol, length6)),
        reference([...ip.subarray(8, 40), ...length, 0, 0, 0, protocol]),
      );
    }),
  );
});

// A datagram from 10.0.0.1:1 to 10.0.0.2:2 with payload 'abc', its checksum taken by hand: the sum of 0a00 0001 0a00 0002
// 0011 000b, 0001 0002 000b, 6162 6300 is d88f.
const DATAGRAM = '0001 0002 000b a5a5 616263';
const IP = '4500001f00000000401100000a0000010a000002';

test('finishes a datagram, and the receiver agrees', () => {
  const bytes = hex(IP + DATAGRAM);
  bytes[26] = bytes[27] = 0;
  const sum = () => checksum.sum(bytes, 20, 11, checksum.pseudoSum4(bytes, 0, 17, 11));
  checksum.putUdpChecksum(bytes, 26, sum());
  assert.equal(get16(bytes, 26), ~0xd88f & 0xffff);
  assert.equal(sum(), 0xffff);
});

test('stores sums and checksums', () => {
  assert.equal(
    written(2, (b, at) => checksum.putSum(b, at, 0x3412)),
    '1234',
  );
  assert.equal(
    written(2, (b, at) => checksum.putChecksum(b, at, 0x3412)),
    'edcb',
  );
  assert.equal(
    written(2, (b, at) => checksum.putChecksum(b, at, 0xffff)),
    '0000',
  );
  assert.equal(
    written(2, (b, at) => checksum.putUdpChecksum(b, at, 0xffff)),
    'ffff',
    'UDP has no zero checksum',
  );
});
