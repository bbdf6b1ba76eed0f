import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FdbReader, FdbTable } from '../../fdb/table.ts';
import { startReader } from './reader.ts';

const DEVICE = 3;
/** The word of a cell that learning will keep up to date. */
const SEEN = 5;

test('finds what was inserted, under its device and MAC only', () => {
  const table = new FdbTable(100);
  const reader = new FdbReader(table.buffer);
  const cell = table.insert(DEVICE, 0x0200, -1, 42 << 1, 0x80, 7);
  table.setClock(9);
  assert.equal(reader.lookup(DEVICE, 0x0200, -1), 84);
  assert.equal(reader.lookup(DEVICE + 1, 0x0200, -1), 0);
  assert.equal(reader.lookup(DEVICE, 0x0201, -1), 0);
  assert.equal(reader.lookup(DEVICE, 0x0200, 1), 0);
  assert.equal(reader.find(DEVICE, 0x0200, -1), cell);
  assert.equal(reader.find(DEVICE, 0x0200, 1), -1);
  assert.deepEqual(
    [table.device(cell), table.macHigh(cell), table.macLow(cell), table.destination(cell), table.state(cell)],
    [DEVICE, 0x0200, -1, 84, 0x80],
  );
  assert.deepEqual([table.updated(cell), table.used(cell)], [7, 9], 'sent to at the time of the clock');
});

test('an empty cell does not pass for the zero MAC of device 0', () => {
  const table = new FdbTable(10);
  const reader = new FdbReader(table.buffer);
  assert.equal(reader.lookup(0, 0, 0), 0);
  table.insert(0, 0, 0, 5, 0, 0);
  assert.equal(reader.lookup(0, 0, 0), 5);
});

test('a removed entry is gone, and comes back under the same key', () => {
  const table = new FdbTable(10);
  const reader = new FdbReader(table.buffer);
  const cell = table.insert(DEVICE, 1, 2, 4, 0x80, 1);
  table.remove(cell);
  assert.equal(table.size, 0);
  assert.equal(reader.lookup(DEVICE, 1, 2), 0);
  assert.equal(reader.find(DEVICE, 1, 2), -1);
  assert.equal(table.insert(DEVICE, 1, 2, 6, 0x40, 9), cell);
  assert.equal(reader.lookup(DEVICE, 1, 2), 6);
  assert.deepEqual([table.state(cell), table.updated(cell)], [0x40, 9]);
});

test('refuses at its limit, and takes one more for one removed', () => {
  const table = new FdbTable(100);
  for (let i = 0; i < 100; i++) assert.notEqual(table.insert(DEVICE, 2, i, 2, 0, 0), -1);
  assert.equal(table.insert(DEVICE, 2, 100, 2, 0, 0), -1);
  table.remove(table.find(DEVICE, 2, 50));
  assert.notEqual(table.insert(DEVICE, 2, 100, 2, 0, 0), -1);
  assert.equal(table.size, 100);
});

test('grows with its entries and shrinks when they are gone', () => {
  const table = new FdbTable(100_000);
  const small = table.capacity;
  for (let i = 0; i < 100_000; i++) table.insert(DEVICE, 2, i, 2, 0, 0);
  const large = table.capacity;
  assert.ok(large >= 100_000 / 0.6 && large <= 100_000 / 0.25, `${large} cells`);
  for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) table.remove(cell);
  for (let i = 0; table.capacity === large; i++) {
    assert.ok(i < large, 'never rebuilt');
    table.remove(table.insert(DEVICE, 3, i, 2, 0, 0));
  }
  assert.ok(table.capacity <= 2 * small, `${table.capacity} cells for no entry`);
});

test('keeps state and times when it is rebuilt', () => {
  const table = new FdbTable(1000);
  const cell = table.insert(DEVICE, 1, 1, 2, 0x40, 5);
  table.words[cell + SEEN] = 11;
  table.setState(cell, 0x80, 6);
  for (let i = 0; i < 500; i++) table.insert(DEVICE, 2, i, 2, 0, 0);
  assert.ok(table.rebuilds > 0);
  const moved = table.find(DEVICE, 1, 1);
  assert.deepEqual([table.state(moved), table.updated(moved), table.used(moved)], [0x80, 6, 11]);
});

