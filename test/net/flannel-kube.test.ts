// The agent against an API server: the stand-in of test/control/flannel, over TLS with a token, on the loopback of the agent's namespace.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { links, MAIN, uvxlan } from '../../cli/lab/vtep.ts';
import { certificates } from '../control/flannel/etcd-server.ts';
import { KubeApi } from '../control/flannel/kube-api.ts';
import { EAST, introduceToKernel, MID, type NodePlan, reaches, tunnelOf, WEST } from './cluster.ts';
import { listening } from './listening.ts';
import { lacking } from './requirements.ts';

const PREFIX = 'flannel.alpha.coreos.com/';
const PORT = 6443;
const TOKEN = 'a-token-that-no-log-shows';

/** What flanneld writes on a node. */
function annotations({ mac, publicIp }: NodePlan): Record<string, string> {
  return {
    [`${PREFIX}backend-data`]: `{"VNI":1,"VtepMAC":"${mac}"}`,
    [`${PREFIX}backend-type`]: 'vxlan',
    [`${PREFIX}kube-subnet-manager`]: 'true',
    [`${PREFIX}public-ip`]: publicIp,
  };
}

test('Kubernetes: a node joins, and follows the cluster through whatever its API server does', {
  skip: lacking('tun', 'kernel-vxlan', 'iptables'),
  timeout: 180_000,
}, async (t) => {
  const network = Network.build(t, {
    hosts: { east: {}, mid: {} },
    links: [['east eth0 192.0.2.1/24', 'mid eth0 192.0.2.2/24']],
  });
  const [east, mid] = [network.host('east'), network.host('mid')];
  mid.ip(
    `link add flannel.1 address ${MID.mac} type vxlan id 1 local ${MID.publicIp} dev eth0 dstport 8472 nolearning`,
  );
  mid.ip('link set flannel.1 mtu 1450 up');
  mid.ip(`addr add ${tunnelOf(MID)}/32 dev flannel.1`);

  const files = certificates(t);
  const [cert, key] = [files.server, files.serverKey].map((file) => readFileSync(file, 'utf8'));
  const api = await KubeApi.start(t, { tls: { cert, key }, token: TOKEN, on: await listening(east, PORT) });
  api.add('east', [EAST.subnet]);
  api.add('mid', [MID.subnet], annotations(MID));
  const file = (name: string, text: string) => {
    const path = join(network.directory, name);
    writeFileSync(path, text);
    return path;
  };
  const kubeconfig = file(
    'kubeconfig',
    `current-context: it
contexts: [{ name: it, context: { cluster: it, user: it } }]
clusters: [{ name: it, cluster: { server: "https://127.0.0.1:${PORT}", certificate-authority: ${files.ca} } }]
users: [{ name: it, user: { token: ${TOKEN} } }]
`,
  );
  const netConf = file('net-conf.json', '{ "Network": "10.244.0.0/16", "Backend": { "Type": "vxlan" } }');
  const flags = ['--kubeconfig-file', kubeconfig, '--net-config-path', netConf, '--node-name', 'east', '--ip-masq'];
  const subnetFile = ['--subnet-file', join(network.directory, 'subnet.env'), '--iface', 'eth0'];
  const agent = east.spawn([process.execPath, MAIN, 'flannel', '--kube-subnet-mgr', ...flags, ...subnetFile]);
  await agent.waitFor(/uvxlan: ready: 10\.244\.1\.0\/24, 1 peers, vxlan through eth0/);

  const own = () =>
    api.node('east') as { metadata: { annotations: object }; status: { conditions: Record<string, string>[] } };
  const { address } = (await links(east, 'flannel.1'))[0];
  const registered = annotations({ ...EAST, mac: address });
  introduceToKernel(mid, { ...EAST, mac: address });
  const routes = () => east.ip('route show proto 118');

  await t.test('it is registered, says that the network is there, and reaches its peer', async () => {
    assert.deepEqual(own().metadata.annotations, registered);
    await eventually('the condition', () => own().status.conditions.length > 0);
    const { lastHeartbeatTime, lastTransitionTime, ...condition } = own().status.conditions[0]!;
    assert.deepEqual(condition, {
      ...{ type: 'NetworkUnavailable', status: 'False', reason: 'FlannelIsUp' },
      message: 'Flannel is running on this node',
    });
    assert.match(`${lastHeartbeatTime} ${lastTransitionTime}`, /^\d{4}-\d\d-\d\dT[\d:]{8}Z \d{4}-\d\d-\d\dT[\d:]{8}Z$/);
    await reaches(east, tunnelOf(MID));
  });

  await t.test('the watch is cut: what happens meanwhile is heard of', async () => {
    api.cut();
    api.add('west', [WEST.subnet], annotations(WEST));
    await eventually('the new node has its route', () => routes().includes(WEST.subnet));
  });

  await t.test('410: a node that went unnoticed leaves nothing', async () => {
    api.cut();
    api.delete('west');
    api.compact();
    await agent.waitFor(/410: too old resource version: .*: reading the whole list again/);
    await eventually('its route is gone', () => !routes().includes(WEST.subnet));
    api.add('west', [WEST.subnet], annotations(WEST));
    await eventually('the watch goes on', () => routes().includes(WEST.subnet));
  });

  await t.test('the server is down, and back: packets flow on, and what has changed is followed', async () => {
    api.down();
    await agent.waitFor(/nobody listens there \(ECONNREFUSED\): what is known stays, asking again/);
    await reaches(east, tunnelOf(MID));
    api.delete('west');
    await api.up(await listening(east, PORT));
    await agent.waitFor(/Kubernetes at https:\/\/127\.0\.0\.1:6443 answers again/);
    await eventually('the route of a node that went is gone', () => !routes().includes(WEST.subnet));
  });

  await t.test('a node is deleted, and comes back with another MAC', async () => {
    api.delete('mid');
    await eventually('its route is gone', () => !routes().includes(MID.subnet));
    assert.doesNotMatch(east.ip('neigh show nud permanent') + (await uvxlan(east, 'fdb show')).stdout, /02:02/);
    const again = { ...MID, mac: '02:00:00:00:02:77' };
    mid.ip(`link set flannel.1 address ${again.mac}`);
    introduceToKernel(mid, { ...EAST, mac: address }); // the kernel forgets neighbours with the MAC
    api.add('mid', [MID.subnet], annotations(again));
    await reaches(east, tunnelOf(MID));
  });

  await t.test("the node's own object is deleted and made again: it is registered again", async () => {
    api.delete('east');
    await agent.waitFor(
      /node east has lost its lease: there is no such node in the cluster; going on with what it was/,
    );
    api.add('east', [EAST.subnet]);
    await eventually('its annotations', () => Object.keys(own().metadata.annotations).length === 4);
    assert.deepEqual(own().metadata.annotations, registered);
    await eventually('the condition', () => own().status.conditions.length > 0);
    await reaches(east, tunnelOf(MID));
  });

  assert.ok(!agent.output.includes(TOKEN), 'no secret is in the log');
});
