import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { decrementTtl, UdpRoutes, writeNetUnreachable } from '../../dataplane/udp-tunnel.ts';
import { fillIpv4Checksum, sum } from '../../wire/checksum.ts';
import { IPV4_CHECKSUM, IPV4_TTL, ipv4IsWhole, writeIpv4Header } from '../../wire/ipv4.ts';

const SOURCE = Uint8Array.of(10, 244, 1, 2);
const DESTINATION = Uint8Array.of(10, 244, 2, 3);

/** 28 bytes of an IPv4 packet at offset 8 of a buffer of 0xa5. */
function packet({ ttl = 64, id = 1, protocol = 17 } = {}): Uint8Array {
  const bytes = new Uint8Array(160).fill(0xa5);
  const plain = { tos: 0, totalLength: 28, dontFragment: false, source: SOURCE, destination: DESTINATION };
  writeIpv4Header(bytes, 8, { ...plain, ttl, id, protocol });
  fillIpv4Checksum(bytes, 8);
  return bytes;
}

test('the checksum is right after every step of the TTL, whatever it was', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 255 }), fc.integer({ min: 0, max: 0xffff }), (ttl, id) => {
      const bytes = packet({ ttl, id });
      assert.ok(decrementTtl(bytes, 8));
      assert.equal(bytes[8 + IPV4_TTL], ttl - 1);
      assert.equal(sum(bytes, 8, 20), 0xffff, 'a header with its checksum sums to the negative zero');
    }),
  );
});

test('the last hop is not taken: nothing changes', () => {
  for (const ttl of [0, 1]) {
    const bytes = packet({ ttl });
    const before = bytes.slice();
    assert.equal(decrementTtl(bytes, 8), false);
    assert.deepEqual(bytes, before);
  }
});

const word = (a: number, b: number, c: number, d: number) => (a << 24) | (b << 16) | (c << 8) | d | 0;

test('the peer is the one whose subnet has the destination', () => {
  const routes = new UdpRoutes();
  assert.equal(routes.find(word(10, 244, 1, 1)), 0);
  routes.set(
    Int32Array.from([
      ...[word(10, 244, 1, 0), word(255, 255, 255, 0), 11],
      ...[word(10, 244, 2, 0), word(255, 255, 254, 0), 22],
      ...[word(172, 16, 0, 0), word(255, 255, 0, 0), 33], // negative as an int32
      ...[word(203, 0, 113, 0), word(255, 255, 255, 0), 44],
    ]),
  );
  const found: [number, number][] = [
    [word(10, 244, 0, 255), 0],
    [word(10, 244, 1, 0), 11],
    [word(10, 244, 1, 255), 11],
    [word(10, 244, 3, 255), 22],
    [word(10, 244, 4, 0), 0],
    [word(172, 16, 9, 9), 33],
    [word(172, 17, 0, 0), 0],
    [word(203, 0, 113, 7), 44],
    [word(255, 255, 255, 255), 0],
  ];
  for (const [destination, peer] of found) assert.equal(routes.find(destination), peer, destination.toString(16));
});

test('network unreachable quotes the header and 8 bytes, to the sender', () => {
  const bytes = packet();
  const length = writeNetUnreachable(bytes, 64, 8, 28);
  assert.equal(length, 56);
  const text = Buffer.from(bytes.subarray(64, 64 + length)).toString('hex');
  const quoted = Buffer.from(bytes.subarray(8, 36)).toString('hex');
  assert.match(text, new RegExp(`^45000038000000000801....0af402030af401020300....00000000${quoted}$`));
  assert.ok(ipv4IsWhole(bytes, 64, length));
  assert.equal(sum(bytes, 64, 20), 0xffff);
  assert.equal(sum(bytes, 84, 36), 0xffff);
  assert.ok(bytes.subarray(120).every((byte) => byte === 0xa5));
});

test('nothing is said of ICMP, or of a later fragment', () => {
  assert.equal(writeNetUnreachable(packet({ protocol: 1 }), 64, 8, 28), 0);
  const later = packet();
  later[8 + 7] = 1;
  assert.equal(writeNetUnreachable(later, 64, 8, 28), 0);
  assert.equal(later[8 + IPV4_CHECKSUM + 1], packet()[8 + IPV4_CHECKSUM + 1]);
});
