import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { addDirectory, removeDirectory } from '../../cli/lab/namespace.ts';
import { VERSION } from '../../control/protocol.ts';
import { DROPS } from '../../dataplane/drops.ts';
import { CAPABILITY_WORDS } from '../../system/capabilities.ts';
import { FakeDaemon, fakeLink } from '../control/fake-daemon.ts';
import { commandLine } from './command.ts';

test('every command has help, which names the exit status', async (t) => {
  const uvxlan = await commandLine(t);
  for (const words of [
    '--help',
    'help',
    'up --help',
    'link -h',
    'fdb help',
    'stats -help',
    'monitor -h',
    'nexthop -h',
    'mdb -h',
    'cleanup --help',
    'neigh help',
  ]) {
    const { status, stdout, stderr } = await uvxlan(words);
    assert.deepEqual([status, stderr], [0, ''], words);
    assert.match(stdout, /^Usage: uvxlan/, words);
    assert.match(stdout, /Exit status: 0/, words);
    assert.ok(
      stdout.split('\n').every((line) => line.length <= 130),
      words,
    );
  }
  assert.deepEqual(await uvxlan('--version'), { status: 0, stdout: `uvxlan ${VERSION}\n`, stderr: '' });
  for (const words of ['-V', 'flannel --version'])
    assert.equal((await uvxlan(words)).stdout, `uvxlan ${VERSION}\n`, words);
});

const USAGE: [string, string][] = [
  ['', 'a command is missing, see uvxlan --help'],
  ['fbd show', 'command "fbd" is unknown, did you mean "fdb"?'],
  ['up', 'a device or --config FILE is missing, see uvxlan up --help'],
  ['up v1 id 1 --config x.yaml', 'unknown word "v1" beside --config: the devices stand in the file'],
  ['up v1 id 99999999', 'argument "99999999" is wrong: invalid id, it is out of range 0..16777215'],
  ['up --config /nonexistent/x.yaml', 'cannot read the configuration /nonexistent/x.yaml (ENOENT)'],
  [
    'up v1 id 1 --without gro,frob',
    `--without: "frob" is unknown, known are ${Object.keys(CAPABILITY_WORDS).join(',')}`,
  ],
  ['fdb frobnicate', 'Command "frobnicate" is unknown, try "uvxlan fdb --help"'],
  ['fdb add dev v4', 'Device and address are required arguments.'],
  ['link show a b', 'unknown word "b" after the device "a"'],
  ['link show a/b', 'argument "a/b" is wrong: invalid device name, it is not a valid interface name'],
  ['stats -s', 'option "-s" is unknown here, known are --details, --json, --pretty and --help'],
  ['monitor frob', 'Command "frob" is unknown, try "uvxlan monitor --help"'],
  ['cleanup now', 'unknown word "now": cleanup takes only offload-pin DIR'],
  ['fdb -batch x show', 'unknown word "show" beside -batch x'],
];

for (const [words, message] of USAGE) {
  test(`usage: uvxlan ${words}`, async (t) => {
    const uvxlan = await commandLine(t);
    assert.deepEqual(await uvxlan(words), { status: 2, stdout: '', stderr: `uvxlan: ${message}\n` });
  });
}

test('all mistakes of a configuration are listed, one a line', async (t) => {
  const directory = addDirectory();
  t.after(() => removeDirectory(directory));
  const file = join(directory, 'uvxlan.yaml');
  writeFileSync(file, 'devices:\n  - name: vx1\n    id: 16777216\n    frob: 1\n');
  const { status, stderr } = await (await commandLine(t))(['up', '--config', file]);
  assert.equal(status, 2);
  assert.match(stderr, /^uvxlan: .*uvxlan\.yaml:3:9: devices\[0\]\.id: 16777216 is out of range 0\.\.16777215\n/);
  assert.match(stderr, /\nuvxlan: .*uvxlan\.yaml:4:5: devices\[0\]\.frob: unknown key, .*\n$/);
});

test('without a daemon every client command says so and names the socket', async (t) => {
  const uvxlan = await commandLine(t);
  for (const words of ['fdb show', 'link show', 'stats', 'fdb -batch -']) {
    const { status, stdout, stderr } = await uvxlan(words);
    assert.deepEqual([status, stdout], [1, ''], words);
    assert.match(
      stderr,
      /^uvxlan: Is the daemon running\? Nobody serves .*\/uvxlan-cli-\w+\/\d+\.sock \(ENOENT\)/,
      words,
    );
  }
});

