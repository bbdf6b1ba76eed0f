import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { formatLeaseValue, parseSubnetKey, readLease } from '../../../control/flannel/etcd-lease.ts';
import { EtcdSource, type EtcdSourceOptions } from '../../../control/flannel/etcd-source.ts';
import type { Endpoint, PerFamily } from '../../../control/flannel/lease.ts';
import { parseNetConf } from '../../../control/flannel/net-conf.ts';
import { StoppedError } from '../../../control/flannel/source.ts';
import { EtcdServer, freePort } from './etcd-server.ts';
import { Listener, until } from './listener.ts';
import { TcpProxy } from './tcp-proxy.ts';

const PREFIX = '/coreos.com/network';
const CONF = '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}';
const DAY = 24 * 3600 * 1000;
const NONE = { ipv4: null, ipv6: null };

const mac = (n: number) => `02:00:00:00:00:0${n}`;
const endpoint = (n: number): PerFamily<Endpoint> => ({
  ipv4: { publicIp: `192.0.2.${n}`, vtepMac: mac(n) },
  ipv6: null,
});
const key = (name: string) => `${PREFIX}/subnets/${name}`;
const value = (n: number) =>
  `{"PublicIP":"192.0.2.${n}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${mac(n)}"}}`;

function open(t: TestContext, endpoints: string[], options: Partial<EtcdSourceOptions> = {}) {
  const listener = new Listener();
  const given = { endpoints, prefix: PREFIX, renewMargin: 3_600_000, previousSubnets: NONE, log: listener.log };
  const source = new EtcdSource({ ...given, ...options });
  t.after(() => source.stop());
  return { source, listener };
}

/** A node that has its lease. */
async function join(t: TestContext, server: EtcdServer, n: number, options: Partial<EtcdSourceOptions> = {}) {
  const { source, listener } = open(t, [server.endpoint], options);
  await source.netConf();
  source.start(endpoint(n), listener);
  await listener.until('a lease and a list', () => listener.own && listener.changes.length > 0);
  return { source, listener, subnet: listener.own!.ipv4!.subnet, name: listener.own!.node };
}

test("keys and values are flannel's, byte by byte", () => {
  const { conf } = parseNetConf(CONF, 'net-conf');
  assert.equal(formatLeaseValue(endpoint(3), conf), value(3));
  const kv = { key: '', value: value(3), lease: '7', modRevision: '1' };
  assert.deepEqual(readLease('10.5.52.0-24', kv, conf), {
    lease: {
      node: '10.5.52.0-24',
      ipv4: { subnet: '10.5.52.0/24', publicIp: '192.0.2.3', vtepMac: mac(3) },
      ipv6: null,
    },
  });
  assert.equal(parseSubnetKey('10.5.52.0-24&fc00::-64')?.ipv6?.length, 64);
  for (const name of [
    '',
    'config',
    '10.5.52.0',
    '10.5.52.0-33',
    '10.5.52.0-24&',
    '10.5.52.0-24&fc00::-129',
    'fc00::-64',
  ]) {
    assert.equal(parseSubnetKey(name), undefined, name);
    assert.deepEqual(readLease(name, kv, conf), {
      kind: 'lease',
      message: 'is a key that is no subnet such as 10.5.52.0-24',
    });
  }
  assert.deepEqual(readLease('10.5.52.0-24', { ...kv, value: '{"Pub' }, conf), {
    kind: 'lease',
    message: 'has the value "{\\"Pub", which is no JSON object',
  });
  assert.equal(readLease('10.5.52.0-24', { ...kv, lease: '0', value: '{"PublicIP":"192.0.2.9"}' }, conf), undefined);
});

