// The short version of bench/soak.ts: every change of the host once, and some again, always in the same order.

import test from 'node:test';
import { soak } from '../../bench/soak.ts';
import { lacking } from './requirements.ts';

test('changes of the host, and nothing grows', {
  skip: lacking('tun', 'kernel-vxlan'),
  timeout: 180_000,
}, async (t) => {
  await soak(t, { seconds: 1, seed: 1, log: (line) => t.diagnostic(line) });
});
