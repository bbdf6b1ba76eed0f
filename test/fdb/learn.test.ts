import assert from 'node:assert/strict';
import test from 'node:test';
import type { FdbRecord } from '../../fdb/records.ts';
import { type FdbChange, type FdbOptions, FdbWriter } from '../../fdb/writer.ts';

const DEVICE = { index: 1, name: 'vx1', vni: 7, port: 8472, family: 4 } as const;
const HIGH = 0x0200;
const A = '192.0.2.1';
const B = '192.0.2.2';
const mac = (low: number) => `02:00:00:00:00:${low.toString(16).padStart(2, '0')}`;

function create(options: FdbOptions = {}, limit = 0) {
  const heard: string[] = [];
  const onChange = (change: FdbChange, { mac, dst }: FdbRecord, from?: string) =>
    heard.push([change, mac, dst, ...(from ? [from] : [])].join(' '));
  const onRefused = (ifname: string, high: number, low: number, ip: string, reason: string) => {
    assert.deepEqual([ifname, high], ['vx1', HIGH]);
    heard.push(`refused ${mac(low)} ${ip}: ${reason}`);
  };
  const listener = { onChange, onRefused };
  const writer = new FdbWriter({ onNextHop() {}, onRelease() {} }, { limit: 1000, listener, ...options });
  writer.addDevice({ ...DEVICE, limit });
  const learn = (low: number, ip: string, now = 0) => writer.learn(1, HIGH, low, ip, '', now);
  const shown = () => writer.show(1).map(({ mac, dst, state }) => `${mac} ${dst} ${state}`.trim());
  return { writer, learn, shown, heard };
}

test('an unknown MAC is learned, a dynamic one moves, a static or permanent one does not', () => {
  const { writer, learn, shown, heard } = create();
  learn(1, A);
  learn(1, A);
  assert.deepEqual(shown(), [`${mac(1)} ${A}`]);
  learn(1, B);
  writer.add(1, { mac: mac(2), dst: A, state: 'static' }, 0);
  writer.add(1, { mac: mac(3), dst: A, state: 'permanent' }, 0);
  writer.add(1, { mac: mac(4), dst: A, state: 'dynamic' }, 0);
  for (const low of [2, 3, 4]) learn(low, B);
  assert.deepEqual(shown().sort(), [
    `${mac(1)} ${B}`,
    `${mac(2)} ${A} static`,
    `${mac(3)} ${A} permanent`,
    `${mac(4)} ${B}`,
  ]);
  assert.deepEqual(heard, [
    `learned ${mac(1)} ${A}`,
    `moved ${mac(1)} ${B} ${A}`,
    `added ${mac(2)} ${A}`,
    `added ${mac(3)} ${A}`,
    `added ${mac(4)} ${A}`,
    `moved ${mac(4)} ${B} ${A}`,
  ]);
  assert.equal(writer.nextHops.size, 2);
});

test('a moved MAC keeps the port and VNI that it was given', () => {
  const { writer, learn } = create();
  writer.add(1, { mac: mac(1), dst: A, port: 4789, vni: 9, state: 'dynamic' }, 0);
  learn(1, B);
  const [{ dst, port, vni }] = writer.show(1);
  assert.deepEqual([dst, port, vni], [B, 4789, 9]);
});

test('multicast and zero MACs, and VTEPs of the other family, are not learned', () => {
  const { writer, learn, shown } = create();
  writer.learn(1, 0x0100, 5, A, '', 0);
  writer.learn(1, 0, 0, A, '', 0);
  learn(1, '2001:db8::1');
  assert.deepEqual(shown(), []);
});

test('a full device refuses to learn and counts it; entries still move and may be configured', () => {
  const { writer, learn, shown, heard } = create({}, 2);
  learn(1, A);
  learn(2, A);
  learn(3, A);
  assert.deepEqual(heard.slice(2), [`refused ${mac(3)} ${A}: maxaddress 2 is reached`]);
  learn(1, B);
  assert.equal(writer.refused(1), 1);
  assert.deepEqual(shown().sort(), [`${mac(1)} ${B}`, `${mac(2)} ${A}`]);
});

