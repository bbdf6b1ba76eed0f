// The same commands to the FDB and to `bridge fdb` on the kernel's own vxlan device: same outcome, same words, same table.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { addNamespace, removeNamespaces } from '../../cli/lab/namespace.ts';
import { FdbError } from '../../fdb/error.ts';
import type { FdbRecord } from '../../fdb/records.ts';
import { type FdbEntry, FdbWriter } from '../../fdb/writer.ts';
import { lacking } from '../net/requirements.ts';

const OPTIONS = { skip: lacking('kernel-vxlan'), timeout: 180_000 };
const DEVICE = { index: 0, name: 'vx', vni: 7, port: 8472, family: 4 } as const;
const ZERO = '00:00:00:00:00:00';
const GROUP = '01:00:5e:00:00:05';
const HOST = '02:00:00:00:00:01';

type Command = 'add' | 'append' | 'replace' | 'del' | 'flush';

/** `ip` or `bridge` in the namespace; what it printed. */
function run(namespace: string, tool: string, ...words: string[]) {
  const { status, stdout, stderr } = spawnSync(tool, ['-n', namespace, ...words], { encoding: 'utf8' });
  return { status, stdout, stderr: stderr.trim() };
}

function addVxlan(namespace: string, ...options: string[]): void {
  const words = ['type', 'vxlan', 'id', '7', 'dstport', '8472', 'local', '127.0.0.1', 'dev', 'lo', 'nolearning'];
  assert.deepEqual(run(namespace, 'ip', 'link', 'add', 'vx', ...words, ...options).stderr, '');
}

function kernelDevice(t: TestContext, ...options: string[]): string {
  const namespace = addNamespace('fdb');
  t.after(() => removeNamespaces([namespace]));
  addVxlan(namespace, ...options);
  return namespace;
}

function wordsOf({ mac, dst, nhid, port, vni, via, state, flags = [] }: FdbEntry): string[] {
  const words = [mac];
  if (dst) words.push('dst', dst);
  if (nhid) words.push('nhid', String(nhid));
  if (typeof port === 'number') words.push('port', String(port));
  if (typeof vni === 'number') words.push('vni', String(vni));
  if (via) words.push('via', via);
  if (state) words.push(state);
  words.push(...flags);
  return words;
}

function kernelDoes(namespace: string, command: Command, entry: FdbEntry): string {
  const words = command === 'flush' ? [] : wordsOf(entry);
  return run(namespace, 'bridge', 'fdb', command, ...words, 'dev', 'vx').stderr;
}

function writerDoes(writer: FdbWriter, command: Command, entry: FdbEntry): string {
  try {
    if (command === 'flush') writer.flush(0, 0);
    else writer[command](0, entry, 0);
    return '';
  } catch (error) {
    assert.ok(error instanceof FdbError, String(error));
    return error.message;
  }
}

/** Sorted by MAC, which neither table is; a MAC's remotes stay in order. Bridge leaves the name of the only device out. */
function byMac(records: Omit<FdbRecord, 'ifname'>[]): string[] {
  return records
    .map(({ ifname: _, ...record }: Partial<FdbRecord>) => record)
    .sort((a, b) => (a.mac! < b.mac! ? -1 : Number(a.mac! > b.mac!)))
    .map((record) => JSON.stringify(record));
}

function kernelShows(namespace: string): string[] {
  return byMac(JSON.parse(run(namespace, 'bridge', '-j', 'fdb', 'show', 'dev', 'vx').stdout));
}

function createWriter(limit = 0): FdbWriter {
  const writer = new FdbWriter({ onNextHop: () => {}, onRelease: () => {} }, { limit: 1000 });
  writer.addDevice({ ...DEVICE, limit });
  return writer;
}

/** Does the operations on both, and compares as it goes. */
function compare(namespace: string, writer: FdbWriter, operations: readonly [Command, FdbEntry][]): void {
  for (const [command, entry] of operations) {
    const before = byMac(writer.show(0));
    const expected = kernelDoes(namespace, command, entry);
    assert.equal(
      writerDoes(writer, command, entry),
      expected,
      `${command} ${wordsOf(entry).join(' ')} on\n${before.join('\n')}`,
    );
  }
  assert.deepEqual(byMac(writer.show(0)), kernelShows(namespace));
}

