import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { PeerReader, Peers, SUBNET_IPV4, SUBNET_IPV4_LENGTH, SUBNET_WORDS } from '../../fdb/peers.ts';
import { get32, put32 } from '../../wire/bytes.ts';
import { parsePrefix } from '../../wire/prefix.ts';
import { startReader } from './reader.ts';

function has(reader: PeerReader, device: number, address: Uint8Array): boolean {
  const [a, b, c, d] = [0, 4, 8, 12].map((at) => (at < address.length ? get32(address, at) : 0));
  return reader.has(device, a, b, c, d);
}

// Few of each, so that chains meet and wrap around in a table of 16 cells.
const address = fc.oneof(
  fc.integer({ min: 1, max: 6 }).map((last) => Uint8Array.of(192, 0, 2, last)),
  fc
    .integer({ min: 1, max: 6 })
    .map((last) => Uint8Array.of(0x20, 1, 0xd, 0xb8, ...new Array(last % 2 ? 11 : 10).fill(0), last).slice(0, 16)),
);
const change = fc.record({ device: fc.constantFrom(0, 255), address, add: fc.boolean() });

test('knows exactly the VTEPs that were added more often than removed', () => {
  const property = fc.property(fc.integer(), fc.array(change, { maxLength: 60 }), (seed, changes) => {
    const peers = new Peers(8, seed);
    const reader = new PeerReader(peers.buffer);
    const model = new Map<string, { device: number; address: Uint8Array; count: number }>();
    for (const { device, address, add } of changes) {
      const name = `${device} ${address}`;
      const known = model.get(name) ?? { device, address, count: 0 };
      const there = [...model.values()].filter(({ count }) => count > 0).length;
      if (add && (known.count > 0 || there < 8)) {
        peers.add(device, address);
        known.count++;
      } else if (!add && known.count > 0) {
        peers.remove(device, address);
        known.count--;
      }
      model.set(name, known);
      for (const { device, address, count } of model.values()) {
        assert.equal(has(reader, device, address), count > 0, `${device} ${address}`);
      }
    }
  });
  fc.assert(property, { numRuns: 500 });
});

test('what a VTEP is bound to stays with it, when cells move and when it goes and comes back', () => {
  const property = fc.property(fc.integer(), fc.array(fc.nat(7), { minLength: 20, maxLength: 60 }), (seed, changes) => {
    const peers = new Peers(8, seed);
    const reader = new PeerReader(peers.buffer);
    const vtep = (i: number) => Uint8Array.of(192, 0, 2, i);
    const there = new Set<number>();
    for (let i = 0; i < 8; i += 2) peers.bind(1, vtep(i), [parsePrefix(`10.244.${i}.0/24`)!]);
    for (const i of changes) {
      if (there.delete(i)) {
        peers.remove(1, vtep(i));
      } else {
        there.add(i);
        peers.add(1, vtep(i));
      }
      for (let k = 0; k < 8; k++) {
        const subnets = new Int32Array(SUBNET_WORDS);
        const isBound = reader.readSubnets(1, get32(vtep(k), 0), 0, 0, 0, subnets);
        assert.equal(isBound, there.has(k) && k % 2 === 0);
        if (isBound) {
          assert.deepEqual([subnets[SUBNET_IPV4_LENGTH], subnets[SUBNET_IPV4]], [25, 0x0af40000 | (k << 8)]);
        }
      }
    }
  });
  fc.assert(property, { numRuns: 200 });
});

test('is bound, to other subnets, and no longer, also while it is there', () => {
  const peers = new Peers(8);
  const reader = new PeerReader(peers.buffer);
  const [vtep, other] = [Uint8Array.of(192, 0, 2, 1), Uint8Array.of(192, 0, 2, 2)];
  const subnets = new Int32Array(SUBNET_WORDS);
  const read = () => reader.readSubnets(1, get32(vtep, 0), 0, 0, 0, subnets) && subnets[SUBNET_IPV4];
  peers.add(1, vtep);
  assert.equal(read(), false);
  for (const last of [1, 2]) {
    peers.bind(1, vtep, [parsePrefix(`10.244.${last}.0/24`)!]);
    assert.equal(read(), 0x0af40000 | (last << 8));
  }
  peers.bind(1, other, [parsePrefix('10.244.9.0/24')!]);
  peers.bind(1, vtep, []);
  assert.deepEqual([read(), peers.isBound(1), peers.isBound(0)], [false, true, false]);
  peers.forget(1);
  peers.add(1, other);
  assert.equal(reader.readSubnets(1, get32(other, 0), 0, 0, 0, subnets), false, 'of another device by that number');
});

test('an IPv4 address is no beginning of an IPv6 one, and a device has its own', () => {
  const peers = new Peers(8);
  const reader = new PeerReader(peers.buffer);
  peers.add(0, Uint8Array.of(0x20, 1, 0xd, 0xb8));
  const longer = new Uint8Array(16);
  longer.set([0x20, 1, 0xd, 0xb8], 0);
  longer[15] = 1;
  assert.equal(has(reader, 0, longer), false);
  assert.equal(has(reader, 1, Uint8Array.of(0x20, 1, 0xd, 0xb8)), false);
  assert.equal(has(reader, 0, Uint8Array.of(0x20, 1, 0xd, 0xb8)), true);
});

test('other threads find who stays, and nobody who is not there, while others come and go', {
  timeout: 20_000,
}, async (t) => {
  // Half full, so that chains are long and removals move cells.
  const peers = new Peers(64, 7);
  const bytes = (value: number) => {
    const address = new Uint8Array(4);
    put32(address, 0, value);
    return address;
  };
  const residents = 32;
  for (let i = 0; i < residents; i++) peers.add(1, bytes(i));
  const readers = [1, 2].map(() =>
    startReader<{ lookups: number; missed: number; strangers: number; guests: number }>(t, 'peers', {
      buffer: peers.buffer,
      residents,
    }),
  );
  await Promise.all(readers.map(({ started }) => started));
  for (let round = 0; readers.some(({ rounds }) => rounds() < 2_000); round++) {
    for (let i = 0; i < residents; i++) peers.add(1, bytes(1000 + i));
    for (let i = 0; i < residents; i++) peers.remove(1, bytes(1000 + ((i * 7) % residents)));
    if (round % 16 === 0) await new Promise(setImmediate);
  }
  for (const reader of readers) {
    const { lookups, strangers, guests, missed } = await reader.stop();
    assert.ok(lookups > 10_000 && guests > 0);
    assert.equal(strangers, 0);
    assert.equal(missed, 0, `of ${lookups}`);
  }
});
