import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FdbError } from '../../fdb/error.ts';
import type { NextHopKey, Template } from '../../fdb/nexthops.ts';
import { RESOLVED, STATE, TEMPLATE_WORDS } from '../../fdb/nexthops.ts';
import { FdbReader } from '../../fdb/table.ts';
import { type FdbEntry, type FdbOptions, FdbWriter } from '../../fdb/writer.ts';

const ZERO = '00:00:00:00:00:00';
const GROUP = '01:00:5e:00:00:05';
const HOST = '02:00:00:00:00:01';
const DEVICE = { index: 1, name: 'vx1', vni: 7, port: 8472, family: 4 } as const;

/** A writer with one device, and the next hops that it has asked the resolver for. */
function create(options: FdbOptions = {}, limit = 0) {
  const wanted = new Map<number, NextHopKey>();
  const writer = new FdbWriter(
    {
      onNextHop: (index, key) => wanted.set(index, key),
      onRelease: (index) => assert.ok(wanted.delete(index), 'released what was not wanted'),
    },
    { limit: 1000, ...options },
  );
  writer.addDevice({ ...DEVICE, limit });
  return { writer, wanted };
}

function throwsErrno(errno: string, message: string, action: () => void): void {
  assert.throws(action, (error: unknown) => {
    assert.ok(error instanceof FdbError);
    assert.deepEqual([error.errno, error.message], [errno, message]);
    return true;
  });
}

test('a shown entry has the keys of bridge -j fdb show, in its order', () => {
  const { writer } = create();
  writer.add(1, { mac: HOST, dst: '192.0.2.1' }, 0);
  writer.add(1, { mac: GROUP, dst: '192.0.2.1', port: 4789, vni: 9, via: 'eth1', state: 'static' }, 0);
  writer.add(1, { mac: '02:00:00:00:00:02', dst: '192.0.2.1', port: 8472, vni: 7, via: null, state: 'dynamic' }, 0);
  const shown = new Map(writer.show(1).map((record) => [record.mac, JSON.stringify(record)]));
  assert.equal(
    shown.get(HOST),
    `{"mac":"${HOST}","ifname":"vx1","dst":"192.0.2.1","flags":["self"],"state":"permanent"}`,
  );
  assert.equal(
    shown.get(GROUP),
    `{"mac":"${GROUP}","ifname":"vx1","dst":"192.0.2.1","port":4789,"vni":9,"viaIf":"eth1","flags":["self"],"state":"static"}`,
  );
  assert.equal(
    shown.get('02:00:00:00:00:02'),
    '{"mac":"02:00:00:00:00:02","ifname":"vx1","dst":"192.0.2.1","flags":["self"],"state":""}',
  );
});

test('MACs are counted by the VTEPs behind which they are', () => {
  const { writer } = create();
  writer.add(1, { mac: HOST, dst: '192.0.2.1' }, 0);
  writer.add(1, { mac: '02:00:00:00:00:02', dst: '192.0.2.1' }, 0);
  writer.append(1, { mac: ZERO, dst: '192.0.2.1' }, 0);
  writer.append(1, { mac: ZERO, dst: '192.0.2.2' }, 0);
  assert.deepEqual([...writer.records.countRemotes(1)].sort(), [
    ['192.0.2.1', 3],
    ['192.0.2.2', 1],
  ]);
  assert.equal(writer.records.countRemotes(0).size, 0);
});