test('every case of add, append, replace and del', OPTIONS, (t) => {
  const namespace = kernelDevice(t);
  const writer = createWriter();
  const [a, b, c] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'];
  for (const mac of [ZERO, GROUP, 'ff:ff:ff:ff:ff:ff', HOST]) {
    const operations: [Command, FdbEntry][] = [
      ['del', { mac }],
      ['del', { mac, dst: a }],
      ['replace', { mac, dst: a }],
      ['flush', { mac }],
      ['add', { mac }],
      ['append', { mac }],
      ['replace', { mac }],
      ['add', { mac, dst: '2001:db8::1' }],
      ['del', { mac, dst: '2001:db8::1' }],
      ['append', { mac, dst: a, state: 'static' }],
      ['add', { mac, dst: a }],
      ['add', { mac, dst: b, state: 'dynamic' }],
      ['append', { mac, dst: a, state: 'dynamic' }],
      ['append', { mac, dst: b, state: 'static' }],
      ['append', { mac, dst: c, port: 4789 }],
      ['append', { mac, dst: c, port: 0 }],
      ['append', { mac, dst: c, port: 8472 }],
      ['append', { mac, dst: c, vni: 0 }],
      ['append', { mac, dst: c, vni: 7, via: 'lo' }],
      ['replace', { mac, dst: c, state: 'static' }],
      ['replace', { mac, dst: c, vni: 9, port: 9, via: 'lo' }],
      ['del', { mac, dst: '192.0.2.99' }],
      ['del', { mac, dst: c, port: 4789 }],
      ['del', { mac, dst: '2001:db8::1' }],
      ['append', { mac, dst: '0.0.0.0' }],
      ['append', { mac, dst: '239.1.1.1' }],
    ];
    for (const operation of operations) {
      compare(namespace, writer, [operation]);
    }
  }
  for (const mac of [ZERO, GROUP, HOST]) compare(namespace, writer, [['del', { mac, dst: '0.0.0.0' }]]);
  compare(namespace, writer, [['flush', { mac: ZERO }]]);
});

test('a device with maxaddress is full', OPTIONS, (t) => {
  const namespace = kernelDevice(t, 'maxaddress', '2');
  const mac = (n: number) => `02:00:00:00:00:0${n}`;
  compare(namespace, createWriter(2), [
    ['add', { mac: mac(1), dst: '192.0.2.1' }],
    ['append', { mac: ZERO, dst: '192.0.2.1' }],
    ['append', { mac: ZERO, dst: '192.0.2.2' }],
    ['add', { mac: mac(2), dst: '192.0.2.1' }],
    ['append', { mac: GROUP, dst: '192.0.2.1' }],
    ['replace', { mac: mac(2), dst: '192.0.2.1' }],
    ['replace', { mac: mac(1), dst: '192.0.2.3' }],
    ['del', { mac: mac(1) }],
    ['add', { mac: mac(2), dst: '192.0.2.1' }],
  ]);
});

test('random commands', OPTIONS, (t) => {
  const namespace = kernelDevice(t);
  const entry: fc.Arbitrary<FdbEntry> = fc.record({
    mac: fc.constantFrom(ZERO, ZERO, GROUP, HOST, '02:00:00:00:00:02'),
    dst: fc.constantFrom(undefined, '192.0.2.1', '192.0.2.2', '192.0.2.3'),
    port: fc.constantFrom(undefined, undefined, 4789),
    vni: fc.constantFrom(undefined, undefined, 9),
    via: fc.constantFrom(undefined, undefined, 'lo'),
    state: fc.constantFrom(undefined, 'permanent' as const, 'static' as const, 'dynamic' as const),
    flags: fc.constantFrom(
      undefined,
      undefined,
      ['extern_learn' as const],
      ['router' as const, 'extern_learn' as const],
    ),
  });
  const command = fc.constantFrom<Command>('add', 'append', 'append', 'append', 'replace', 'del');
  const property = fc.property(fc.array(fc.tuple(command, entry), { minLength: 5, maxLength: 30 }), (operations) => {
    run(namespace, 'bridge', 'fdb', 'flush', 'dev', 'vx');
    compare(namespace, createWriter(), operations);
  });
  fc.assert(property, { numRuns: 40 });
});

