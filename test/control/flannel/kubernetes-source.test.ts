import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { DocumentError } from '../../../control/flannel/keys.ts';
import { KubernetesSource, type KubernetesSourceOptions } from '../../../control/flannel/kubernetes-source.ts';
import type { Endpoint, PerFamily } from '../../../control/flannel/lease.ts';
import { KubeApi } from './kube-api.ts';
import { Listener } from './listener.ts';

const PREFIX = 'flannel.alpha.coreos.com/';
const CONF = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } };

const mac = (n: number) => `02:00:00:00:00:0${n}`;
const endpoint = (n: number): PerFamily<Endpoint> => ({
  ipv4: { publicIp: `192.0.2.${n}`, vtepMac: mac(n) },
  ipv6: null,
});

/** What flanneld writes on a node, byte by byte. */
function flannel(n: number, changes: Record<string, string> = {}): Record<string, string> {
  const annotations = {
    'backend-data': `{"VNI":1,"VtepMAC":"${mac(n)}"}`,
    'backend-type': 'vxlan',
    'kube-subnet-manager': 'true',
    'public-ip': `192.0.2.${n}`,
    ...changes,
  };
  return Object.fromEntries(Object.entries(annotations).map(([key, value]) => [PREFIX + key, value]));
}

/** A cluster of some nodes on flanneld, and a source for node "self", which has a subnet and nothing else. */
async function start(
  t: TestContext,
  nodes: readonly number[],
  options: Partial<KubernetesSourceOptions> & { conf?: object } = {},
) {
  const api = await KubeApi.start(t);
  for (const n of nodes) api.add(`n${n}`, [`10.244.${n}.0/24`], flannel(n));
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-kubernetes-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const netConfPath = join(directory, 'net-conf.json');
  writeFileSync(netConfPath, JSON.stringify(options.conf ?? CONF));
  const open = () => {
    const listener = new Listener();
    const source = new KubernetesSource({
      apiUrl: `http://127.0.0.1:${api.port}`,
      annotationPrefix: 'flannel.alpha.coreos.com',
      netConfPath,
      environment: { NODE_NAME: 'self' },
      setNodeNetworkUnavailable: true,
      log: listener.log,
      // The shortest pauses that there are.
      client: { random: () => 1 },
      ...options,
    });
    t.after(() => source.stop());
    return { source, listener };
  };
  return { api, netConfPath, open, ...open() };
}

type Started = Awaited<ReturnType<typeof start>>;

async function joined({ api, source, listener }: Started): Promise<void> {
  await source.netConf();
  source.start(endpoint(9), listener);
  await listener.until(
    'a lease, a list and a watch',
    () => listener.own && listener.changes.length > 0 && api.watchers > 0,
  );
}

const annotationsOf = (api: KubeApi, name: string) => (api.node(name).metadata as { annotations: object }).annotations;
const patches = (api: KubeApi) => api.requests.filter((request) => request.startsWith('PATCH'));

