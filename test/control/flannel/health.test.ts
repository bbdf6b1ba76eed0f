import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { FAULTS, type FaultCounts } from '../../../control/flannel/faults.ts';
import { type HealthView, serveHealth } from '../../../control/flannel/health.ts';

const VIEW: HealthView = {
  ready: true,
  problem: null,
  peers: 2,
  offLink: 1,
  repairs: 3,
  reconciliations: 9,
  reconcileSeconds: 0.05,
  source: { connected: true, problem: null, leaseEnds: null },
  faults: Object.fromEntries(Object.keys(FAULTS).map((kind, i) => [kind, i])) as FaultCounts,
};

async function serve(t: TestContext, view: HealthView) {
  const server = await serveHealth(
    '127.0.0.1',
    0,
    () => view,
    async () => 'uvxlan_of_the_dataplane 1\n',
  );
  t.after(() => server.close());
  return async (path: string): Promise<[number, string]> => {
    const response = await fetch(new URL(path, server.url));
    return [response.status, await response.text()];
  };
}

test('healthz while it lives, readyz while it forwards', async (t) => {
  const ready = await serve(t, VIEW);
  const starting = await serve(t, { ...VIEW, ready: false, problem: 'no lease' });
  assert.deepEqual(await starting('/healthz'), [200, 'uvxlan flannel is running\n']);
  assert.equal((await ready('/readyz'))[0], 200);
  assert.deepEqual(await starting('/readyz'), [503, 'not ready: no lease\n']);
  assert.equal((await ready('/'))[0], 404);
});

test('metrics are in the Prometheus text format, with those of the dataplane', async (t) => {
  const [status, text] = await (await serve(t, VIEW))('/metrics?x=1');
  assert.equal(status, 200);
  assert.match(text, /^uvxlan_flannel_peers 2$/m);
  assert.match(text, /^uvxlan_flannel_peers_off_link 1$/m);
  assert.match(text, /^uvxlan_flannel_repairs_total 3$/m);
  assert.match(text, /^uvxlan_flannel_faults_total\{kind="net_conf"\} 0$/m);
  assert.match(text, /^uvxlan_of_the_dataplane 1$/m);
  const line = /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[a-z_]+"\})? [0-9.]+)$/;
  for (const each of text.trimEnd().split('\n')) assert.match(each, line);
});
