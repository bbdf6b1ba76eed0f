import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { PacketMemory, sharePacketMemory } from '../../dataplane/memory.ts';
import {
  allocateReports,
  REPORT_COUNT,
  REPORT_DEVICE,
  REPORT_LENGTH,
  REPORT_MAC_HIGH,
  REPORT_MAC_LOW,
  REPORT_SOURCE,
  REPORT_TYPE,
  ReportReader,
  ReportWriter,
  reportAddress,
  reportSample,
} from '../../dataplane/reports.ts';
import { formatIp } from '../../wire/address.ts';

const RING = 256;

function create(workers = 1) {
  const buffer = allocateReports(workers);
  const memory = new PacketMemory(sharePacketMemory(1), 0);
  const writers = Array.from({ length: workers }, (_, worker) => new ReportWriter(buffer, worker, memory));
  const taken: { type: number; device: number; mac: number; count: number; address: string; sample: string }[] = [];
  const reader = new ReportReader(buffer, (words, at) => {
    taken.push({
      type: words[at + REPORT_TYPE],
      device: words[at + REPORT_DEVICE],
      mac: words[at + REPORT_MAC_HIGH] * 2 ** 32 + (words[at + REPORT_MAC_LOW] >>> 0),
      count: words[at + REPORT_COUNT],
      address: formatIp(reportAddress(words, at)),
      sample: `${Buffer.from(reportSample(words, at)).toString('hex')} of ${words[at + REPORT_LENGTH]}`,
    });
  });
  const at = memory.take(256);
  memory.u8.set([192, 0, 2, 7], at);
  memory.u8.set(Buffer.from('20010db8000000000000000000000009', 'hex'), at + 16);
  memory.u8.set(
    Array.from({ length: 100 }, (_, i) => i),
    at + 64,
  );
  const source = (writer: ReportWriter, low: number, device = 0) =>
    writer.report(REPORT_SOURCE, device, 0x0200, low, 4, at, at + 64, 100);
  return { writers, reader, taken, at, source };
}

test('a report arrives as it was written: MAC, address of either family, sample', () => {
  const { writers, reader, taken, at } = create();
  writers[0].report(REPORT_SOURCE, 3, 0x0201, -2, 4, at, at + 64, 8);
  writers[0].report(REPORT_SOURCE, 255, 0xfffe, 1, 6, at + 16, at + 64, 100);
  writers[0].report(REPORT_SOURCE + 1, 0, 0, 0, 0, 0, 0, 0);
  assert.equal(reader.drain(), 3);
  const hex = Array.from({ length: 64 }, (_, i) => i.toString(16).padStart(2, '0')).join('');
  assert.deepEqual(taken, [
    { type: 1, device: 3, mac: 0x0201fffffffe, count: 1, address: '192.0.2.7', sample: '0001020304050607 of 8' },
    { type: 1, device: 255, mac: 0xfffe00000001, count: 1, address: '2001:db8::9', sample: `${hex} of 100` },
    { type: 2, device: 0, mac: 0, count: 1, address: '::', sample: ' of 0' },
  ]);
  assert.equal(reader.drain(), 0);
});

test('what waits already is counted, what has been taken is written again', () => {
  const { writers, reader, taken, source } = create();
  for (let i = 0; i < 1000; i++) source(writers[0], 1);
  source(writers[0], 1, 1);
  source(writers[0], 2);
  reader.drain();
  assert.deepEqual(
    taken.map(({ device, mac, count }) => [device, mac & 3, count]),
    [
      [0, 1, 1000],
      [1, 1, 1],
      [0, 2, 1],
    ],
  );
  source(writers[0], 1);
  assert.equal(reader.drain(), 1);
  assert.equal(taken.at(-1)!.count, 1);
});

test('a flood fills half of its own ring; other types and workers have their room', () => {
  const { writers, reader, taken, source, at } = create(2);
  for (let round = 0; round < 3; round++) {
    taken.length = 0;
    for (let low = 0; low < 100_000; low++) source(writers[0], low);
    for (let low = 0; low < 10; low++) writers[0].report(REPORT_SOURCE + 1, 0, 0, low, 4, at, at, 0);
    source(writers[1], 1);
    assert.equal(reader.drain(), RING / 2 + 10 + 1);
    // In the order in which they came, whole.
    assert.deepEqual(
      taken.slice(0, RING / 2).map(({ mac }) => mac),
      Array.from({ length: RING / 2 }, (_, low) => 0x020000000000 + low),
    );
  }
});

/** Reports consecutive MACs, each until there was room for it, from another thread. */
function startWriter(t: TestContext, buffer: SharedArrayBuffer, worker: number, count: number): Worker {
  const url = new URL('../../dataplane/', import.meta.url);
  const code = `
    const { workerData: { buffer, worker, count } } = require('node:worker_threads');
    (async () => {
      const { ReportWriter } = await import('${url}reports.js');
      const { PacketMemory, sharePacketMemory } = await import('${url}memory.js');
      const writer = new ReportWriter(buffer, worker, new PacketMemory(sharePacketMemory(1), 0));
      const words = new Int32Array(buffer);
      const pause = new Int32Array(new SharedArrayBuffer(4));
      for (let low = 0; low < count; low++) {
        writer.report(1, worker, 0, low, 0, 0, 0, 0);
        if (low % 64 === 63) Atomics.wait(pause, 0, 0, 12);
      }
    })();`;
  const thread = new Worker(code, { eval: true, workerData: { buffer, worker, count } });
  t.after(() => thread.terminate());
  return thread;
}

test('other threads wake the reader, which sees each record whole', { timeout: 20_000 }, async (t) => {
  const buffer = allocateReports(2);
  const counts = [0, 0];
  let disorder = 0;
  const last = [-1, -1];
  const reader = new ReportReader(buffer, (words, at) => {
    const worker = words[at + REPORT_DEVICE];
    const low = words[at + REPORT_MAC_LOW];
    if (words[at + REPORT_TYPE] !== 1 || low <= last[worker]) disorder++;
    last[worker] = low;
    counts[worker]++;
  });
  const running = reader.run();
  // The reader alone keeps no process alive.
  const alive = setInterval(() => {}, 1000);
  t.after(() => clearInterval(alive));
  const count = 64 * 40;
  for (const worker of [0, 1]) startWriter(t, buffer, worker, count);
  const end = Date.now() + 15_000;
  while ((last[0] < count - 1 || last[1] < count - 1) && Date.now() < end)
    await new Promise((go) => setTimeout(go, 20));
  reader.stop();
  await running;
  assert.deepEqual([disorder, last], [0, [count - 1, count - 1]]);
  assert.ok(counts[0] >= count / 2 && counts[1] >= count / 2, `${counts}`);
});
