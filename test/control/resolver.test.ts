// Needs root. A gateway joins two links; `left` is the host whose next hops are resolved:
//
//     left eth0 192.0.2.1 ------+------ 192.0.2.2 peer
//                               +------ 192.0.2.254 gateway 203.0.113.254 ------ 203.0.113.1 far
//     left eth1 198.51.100.1 ---------- 198.51.100.2 other

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import test, { type TestContext } from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { Host } from '../../control/host.ts';
import { releaseNeighbours } from '../../control/neighbours.ts';
import type { Path } from '../../control/path.ts';
import { Resolver, type ResolverOptions } from '../../control/resolver.ts';
import { lacking } from '../net/requirements.ts';

const skip = lacking();
const LOCAL = { local: '192.0.2.1', dev: 'eth0' };

function build(t: TestContext) {
  const network = Network.build(t, {
    hosts: { left: {}, peer: {}, gateway: { forward: true }, far: {}, other: {} },
    switches: { switch: ['left eth0 192.0.2.1/24', 'peer eth0 192.0.2.2/24', 'gateway eth0 192.0.2.254/24'] },
    links: [
      ['gateway eth1 203.0.113.254/24', 'far eth0 203.0.113.1/24'],
      ['left eth1 198.51.100.1/24', 'other eth0 198.51.100.2/24'],
    ],
    routes: { left: ['203.0.113.0/24 via 192.0.2.254'] },
  });
  const left = network.host('left');
  return { network, left, host: new Host(left.inside([])) };
}

/** What the resolver has handed on, as the FDB would see it. */
function start(t: TestContext, host: Host, options?: ResolverOptions) {
  const paths = new Map<number, Path>();
  const reasons = new Map<number, string>();
  const calls: string[] = [];
  const resolver = new Resolver(
    host,
    {
      publish(index, path) {
        calls.push(`publish ${index}`);
        if (path) paths.set(index, path);
        reasons.delete(index);
      },
      unresolve(index, reason) {
        calls.push(`unresolve ${index}`);
        paths.delete(index);
        reasons.set(index, reason);
      },
    },
    options,
  );
  t.after(() => resolver.stop());
  return { resolver, paths, reasons, calls };
}

test('resolves on-link, gateway and multicast remotes ahead of traffic', { skip }, async (t) => {
  const { host, left, network } = build(t);
  const { resolver, paths, reasons } = start(t, host);
  resolver.add(1, { remote: '192.0.2.2', ...LOCAL });
  resolver.add(2, { remote: '203.0.113.1', ...LOCAL });
  resolver.add(3, { remote: '239.1.2.3', ...LOCAL });
  resolver.add(4, { remote: '198.51.100.2' });
  await eventually('all resolved', () => paths.size === 4);
  const base = {
    dev: 'eth0',
    ifindex: left.ipJson('link show dev eth0')[0].ifindex,
    sourceMac: left.mac('eth0'),
    source: '192.0.2.1',
    gateway: undefined,
    mtu: 1500,
  };
  const [peer, gateway] = ['peer', 'gateway'].map((name) => network.host(name).mac('eth0'));
  assert.deepEqual(paths.get(1), { ...base, destination: '192.0.2.2', destinationMac: peer });
  assert.deepEqual(paths.get(2), {
    ...base,
    destination: '203.0.113.1',
    destinationMac: gateway,
    gateway: '192.0.2.254',
  });
  assert.deepEqual(paths.get(3), { ...base, destination: '239.1.2.3', destinationMac: '01:00:5e:01:02:03' });
  assert.equal(paths.get(4)?.dev, 'eth1');
  assert.equal(paths.get(4)?.source, '198.51.100.1');
  assert.deepEqual([...reasons, ...resolver.reasons()], []);
  assert.deepEqual(resolver.path(1), paths.get(1));
});

