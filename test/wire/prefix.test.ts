import assert from 'node:assert/strict';
import { BlockList } from 'node:net';
import test from 'node:test';
import fc from 'fast-check';
import { formatIp, parseIp } from '../../wire/address.ts';
import {
  addressNumber,
  contains,
  formatAddressNumber,
  formatPrefix,
  overlaps,
  type Prefix,
  parsePrefix,
  prefixOf,
  sizeOf,
} from '../../wire/prefix.ts';

test('a prefix is read without its host bits, and written in canonical form', () => {
  for (const [text, canonical] of [
    ['10.244.1.7/24', '10.244.1.0/24'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['255.255.255.255/32', '255.255.255.255/32'],
    ['FD00:0:0::1/64', 'fd00::/64'],
    ['::/0', '::/0'],
    ['ffff:ffff::1/128', 'ffff:ffff::1/128'],
  ]) {
    assert.equal(formatPrefix(parsePrefix(text)!), canonical);
  }
  assert.deepEqual(parsePrefix('10.0.1.0/24'), { family: 4, first: 0x0a000100n, length: 24 });
});

test('what is no prefix is refused', () => {
  for (const text of [
    '',
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '10.0.0.0/-1',
    '10.0.0/8',
    'fd00::/129',
  ]) {
    assert.equal(parsePrefix(text), undefined, text);
  }
  assert.equal(parsePrefix('10.0.0.0/8/8'), undefined);
});

const address = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }),
  fc.uint8Array({ minLength: 16, maxLength: 16 }),
);

test('containment is that of the node:net block list', () => {
  fc.assert(
    fc.property(address, fc.nat(128), fc.nat(128), fc.nat(127), (bytes, one, two, flipped) => {
      const bits = bytes.length * 8;
      const outer = prefixOf(bytes, Math.min(one, bits));
      // The same address but for one bit: both answers come up.
      const other = Uint8Array.from(bytes);
      other[(flipped % bits) >> 3] ^= 0x80 >> (flipped & 7);
      const inner = prefixOf(other, Math.min(two, bits));
      const type = outer.family === 4 ? 'ipv4' : 'ipv6';
      const list = new BlockList();
      list.addSubnet(formatIp(bytes), outer.length, type);
      const ends = [inner.first, inner.first + sizeOf(inner) - 1n].map((end) => formatAddressNumber(end, inner.family));
      assert.equal(
        contains(outer, inner),
        ends.every((end) => list.check(end, type)),
      );
      assert.equal(overlaps(outer, inner), contains(outer, inner) || contains(inner, outer));
    }),
  );
});

test('families never overlap', () => {
  const [all4, all6] = ['0.0.0.0/0', '::/0'].map((text) => parsePrefix(text) as Prefix);
  assert.equal(overlaps(all4, all6), false);
  assert.equal(contains(all6, all4), false);
});

test('addresses as numbers and back', () => {
  fc.assert(
    fc.property(address, (bytes) => {
      const text = formatAddressNumber(addressNumber(bytes), bytes.length === 4 ? 4 : 6);
      assert.deepEqual(parseIp(text), bytes);
    }),
  );
});
