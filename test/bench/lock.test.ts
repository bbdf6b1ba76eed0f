import assert from 'node:assert/strict';
import test from 'node:test';
import { lock } from '../../bench/lock.ts';

test('one benchmark at a time', async () => {
  const name = `uvxlan-bench-test-${process.pid}`;
  const unlock = await lock(name);
  await assert.rejects(lock(name), new RegExp(`is running \\(process ${process.pid}\\)`));
  unlock();
  (await lock(name))();
});