test('two nodes meet through a real etcd: leases, events, a restart, a public IP that changes', async (t) => {
  const server = await EtcdServer.start(t);
  const { client, signal } = server;

  const early = open(t, [server.endpoint]);
  const waiting = early.source.netConf();
  await early.listener.until('the missing configuration is told', () => early.source.faults.net_conf === 1);
  await server.put(`${PREFIX}/config`, '{"Network": "10.5.0.0/30"}');
  await early.listener.until('the wrong configuration is told', () => early.source.faults.net_conf === 2);
  assert.match(early.listener.lines.at(-1)!, /^\/coreos\.com\/network\/config: Network: 10\.5\.0\.0\/30 is too small/);
  await server.put(`${PREFIX}/config`, CONF);
  assert.equal((await waiting).ipv4?.network, '10.5.0.0/16');

  const a = await join(t, server, 1);
  const b = await join(t, server, 2);
  await a.listener.until('a sees b', () => a.listener.peers.size === 1);
  assert.deepEqual(a.listener.subnets, { [b.name]: b.subnet });
  assert.deepEqual(b.listener.subnets, { [a.name]: a.subnet });
  const written = (await client.range(key(a.name), false, signal)).kvs[0];
  assert.equal(written.value, value(1));
  const { TTL, grantedTTL } = (await server.post('/v3/lease/timetolive', { ID: written.lease })) as Record<
    string,
    string
  >;
  assert.equal(grantedTTL, '86400');
  assert.ok(Math.abs(a.source.status.leaseEnds! - performance.now() - Number(TTL) * 1000) < 5_000);

  // A restart finds the same lease, and nobody hears of it.
  await b.source.stop();
  const again = open(t, [server.endpoint]);
  await again.source.netConf();
  assert.deepEqual(await again.source.vtepMacs({ ipv4: '192.0.2.2', ipv6: null }), { ipv4: mac(2), ipv6: null });
  again.source.start(endpoint(2), again.listener);
  await again.listener.until('the lease again', () => again.listener.own);
  assert.equal(again.listener.own?.node, b.name);
  assert.equal((await client.range(key(a.name), false, signal)).kvs[0].modRevision, written.modRevision);

  // Another public IP, the same node: the subnet stays.
  again.source.register({ ipv4: { publicIp: '192.0.2.22', vtepMac: mac(2) }, ipv6: null });
  await a.listener.until('a sees the new address', () => a.listener.peers.get(b.name)?.ipv4?.publicIp === '192.0.2.22');
  assert.deepEqual(a.listener.changes, [[], [b.name], [b.name]]);

  // What is wrong is told, and harms nobody.
  await server.put(key('10.5.99.0-24'), 'rubbish', (await client.grant(60, signal)).id);
  await server.put(key('10.9.0.0-24'), value(3));
  await server.put(key('10.5.98.0-24'), value(2).replace('192.0.2.2', '192.0.2.98'));
  await a.listener.until('three faults', () => {
    const { lease, subnet_outside, mac_taken } = a.source.faults;
    return lease === 1 && subnet_outside === 1 && mac_taken === 1;
  });
  assert.deepEqual(a.listener.subnets, { [b.name]: b.subnet });
  await server.delete(key(b.name));
  await a.listener.until('who waited for the MAC address is in', () => a.listener.peers.has('10.5.98.0-24'));
});

test('previous subnets, reservations, and a network that is full', async (t) => {
  const server = await EtcdServer.start(t);
  const { client, signal } = server;
  await server.put(`${PREFIX}/config`, '{"Network":"10.5.0.0/24","SubnetLen":26,"Backend":{"Type":"vxlan"}}');
  await server.put(key('10.5.0.64-26'), value(1));

  const reserved = await join(t, server, 1, { previousSubnets: { ipv4: '10.5.0.128/26', ipv6: null } });
  assert.equal(reserved.subnet, '10.5.0.64/26', 'a reservation goes before what was');
  assert.equal(reserved.source.status.leaseEnds, null);
  assert.equal((await client.range(key(reserved.name), false, signal)).kvs[0].lease, '0', 'and stays one');

  const previous = await join(t, server, 2, { previousSubnets: { ipv4: '10.5.0.128/26', ipv6: null } });
  assert.equal(previous.subnet, '10.5.0.128/26');
  const other = await join(t, server, 3, { previousSubnets: { ipv4: '10.5.0.128/26', ipv6: null } });
  assert.equal(other.subnet, '10.5.0.192/26', 'what was has another node now');

  const { source, listener } = open(t, [server.endpoint]);
  await source.netConf();
  source.start(endpoint(4), listener);
  await listener.until('it is full', () => source.faults.no_lease === 1);
  assert.equal(listener.lines.at(-1), "this node gets no lease: all /26 of the network's IPv4 subnets are taken");
  await listener.until('the others are told all the same', () => listener.peers.size === 3);
  assert.equal(listener.own, undefined);
});

