import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import * as k8s from '@kubernetes/client-node';
import { certificates } from './etcd-server.ts';
import { KubeApi } from './kube-api.ts';
import { until } from './listener.ts';

const TOKEN = 'the-token-of-the-test';

/** The stand-in, with TLS and a token, and the Kubernetes project's own client for it. */
async function start(t: TestContext, token = TOKEN) {
  const files = certificates(t);
  const [cert, key, ca] = [files.server, files.serverKey, files.ca].map((file) => readFileSync(file, 'utf8'));
  const api = await KubeApi.start(t, { tls: { cert, key }, token: TOKEN });
  const config = new k8s.KubeConfig();
  const cluster = { name: 'c', server: `https://127.0.0.1:${api.port}`, caData: Buffer.from(ca).toString('base64') };
  config.loadFromClusterAndUser({ ...cluster, skipTLSVerify: false }, { name: 'u', token });
  return { api, config, core: config.makeApiClient(k8s.CoreV1Api) };
}

const refused = (code: number, words: RegExp) => (error: unknown) => {
  assert.ok(error instanceof k8s.ApiException);
  assert.equal(error.code, code);
  assert.match(error.message, words);
  return true;
};

test('lists, pages, single nodes, and what is refused', async (t) => {
  const { api, core } = await start(t);
  for (const n of [1, 2, 3, 4, 5]) api.add(`n${n}`, [`10.244.${n}.0/24`]);
  const all = await core.listNode();
  assert.deepEqual(
    all.items.map((node) => node.spec?.podCIDRs),
    [1, 2, 3, 4, 5].map((n) => [`10.244.${n}.0/24`]),
  );

  const first = await core.listNode({ limit: 2 });
  assert.equal(first.metadata?.remainingItemCount, 3);
  // Pages of one list are of one version.
  api.delete('n1');
  const second = await core.listNode({ limit: 2, _continue: first.metadata!._continue });
  assert.deepEqual(
    [...first.items, ...second.items].map((node) => node.metadata?.name),
    ['n1', 'n2', 'n3', 'n4'],
  );
  assert.equal(second.metadata?.resourceVersion, first.metadata?.resourceVersion);
  api.compact();
  await assert.rejects(core.listNode({ limit: 2, _continue: second.metadata!._continue }), refused(410, /Expired/));

  await assert.rejects(core.readNode({ name: 'n1' }), refused(404, /n1.*not found/));
  const node = await core.readNode({ name: 'n2' });
  await core.createNode({ body: { metadata: { name: 'n9' } } });
  await assert.rejects(core.createNode({ body: { metadata: { name: 'n9' } } }), refused(409, /AlreadyExists/));
  api.annotate('n2', { a: 'b' });
  await assert.rejects(core.replaceNode({ name: 'n2', body: node }), refused(409, /Conflict/));
  api.intercept = (_request, response) => {
    response.writeHead(403, { 'content-type': 'application/json' }).end('{"kind":"Status","code":403,"message":"no"}');
    return true;
  };
  await assert.rejects(core.listNode(), refused(403, /no/));
});

test('who has no good token is not let in', async (t) => {
  const { core } = await start(t, 'another-token');
  await assert.rejects(core.listNode(), refused(401, /Unauthorized/));
});

test('patches, and the status as a resource of its own', async (t) => {
  const { api, core } = await start(t);
  api.add('n1', ['10.244.1.0/24'], { keep: '1', drop: '2' });
  const patch = (body: object, strategy: k8s.PatchStrategy) =>
    core.patchNodeStatus({ name: 'n1', body }, k8s.setHeaderOptions('Content-Type', strategy));
  const ready = { type: 'Ready', status: 'True' };
  const network = { type: 'NetworkUnavailable', status: 'True' };
  const { StrategicMergePatch, MergePatch } = k8s.PatchStrategy;

  await patch({ status: { conditions: [ready] } }, StrategicMergePatch);
  const both = await patch({ status: { conditions: [network] } }, StrategicMergePatch);
  assert.deepEqual(
    both.status?.conditions?.map(({ type }) => type),
    ['Ready', 'NetworkUnavailable'],
    'merged by type',
  );
  const changed = await patch(
    {
      metadata: { annotations: { drop: null, add: '3' } },
      spec: { podCIDR: 'no' },
      status: { conditions: [{ ...network, status: 'False' }] },
    },
    StrategicMergePatch,
  );
  assert.deepEqual(
    changed.status?.conditions?.map(({ status }) => status),
    ['True', 'False'],
  );
  assert.deepEqual(changed.metadata?.annotations, { keep: '1', add: '3' });
  assert.equal(changed.spec?.podCIDR, '10.244.1.0/24', 'the subresource leaves the rest alone');
  const replaced = await patch({ status: { conditions: [ready] } }, MergePatch);
  assert.equal(replaced.status?.conditions?.length, 1, 'a merge patch replaces lists');
  const same = await patch({ status: { conditions: [ready] } }, MergePatch);
  assert.equal(same.metadata?.resourceVersion, replaced.metadata?.resourceVersion, 'nothing changed');
  await assert.rejects(patch({ metadata: { resourceVersion: '1' } }, MergePatch), refused(409, /Conflict/));
  await assert.rejects(patch([], k8s.PatchStrategy.JsonPatch), refused(415, /unknown format/));
});

test('watches: from a version on, bookmarks, time-outs, and versions that are too old', async (t) => {
  const { api, config, core } = await start(t);
  api.add('n1', []);
  const version = (await core.listNode()).metadata!.resourceVersion!;
  api.add('n2', []);
  const watch = async (resourceVersion: string, query: object = {}) => {
    const seen: string[] = [];
    let end: { error: unknown } | undefined;
    const note = (type: string, object: k8s.V1Node & { code?: number }) => {
      seen.push([type, object.metadata?.name ?? object.code ?? ''].join(' ').trim());
    };
    await new k8s.Watch(config).watch(
      '/api/v1/nodes',
      { resourceVersion, allowWatchBookmarks: true, ...query },
      note,
      (error) => {
        end = { error };
      },
    );
    return { seen, ended: () => end };
  };

  const { seen, ended } = await watch(version);
  await until('the watch stands', () => api.watchers === 1);
  api.annotate('n1', { a: 'b' });
  api.bookmark();
  api.delete('n2');
  await until('all events', () => seen.length >= 4);
  assert.deepEqual(seen, ['ADDED n2', 'MODIFIED n1', 'BOOKMARK', 'DELETED n2']);
  api.endWatches();
  await until('the end', ended);

  const short = await watch(version, { timeoutSeconds: 1 });
  await until('the time-out', short.ended);

  api.compact();
  api.goneAs = 'event';
  const late = await watch(version);
  await until('an error', () => late.seen.length > 0);
  assert.deepEqual(late.seen, ['ERROR 410']);
  api.goneAs = 'status';
  const later = await watch(version);
  await until('the end', later.ended);
  assert.deepEqual(later.seen, []);
  assert.match(String(later.ended()?.error), /Gone|410/);
});