test('learned entries leave a quarter of the table, and static ones are never pushed out', () => {
  const { writer, learn, shown, heard } = create({ limit: 100 });
  writer.add(1, { mac: mac(0xff), dst: B }, 0);
  for (let low = 0; low < 200; low++) learn(low, A);
  assert.equal(writer.size(1), 75);
  assert.equal(writer.refused(1), 126);
  assert.match(heard.at(-1)!, /the table is full: 75 of 100 entries/);
  assert.ok(shown().includes(`${mac(0xff)} ${B} permanent`));
  for (let low = 0; low < 25; low++) writer.add(1, { mac: mac(0x80 + low), dst: A }, 0);
  assert.throws(() => writer.add(1, { mac: mac(0xf0), dst: A }, 0), { errno: 'ENOSPC' });
});

test('a flood of forged VTEPs adds a bounded number of next hops', () => {
  const { writer, learn, heard } = create({ limit: 1 << 20 });
  for (let n = 0; n < 20_000; n++) learn(n, `198.18.${n >> 8}.${n & 255}`);
  assert.equal(writer.nextHops.size, 1 << 14);
  assert.equal(writer.refused(1), 20_000 - (1 << 14));
  assert.match(heard.at(-1)!, /there are 16384 next hops already/);
  // A MAC of a VTEP that is known is learned all the same.
  learn(0x7fffffff, '198.18.0.1');
  assert.equal(writer.size(1), (1 << 14) + 1);
  writer.replace(1, { mac: mac(1), dst: A }, 0);
  assert.equal(writer.nextHops.size, (1 << 14) + 1);
});

test('dynamic entries age by when their MAC was heard last', () => {
  const { writer, learn, shown, heard } = create();
  const ageing = () => 300;
  const at = (seconds: number) => seconds * 1000;
  learn(1, A, at(1000));
  learn(2, A, at(1000));
  writer.add(1, { mac: mac(3), dst: A, state: 'static' }, at(1000));
  writer.add(1, { mac: mac(4), dst: A, state: 'dynamic' }, at(1100));
  heard.length = 0;
  assert.equal(writer.age(ageing, at(1299)), 1);
  assert.equal(shown().length, 4);
  // A worker hears MAC 2.
  const { table } = writer;
  table.setClock(1250);
  const cell = table.find(1, HIGH, 2);
  new Int32Array(table.buffer)[cell + 4] = 1250;
  assert.equal(writer.age(ageing, at(1300)), 10);
  assert.deepEqual(heard.splice(0), [`aged ${mac(1)} ${A}`]);
  assert.equal(
    writer.age(() => 0, at(9000)),
    10,
  );
  assert.equal(shown().length, 3);
  writer.age(ageing, at(1399));
  assert.deepEqual(heard, []);
  writer.age(ageing, at(1550));
  assert.deepEqual(heard.sort(), [`aged ${mac(2)} ${A}`, `aged ${mac(4)} ${A}`]);
  assert.deepEqual(shown(), [`${mac(3)} ${A} static`]);
  assert.equal(writer.nextHops.size, 1);
});

test('a move counts as heard', () => {
  const { writer, learn, shown } = create();
  learn(1, A, 0);
  learn(1, B, 200_000);
  writer.age(() => 300, 300_000);
  assert.deepEqual(shown(), [`${mac(1)} ${B}`]);
  writer.age(() => 300, 500_000);
  assert.deepEqual(shown(), []);
});

test('what is changed by hand is told, each remote by itself', () => {
  const { writer, heard } = create();
  const zero = '00:00:00:00:00:00';
  writer.append(1, { mac: zero, dst: A }, 0);
  writer.append(1, { mac: zero, dst: B }, 0);
  writer.append(1, { mac: zero, dst: B }, 0);
  writer.append(1, { mac: zero, dst: B, state: 'static' }, 0);
  writer.del(1, { mac: zero, dst: A }, 0);
  writer.add(1, { mac: mac(1), dst: A }, 0);
  writer.replace(1, { mac: mac(1), dst: B }, 0);
  writer.flush(1, 0);
  assert.deepEqual(heard.slice(0, 7), [
    `added ${zero} ${A}`,
    `added ${zero} ${B}`,
    `changed ${zero} ${A}`,
    `changed ${zero} ${B}`,
    `deleted ${zero} ${A}`,
    `added ${mac(1)} ${A}`,
    `changed ${mac(1)} ${B} ${A}`,
  ]);
  assert.deepEqual(heard.slice(7).sort(), [`deleted ${zero} ${B}`, `deleted ${mac(1)} ${B}`]);
});