test('workers find a next hop for a unicast MAC, a list for the default entry and for multicast', () => {
  const { writer } = create();
  const reader = new FdbReader(writer.table.buffer);
  writer.add(1, { mac: HOST, dst: '192.0.2.1' }, 0);
  writer.add(1, { mac: ZERO, dst: '192.0.2.1' }, 0);
  writer.append(1, { mac: ZERO, dst: '192.0.2.2' }, 0);
  writer.append(1, { mac: GROUP, dst: '192.0.2.3' }, 0);
  const host = reader.lookup(1, 0x0200, 1);
  assert.equal(host & 1, 0);
  assert.equal(writer.nextHops.key(host >> 1).ip, '192.0.2.1');
  for (const [destination, ips] of [
    [reader.lookup(1, 0, 0), ['192.0.2.1', '192.0.2.2']],
    [reader.lookup(1, 0x0100, 0x5e000005), ['192.0.2.3']],
  ] as const) {
    assert.equal(destination & 1, 1);
    const members = writer.lists.members(destination >> 1);
    assert.deepEqual(
      members.map((member) => writer.nextHops.key(member).ip),
      ips,
    );
  }
  assert.equal(reader.lookup(2, 0x0200, 1), 0);
});

test('entries with the same remote share its next hop', () => {
  const { writer, wanted } = create();
  writer.add(1, { mac: HOST, dst: '192.0.2.1' }, 0);
  writer.add(1, { mac: ZERO, dst: '192.0.2.1', port: 8472, vni: 7 }, 0);
  const key = { device: 1, ip: '192.0.2.1', port: 8472, vni: 7, via: '' };
  assert.deepEqual([...wanted], [[1, key]]);
  const words = new Int32Array(writer.nextHops.buffer);
  const template: Template = {
    ...{ outerLength: 50, ipSum: 0, pseudoSum: 0, uplink: 0, flags: 0, mtu: 1500 },
    words: new Int32Array(TEMPLATE_WORDS),
  };
  assert.notEqual(words[32 + STATE], RESOLVED);
  writer.publish(1, template);
  assert.equal(words[32 + STATE], RESOLVED);
  writer.del(1, { mac: HOST }, 0);
  assert.equal(wanted.size, 1);
  writer.del(1, { mac: ZERO, dst: '192.0.2.1' }, 0);
  assert.equal(wanted.size, 0);
});

test('what the kernel refuses, in its words', () => {
  const { writer } = create();
  writer.add(1, { mac: HOST, dst: '192.0.2.1' }, 0);
  writer.add(1, { mac: ZERO, dst: '192.0.2.1' }, 0);
  const refused: [string, string, () => void][] = [
    ['EEXIST', 'RTNETLINK answers: File exists', () => writer.add(1, { mac: HOST, dst: '192.0.2.2' }, 0)],
    ['EEXIST', 'RTNETLINK answers: File exists', () => writer.add(1, { mac: ZERO, dst: '192.0.2.2' }, 0)],
    ['ENOENT', 'RTNETLINK answers: No such file or directory', () => writer.del(1, { mac: GROUP }, 0)],
    ['EINVAL', 'RTNETLINK answers: Invalid argument', () => writer.add(1, { mac: GROUP }, 0)],
    ['EINVAL', 'RTNETLINK answers: Invalid argument', () => writer.add(1, { mac: 'x', dst: '192.0.2.1' }, 0)],
    ['EINVAL', 'RTNETLINK answers: Invalid argument', () => writer.add(1, { mac: GROUP, dst: '192.0.2' }, 0)],
    [
      'EAFNOSUPPORT',
      'RTNETLINK answers: Address family not supported by protocol',
      () => writer.add(1, { mac: GROUP, dst: '2001:db8::1' }, 0),
    ],
    [
      'EOPNOTSUPP',
      'Error: Cannot replace non-unicast fdb entries.',
      () => writer.replace(1, { mac: ZERO, dst: '192.0.2.2' }, 0),
    ],
    [
      'EOPNOTSUPP',
      'RTNETLINK answers: Operation not supported',
      () => writer.replace(1, { mac: GROUP, dst: '192.0.2.2' }, 0),
    ],
  ];
  const before = writer.show();
  for (const [errno, message, action] of refused) throwsErrno(errno, message, action);
  assert.deepEqual(writer.show(), before);
});

