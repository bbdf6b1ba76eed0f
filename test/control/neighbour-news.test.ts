import assert from 'node:assert/strict';
import test from 'node:test';
import { NeighbourNews } from '../../control/neighbour-news.ts';

const line = (state: string, mac = '02:00:00:00:00:01', dev = 'eth0') =>
  `[NEIGH]192.0.2.254 dev ${dev} lladdr ${mac} managed ${state} proto 118 `;

test('that a neighbour has answered again is nothing new; another MAC, or none, is', () => {
  const news = new NeighbourNews(() => true);
  const told: [string, boolean][] = [
    ['[NEIGH]192.0.2.254 dev eth0 managed INCOMPLETE proto 118 ', true],
    [line('REACHABLE'), true],
    [line('STALE'), false],
    [line('DELAY'), false],
    [line('PROBE'), false],
    [line('REACHABLE'), false],
    [line('REACHABLE', '02:00:00:00:00:02'), true],
    [line('STALE', '02:00:00:00:00:02'), false],
    [line('STALE', '02:00:00:00:00:02', 'eth1'), true],
    [line('STALE', '02:00:00:00:00:02').replace(' managed', ''), true],
    [line('FAILED', '02:00:00:00:00:02'), true],
    [line('FAILED', '02:00:00:00:00:02'), false],
    [line('REACHABLE', '02:00:00:00:00:02'), true],
    [line('PERMANENT', '02:00:00:00:00:02'), true],
  ];
  for (const [text, isNew] of told) assert.equal(news.isNew(text), isNew, text);
});

test('one that was deleted, lines that were lost, and other lines are new', () => {
  const news = new NeighbourNews(() => true);
  assert.equal(news.isNew(line('REACHABLE')), true);
  const deleted = line('REACHABLE').replace(']', ']Deleted ');
  assert.equal(news.isNew(deleted), true);
  assert.equal(news.isNew(deleted), true);
  assert.equal(news.isNew(line('REACHABLE')), true);
  assert.equal(news.isNew(line('STALE')), false);
  news.forget();
  assert.equal(news.isNew(line('STALE')), true);
  for (const text of ['[ROUTE]default via 192.0.2.254 dev eth0 ', '[NEIGH]']) {
    assert.equal(news.isNew(text), true);
    assert.equal(news.isNew(text), true);
  }
});

test('where the kernel does not keep neighbours, that one grows old is new', () => {
  const news = new NeighbourNews(() => false);
  for (const state of ['REACHABLE', 'STALE', 'STALE']) assert.equal(news.isNew(line(state)), true);
});
