// Flows stay in order: two workers, each with a queue of both TAPs, more flows than queues, and more load than fits. The pair is
// drawn in pair.ts.

import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, type Process } from '../../cli/lab/process.ts';
import { pair, UPLINKS } from './pair.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, restingStats } from './stats.ts';

const SEQUENCE = fileURLToPath(new URL('./sequence.js', import.meta.url));
const FLOWS = 12;

interface Seen {
  received: number;
  late: number;
}

/** What a process has said last. */
function seen({ stdout }: Process): Seen {
  return JSON.parse(stdout.match(/.*(\{.*\})\n/s)?.[1] ?? '{"received":0,"late":0}') as Seen;
}

for (const uplink of UPLINKS) {
  test(`${uplink}: each flow stays in order`, { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 }, async (t) => {
    const { left, right } = await pair(t, uplink, uplink, { own: 'workers 2' });
    const receiver = right.host.spawn([process.execPath, SEQUENCE, 'receive']);
    const [, port] = await receiver.waitFor(/listening (\d+)/);
    const sender = left.host.spawn([process.execPath, SEQUENCE, 'send', right.addresses[0]!, port!, `${FLOWS}`]);
    await eventually(
      'enough datagrams and answers',
      () => seen(receiver).received > 15_000 && seen(sender).received > 150,
      30_000,
    );
    await sender.stop();
    const [datagrams, answers] = [seen(receiver), seen(sender)];
    t.diagnostic(`${datagrams.received} datagrams, ${answers.received} answers`);
    assert.deepEqual([datagrams.late, answers.late], [0, 0], 'datagrams and answers that came late');
    assertBalanced(await restingStats(left.host));
  });
}