test('is spread well also for MACs that differ in few bits', () => {
  for (const step of [1, 2, 0x100, 0x10000, 0x1000000]) {
    const table = new FdbTable(1 << 16, 0x12345678);
    for (let i = 0; i < 256; i++) {
      for (let device = 0; device < 16; device++) table.insert(device, 0x0242, Math.imul(i, step), 2, 0, 0);
    }
    // Probes for absent keys walk a whole run of cells: timing would be noisy, so runs are counted.
    const cells = new Int32Array(table.buffer);
    let longest = 0;
    let run = 0;
    for (let cell = table.next(0) % 8, left = cells.length; cell < left; cell += 8) {
      run = cells[cell + 2] === 0 ? 0 : run + 1;
      longest = Math.max(longest, run);
    }
    assert.ok(longest < 64, `a run of ${longest} cells at step ${step}`);
  }
});

const key = fc.record({ device: fc.nat(1), high: fc.nat(1), low: fc.nat(40) });
const operation = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('insert' as const), key, to: fc.integer({ min: 1 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('remove' as const), key, to: fc.constant(0) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('move' as const), key, to: fc.integer({ min: 1 }) }) },
);

test('behaves as a Map does', () => {
  const property = fc.property(fc.array(operation, { maxLength: 600 }), fc.integer(), (operations, seed) => {
    const limit = 90;
    const table = new FdbTable(limit, seed);
    const readers = [new FdbReader(table.buffer, true), new FdbReader(table.buffer, false)];
    const model = new Map<string, number>();
    for (const { kind, key, to } of operations) {
      const { device, high, low } = key;
      const name = `${device} ${high} ${low}`;
      const cell = table.find(device, high, low);
      assert.equal(cell >= 0, model.has(name));
      if (kind === 'insert' && cell < 0) {
        const inserted = table.insert(device, high, low, to, 0, 0);
        assert.equal(inserted >= 0, model.size < limit);
        if (inserted >= 0) model.set(name, to);
      } else if (kind === 'remove' && cell >= 0) {
        table.remove(cell);
        model.delete(name);
      } else if (kind === 'move' && cell >= 0) {
        table.setDestination(cell, to);
        model.set(name, to);
      }
      for (const reader of readers) assert.equal(reader.lookup(device, high, low), model.get(name) ?? 0);
    }
    assert.equal(table.size, model.size);
    const entries = new Map<string, number>();
    for (let cell = table.next(0); cell >= 0; cell = table.next(cell)) {
      entries.set(`${table.device(cell)} ${table.macHigh(cell)} ${table.macLow(cell)}`, table.destination(cell));
    }
    assert.deepEqual(new Map([...entries].sort()), new Map([...model].sort()));
  });
  fc.assert(property, { numRuns: 200 });
});

for (const ordered of [true, false]) {
  const loads = ordered ? 'plain' : 'atomic';
  test(`readers with ${loads} loads never see a wrong destination while the writer rebuilds`, async (t) => {
    const keys = 200;
    const residents = 20;
    // Small, so that an area is written anew thousands of times a second, and a reader sleeps through several of them.
    const table = new FdbTable(100, 1);
    for (let i = 0; i < residents; i++) table.insert(DEVICE, i, i, destinationOf(i, 0), 0, 0);
    const readers = [1, 2].map(() =>
      startReader<{ lookups: number; hits: number; wrong: number; missed: number }>(t, 'table', {
        buffer: table.buffer,
        ordered,
        device: DEVICE,
        keys,
        residents,
      }),
    );
    await Promise.all(readers.map((reader) => reader.started));
    const end = performance.now() + 1500;
    for (let random = 1; performance.now() < end; ) {
      for (let i = 0; i < 500; i++) {
        random = (Math.imul(random, 1103515245) + 12345) & 0x7fffffff;
        const key = residents + ((random >> 8) % (keys - residents));
        const cell = table.find(DEVICE, key, key);
        if (cell < 0) table.insert(DEVICE, key, key, destinationOf(key, random & 7), 0, 0);
        else if (random & 0x10) table.remove(cell);
        else table.setDestination(cell, destinationOf(key, random & 7));
        const resident = table.find(DEVICE, i % residents, i % residents);
        table.setDestination(resident, destinationOf(i % residents, i & 7));
      }
    }
    for (const reader of readers) {
      const { lookups, hits, wrong, missed } = await reader.stop();
      assert.ok(lookups > 10_000 && hits > 1000, `${lookups} lookups, ${hits} hits`);
      assert.deepEqual({ wrong, missed }, { wrong: 0, missed: 0 });
    }
    assert.ok(table.rebuilds > 1000, `${table.rebuilds} rebuilds`);
  });
}

/** Tells the key and one of 8 versions. */
function destinationOf(key: number, version: number): number {
  return ((key + 1) << 4) | (version << 1);
}