test('cleanup refuses while a daemon runs', async (t) => {
  const uvxlan = await commandLine(t, new FakeDaemon());
  const { status, stderr } = await uvxlan('cleanup');
  assert.equal(status, 1);
  assert.match(
    stderr,
    /^uvxlan: a uvxlan daemon already runs in this network namespace \(it serves .*\): stop it first\n$/,
  );
});

test('link show prints a device, its details and its counters', async (t) => {
  const uvxlan = await commandLine(t, new FakeDaemon([fakeLink('flannel.1'), fakeLink('vx2')]));
  const { stdout, status } = await uvxlan('link show dev flannel.1 -d -s');
  assert.equal(status, 0);
  assert.equal(
    stdout,
    `7: flannel.1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc mq state UP mode DEFAULT group default qlen 1000
    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff
    vxlan id 6 local 192.0.2.1 dev eth0 srcport 0 0 dstport 8472 nolearning ttl auto ageing 300 udpcsum noudp6zerocsumtx noudp6zerocsumrx
    uvxlan uplink redirect (tunnel GSO works here) workers 2 macs 3 nexthops 2 unresolved 1
    unresolved 192.0.2.9 (no answer from 192.0.2.9)
    RX:  bytes packets errors dropped missed  mcast
             0       0      0       0      0      0
    TX:  bytes packets errors dropped carrier collsns
             0       0      0       0       0       0
`,
  );
  assert.equal((await uvxlan('link')).stdout.split('\n').length, 5);
  const { stats64: _, ...link } = fakeLink('vx2');
  assert.deepEqual(JSON.parse((await uvxlan('-j link show vx2')).stdout), [link]);
  assert.deepEqual(JSON.parse((await uvxlan('link show -j -s -p vx2')).stdout), [fakeLink('vx2')]);
  assert.deepEqual(await uvxlan('link show vx9'), {
    status: 1,
    stdout: '',
    stderr: 'uvxlan: Cannot find device "vx9"\n',
  });
});

test('link show -d names each VTEP that is not resolved once, and ten at most', async (t) => {
  const link = fakeLink('v4');
  const reason = 'no answer';
  const unresolved = Array.from({ length: 24 }, (_, i) => ({ dst: `192.0.2.${1 + (i >> 1)}`, reason }));
  unresolved.push({ dst: '192.0.2.1', reason: 'no route' });
  const uvxlan = await commandLine(t, new FakeDaemon([{ ...link, uvxlan: { ...link.uvxlan, unresolved } }]));
  const lines = (await uvxlan('link show -d')).stdout.trimEnd().split('\n').slice(4);
  assert.equal(lines.length, 11);
  assert.equal(lines[0], '    unresolved 192.0.2.1 (no answer)');
  assert.equal(lines[9], '    unresolved 192.0.2.10 (no answer)');
  assert.equal(lines[10], '    and 3 more (uvxlan -j link show has all)');
});

test('stats tells what each drop means, and shows the equation', async (t) => {
  const daemon = new FakeDaemon();
  const [drop] = DROPS.filter(({ direction }) => direction === 'tx');
  daemon.counters = [
    {
      ifname: 'v4',
      tx: { in: 10, copies: 4, out: 11, bytes: 1100, drops: { [drop.name]: 3, other: 0 } },
      rx: { in: 5, copies: 0, out: 5, bytes: 500, drops: { other: 0 } },
    },
  ];
  const uvxlan = await commandLine(t, daemon);
  assert.deepEqual(await uvxlan('stats'), {
    status: 0,
    stderr: '',
    stdout: `v4
  tx: in 10 + copies 4 = out 11 + drops 3; 1100 bytes
    ${drop.name} 3
        ${drop.meaning}
        ${drop.advice}
  rx: in 5 = out 5 + drops 0; 500 bytes
`,
  });
  assert.match((await uvxlan('stats v4 -d')).stdout, /\n {4}other 0\n {8}a reason that this client does not know\n/);
  assert.deepEqual(JSON.parse((await uvxlan('stats -j')).stdout), daemon.counters);
});

test('a reader that goes away is no failure', async (t) => {
  const daemon = new FakeDaemon();
  const record = {
    mac: '02:00:00:00:00:01',
    ifname: 'v4',
    dst: '192.0.2.2',
    flags: ['self'],
    state: 'permanent' as const,
  };
  daemon.entries = Array.from({ length: 20_000 }, () => record);
  const uvxlan = await commandLine(t, daemon);
  assert.equal((await uvxlan('fdb show')).stdout.length, 20_000 * 54);
  const { status, stderr, stdout } = await uvxlan('fdb show', '', true);
  assert.deepEqual([status, stderr], [0, '']);
  assert.ok(stdout.length < 20_000 * 54);
});