test('says why a next hop is not resolved', { skip }, async (t) => {
  const { host } = build(t);
  const { resolver, reasons } = start(t, host);
  const expected: [string, Parameters<Resolver['add']>[1]][] = [
    ['192.0.2.9 does not answer ARP on eth0', { remote: '192.0.2.9', ...LOCAL }],
    ['no route to 198.18.0.1', { remote: '198.18.0.1' }],
    ['192.0.2.1 is ours', { remote: '192.0.2.1', ...LOCAL, ifLocal: { reason: '192.0.2.1 is ours', isDropped: true } }],
    ['192.0.2.255 is a broadcast address on eth0', { remote: '192.0.2.255', ...LOCAL }],
    [
      "local address 192.0.2.77 is not one of this machine's",
      { remote: '192.0.2.2', local: '192.0.2.77', dev: 'eth0' },
    ],
    ['there is no device eth7', { remote: '192.0.2.2', dev: 'eth7' }],
    ['the route to 198.51.100.2 goes through eth1, not through eth0', { remote: '198.51.100.2', ...LOCAL }],
  ];
  for (const [index, [, target]] of expected.entries()) resolver.add(index, target);
  await eventually('the first reasons', () => reasons.size === expected.length);
  assert.equal(reasons.get(0), 'waiting for 192.0.2.9 to answer ARP on eth0');
  const settled = () => [...resolver.reasons()].sort(([a], [b]) => a - b).map(([, reason]) => reason);
  const sentences = expected.map(([reason]) => reason);
  // The kernel asks three times, once a second, before it gives up.
  await eventually('final reasons', () => JSON.stringify(settled()) === JSON.stringify(sentences)).catch(() => {
    assert.deepEqual(settled(), sentences);
  });
});

test('follows the host', { skip }, async (t) => {
  const { host, left, network } = build(t);
  const { resolver, paths, reasons, calls } = start(t, host);
  resolver.add(1, { remote: '192.0.2.2', ...LOCAL });
  resolver.add(2, { remote: '203.0.113.1', ...LOCAL });
  await eventually('both resolved', () => paths.size === 2);
  const follows = async (what: string, change: () => void, seen: () => boolean) => {
    change();
    await eventually(what, seen);
  };
  const peer = network.host('peer');
  calls.length = 0;
  await follows(
    "the neighbour's MAC",
    () => {
      peer.ip('link set eth0 address 02:00:00:00:00:99');
      peer.exec('ping -c 1 -W 1 192.0.2.1'); // it asks for our MAC, and so shows its own
    },
    () => paths.get(1)?.destinationMac === '02:00:00:00:00:99',
  );
  await follows(
    "the NIC's MAC",
    () => left.ip('link set eth0 address 02:00:00:00:00:01'),
    () => paths.get(1)?.sourceMac === '02:00:00:00:00:01' && paths.get(2)?.sourceMac === '02:00:00:00:00:01',
  );
  await follows(
    "the NIC's MTU",
    () => left.ip('link set eth0 mtu 1450'),
    () => paths.get(1)?.mtu === 1450,
  );
  await follows(
    "the route's MTU",
    () => left.ip('route replace 203.0.113.0/24 via 192.0.2.254 mtu 1400'),
    () => paths.get(2)?.mtu === 1400,
  );
  await follows(
    'the gateway',
    () => left.ip('route replace 203.0.113.0/24 via 192.0.2.2'),
    () => paths.get(2)?.gateway === '192.0.2.2' && paths.get(2)?.destinationMac === '02:00:00:00:00:99',
  );
  assert.ok(!calls.some((call) => call.startsWith('unresolve')), `no gap: ${calls}`);
  await follows(
    'the route that is gone',
    () => left.ip('route del 203.0.113.0/24'),
    () => reasons.get(2) === 'no route to 203.0.113.1' || reasons.get(2)?.startsWith('waiting for') === true,
  );
  await follows(
    'the NIC that is down',
    () => left.ip('link set eth0 down'),
    () => reasons.get(1) === 'eth0 is down',
  );
  await follows(
    'the NIC that is up again',
    () => left.ip('link set eth0 up'),
    () => paths.has(1),
  );
});