test('a node joins: what it writes, what it hears, and a restart of which nobody hears', async (t) => {
  const started = await start(t, [1, 2]);
  const { api, source, listener } = started;
  api.add('self', ['10.244.9.0/24'], { [`${PREFIX}node-public-ip`]: '192.0.2.9', other: 'stays' });
  api.add('no-flannel', ['10.244.7.0/24'], { other: 'x' });
  await source.netConf();
  assert.deepEqual(await source.publicIps(), { ipv4: '192.0.2.9', ipv6: null });
  assert.deepEqual(await source.vtepMacs(), { ipv4: null, ipv6: null });
  await joined(started);

  assert.deepEqual(annotationsOf(api, 'self'), {
    ...flannel(9),
    [`${PREFIX}node-public-ip`]: '192.0.2.9',
    other: 'stays',
  });
  assert.deepEqual(listener.own, { node: 'self', ipv4: { ...endpoint(9).ipv4, subnet: '10.244.9.0/24' }, ipv6: null });
  assert.deepEqual(listener.subnets, { n1: '10.244.1.0/24', n2: '10.244.2.0/24' });
  source.ready();
  await listener.until('the condition', () => patches(api).length === 2);
  const [condition] = (api.node('self').status as { conditions: Record<string, string>[] }).conditions;
  assert.match(condition.lastHeartbeatTime, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.deepEqual(
    { ...condition, lastHeartbeatTime: '', lastTransitionTime: '' },
    {
      type: 'NetworkUnavailable',
      status: 'False',
      lastHeartbeatTime: '',
      lastTransitionTime: '',
      reason: 'FlannelIsUp',
      message: 'Flannel is running on this node',
    },
  );

  api.annotate('no-flannel', flannel(7));
  api.annotate('n1', flannel(3));
  api.delete('n2');
  await listener.until('three changes', () => listener.changes.length === 4);
  assert.deepEqual(listener.changes, [['n1', 'n2'], ['no-flannel'], ['n1'], ['n2']]);
  assert.equal(listener.peers.get('n1')?.ipv4?.vtepMac, mac(3));
  api.annotate('n1', { 'something-else': 'x' });
  api.annotate('n1', flannel(4));
  await listener.until('one change', () => listener.changes.length === 5);

  await source.stop();
  const again = started.open();
  await again.source.netConf();
  assert.deepEqual(await again.source.vtepMacs(), { ipv4: mac(9), ipv6: null });
  again.source.start(endpoint(9), again.listener);
  await again.listener.until('the lease again', () => again.listener.own);
  again.source.ready();
  await again.listener.until('a watch', () => api.watchers === 1);
  assert.equal(patches(api).length, 2, 'all is as it should be');
  assert.deepEqual([...listener.lines, ...again.listener.lines], []);
});

test('both IP versions, another prefix, a public IP that is overwritten, and the node of a pod', async (t) => {
  const started = await start(t, [], {
    conf: { ...CONF, EnableIPv6: true, IPv6Network: 'fd00::/48' },
    annotationPrefix: 'example.org/net',
    environment: { POD_NAME: 'p', POD_NAMESPACE: 'kube-flannel' },
  });
  const { api, source, listener } = started;
  api.pods.set('/api/v1/namespaces/kube-flannel/pods/p', { metadata: { name: 'p' }, spec: { nodeName: 'self' } });
  api.add('self', ['fd00:0:0:9::/64', '10.244.9.0/24'], { 'example.org/net-public-ipv6-overwrite': '2001:db8::99' });
  await source.netConf();
  source.start({ ...endpoint(9), ipv6: { publicIp: '2001:db8::9', vtepMac: mac(8) } }, listener);
  await listener.until('a lease', () => listener.own);
  assert.deepEqual(annotationsOf(api, 'self'), {
    'example.org/net-backend-data': `{"VNI":1,"VtepMAC":"${mac(9)}"}`,
    'example.org/net-backend-type': 'vxlan',
    'example.org/net-backend-v6-data': `{"VNI":1,"VtepMAC":"${mac(8)}"}`,
    'example.org/net-kube-subnet-manager': 'true',
    'example.org/net-public-ip': '192.0.2.9',
    'example.org/net-public-ipv6': '2001:db8::99',
    'example.org/net-public-ipv6-overwrite': '2001:db8::99',
  });
  assert.deepEqual(listener.own?.ipv6, { subnet: 'fd00:0:0:9::/64', publicIp: '2001:db8::99', vtepMac: mac(8) });
});

test('what other nodes have wrong is told, and leaves the rest alone', async (t) => {
  const started = await start(t, [1, 2, 3]);
  const { api, source, listener } = started;
  api.add('self', ['10.244.9.0/24']);
  await joined(started);
  api.annotate('n1', flannel(1, { 'backend-data': '{"VNI":1,"Vtep' }));
  api.annotate('n2', flannel(2, { 'backend-data': `{"VNI":5,"VtepMAC":"${mac(2)}"}` }));
  api.add('n4', ['10.99.4.0/24'], flannel(4));
  api.add('n5', ['10.244.3.0/24'], flannel(5));
  api.add('n6', ['10.244.6.0/24'], flannel(6, { 'backend-type': 'wireguard' }));
  await listener.until('five faults', () => source.faults.backend_type === 1);
  assert.deepEqual(listener.lines, [
    'node n1 has "{\\"VNI\\":1,\\"Vtep" for its backend data: its last good lease stays',
    'node n2 has the VNI 5, the cluster 1: its last good lease stays',
    'node n4 has the subnet 10.99.4.0/24, outside the network 10.244.0.0/16: it is left out',
    'node n5 claims the subnet 10.244.3.0/24, which node n3 has: it is left out',
    'node n6 has the backend "wireguard", the cluster vxlan: it is left out',
  ]);
  assert.deepEqual(Object.keys(listener.subnets), ['n1', 'n2', 'n3']);
  assert.equal(listener.changes.length, 1);
});

test('a watch ends, breaks, or is too old: it goes on, and nothing is missed', async (t) => {
  const started = await start(t, [1, 2]);
  const { api, source, listener } = started;
  api.add('self', ['10.244.9.0/24']);
  await joined(started);
  const lists = () => api.requests.filter((request) => request === 'GET /api/v1/nodes').length;
  const during = async (what: string, change: () => void, n: number) => {
    change();
    api.add(`n${n}`, [`10.244.${n}.0/24`], flannel(n));
    await listener.until(what, () => listener.peers.has(`n${n}`));
  };

  const before = lists();
  await during('a time-out', () => api.endWatches(), 3);
  assert.equal(lists(), before + 1, 'one more watch, no list');
  await during('a broken connection', () => api.cut(), 4);
  assert.equal(source.faults.unreachable, 1);

  // After a bookmark, what came before it may be forgotten.
  api.bookmark();
  api.annotate('n1', { seen: 'after the bookmark' });
  api.compact();
  await during('a bookmark', () => api.endWatches(), 5);
  assert.equal(source.faults.relist, 0);

  for (const [form, n] of [
    ['status', 6],
    ['event', 7],
  ] as const) {
    api.goneAs = form;
    api.endWatches();
    api.delete(`n${n - 5}`);
    api.add(`n${n}`, [`10.244.${n}.0/24`], flannel(n));
    api.compact();
    await listener.until(`410 as ${form}`, () => listener.peers.has(`n${n}`) && !listener.peers.has(`n${n - 5}`));
    await listener.until('a watch again', () => api.watchers === 1);
    api.annotate('n3', flannel(3, { 'public-ip': `192.0.2.3${n}` }));
    await listener.until('an event', () => listener.peers.get('n3')?.ipv4?.publicIp === `192.0.2.3${n}`);
  }
  assert.equal(source.faults.relist, 2);

  api.say('{"type":"ADDED","object":');
  await listener.until('nonsense', () => source.faults.answer === 1);
  await listener.until('a watch again', () => api.watchers === 1);
  assert.match(listener.lines.join('\n'), /^http:.* answered what is not JSON: what is known stays, asking again$/m);
  api.annotate('n3', flannel(3));
  await listener.until('it is said', () => listener.lines.at(-1) === `${source.name} answers again`);
  assert.deepEqual(Object.keys(listener.subnets).sort(), ['n3', 'n4', 'n5', 'n6', 'n7']);
  assert.equal(listener.owns.length, 1);
});

test('a server that has lost its data takes nothing away', async (t) => {
  const started = await start(t, [1, 2]);
  const { api, listener } = started;
  api.add('self', ['10.244.9.0/24']);
  await joined(started);
  api.intercept = (_request, response, query) => {
    if (query.has('watch')) return false;
    response.writeHead(200).end('{"metadata":{"resourceVersion":"1"},"items":[]}');
    return true;
  };
  api.cut();
  api.delete('n1');
  api.compact();
  await listener.until('it is not believed', () => listener.lines.at(-1)?.includes('lists no node at all any more'));
  assert.ok(listener.peers.has('n1'));
  api.intercept = () => false;
  await listener.until('it is as it was', () => !listener.peers.has('n1'));
});

test("this node's own object: without a subnet, changed by others, deleted and made again", async (t) => {
  const started = await start(t, [1]);
  const { api, source, listener } = started;
  await source.netConf();
  source.start(endpoint(9), listener);
  await listener.until('there is no such node', () => source.faults.no_lease === 1);
  assert.deepEqual(Object.keys(listener.subnets), ['n1'], 'the others are told all the same');
  api.add('self', []);
  await listener.until('it has no subnet', () => source.faults.no_lease === 2);
  assert.match(source.status.problem!, /^it has no IPv4 podCIDR/);
  api.delete('self');
  api.add('self', ['10.99.9.0/24']);
  await listener.until('it is outside', () => listener.lines.at(-1)?.includes('10.99.9.0/24 is outside the network'));
  api.delete('self');
  api.add('self', ['10.244.9.0/24']);
  await listener.until('a lease', () => listener.own);
  assert.equal(source.status.connected, true);
  source.ready();

  api.annotate('self', { [`${PREFIX}backend-data`]: '{"VNI":1,"VtepMAC":"02:00:00:00:00:77"}' });
  await listener.until('it is put back', () => {
    const { [`${PREFIX}backend-data`]: data } = annotationsOf(api, 'self') as Record<string, string>;
    return data.includes(mac(9));
  });
  api.delete('self');
  await listener.until('the loss is told', () => source.faults.lease_lost === 1);
  api.add('self', ['10.244.8.0/24']);
  await listener.until('another subnet', () => listener.own?.ipv4?.subnet === '10.244.8.0/24');
  await listener.until('the condition again', () => JSON.stringify(api.node('self')).includes('FlannelIsUp'));

  source.register({ ipv4: { publicIp: '192.0.2.99', vtepMac: mac(9) }, ipv6: null });
  await listener.until('another public IP', () => listener.own?.ipv4?.publicIp === '192.0.2.99');
  assert.deepEqual(annotationsOf(api, 'self'), flannel(9, { 'public-ip': '192.0.2.99' }));
});

test('a server that refuses is told in its own words', async (t) => {
  const started = await start(t, [1]);
  const { api, source, listener } = started;
  api.add('self', ['10.244.9.0/24']);
  const message =
    'nodes "self" is forbidden: User "u" cannot patch resource "nodes/status" in API group "" at the cluster scope';
  let isForbidden = true;
  api.intercept = (request, response) => {
    if (!isForbidden || !request.startsWith('PATCH')) return false;
    response.writeHead(403, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ kind: 'Status', status: 'Failure', message, reason: 'Forbidden', code: 403 }));
    return true;
  };
  await source.netConf();
  source.start(endpoint(9), listener);
  await listener.until('it is told', () => source.faults.no_lease === 1);
  assert.equal(
    listener.lines.at(-1),
    `cannot register this node: http://127.0.0.1:${api.port} answered 403: ${message}; trying again`,
  );
  isForbidden = false;
  await listener.until('it is registered', () => listener.own);
  assert.equal(listener.lines.at(-1), 'the node self is registered');
});

