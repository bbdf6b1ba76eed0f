import assert from 'node:assert/strict';
import test from 'node:test';
import { changeText, FdbHistories } from '../../control/fdb-history.ts';
import type { FdbRecord } from '../../fdb/records.ts';

const record = (mac: string, dst: string): FdbRecord => ({ mac, ifname: 'v4', dst, flags: ['self'], state: '' });
const M = '02:00:00:00:00:01';

test('the last changes of a MAC, newest first, and how many there were', () => {
  const histories = new FdbHistories();
  histories.note(1, 'learned', record(M, 'A'), undefined, 0);
  for (let i = 1; i <= 20; i++) histories.note(1, 'moved', record(M, i % 2 ? 'B' : 'A'), i % 2 ? 'A' : 'B', i);
  histories.note(1, 'aged', record(M, 'A'), undefined, 21);
  const { changes, history } = histories.of(1, M);
  assert.equal(changes, 22);
  assert.equal(history.length, 8);
  assert.deepEqual(history.slice(0, 2), [
    { time: 21, event: 'aged', dst: 'A' },
    { time: 20, event: 'moved', dst: 'A', from: 'B' },
  ]);
});

test('devices apart; one that went leaves nothing', () => {
  const histories = new FdbHistories();
  for (const device of [1, 11]) histories.note(device, 'added', record(M, `VTEP ${device}`), undefined, 5);
  histories.forget(1);
  assert.deepEqual(histories.of(1, M), { changes: 0, history: [] });
  assert.equal(histories.of(11, M).history[0]!.dst, 'VTEP 11');
});

test('of very many MACs those that changed last are known', () => {
  const histories = new FdbHistories();
  const mac = (n: number) => `02:00:00:00:${(n >> 8).toString(16)}:${(n & 255).toString(16)}`;
  histories.note(0, 'learned', record('first', 'A'), undefined, 0);
  for (let n = 0; n < 100_000; n++) {
    histories.note(0, 'learned', record(mac(n), 'A'), undefined, n);
    if (n % 5000 === 0) histories.note(0, 'changed', record('first', 'B'), undefined, n);
  }
  assert.equal(histories.of(0, 'first').changes, 21);
  assert.equal(histories.of(0, mac(99_999)).changes, 1);
  assert.equal(histories.of(0, mac(80_000)).changes, 0);
  assert.equal(histories.of(0, mac(100_000 - 8000)).changes, 1);
});

test('a change in words', () => {
  const time = new Date(2026, 2, 1, 9, 30, 0, 123).getTime();
  assert.equal(
    changeText({ time, event: 'moved', dst: '192.0.2.3', from: '192.0.2.2' }),
    '2026-03-01 09:30:00.123 moved dst 192.0.2.3 from 192.0.2.2',
  );
  assert.equal(changeText({ time, event: 'added', nhid: 7 }), '2026-03-01 09:30:00.123 added nhid 7');
});

test("port and VNI are told where they are not the device's own", () => {
  const histories = new FdbHistories();
  histories.note(1, 'changed', { ...record(M, '192.0.2.3'), port: 4789, vni: 7 }, '192.0.2.2', 0);
  const [change] = histories.of(1, M).history;
  assert.match(changeText(change!), / changed dst 192\.0\.2\.3 port 4789 vni 7 from 192\.0\.2\.2$/);
});
