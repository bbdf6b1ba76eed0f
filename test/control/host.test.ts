// Needs root: reads and changes links, routes and neighbours of network namespaces of its own.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { Host } from '../../control/host.ts';
import { CommandFailed, Iproute } from '../../control/iproute.ts';
import { type Change, Watch } from '../../control/watch.ts';
import { lacking } from '../net/requirements.ts';

const skip = lacking();

function build(t: TestContext) {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']],
    routes: { left: ['198.51.100.0/24 via 192.0.2.2 mtu 1400', 'blackhole 198.18.0.0/24'] },
  });
  const left = network.host('left');
  return { network, left, prefix: left.inside([]), host: new Host(left.inside([])) };
}

test('reads a link with its details', { skip }, async (t) => {
  const { host, left } = build(t);
  const link = await host.link('eth0');
  assert.deepEqual(link, {
    name: 'eth0',
    ifindex: left.ipJson('link show dev eth0')[0].ifindex,
    type: 'ether',
    kind: 'veth',
    mac: left.mac('eth0'),
    mtu: 1500,
    up: true,
    noarp: false,
    master: undefined,
    gsoMaxSize: 65536,
    alias: undefined,
  });
  assert.equal(await host.link('eth7'), undefined);
  assert.deepEqual(
    (await host.links()).map(({ name, mac, type }) => [name, mac !== undefined, type]),
    [
      ['lo', false, 'loopback'],
      ['eth0', true, 'ether'],
    ],
  );
});

test('changes several settings of a link at once', { skip }, async (t) => {
  const { host } = build(t);
  await host.setLink('eth0', { mtu: 1450, address: '02:00:00:00:00:07', gsoMaxSize: 60_000, arp: false, up: false });
  const { mtu, mac, gsoMaxSize, noarp, up } = (await host.link('eth0'))!;
  assert.deepEqual(
    { mtu, mac, gsoMaxSize, noarp, up },
    { mtu: 1450, mac: '02:00:00:00:00:07', gsoMaxSize: 60_000, noarp: true, up: false },
  );
  await assert.rejects(host.setLink('eth7', { up: true }), (error: CommandFailed) => {
    assert.equal(error.message, 'ip link set dev eth7 up: Cannot find device "eth7"');
    return true;
  });
});

test('lists addresses with their devices', { skip }, async (t) => {
  const addresses = await build(t).host.addresses();
  assert.deepEqual(
    addresses.find(({ address }) => address === '192.0.2.1'),
    {
      address: '192.0.2.1',
      family: 'inet',
      scope: 'global',
      dev: 'eth0',
    },
  );
});

test('asks for many routes in one process, and keeps errors in their places', { skip }, async (t) => {
  const { host } = build(t);
  const queries = Array.from({ length: 3000 }, (_, i) => ({ destination: `198.51.100.${i % 250}`, dev: 'eth0' }));
  const answers = await host.routes([
    { destination: '203.0.113.1' },
    { destination: '192.0.2.2', source: '192.0.2.1', dev: 'eth0' },
    { destination: '198.18.0.1' },
    { destination: '192.0.2.1' },
    { destination: '192.0.2.255' },
    { destination: '198.51.100.9' },
    ...queries,
  ]);
  assert.equal(answers.length, 3006);
  const [unreachable, onLink, blackhole, local, broadcast, remote] = answers;
  assert.ok(unreachable instanceof CommandFailed);
  assert.equal(unreachable.message, 'ip route get 203.0.113.1: RTNETLINK answers: Network is unreachable');
  assert.deepEqual(onLink, { type: 'unicast', dev: 'eth0', gateway: undefined, source: undefined, mtu: undefined });
  assert.ok(blackhole instanceof CommandFailed);
  assert.deepEqual(local, { type: 'local', dev: 'lo', gateway: undefined, source: '192.0.2.1', mtu: undefined });
  assert.ok(!(broadcast instanceof CommandFailed) && broadcast.type === 'broadcast');
  assert.deepEqual(remote, { type: 'unicast', dev: 'eth0', gateway: '192.0.2.2', source: '192.0.2.1', mtu: 1400 });
  assert.ok(answers.slice(6).every((answer) => !(answer instanceof CommandFailed) && answer.gateway === '192.0.2.2'));
});

test('reads neighbours with their states and who set them', { skip }, async (t) => {
  const { host, left } = build(t);
  left.ip('neigh add 192.0.2.60 lladdr 02:00:00:00:00:60 dev eth0 nud permanent');
  left.ip('neigh add 192.0.2.61 lladdr 02:00:00:00:00:61 dev eth0 nud noarp');
  left.ip('neigh add 192.0.2.62 lladdr 02:00:00:00:00:62 dev eth0 nud reachable extern_learn protocol 77');
  const neighbours = await host.neighbours();
  const found = ['192.0.2.60', '192.0.2.61', '192.0.2.62'].map((ip) =>
    neighbours.find(({ address }) => address === ip),
  );
  const base = { dev: 'eth0', managed: false, externallyLearned: false, isRouter: false, protocol: undefined };
  assert.deepEqual(found, [
    { ...base, address: '192.0.2.60', mac: '02:00:00:00:00:60', state: 'PERMANENT' },
    { ...base, address: '192.0.2.61', mac: '02:00:00:00:00:61', state: 'NOARP' },
    {
      ...base,
      address: '192.0.2.62',
      mac: '02:00:00:00:00:62',
      state: 'REACHABLE',
      externallyLearned: true,
      protocol: '77',
    },
  ]);
});