test('a server that stands still is noticed', async (t) => {
  const started = await start(t, [1], { client: { random: () => 1, silence: 50, patience: 300 } });
  const { api, source, listener } = started;
  api.add('self', ['10.244.9.0/24']);
  await joined(started);
  api.intercept = () => true; // takes every request, and answers none
  await listener.until('it is noticed', () =>
    listener.lines.some((line) => /: no answer in 0.3 s: what is/.test(line)),
  );
  assert.equal(source.status.connected, false);
  assert.equal(listener.peers.size, 1, 'what is known stays');
});

test('a server that asks for time is given it', async (t) => {
  const started = await start(t, [1]);
  const { api } = started;
  api.add('self', ['10.244.9.0/24']);
  const asked: number[] = [];
  api.intercept = (request, response) => {
    if (request === 'GET /api/v1/nodes') asked.push(performance.now());
    if (asked.length !== 1) return false;
    response.writeHead(429, { 'retry-after': '1' }).end('too many requests');
    return true;
  };
  await joined(started);
  assert.ok(asked[1] - asked[0] > 990, 'the first pause would be shorter');
});

test('a network configuration that changes takes a restart, and is told', async (t) => {
  const started = await start(t, []);
  const { api, netConfPath, source, listener } = started;
  api.add('self', ['10.244.9.0/24']);
  await joined(started);
  writeFileSync(netConfPath, JSON.stringify({ ...CONF, Network: '10.128.0.0/9' }));
  const last = () => listener.lines.at(-1);
  const changed = `${netConfPath} has changed, which takes a restart: going on with what it was`;
  await listener.until('a line', () => last() === changed);
  assert.equal(source.faults.net_conf, 1);
  writeFileSync(netConfPath, `${JSON.stringify(CONF)} `);
  await listener.until('another one', () => last() === `${netConfPath} is right again`);
});

