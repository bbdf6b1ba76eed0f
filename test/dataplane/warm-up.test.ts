import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import test from 'node:test';
import { COUNTER, COUNTERS, FIRST_UPLINK_SCOPE } from '../../dataplane/counters.ts';
import { DROPS } from '../../dataplane/drops.ts';
import { WarmUp } from '../../dataplane/warm-up.ts';
import { Worker } from '../../dataplane/worker.ts';
import { Rig } from './rig.ts';

const sockets = () => readdirSync('/proc/self/fd').length;

test('a worker practises with packets that arrive whole, and leaves nothing behind', () => {
  const worker = new Worker(0, new Rig().shared);
  const before = sockets();
  const warmUp = new WarmUp(worker);
  assert.equal(sockets(), before + 4);
  let steps = 1;
  while (warmUp.step()) steps++;
  assert.ok(steps > 100);
  const { counters } = warmUp;
  const nonZero = (scope: number) =>
    Object.fromEntries(
      COUNTERS.map((name) => [name, counters[scope + COUNTER[name]]]).filter(([, value]) => value !== 0),
    );
  const device = nonZero(0);
  const drops = Object.keys({ ...device, ...nonZero(FIRST_UPLINK_SCOPE) }).filter((name) => name in DROPS);
  assert.deepEqual(drops, []);
  assert.ok(device.tx_frames > steps);
  assert.equal(device.rx_packets, device.tx_packets);
  assert.equal(sockets(), before);
  warmUp.close();
});
