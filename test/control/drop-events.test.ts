import assert from 'node:assert/strict';
import test from 'node:test';
import { DropEvents, DropRates } from '../../control/drop-events.ts';
import type { DaemonEvent } from '../../control/events.ts';
import type { StatsRecord } from '../../control/protocol.ts';

function record(ifname: string, tx: Record<string, number>, rx: Record<string, number> = {}): StatsRecord {
  const plain = { in: 0, copies: 0, out: 0, bytes: 0 };
  return { ifname, tx: { ...plain, drops: tx }, rx: { ...plain, drops: rx } };
}

function listener(rate: number) {
  const events: Omit<DaemonEvent, 'group'>[] = [];
  const rates = new DropRates(rate, ({ group, ...event }) => {
    assert.equal(group, 'drop');
    events.push(event);
  });
  return { rates, taken: () => events.splice(0) };
}

test('a reason that reaches the rate is told, again while it lasts, and when it has ended', () => {
  const { rates, taken } = listener(10);
  const at = (second: number, count: number) =>
    rates.take([record('v4', { tx_no_remote: count, tx_runt: 5 })], second * 1000);
  at(0, 1000);
  at(1, 1009);
  assert.deepEqual(taken(), [], 'nine a second are too few, and what was there before does not count');
  at(3, 1029);
  const reason = { ifname: 'v4', reason: 'tx_no_remote' };
  assert.deepEqual(taken(), [{ event: 'drops', time: 3000, ...reason, rate: 10, count: 20 }]);
  for (let second = 4; second <= 13; second++) at(second, 1029 + (second - 3) * 100);
  assert.deepEqual(taken(), [{ event: 'drops', time: 13_000, ...reason, rate: 100, count: 1020 }]);
  at(14, 2031);
  assert.deepEqual(taken(), [{ event: 'drops-ended', time: 14_000, ...reason, count: 1022, seconds: 13 }]);
  at(15, 2031);
  assert.deepEqual(taken(), []);
});

test('devices and directions by themselves; one that is new, or made anew, is no burst', () => {
  const { rates, taken } = listener(1);
  rates.take([record('v4', { tx_runt: 0 }, { rx_own_mac: 0 })], 0);
  rates.take([record('v4', { tx_runt: 0 }, { rx_own_mac: 3 }), record('v5', { tx_runt: 900 })], 1000);
  assert.deepEqual(
    taken().map(({ ifname, reason, count }) => [ifname, reason, count]),
    [['v4', 'rx_own_mac', 3]],
  );
  rates.take([record('v4', { tx_runt: 0 }, { rx_own_mac: 0 }), record('v5', { tx_runt: 902 })], 2000);
  assert.deepEqual(
    taken().map(({ ifname, reason, count }) => [ifname, reason, count]),
    [['v5', 'tx_runt', 2]],
  );
});

test('counters are read once for all who listen, and not at all when nobody does', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  let reads = 0;
  const events = new DropEvents(async () => [record('v4', { tx_runt: reads++ * 1_000_000 })]);
  const heard = [0, 0];
  const pass = async () => {
    t.mock.timers.tick(1000);
    for (let i = 0; i < 5; i++) await Promise.resolve();
  };
  const ends = [1, 1e9].map((rate, i) => events.listen(rate, () => heard[i]++));
  await pass();
  const before = reads;
  await new Promise(setImmediate);
  await pass();
  assert.equal(reads, before + 1);
  assert.equal(heard[0], 1);
  for (const end of ends) end();
  const last = reads;
  await pass();
  assert.equal(reads, last);
});
