import assert from 'node:assert/strict';
import test from 'node:test';
import { ReachLog } from '../../control/reach-log.ts';

test('says once what lasts, sums up bursts, and says when it is over', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const lines: string[] = [];
  const reach = new ReachLog((line) => lines.push(line));
  reach.note('192.0.2.2', 'waiting for ARP');
  reach.note('192.0.2.2', undefined); // answered at once: no news
  t.mock.timers.tick(2000);
  assert.deepEqual(lines, []);
  reach.note('192.0.2.2', 'eth0 is down');
  reach.note('192.0.2.3', 'eth0 is down');
  t.mock.timers.tick(2000);
  reach.note('192.0.2.2', 'no route');
  t.mock.timers.tick(2000);
  reach.note('192.0.2.2', undefined);
  reach.forget('192.0.2.3');
  t.mock.timers.tick(2000);
  assert.deepEqual(lines, [
    'VTEP 192.0.2.2 and 1 more cannot be reached: eth0 is down',
    'VTEP 192.0.2.2 can be reached again',
  ]);
});
