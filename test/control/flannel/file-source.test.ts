import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { FileSource } from '../../../control/flannel/file-source.ts';
import { DocumentError } from '../../../control/flannel/keys.ts';
import { macOfName, parseNodeList } from '../../../control/flannel/node-list.ts';
import { Listener } from './listener.ts';

const CLUSTER = `
network: 10.244.0.0/16
backend: { type: vxlan, directRouting: true }
nodes:
  - { name: node-1, public-ip: 192.0.2.1, subnet: 10.244.1.0/24 }
  - name: node-2
    public-ip: 192.0.2.2
    subnet: 10.244.2.0/24
    mac: 02:00:00:00:00:02
`;
const THIRD = '  - { name: node-3, public-ip: 192.0.2.3, subnet: 10.244.3.0/24 }\n';

function mistakes(text: string): string[] {
  try {
    parseNodeList(text, 'cluster.yaml');
  } catch (error) {
    assert.ok(error instanceof DocumentError);
    return error.message.split('\n');
  }
  assert.fail('the file was accepted');
}

test('the configuration and the nodes of a file', () => {
  const { conf, leases } = parseNodeList(CLUSTER, 'cluster.yaml');
  assert.equal(conf.backend.type === 'vxlan' && conf.backend.directRouting, true);
  assert.deepEqual(leases, [
    {
      node: 'node-1',
      ipv4: { subnet: '10.244.1.0/24', publicIp: '192.0.2.1', vtepMac: macOfName('node-1') },
      ipv6: null,
    },
    {
      node: 'node-2',
      ipv4: { subnet: '10.244.2.0/24', publicIp: '192.0.2.2', vtepMac: '02:00:00:00:00:02' },
      ipv6: null,
    },
  ]);
});

test('both IP versions, and the backend that flannel documents when none is given', () => {
  const { conf, leases } = parseNodeList(
    `
network: 10.244.0.0/16
enableIPv6: true
ipv6network: fd00::/48
nodes:
  - { name: a, public-ip: 192.0.2.1, subnet: 10.244.1.0/24, public-ipv6: "2001:db8::1", ipv6-subnet: "fd00:0:0:1::/64" }
`,
    'cluster.yaml',
  );
  assert.equal(conf.backend.type, 'vxlan');
  assert.deepEqual(leases[0].ipv6, {
    subnet: 'fd00:0:0:1::/64',
    publicIp: '2001:db8::1',
    vtepMac: macOfName('a-v6'),
  });
});

test("a MAC address that follows from a name is Calico's", () => {
  // The first bytes of `printf node-1 | sha1sum`.
  assert.equal(macOfName('node-1'), '66:b3:68:28:39:8e');
});

test('every mistake with its line, column and key', () => {
  assert.deepEqual(
    mistakes(`
network: 10.244.0.0/16
nodes:
  - { name: a, public-ip: 192.0.2.1, subnet: 10.9.0.0/24 }
  - { name: b, public-ip: 192.0.2, subnet: 10.244.2.0/24 }
  - { name: b, public-ip: 192.0.2.3, mac: 01:00:00:00:00:00 }
  - { name: c, public-ip: 192.0.2.4, subnet: 10.244.4.0/24, sbnet: 1 }
  - { name: d, public-ip: 192.0.2.5, subnet: 10.244.5.0/24 }
  - { name: e, public-ip: 192.0.2.6, subnet: 10.244.5.0/25 }
  - { public-ip: 192.0.2.7, subnet: 10.244.7.0/24 }
  - seven
`),
    [
      'cluster.yaml:4:5: nodes[0]: has the subnet 10.9.0.0/24, outside the network 10.244.0.0/16',
      'cluster.yaml:5:27: nodes[1].public-ip: "192.0.2" is not an IPv4 address',
      'cluster.yaml:6:5: nodes[2].subnet: is missing',
      'cluster.yaml:6:43: nodes[2].mac: "01:00:00:00:00:00" is not a unicast MAC address such as 02:00:00:00:00:01',
      'cluster.yaml:7:68: nodes[3].sbnet: unknown key, did you mean subnet?',
      'cluster.yaml:9:5: nodes[5]: node e claims the subnet 10.244.5.0/25, which node d has',
      'cluster.yaml:10:5: nodes[6].name: is missing',
      'cluster.yaml:11:5: nodes[7]: is not a map',
    ],
  );
  assert.deepEqual(mistakes('network: 10.244.0.0/16\n'), ['cluster.yaml:1:1: nodes: is missing: a list of nodes']);
  assert.deepEqual(mistakes('nodes: []\nbackend: {type: vxlan, vni: many}\n'), [
    'cluster.yaml:1:1: Network: is missing',
    'cluster.yaml:2:29: backend.vni: "many" is not a number 0..16777215',
  ]);
  assert.match(mistakes('nodes: [')[0], /^cluster\.yaml:1:9: /);
});

test('a file is followed: nodes come and go, what is wrong leaves the last good state', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-file-source-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'cluster.yaml');
  const write = (text: string) => {
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  };
  write(CLUSTER);
  const listener = new Listener();
  const source = new FileSource({ file, node: 'some-host', log: listener.log });
  t.after(() => source.stop());

  assert.equal((await source.netConf()).ipv4?.network, '10.244.0.0/16');
  assert.deepEqual(await source.publicIps(), { ipv4: null, ipv6: null }, 'no node has that name');
  const publicIps = { ipv4: '192.0.2.1', ipv6: null };
  assert.deepEqual(await source.vtepMacs(publicIps), { ipv4: macOfName('node-1'), ipv6: null });
  const own = { ipv4: { publicIp: '192.0.2.1', vtepMac: macOfName('node-1') }, ipv6: null };
  source.start(own, listener);
  assert.deepEqual(listener.own, { node: 'node-1', ipv4: { ...own.ipv4, subnet: '10.244.1.0/24' }, ipv6: null });
  assert.deepEqual(listener.subnets, { 'node-2': '10.244.2.0/24' });

  write(CLUSTER + THIRD);
  await listener.until('node-3 comes', () => listener.peers.has('node-3'));
  assert.deepEqual(listener.changes, [['node-2'], ['node-3']]);

  write(CLUSTER.replace('10.244.2.0/24', '10.244.2.0'));
  await listener.until('the mistake is told', () => source.faults.net_conf === 1);
  assert.match(
    listener.lines.at(-1)!,
    /cluster\.yaml:8:13: nodes\[1\]\.subnet: "10\.244\.2\.0" is not an IPv4 prefix .*: the last good state stays$/,
  );
  assert.equal(source.status.connected, false);
  assert.equal(listener.peers.size, 2);

  write(CLUSTER.replace('node-1', 'node-9').replaceAll('192.0.2.1', '192.0.2.9'));
  await listener.until('this node is told that it is not in the file', () => source.faults.no_lease === 1);
  await listener.until('node-3 goes', () => !listener.peers.has('node-3'));
  assert.equal(source.status.connected, true);
  assert.equal(listener.owns.length, 1, 'what this node was it stays');
});

test('a file that is wrong at the start is refused, with all mistakes', async () => {
  const source = new FileSource({ file: '/nowhere/cluster.yaml', node: 'a', log: () => {} });
  await assert.rejects(source.netConf(), new DocumentError(['cannot read /nowhere/cluster.yaml (ENOENT)']));
});
