import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { PeerReader, Peers } from '../../fdb/peers.ts';
import { get32, put32 } from '../../wire/bytes.ts';
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
