import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type DaemonEvent, Events } from '../../control/events.ts';
import { PeerEvents } from '../../control/peer-events.ts';
import { Refusals } from '../../control/refusals.ts';

function heard(t: TestContext) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const events = new Events();
  const taken: DaemonEvent[] = [];
  events.listen(['peer', 'fdb'], (event) => taken.push(event));
  const lines = () =>
    taken.splice(0).map(({ event, dst, reason, count }) => [event, dst, reason, count].join(' ').trim());
  return { events, lines, tick: (milliseconds: number) => t.mock.timers.tick(milliseconds) };
}

test('a VTEP comes, is up, down with the reason, and goes', (t) => {
  const { events, lines, tick } = heard(t);
  const peers = new PeerEvents(events);
  peers.add(1, () => 'v4', { dst: '192.0.2.2' });
  assert.deepEqual(lines(), ['added 192.0.2.2']);
  peers.note(1, null);
  tick(100);
  assert.deepEqual(lines(), ['up 192.0.2.2']);
  peers.note(1, 'eth0 is down');
  peers.note(1, null);
  tick(100);
  assert.deepEqual(lines(), [], 'nothing has changed in the end');
  peers.note(1, 'eth0 is down');
  tick(100);
  peers.note(1, 'no route');
  tick(100);
  assert.deepEqual(lines(), ['down 192.0.2.2 eth0 is down', 'down 192.0.2.2 no route']);
  peers.note(1, null);
  peers.remove(1);
  tick(100);
  assert.deepEqual(lines(), ['removed 192.0.2.2']);
  peers.note(1, null);
  tick(100);
  assert.deepEqual(lines(), []);
});

test('when all VTEPs change, they are told in portions, all of them', (t) => {
  const { events, lines, tick } = heard(t);
  const peers = new PeerEvents(events);
  for (let index = 1; index <= 1200; index++) peers.add(index, () => 'v4', { dst: `peer ${index}` });
  assert.equal(lines().length, 1200);
  for (let index = 1; index <= 1200; index++) peers.note(index, 'eth0 is down');
  const portions = [0, 0, 0, 0].map(() => {
    tick(100);
    return lines().length;
  });
  assert.deepEqual(portions, [500, 500, 200, 0]);
});

test('MACs that are not learned: once a second with the last and their number', (t) => {
  const { events, lines, tick } = heard(t);
  const refusals = new Refusals(events);
  for (let low = 1; low <= 5000; low++)
    refusals.note('v4', 0x0200, low, `192.0.2.${low % 9}`, 'maxaddress 8 is reached');
  tick(1000);
  assert.deepEqual(lines(), ['refused 192.0.2.5 maxaddress 8 is reached 5000']);
  tick(1000);
  assert.deepEqual(lines(), []);
});