test('a full device and a full table refuse, without a next hop left behind', () => {
  const { writer, wanted } = create({ limit: 3 }, 2);
  writer.addDevice({ ...DEVICE, index: 2, name: 'vx2' });
  const full = 'RTNETLINK answers: No space left on device';
  const mac = (n: number) => `02:00:00:00:00:0${n}`;
  writer.add(1, { mac: mac(1), dst: '192.0.2.1' }, 0);
  writer.add(1, { mac: mac(2), dst: '192.0.2.1' }, 0);
  throwsErrno('ENOSPC', full, () => writer.add(1, { mac: mac(3), dst: '192.0.2.3' }, 0));
  writer.add(2, { mac: mac(1), dst: '192.0.2.1' }, 0);
  throwsErrno('ENOSPC', full, () => writer.append(2, { mac: ZERO, dst: '192.0.2.4' }, 0));
  assert.deepEqual([writer.size(1), writer.size(2), wanted.size], [2, 1, 2]);
  writer.replace(1, { mac: mac(1), dst: '192.0.2.5' }, 0);
  writer.del(1, { mac: mac(2) }, 0);
  writer.add(1, { mac: mac(3), dst: '192.0.2.3' }, 0);
});

test('a device that is removed takes its entries and next hops along, and no others', () => {
  const { writer, wanted } = create();
  writer.addDevice({ ...DEVICE, index: 2, name: 'vx2' });
  for (const device of [1, 2]) {
    writer.add(device, { mac: HOST, dst: '192.0.2.1' }, 0);
    for (let i = 1; i < 20; i++) writer.append(device, { mac: ZERO, dst: `192.0.2.${i}` }, 0);
  }
  writer.removeDevice(1, 0);
  assert.deepEqual([writer.size(1), writer.size(2)], [0, 2]);
  assert.equal(wanted.size, 19);
  assert.ok(writer.show().every(({ ifname }) => ifname === 'vx2'));
  assert.throws(() => writer.add(1, { mac: HOST, dst: '192.0.2.1' }, 0), RangeError);
});

test('dst 0.0.0.0 may be added, and deletes the whole MAC', () => {
  const { writer } = create();
  writer.add(1, { mac: ZERO, dst: '0.0.0.0' }, 0);
  writer.append(1, { mac: ZERO, dst: '192.0.2.1' }, 0);
  writer.del(1, { mac: ZERO, dst: '0.0.0.0' }, 0);
  assert.deepEqual(writer.show(), []);
});

interface ModelEntry {
  state: string;
  remotes: string[];
}

/** The rules of vxlan_fdb_update and vxlan_fdb_delete on plain Maps. Returns the errno name or ''. */
function apply(model: Map<string, ModelEntry>, limit: number, command: string, entry: FdbEntry): string {
  const { mac, dst, port, vni, via, state = 'permanent' } = entry;
  const remote = `${dst} ${port ?? 8472} ${vni ?? 7} ${via ?? ''}`;
  const many = mac === ZERO || mac.startsWith('01:');
  const found = model.get(mac);
  if (command === 'flush') model.clear();
  else if (command === 'del') {
    if (!found) return 'ENOENT';
    const rest = found.remotes.filter((other) => other !== remote);
    if (!dst || rest.length === 0) model.delete(mac);
    else found.remotes = rest;
  } else if (!found) {
    if (command === 'replace' && many) return 'EOPNOTSUPP';
    if (model.size >= limit) return 'ENOSPC';
    model.set(mac, { state, remotes: [remote] });
  } else {
    if (command === 'add') return 'EEXIST';
    found.state = state;
    if (command === 'replace' && many) return 'EOPNOTSUPP';
    if (command === 'replace') found.remotes = [remote];
    if (command === 'append' && many && !found.remotes.includes(remote)) found.remotes.push(remote);
  }
  return '';
}