test('a change that fails does not keep back the others of its batch', { skip }, async (t) => {
  const { left, prefix } = build(t);
  const errors = await new Iproute(prefix).apply([
    'neigh add 192.0.2.60 lladdr 02:00:00:00:00:60 dev eth0',
    'neigh add 192.0.2.60 lladdr 02:00:00:00:00:60 dev eth0',
    'neigh add 192.0.2.61 lladdr 02:00:00:00:00:61 dev eth7',
    'neigh del 192.0.2.99 dev eth0',
    'neigh add 192.0.2.62 lladdr 02:00:00:00:00:62 dev eth0',
  ]);
  assert.deepEqual([...errors].map(([line, { reason }]) => [line, reason]).sort(), [
    [1, 'RTNETLINK answers: File exists'],
    [2, 'Cannot find device "eth7"'],
    [3, 'RTNETLINK answers: No such file or directory'],
  ]);
  assert.equal(left.ipJson('neigh show 192.0.2.62').length, 1);
});

test('a batch that fails everywhere ends, with an error for each line', { skip }, async (t) => {
  const { prefix } = build(t);
  const lines = Array.from({ length: 200 }, (_, i) => `neigh del 192.0.2.${i + 3} dev eth0`);
  const errors = await new Iproute(prefix).apply(lines);
  assert.equal(errors.size, 200);
  assert.equal(
    errors.get(199)?.reason,
    'not tried after others had failed: RTNETLINK answers: No such file or directory',
  );
});

test('commands of one shell: what each prints, and what each fails with', async () => {
  const answers = await new Iproute().runEach([
    ['printf', '%s\\n', "a 'b' $c ====", '"d"'],
    ['printf', 'no newline'],
    ['sh', '-c', 'echo out; echo why >&2; exit 3'],
    ['ip-no-such-program', 'x'],
    ['true'],
  ]);
  assert.deepEqual(
    answers.map((answer) => (answer instanceof CommandFailed ? [answer.message] : answer)),
    [
      `a 'b' $c ====\n"d"\n`,
      'no newline',
      ['sh -c echo out; echo why >&2; exit 3: why'],
      ['ip-no-such-program x: not found: install the package ip-no-such-program'],
      '',
    ],
  );
  assert.deepEqual(await new Iproute().runEach([]), []);
  await assert.rejects(new Iproute(['sh', '-c', 'echo no shell >&2; exit 1']).runEach([['true']]), /: no shell/);
});

test('a missing program is named with its package', async () => {
  await assert.rejects(
    new Iproute(['uvxlan-no-such-program']).run('ip', ['link']),
    /ip link: not found: install the package/,
  );
});

test('missing privilege says what is needed', { skip }, async (t) => {
  const unprivileged = new Host([...build(t).prefix, 'setpriv', '--bounding-set=-net_admin', '--']);
  await assert.rejects(
    unprivileged.setLink('eth0', { mtu: 1400 }),
    /Operation not permitted \(it needs root or CAP_NET_ADMIN\)/,
  );
});

test('tells what kind of thing has changed, in bursts', { skip }, async (t) => {
  const { left, prefix } = build(t);
  const calls: Set<Change>[] = [];
  const watch = new Watch(prefix, (changes) => calls.push(changes));
  t.after(() => watch.stop());
  await eventually('the first callback, of all kinds', () => calls.length === 1 && calls[0].size === 4);
  const changes: [Change, string][] = [
    ['link', 'link set eth0 mtu 1400'],
    ['address', 'address add 192.0.2.11/32 dev eth0'],
    ['route', 'route add 203.0.113.0/24 via 192.0.2.2'],
    ['route', 'rule add pref 100 lookup main'],
    ['neigh', 'neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0'],
  ];
  for (const [kind, command] of changes) {
    calls.length = 0;
    left.ip(command);
    await eventually(command, () => calls.some((seen) => seen.has(kind)));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  calls.length = 0;
  for (let i = 20; i < 50; i++) left.ip(`neigh add 192.0.2.${i} lladdr 02:00:00:00:00:09 dev eth0`);
  await eventually('a call', () => calls.length > 0);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.ok(calls.length < 15, `${calls.length} calls for 30 events`);
});

test('watching goes on when ip monitor dies, and all counts as changed', { skip }, async (t) => {
  const { prefix } = build(t);
  const calls: Set<Change>[] = [];
  const watch = new Watch(prefix, (changes) => calls.push(changes));
  t.after(() => watch.stop());
  await eventually('the first callback', () => calls.length === 1);
  const { pid } = watch;
  process.kill(pid!, 'SIGKILL');
  await eventually('another process', () => watch.pid !== undefined && watch.pid !== pid);
  await eventually('the second callback', () => calls.length === 2 && calls[1].size === 4);
});

test('ip monitor ends with the process that watches, also when that is killed', { skip }, async (t) => {
  const { prefix } = build(t);
  const script = `import { Watch } from ${JSON.stringify(new URL('../../control/watch.js', import.meta.url).href)};
    const watch = new Watch(${JSON.stringify(prefix)}, () => console.log(watch.pid));`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const pid = Number(await new Promise((resolve) => child.stdout.once('data', resolve)));
  assert.ok(isAlive(pid));
  child.kill('SIGKILL');
  await eventually('ip monitor ended', () => !isAlive(pid));
});

/** False for a zombie too, which waits for the init process. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'));
  } catch {
    return false;
  }
}