test('nodes that start together never get one subnet', async (t) => {
  const server = await EtcdServer.start(t);
  await server.put(`${PREFIX}/config`, '{"Network":"10.5.0.0/24","SubnetLen":27,"Backend":{"Type":"vxlan"}}');
  // All of them draw the same first.
  const joined = await Promise.all([1, 2, 3, 4, 5].map((n) => join(t, server, n, { random: () => 0 })));
  assert.equal(new Set(joined.map(({ subnet }) => subnet)).size, 5);
});

test('dual stack: both subnets in one key', async (t) => {
  const server = await EtcdServer.start(t);
  const conf = { Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fc00::/48', Backend: { Type: 'vxlan' } };
  await server.put(`${PREFIX}/config`, JSON.stringify(conf));
  const { source, listener } = open(t, [server.endpoint], {
    previousSubnets: { ipv4: '10.5.52.0/24', ipv6: 'fc00:0:0:7::/64' },
  });
  await source.netConf();
  source.start({ ...endpoint(1), ipv6: { publicIp: '2001:db8::1', vtepMac: mac(6) } }, listener);
  await listener.until('a lease', () => listener.own);
  const { kvs } = await server.client.range(key('10.5.52.0-24&fc00:0:0:7::-64'), false, server.signal);
  assert.deepEqual(JSON.parse(kvs[0].value), {
    PublicIP: '192.0.2.1',
    PublicIPv6: '2001:db8::1',
    BackendType: 'vxlan',
    BackendData: { VNI: 1, VtepMAC: mac(1) },
    BackendV6Data: { VNI: 1, VtepMAC: mac(6) },
  });
  const peer = await join(t, server, 2);
  assert.equal(peer.listener.peers.get('10.5.52.0-24&fc00:0:0:7::-64')?.ipv6?.vtepMac, mac(6));
});

test('a lost lease is taken again, a renewed one lives on', async (t) => {
  const server = await EtcdServer.start(t);
  const { client, signal } = server;
  await server.put(`${PREFIX}/config`, CONF);
  // Renewed a second after it was given.
  const { source, listener, name, subnet } = await join(t, server, 1, { renewMargin: DAY - 1_000 });
  const first = source.status.leaseEnds!;
  // Whatever the host's clock says meanwhile.
  t.mock.timers.enable({ apis: ['Date'], now: Date.UTC(1980) });
  t.after(() => t.mock.timers.reset());
  const lease = async () => (await client.range(key(name), false, signal)).kvs[0]?.lease;
  const id = await lease();
  await listener.until('a renewal', () => source.status.leaseEnds! >= first + 900);
  assert.equal(await lease(), id, 'the same lease, which nobody has to hear of');
  t.mock.timers.setTime(Date.UTC(2100));
  const second = source.status.leaseEnds!;
  await listener.until('one more', () => source.status.leaseEnds! >= second + 900);
  assert.deepEqual([await lease(), source.faults.lease_lost], [id, 0], 'a clock that is set ends no lease');
  await server.post('/v3/lease/revoke', { ID: id });
  await listener.until('the loss is told', () => source.faults.lease_lost === 1);
  await until('the key is there again', lease);
  assert.notEqual(await lease(), id);
  await listener.until('and told', () => listener.lines.at(-1) === `this node has a lease again: ${name}`);
  assert.equal(listener.owns.length, 1, 'the same lease: nothing to be done');

  // Somebody else writes over it: it is theirs, and we take another.
  await server.put(key(name), value(7), (await client.grant(60, signal)).id);
  await listener.until('another subnet', () => listener.own!.ipv4!.subnet !== subnet);
  assert.equal(source.faults.lease_lost, 2);
  await listener.until('the other is a peer', () => listener.peers.get(name)?.ipv4?.publicIp === '192.0.2.7');
});

test('three members: one may be down, two are too many, and nothing is missed', async (t) => {
  const members = await EtcdServer.cluster(t);
  const [one, two, three] = members;
  await one.put(`${PREFIX}/config`, CONF);
  const endpoints = [`http://127.0.0.1:${await freePort()}`, ...members.map(({ endpoint }) => endpoint)];
  const { source, listener } = open(t, endpoints, { client: { silence: 500 } });
  await source.netConf();
  source.start(endpoint(1), listener);
  await listener.until('a lease and a list', () => listener.own && listener.changes.length > 0);
  assert.deepEqual(listener.lines, [], 'an endpoint at which nobody is is no trouble while others answer');
  await one.kill();
  await until('a leader, and a write', () =>
    two.put(key('10.5.70.0-24'), value(7)).then(
      () => true,
      () => false,
    ),
  );
  await listener.until('a peer, through another member', () => listener.peers.size === 1);
  await two.kill();
  await listener.until('the loss of the quorum is told', () => !source.status.connected);
  assert.equal(listener.peers.size, 1, 'what is known stays');
  await Promise.all([one.start(), two.start()]);
  await until('a leader, and a write', () =>
    three.put(key('10.5.80.0-24'), value(8)).then(
      () => true,
      () => false,
    ),
  );
  await listener.until('one more peer', () => listener.peers.size === 2);
  await listener.until('it is connected again', () => source.status.connected);
});

test('a member that is frozen is noticed, and left for another', async (t) => {
  const server = await EtcdServer.start(t);
  await server.put(`${PREFIX}/config`, CONF);
  const proxy = await TcpProxy.start(t, server.endpoint);
  const { source, listener } = open(t, [`http://127.0.0.1:${proxy.port}`, server.endpoint], {
    client: { silence: 100, patience: 300 },
  });
  await source.netConf();
  source.start(endpoint(1), listener);
  await listener.until('a lease and a list', () => listener.own && listener.changes.length > 0);
  proxy.freeze();
  await server.put(key('10.5.70.0-24'), value(7));
  await listener.until('a peer, by another way', () => listener.peers.size === 1);
});

test('a watch that is cut goes on where it was; what was missed comes, compacted or not', async (t) => {
  const server = await EtcdServer.start(t);
  await server.put(`${PREFIX}/config`, CONF);
  const proxy = await TcpProxy.start(t, server.endpoint);
  const { source, listener } = open(t, [`http://127.0.0.1:${proxy.port}`]);
  await source.netConf();
  source.start(endpoint(1), listener);
  await server.put(key('10.5.70.0-24'), value(7));
  await listener.until('a peer', () => listener.peers.size === 1);

  proxy.refuse();
  await listener.until('the cut is told', () => !source.status.connected);
  await server.put(key('10.5.80.0-24'), value(8));
  await server.delete(key('10.5.70.0-24'));
  proxy.allow();
  await listener.until('what was missed', () => listener.peers.has('10.5.80.0-24') && listener.peers.size === 1);
  assert.equal(source.faults.relist, 0);
  assert.equal(source.faults.unreachable, 1, 'told once, however long it lasts');
  assert.equal(source.status.connected, true);

  proxy.refuse();
  await listener.until('the cut is told', () => !source.status.connected);
  await server.put(key('10.5.90.0-24'), value(9));
  await server.delete(key('10.5.80.0-24'));
  await server.compact();
  proxy.allow();
  await listener.until('all is listed again', () => listener.peers.has('10.5.90.0-24') && listener.peers.size === 1);
  assert.equal(source.faults.relist, 1);
});

test('etcd killed and started again: peers and lease stay, then events come', async (t) => {
  const server = await EtcdServer.start(t);
  await server.put(`${PREFIX}/config`, CONF);
  await server.put(key('10.5.70.0-24'), value(7));
  const { source, listener } = await join(t, server, 1);
  await server.kill();
  await listener.until('it is told', () => !source.status.connected);
  assert.match(source.status.problem!, /^http:\/\/127\.0\.0\.1:\d+: /);
  assert.equal(listener.peers.size, 1);
  await server.start();
  await server.put(key('10.5.80.0-24'), value(8));
  await listener.until('an event', () => listener.peers.has('10.5.80.0-24'));
  assert.equal(listener.owns.length, 1);
  assert.deepEqual(listener.lines.slice(-1), [`${source.name} answers again`]);
});

test('an etcd that has lost its data, or has a new configuration, takes nothing away', async (t) => {
  const server = await EtcdServer.start(t);
  await server.put(`${PREFIX}/config`, CONF);
  await server.put(key('10.5.70.0-24'), value(7));
  const { source, listener } = await join(t, server, 1);
  await server.put(`${PREFIX}/config`, '{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}');
  await listener.until('the change is told', () => source.faults.net_conf === 1);
  await server.put(`${PREFIX}/config`, '{"Network":');
  await listener.until('the mistake is told', () => source.faults.net_conf === 2);
  assert.match(listener.lines.at(-1)!, /config is wrong now \(.* is not JSON: .*\): going on with what it was$/);
  await server.put(`${PREFIX}/config`, CONF);
  await listener.until('it is right', () => listener.lines.at(-1) === `${PREFIX}/config is right again`);

  await server.kill();
  server.forget();
  await server.start();
  await listener.until('the loss is told', () => source.status.problem === `${PREFIX}/config is gone`);
  assert.equal(listener.peers.size, 1);
  await server.put(`${PREFIX}/config`, CONF);
  await server.put(key('10.5.80.0-24'), value(8));
  await listener.until('a new cluster', () => listener.peers.has('10.5.80.0-24') && listener.peers.size === 1);
  assert.equal(source.faults.lease_lost, 1);
  assert.equal(listener.owns.length, 1, 'the same subnet as before');
});

test('two nodes with one public IP do not fight for their key at full speed', async (t) => {
  const server = await EtcdServer.start(t);
  await server.put(`${PREFIX}/config`, CONF);
  const a = await join(t, server, 1);
  const clone = open(t, [server.endpoint]);
  await clone.source.netConf();
  clone.source.start({ ipv4: { publicIp: '192.0.2.1', vtepMac: mac(2) }, ipv6: null }, clone.listener);
  await a.listener.until(
    'both have lost it',
    () => a.source.faults.lease_lost > 0 && clone.source.faults.lease_lost > 0,
  );
  const { at } = await server.client.range(key(a.name), false, server.signal);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const later = (await server.client.range(key(a.name), false, server.signal)).at;
  assert.ok(later.revision - at.revision < 12n, `${later.revision - at.revision} changes in a second`);
  assert.match(a.listener.lines[0], /^this node has lost its lease: the key .* is another/);
});

test('stopping ends a wait for a server that is not there; endpoints have to be URLs', async (t) => {
  const { source, listener } = open(t, [`http://127.0.0.1:${await freePort()}`]);
  const waiting = source.netConf();
  await listener.until('it is told', () => source.faults.unreachable === 1);
  await source.stop();
  await assert.rejects(waiting, StoppedError);
  assert.throws(() => open(t, ['127.0.0.1:2379']), {
    message: '--etcd-endpoints is not a list of URLs such as https://192.0.2.10:2379',
  });
});