test('nexthop groups, and entries that name one', OPTIONS, (t) => {
  const namespace = kernelDevice(t);
  const writer = createWriter();
  const { groups } = writer;
  run(namespace, 'ip', 'link', 'set', 'lo', 'up');
  /** `via` or members; undefined deletes. */
  const nexthop = (command: 'add' | 'replace' | 'del', id: number, to?: string | number[]) => {
    const how = typeof to === 'string' ? ['via', to, 'fdb'] : to ? ['group', to.join('/'), 'fdb'] : [];
    const expected = run(namespace, 'ip', 'nexthop', command, 'id', String(id), ...how).stderr;
    let actual = '';
    try {
      if (command === 'del') groups.del(id, 0);
      else groups[command]({ id, ...(typeof to === 'string' ? { via: to } : { group: to! }) }, 0);
    } catch (error) {
      assert.ok(error instanceof FdbError, String(error));
      actual = error.message;
    }
    assert.equal(actual, expected, `${command} ${id} ${how.join(' ')}`);
    const kernel = JSON.parse(run(namespace, 'ip', '-j', 'nexthop').stdout || '[]');
    assert.deepEqual(groups.show(), kernel, `${command} ${id} ${how.join(' ')}`);
    compare(namespace, writer, []);
  };
  const mac = (n: number) => `02:00:00:00:00:0${n}`;
  nexthop('add', 1, '192.0.2.1');
  nexthop('add', 1, '192.0.2.2');
  nexthop('add', 2, '192.0.2.2');
  nexthop('add', 3, '192.0.2.3');
  nexthop('add', 6, '2001:db8::6');
  nexthop('add', 7, '2001:db8::7');
  nexthop('add', 10, [1, 2]);
  nexthop('add', 11, [1, 99]);
  nexthop('add', 11, [1, 1]);
  nexthop('add', 11, [10]);
  nexthop('add', 11, [1, 6]);
  nexthop('add', 11, [6, 7]);
  nexthop('replace', 1, [2]);
  nexthop('replace', 10, '192.0.2.9');
  nexthop('replace', 12, [3]);
  nexthop('del', 99);
  compare(namespace, writer, [
    ['add', { mac: mac(1), nhid: 10 }],
    ['add', { mac: mac(2), nhid: 1 }],
    ['add', { mac: mac(2), nhid: 99 }],
    ['add', { mac: mac(2), nhid: 11 }],
    ['add', { mac: mac(1), nhid: 10 }],
    ['append', { mac: mac(1), nhid: 10 }],
    ['append', { mac: mac(1), dst: '192.0.2.9' }],
    ['replace', { mac: mac(1), dst: '192.0.2.9', state: 'static' }],
    ['replace', { mac: mac(1), nhid: 12 }],
    ['replace', { mac: mac(1), nhid: 10 }],
    ['add', { mac: mac(3), dst: '192.0.2.1' }],
    ['replace', { mac: mac(3), nhid: 10 }],
    ['append', { mac: mac(3), nhid: 10 }],
    ['append', { mac: mac(4), nhid: 10, state: 'static' }],
    ['replace', { mac: mac(5), nhid: 12 }],
    ['add', { mac: ZERO, nhid: 10 }],
    ['replace', { mac: ZERO, nhid: 12 }],
    ['del', { mac: mac(4), nhid: 10 }],
    ['del', { mac: mac(1), dst: '192.0.2.1' }],
  ]);
  nexthop('replace', 1, '192.0.2.7');
  nexthop('replace', 10, [1, 2, 3]);
  nexthop('del', 2);
  nexthop('del', 3);
  nexthop('del', 10);
  compare(namespace, writer, [['flush', { mac: ZERO }]]);
});