test('a flushed neighbour is asked for again while its MAC goes on being used', { skip }, async (t) => {
  const { host, left } = build(t);
  const { resolver, paths, calls } = start(t, host);
  resolver.add(1, { remote: '192.0.2.2', ...LOCAL });
  await eventually('resolved', () => paths.size === 1);
  calls.length = 0;
  left.ip('neigh flush dev eth0');
  type Row = { managed?: null; lladdr?: string };
  const row = () => left.ipJson<Row[]>('neigh show 192.0.2.2 dev eth0')[0];
  await eventually('managed again', () => row()?.lladdr !== undefined && 'managed' in row()!);
  assert.deepEqual(calls, []);
});

test('permanent, NOARP and externally learned neighbours are used and left alone', { skip }, async (t) => {
  const { host, left } = build(t);
  left.ip('neigh add 192.0.2.2 lladdr 02:00:00:00:00:11 dev eth0 nud permanent');
  left.ip('neigh add 192.0.2.12 lladdr 02:00:00:00:00:12 dev eth0 nud noarp');
  left.ip('neigh add 192.0.2.13 lladdr 02:00:00:00:00:13 dev eth0 nud reachable extern_learn');
  const before = left.ip('neigh show nud all dev eth0 192.0.2.0/24');
  const { resolver, paths } = start(t, host);
  for (const [index, last] of [2, 12, 13].entries()) resolver.add(index, { remote: `192.0.2.${last}`, ...LOCAL });
  await eventually('resolved', () => paths.size === 3);
  assert.deepEqual([...paths.values()].map(({ destinationMac }) => destinationMac).sort(), [
    '02:00:00:00:00:11',
    '02:00:00:00:00:12',
    '02:00:00:00:00:13',
  ]);
  await resolver.refresh();
  await resolver.stop();
  assert.equal(left.ip('neigh show nud all dev eth0 192.0.2.0/24'), before);
});

test('a neighbour that the administrator makes permanent is no longer ours', { skip }, async (t) => {
  const { host, left } = build(t);
  const { resolver, paths } = start(t, host);
  resolver.add(1, { remote: '192.0.2.2', ...LOCAL });
  await eventually('resolved', () => paths.size === 1);
  left.ip('neigh replace 192.0.2.2 lladdr 02:00:00:00:00:11 dev eth0 nud permanent');
  await eventually('its MAC', () => paths.get(1)?.destinationMac === '02:00:00:00:00:11');
  await resolver.stop();
  assert.match(left.ip('neigh show 192.0.2.2'), /02:00:00:00:00:11 PERMANENT/);
});

test('neighbours are managed while a next hop needs them', { skip }, async (t) => {
  const { host, left } = build(t);
  const managed = () =>
    left
      .ipJson<{ dst: string; managed?: null }[]>('neigh show dev eth0')
      .filter((row) => 'managed' in row)
      .map(({ dst }) => dst)
      .sort();
  left.ip('neigh add 192.0.2.77 dev eth0 managed'); // somebody else's
  const { resolver, paths } = start(t, host);
  resolver.add(1, { remote: '192.0.2.2', ...LOCAL });
  resolver.add(2, { remote: '192.0.2.2', ...LOCAL });
  resolver.add(3, { remote: '192.0.2.254', ...LOCAL });
  resolver.add(4, { remote: '192.0.2.9', ...LOCAL });
  await eventually('resolved', () => paths.size === 3);
  assert.deepEqual(managed(), ['192.0.2.2', '192.0.2.254', '192.0.2.77', '192.0.2.9']);
  for (const index of [1, 3, 4]) resolver.release(index);
  await eventually('released', () => managed().length === 2);
  assert.deepEqual(managed(), ['192.0.2.2', '192.0.2.77']);
  assert.match(left.ip('neigh show 192.0.2.254'), /STALE/);
  assert.equal(left.ip('neigh show 192.0.2.9'), '');
  await resolver.stop();
  assert.deepEqual(managed(), ['192.0.2.77']);
});

test('neighbours of a resolver that was killed are found and released', { skip }, async (t) => {
  const { host, left } = build(t);
  const url = (file: string) => JSON.stringify(new URL(`../../control/${file}.js`, import.meta.url).href);
  const script = `import { Host } from ${url('host')}; import { Resolver } from ${url('resolver')};
    const resolver = new Resolver(new Host(${JSON.stringify(host.iproute.prefix)}), { publish: () => console.log('ready'), unresolve() {} });
    resolver.add(1, ${JSON.stringify({ remote: '192.0.2.2', ...LOCAL })});`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.kill('SIGKILL');
  assert.match(left.ip('neigh show 192.0.2.2'), /managed/);
  await releaseNeighbours(host);
  assert.doesNotMatch(left.ip('neigh show 192.0.2.2'), /managed/);
});

