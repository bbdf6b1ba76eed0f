import assert from 'node:assert/strict';
import test from 'node:test';
import { FAULTS, type FaultCounts } from '../../../control/flannel/faults.ts';
import { answer, type HealthView } from '../../../control/flannel/health.ts';

const VIEW: HealthView = {
  ready: true,
  problem: null,
  peers: 2,
  repairs: 3,
  reconciliations: 9,
  reconcileSeconds: 0.05,
  source: { connected: true, problem: null, leaseEnds: null },
  faults: Object.fromEntries(Object.keys(FAULTS).map((kind, i) => [kind, i])) as FaultCounts,
};

test('healthz while it lives, readyz while it forwards', () => {
  assert.equal(answer('/healthz', { ...VIEW, ready: false })[0], 200);
  assert.equal(answer('/readyz', VIEW)[0], 200);
  assert.deepEqual(answer('/readyz', { ...VIEW, ready: false, problem: 'no lease' }), [503, 'not ready: no lease\n']);
  assert.equal(answer('/', VIEW)[0], 404);
});

test('metrics are in the Prometheus text format', () => {
  const [status, text] = answer('/metrics?x=1', VIEW);
  assert.equal(status, 200);
  assert.match(text, /^uvxlan_flannel_peers 2$/m);
  assert.match(text, /^uvxlan_flannel_repairs_total 3$/m);
  assert.match(text, /^uvxlan_flannel_faults_total\{kind="net_conf"\} 0$/m);
  const line = /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[a-z_]+"\})? [0-9.]+)$/;
  for (const each of text.trimEnd().split('\n')) assert.match(each, line);
});