test('a long list comes in pages, and begins again when it becomes too old in between', async (t) => {
  const started = await start(t, []);
  const { api, source, listener } = started;
  api.add('self', ['10.244.9.0/24']);
  for (let i = 0; i < 1200; i++) {
    const [high, low] = [i >> 6, (i & 63) << 2];
    const vtep = `02:00:00:01:${high.toString(16).padStart(2, '0')}:${low.toString(16).padStart(2, '0')}`;
    const data = `{"VNI":1,"VtepMAC":"${vtep}"}`;
    api.add(
      `node-${i}`,
      [`10.244.${100 + high}.${low}/30`],
      flannel(1, { 'backend-data': data, 'public-ip': `10.0.${high}.${low + 1}` }),
    );
  }
  let pages = 0;
  api.intercept = (request) => {
    if (request === 'GET /api/v1/nodes' && ++pages === 2) api.compact();
    return false;
  };
  await joined(started);
  assert.equal(listener.peers.size, 1200);
  assert.equal(source.faults.relist, 1);
  // Two pages, three pages, a watch.
  assert.equal(pages, 6);
});

test('what is wrong on this machine is refused at once', async (t) => {
  const { open, netConfPath } = await start(t, []);
  writeFileSync(netConfPath, '{"Network": "10.244.0.0"}');
  await assert.rejects(open().source.netConf(), (error: Error) => {
    assert.ok(error instanceof DocumentError);
    assert.match(error.message, /net-conf\.json: Network: "10\.244\.0\.0" is not an IPv4 prefix/);
    return true;
  });
  rmSync(netConfPath);
  await assert.rejects(open().source.netConf(), /cannot read .*net-conf\.json \(ENOENT\)/);
  await assert.rejects(start(t, [], { environment: {} }), /which node is this\? Set NODE_NAME/);
  await assert.rejects(start(t, [], { apiUrl: undefined }), /this is no pod .*: give --kubeconfig-file/);
  await assert.rejects(start(t, [], { annotationPrefix: 'flannel' }), /"flannel" is not a prefix for annotations/);
});
