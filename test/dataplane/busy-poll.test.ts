import assert from 'node:assert/strict';
import test from 'node:test';
import { BusyPoll } from '../../dataplane/busy-poll.ts';

test('a worker looks on for longer while packets come soon, and not at all when they do not', () => {
  const busy = new BusyPoll(50);
  const windows = (...waits: number[]) =>
    waits.map((wait) => {
      busy.waited(wait);
      return Math.round(busy.window * 1000);
    });
  assert.equal(busy.window, 0);
  assert.deepEqual(windows(0.04, 0.04, 0.001, 0.05, 0.02), [10, 20, 40, 50, 50]);
  assert.deepEqual(windows(0.051, 7, 1000, 3, 3), [25, 13, 6, 0, 0]);
});

test('without busy-poll it blocks at once', () => {
  const busy = new BusyPoll(0);
  busy.waited(0.001);
  assert.equal(busy.window, 0);
});
