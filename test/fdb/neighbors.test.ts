import assert from 'node:assert/strict';
import test from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { IS_OWN, NeighborReader, NeighborTable, NUD_PERMANENT, NUD_REACHABLE } from '../../fdb/neighbors.ts';
import { parseIp } from '../../wire/address.ts';

const ip = (text: string): Uint8Array => parseIp(text)!;

/** state, MAC, or undefined. */
function find(reader: NeighborReader, device: number, address: Uint8Array): number[] | undefined {
  const bytes = new Uint8Array(40).fill(0xa5);
  bytes.set(address, 3);
  const state = reader.find(device, address.length === 4 ? 4 : 6, bytes, 3);
  return state === 0 ? undefined : [state, reader.macHigh, reader.macLow];
}

test('finds what was set, by device and family', () => {
  const table = new NeighborTable(16);
  const reader = new NeighborReader(table.buffer);
  table.set(0, ip('10.0.0.1'), 0xfffe, -2, NUD_PERMANENT);
  table.set(255, ip('10.0.0.1'), 0x0200, 7, NUD_REACHABLE | IS_OWN);
  table.set(0, ip('a00:1::'), 0x0300, 8, NUD_REACHABLE);
  assert.deepEqual(find(reader, 0, ip('10.0.0.1')), [NUD_PERMANENT, 0xfffe, -2]);
  assert.deepEqual(find(reader, 255, ip('10.0.0.1')), [NUD_REACHABLE | IS_OWN, 0x0200, 7]);
  assert.deepEqual(find(reader, 0, ip('a00:1::')), [NUD_REACHABLE, 0x0300, 8]);
  assert.equal(find(reader, 1, ip('10.0.0.1')), undefined);
  assert.equal(find(reader, 0, ip('a00:1::1')), undefined);
  table.set(0, ip('10.0.0.1'), 1, 2, NUD_REACHABLE);
  assert.deepEqual(find(reader, 0, ip('10.0.0.1')), [NUD_REACHABLE, 1, 2]);
  assert.equal(table.size, 3);
});

test('refuses one more than its limit, and keeps what it has', () => {
  const table = new NeighborTable(4);
  for (let i = 1; i <= 4; i++) assert.ok(table.set(0, ip(`10.0.0.${i}`), 0, i, NUD_PERMANENT));
  assert.equal(table.set(0, ip('10.0.0.5'), 0, 5, NUD_PERMANENT), false);
  assert.ok(table.set(0, ip('10.0.0.4'), 0, 9, NUD_PERMANENT), 'a change needs no room');
  assert.ok(table.delete(0, ip('10.0.0.1')));
  assert.equal(table.delete(0, ip('10.0.0.1')), false);
  assert.ok(table.set(0, ip('10.0.0.5'), 0, 5, NUD_PERMANENT));
});

test('does what a Map does', () => {
  const address = fc.oneof(
    fc.integer({ min: 0, max: 40 }).map((last) => `10.0.0.${last}`),
    fc.integer({ min: 0, max: 40 }).map((last) => `fd00::${last.toString(16)}`),
  );
  const change = fc.record({ device: fc.constantFrom(0, 1), address, mac: fc.integer(), remove: fc.boolean() });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 200 }), fc.integer(), (changes, seed) => {
      const table = new NeighborTable(60, seed);
      const reader = new NeighborReader(table.buffer);
      const model = new Map<string, [number, string, number]>();
      for (const { device, address, mac, remove } of changes) {
        const key = `${device} ${address}`;
        if (remove) assert.equal(table.delete(device, ip(address)), model.delete(key));
        else if (table.set(device, ip(address), 0x0200, mac, NUD_PERMANENT)) model.set(key, [device, address, mac]);
        else assert.equal(model.size, 60);
        assert.equal(table.size, model.size);
      }
      for (const [device, address, mac] of model.values())
        assert.deepEqual(find(reader, device, ip(address)), [NUD_PERMANENT, 0x0200, mac]);
    }),
    { numRuns: 100 },
  );
});

test('a reader in another thread never sees half an entry, nor misses one that stays', {
  timeout: 30_000,
}, async () => {
  const table = new NeighborTable(64);
  const stay = ip('10.0.0.100');
  const source = `
    const { workerData, parentPort } = require('node:worker_threads');
    import(workerData.module).then(({ NeighborReader }) => {
      const reader = new NeighborReader(workerData.buffer);
      const stop = new Int32Array(workerData.stop);
      const bytes = Uint8Array.from([10, 0, 0, 0]);
      let looks = 0, wrong = 0, seen = 0;
      parentPort.postMessage('ready');
      while (Atomics.load(stop, 0) === 0) {
        looks++;
        bytes[3] = looks & 31;
        if (reader.find(0, 4, bytes, 0) !== 0) { seen++; if ((reader.macLow >>> 16) !== (reader.macLow & 0xffff)) wrong++; }
        bytes[3] = 100;
        if (reader.find(0, 4, bytes, 0) === 0 || reader.macLow !== 77) wrong++;
      }
      parentPort.postMessage({ looks, wrong, seen });
    });`;
  table.set(0, stay, 0, 77, NUD_PERMANENT);
  const stop = new SharedArrayBuffer(4);
  const module = new URL('../../fdb/neighbors.js', import.meta.url).href;
  const worker = new Worker(source, { eval: true, workerData: { buffer: table.buffer, stop, module } });
  const message = () =>
    new Promise<{ looks: number; wrong: number; seen: number }>((resolve) => worker.once('message', resolve));
  await message();
  for (let i = 0; i < 200_000; i++) {
    const address = Uint8Array.from([10, 0, 0, i & 31]);
    if (i % 3 === 2) table.delete(0, address);
    else table.set(0, address, 0, ((i & 0x7fff) << 16) | (i & 0x7fff), NUD_PERMANENT);
  }
  Atomics.store(new Int32Array(stop), 0, 1);
  const { looks, wrong, seen } = await message();
  await worker.terminate();
  assert.equal(wrong, 0);
  assert.ok(looks > 100 && seen > 0, `${looks} looks, ${seen} found`);
});
