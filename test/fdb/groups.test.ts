import assert from 'node:assert/strict';
import test from 'node:test';
import type { FdbRecord } from '../../fdb/records.ts';
import { FdbWriter } from '../../fdb/writer.ts';

const DEVICE = { index: 1, name: 'vx1', vni: 7, port: 8472, family: 4 } as const;
const MACS = ['02:00:00:00:00:01', '02:00:00:00:00:02'];

function create() {
  const wanted = new Set<string>();
  const names = new Map<number, string>();
  const heard: string[] = [];
  const writer = new FdbWriter(
    {
      onNextHop: (index, { device, ip }) => {
        names.set(index, `${device} ${ip}`);
        wanted.add(`${device} ${ip}`);
      },
      onRelease: (index) => assert.ok(wanted.delete(names.get(index)!)),
    },
    {
      limit: 100,
      listener: {
        onChange: (change, { mac, nhid, dst }: FdbRecord) => heard.push(`${change} ${mac} ${nhid ?? dst}`),
      },
    },
  );
  writer.addDevice(DEVICE);
  writer.addDevice({ ...DEVICE, index: 2, name: 'vx2', port: 4789 });
  const { groups } = writer;
  for (const id of [1, 2, 3]) groups.add({ id, via: `192.0.2.${id}` }, 0);
  groups.add({ id: 10, group: [1, 2] }, 0);
  /** Whether it is a group's list, and where its members are. */
  const list = (device: number, low: number) => {
    const destination = writer.table.destination(writer.table.find(device, 0x0200, low));
    assert.equal(destination & 1, 1);
    const members = writer.lists.members(destination >> 1).map((member) => writer.nextHops.key(member));
    return {
      isGroup: writer.lists.count(destination >> 1) < 0,
      members: members.map(({ ip, port }) => `${ip} ${port}`),
    };
  };
  return { writer, groups, wanted, heard, list };
}

test('entries of a device share the list of their group, other devices have their own', () => {
  const { writer, wanted, list } = create();
  for (const mac of MACS) writer.add(1, { mac, nhid: 10 }, 0);
  writer.add(2, { mac: MACS[0], nhid: 10 }, 0);
  assert.deepEqual(list(1, 1), { isGroup: true, members: ['192.0.2.1 8472', '192.0.2.2 8472'] });
  assert.deepEqual(list(2, 1), { isGroup: true, members: ['192.0.2.1 4789', '192.0.2.2 4789'] });
  assert.equal(
    writer.table.destination(writer.table.find(1, 0x0200, 1)),
    writer.table.destination(writer.table.find(1, 0x0200, 2)),
  );
  assert.equal(wanted.size, 4);
  for (const mac of MACS) writer.del(1, { mac }, 0);
  assert.equal(wanted.size, 2);
  writer.removeDevice(2, 0);
  assert.equal(wanted.size, 0);
});

test('a change of a group or of a member moves all of its entries', () => {
  const { writer, groups, wanted, list } = create();
  for (const mac of MACS) writer.add(1, { mac, nhid: 10 }, 0);
  groups.replace({ id: 10, group: [2, 3] }, 0);
  assert.deepEqual(list(1, 2).members, ['192.0.2.2 8472', '192.0.2.3 8472']);
  groups.replace({ id: 3, via: '192.0.2.33' }, 0);
  assert.deepEqual(list(1, 1).members, ['192.0.2.2 8472', '192.0.2.33 8472']);
  groups.del(2, 0);
  assert.deepEqual(list(1, 1), { isGroup: true, members: ['192.0.2.33 8472'] });
  assert.deepEqual([...wanted], ['1 192.0.2.33']);
});

test('a group that is gone takes its entries along, and tells', () => {
  const { writer, groups, wanted, heard } = create();
  for (const mac of MACS) writer.add(1, { mac, nhid: 10 }, 0);
  groups.del(1, 0);
  groups.del(2, 0);
  assert.deepEqual(writer.show(1), []);
  assert.equal(wanted.size, 0);
  assert.deepEqual(heard.sort(), MACS.flatMap((mac) => [`added ${mac} 10`, `deleted ${mac} 10`]).sort());
  assert.deepEqual(
    groups.show().map(({ id }) => id),
    [3],
  );
  groups.flush(0);
  assert.deepEqual(groups.show(), []);
});

test('nothing is learned in the place of a group', () => {
  const { writer } = create();
  writer.add(1, { mac: MACS[0], nhid: 10, state: 'dynamic' }, 0);
  writer.learn(1, 0x0200, 1, '192.0.2.9', '', 0);
  assert.deepEqual(
    writer.show(1).map(({ nhid }) => nhid),
    [10],
  );
});

test('a member does not take its groups to the other family', () => {
  const { groups } = create();
  assert.throws(() => groups.replace({ id: 1, via: '2001:db8::1' }, 0), { errno: 'EINVAL', message: /mixed family/ });
  groups.replace({ id: 3, via: '2001:db8::1' }, 0);
});