test('without managed neighbours they are probed', { skip }, async (t) => {
  const { host, left } = build(t);
  const { resolver, paths, reasons } = start(t, host, { managed: false });
  resolver.add(1, { remote: '192.0.2.2', ...LOCAL });
  resolver.add(2, { remote: '192.0.2.9', ...LOCAL });
  await eventually('resolved', () => paths.has(1));
  assert.doesNotMatch(left.ip('neigh show dev eth0'), /managed/);
  await eventually('no answer', () => reasons.get(2) === '192.0.2.9 does not answer ARP on eth0');
  left.ip(`neigh change 192.0.2.2 lladdr ${paths.get(1)!.destinationMac} dev eth0 nud stale`);
  // STALE -> DELAY at once, and 5 s later it is asked.
  await eventually('probed', () => /DELAY|PROBE|REACHABLE/.test(left.ip('neigh show 192.0.2.2')));
});

test('for the host itself nothing is asked for, and what keeps it from sending is told', { skip }, async (t) => {
  const { host, left } = build(t);
  const { resolver, paths, reasons } = start(t, host);
  const viaHost = true;
  resolver.add(1, { remote: '192.0.2.2', local: '192.0.2.1', viaHost });
  resolver.add(2, { remote: '198.18.0.1', local: '192.0.2.1', viaHost });
  resolver.add(3, { remote: '192.0.2.9', local: '192.0.2.1', viaHost });
  await resolver.settled();
  assert.deepEqual(reasons, new Map([[2, 'no route to 198.18.0.1']]));
  assert.deepEqual(resolver.reasons(), reasons);
  assert.equal(left.ip('neigh show'), '');
  left.ip('route add 198.18.0.0/16 via 192.0.2.254');
  await eventually('a route', () => reasons.size === 0);
  // The kernel tells of an entry that fails only if it was valid before (__neigh_update).
  left.ip('neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud reachable');
  left.ip('neigh change 192.0.2.9 dev eth0 nud failed');
  await eventually('no answer', () => reasons.get(3) === '192.0.2.9 does not answer ARP on eth0');
  left.ip('neigh replace 192.0.2.9 dev eth0 nud incomplete');
  await resolver.refresh();
  assert.equal(reasons.size, 1, 'asked again is not yet reached');
  left.ip('neigh replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud reachable');
  await eventually('an answer', () => reasons.size === 0);
  assert.equal(paths.size, 0);
});

test('many next hops cost one lookup of each target, and a change of the host one pass', { skip }, async (t) => {
  const { host, left } = build(t);
  const { resolver, paths, calls } = start(t, host);
  const count = 5000;
  for (let i = 0; i < count; i++) resolver.add(i, { remote: `203.0.113.${1 + (i % 250)}`, ...LOCAL });
  await eventually('all resolved', () => paths.size === count);
  await resolver.settled();
  calls.length = 0;
  left.ip('route replace 203.0.113.0/24 via 192.0.2.2');
  await eventually('all follow', () => [...paths.values()].every(({ gateway }) => gateway === '192.0.2.2'));
  left.ip('neigh add 192.0.2.99 lladdr 02:00:00:00:00:99 dev eth0');
  await resolver.refresh();
  assert.ok(calls.length <= 2 * count, `${calls.length} calls`);
});

test('a host that cannot be read says so once, and next hops say why', { skip }, async (t) => {
  const warnings: string[] = [];
  const { resolver } = start(t, new Host(['uvxlan-no-such-program']), { warn: (message) => warnings.push(message) });
  resolver.add(1, { remote: '192.0.2.2' });
  await eventually('a reason', () => resolver.reasons().get(1)?.includes('not found: install') === true);
  await resolver.refresh();
  assert.equal(warnings.length, 1);
});
