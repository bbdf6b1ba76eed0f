import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { isFromSubnet } from '../../dataplane/inner-source.ts';
import { PeerReader, Peers, SUBNET_WORDS } from '../../fdb/peers.ts';
import { contains, parsePrefix, prefixBytes, prefixOf } from '../../wire/prefix.ts';
import { frame } from './packet.ts';

/** The words of subnets as workers read them. */
function words(...subnets: string[]): Int32Array {
  const peers = new Peers(2);
  const vtep = Uint8Array.of(192, 0, 2, 1);
  peers.add(0, vtep);
  peers.bind(
    0,
    vtep,
    subnets.map((text) => parsePrefix(text)!),
  );
  const into = new Int32Array(SUBNET_WORDS).fill(-1);
  assert.equal(new PeerReader(peers.buffer).readSubnets(0, 0xc0000201 | 0, 0, 0, 0, into), subnets.length > 0);
  return into;
}

/** Asks at an odd address, as frames lie. */
function passes(bytes: Uint8Array, subnets: Int32Array, length = bytes.length): boolean {
  const memory = new Uint8Array(bytes.length + 8).fill(0xa5);
  memory.set(bytes, 3);
  return isFromSubnet(memory, 3, length, subnets);
}

const arp = (sender: number[]) =>
  Uint8Array.from([
    ...[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6],
    ...[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1],
    ...sender,
    ...[0, 0, 0, 0, 0, 0, 10, 0, 0, 2],
  ]);

for (const [name, bytes, subnets, expected] of [
  ['IPv4 inside', frame({ from: 7 }), ['10.0.0.0/29'], true],
  ['IPv4 outside', frame({ from: 8 }), ['10.0.0.0/29'], false],
  ['IPv4 and a subnet of IPv6 alone', frame(), ['fd00::/16'], false],
  ['IPv6 inside', frame({ version: 6, from: 7 }), ['fd00:7::/64'], true],
  ['IPv6 outside', frame({ version: 6, from: 8 }), ['fd00:7::/64'], false],
  ['IPv6 and a subnet of IPv4 alone', frame({ version: 6 }), ['0.0.0.0/0'], false],
  ['both: IPv4', frame({ from: 7 }), ['10.0.0.0/29', 'fd00:9::/64'], true],
  ['both: IPv6', frame({ version: 6, from: 9 }), ['10.0.0.0/29', 'fd00:9::/64'], true],
  ['ARP inside', arp([10, 0, 0, 7]), ['10.0.0.0/29'], true],
  ['ARP outside', arp([10, 0, 0, 8]), ['10.0.0.0/29'], false],
  ['a tag', frame({ tags: [0] }), ['0.0.0.0/0'], false],
  ['MPLS', Uint8Array.from([...frame().subarray(0, 12), 0x88, 0x47, ...frame().subarray(14)]), ['0.0.0.0/0'], false],
] as const) {
  test(`${name}: ${expected ? 'passes' : 'does not pass'}`, () => {
    assert.equal(passes(bytes, words(...subnets)), expected);
  });
}

test('a frame that ends before its address does not pass, whatever stands behind it', () => {
  for (const [bytes, header] of [
    [frame(), 34],
    [frame({ version: 6 }), 54],
    [arp([10, 0, 0, 1]), 42],
  ] as const) {
    const all = words('0.0.0.0/0', '::/0');
    assert.equal(passes(bytes, all, header), true);
    assert.equal(passes(bytes, all, header - 1), false);
    assert.equal(passes(bytes, all, 14), false);
  }
});

test('as arithmetic on prefixes has it, for each length', () => {
  for (const [size, version, at] of [
    [4, 4, 26],
    [16, 6, 22],
  ] as const) {
    const address = fc.uint8Array({ minLength: size, maxLength: size });
    const property = fc.property(
      address,
      fc.nat(size * 8),
      fc.nat(size * 8 - 1),
      address,
      (base, length, bit, random) => {
        const subnet = prefixOf(base, length);
        // One bit away from the subnet's first address, and anywhere.
        const near = Uint8Array.from(prefixBytes(subnet));
        near[bit >> 3]! ^= 0x80 >> (bit & 7);
        for (const source of [base, near, random]) {
          const bytes = frame({ version });
          bytes.set(source, at);
          const peers = new Peers(2);
          peers.bind(0, Uint8Array.of(1, 2, 3, 4), [subnet]);
          peers.add(0, Uint8Array.of(1, 2, 3, 4));
          const into = new Int32Array(SUBNET_WORDS);
          new PeerReader(peers.buffer).readSubnets(0, 0x01020304, 0, 0, 0, into);
          assert.equal(passes(bytes, into), contains(subnet, prefixOf(source, size * 8)));
        }
      },
    );
    fc.assert(property, { numRuns: 300 });
  }
});