const operation = fc.record({
  command: fc.oneof(
    { weight: 30, arbitrary: fc.constantFrom('add', 'append', 'append', 'replace', 'del') },
    { weight: 1, arbitrary: fc.constant('flush' as const) },
  ),
  entry: fc.record({
    mac: fc.constantFrom(ZERO, ZERO, GROUP, HOST, '02:00:00:00:00:02', '02:00:00:00:00:03'),
    dst: fc.integer({ min: 1, max: 20 }).map((n) => `192.0.2.${n}`),
    port: fc.constantFrom(null, 8472, 4789),
    vni: fc.constantFrom(null, 7, 0),
    via: fc.constantFrom(null, 'eth1'),
    state: fc.constantFrom('permanent' as const, 'static' as const, 'dynamic' as const),
  }),
  whole: fc.boolean(),
  wait: fc.nat(1000),
});

test('behaves as the rules on Maps do', () => {
  const property = fc.property(fc.array(operation, { maxLength: 200 }), (operations) => {
    const limit = 4;
    const { writer, wanted } = create({ grace: 500 }, limit);
    const reader = new FdbReader(writer.table.buffer);
    const model = new Map<string, ModelEntry>();
    let now = 0;
    for (const { command, entry, whole, wait } of operations) {
      now += wait;
      const asked = command === 'del' && whole ? { mac: entry.mac } : entry;
      let errno = '';
      try {
        if (command === 'flush') writer.flush(1, now);
        else writer[command](1, asked, now);
      } catch (error) {
        assert.ok(error instanceof FdbError, String(error));
        errno = error.errno;
      }
      assert.equal(errno, apply(model, limit, command, asked), command);
      assert.equal(writer.size(1), model.size);
    }
    const shown = new Map<string, ModelEntry>();
    for (const { mac, dst, port, vni, viaIf, state } of writer.show(1)) {
      const found = shown.get(mac) ?? { state: state || 'dynamic', remotes: [] };
      found.remotes.push(`${dst} ${port ?? 8472} ${vni ?? 7} ${viaIf ?? ''}`);
      shown.set(mac, found);
    }
    assert.deepEqual(new Map([...shown].sort()), new Map([...model].sort()));
    // The resolver knows of exactly the remotes that an entry has.
    const remotes = new Set([...model.values()].flatMap((entry) => entry.remotes));
    assert.deepEqual(
      [...wanted.values()].map(({ ip, port, vni, via }) => `${ip} ${port} ${vni} ${via}`).sort(),
      [...remotes].sort(),
    );
    assert.equal(reader.lookup(1, 0, 0) !== 0, model.has(ZERO));
  });
  fc.assert(property, { numRuns: 300 });
});

test('an entry tells when it was sent to and heard, and flush takes what is selected', () => {
  const { writer } = create();
  const at = (seconds: number) => seconds * 1000;
  writer.append(1, { mac: ZERO, dst: '192.0.2.1' }, at(10));
  writer.append(1, { mac: ZERO, dst: '192.0.2.2', port: 4789 }, at(10));
  writer.add(1, { mac: HOST, dst: '192.0.2.1', state: 'static', flags: ['router', 'extern_learn'] }, at(20));
  writer.table.setClock(25);
  new FdbReader(writer.table.buffer).lookup(1, 0x0200, 1);
  assert.deepEqual(writer.get(1, HOST, at(30)), [
    {
      ...{ mac: HOST, ifname: 'vx1', dst: '192.0.2.1', used: 5, updated: 10 },
      ...{ flags: ['self', 'router', 'extern_learn'], state: 'static' },
    },
  ]);
  assert.equal(writer.get(1, ZERO, at(30)).length, 2);
  throwsErrno('ENOENT', 'Error: Fdb entry not found.', () => writer.get(1, GROUP, 0));
  assert.deepEqual(
    writer.show(1).flatMap(({ used, updated }) => [used, updated]),
    [undefined, undefined, undefined, undefined, undefined, undefined],
  );
  writer.flush(1, at(30), ({ dst }) => dst === '192.0.2.1');
  assert.deepEqual(
    writer.show(1).map(({ mac, dst }) => `${mac} ${dst}`),
    [`${ZERO} 192.0.2.2`],
  );
  assert.equal(writer.nextHops.size, 1);
});
