import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { addDirectory, addNamespace, removeDirectory, removeNamespaces } from '../../cli/lab/namespace.ts';
import type { LinkRecord } from '../../control/protocol.ts';
import { FakeDaemon, fakeLink, OWN } from '../control/fake-daemon.ts';
import { lacking } from '../net/requirements.ts';
import { commandLine } from './command.ts';

const MAC = '02:00:00:00:00:01';
const KERNEL = { skip: lacking('kernel-vxlan') };

test('entries are added, shown, deleted and flushed', async (t) => {
  const uvxlan = await commandLine(t, new FakeDaemon());
  for (const words of [
    'fdb append 00:00:00:00:00:00 dev v4 dst 192.0.2.2',
    'fdb append 00:00:00:00:00:00 dev v4 dst 192.0.2.3 port 4789',
    'fdb add 02:00:00:00:00:01 dev v4 dst 192.0.2.2 vni 7 static',
    'fdb replace 02:00:00:00:00:01 dev v4 dst 192.0.2.3 via eth0 dynamic',
  ]) {
    assert.deepEqual(await uvxlan(words), { status: 0, stdout: '', stderr: '' }, words);
  }
  assert.equal(
    (await uvxlan('fdb show')).stdout,
    '02:00:00:00:00:01 dev v4 dst 192.0.2.3 via eth0 self \n' +
      '00:00:00:00:00:00 dev v4 dst 192.0.2.2 self permanent\n' +
      '00:00:00:00:00:00 dev v4 dst 192.0.2.3 port 4789 self permanent\n',
  );
  assert.deepEqual(await uvxlan('fdb add 02:00:00:00:00:01 dev v4 dst 192.0.2.2'), {
    status: 1,
    stdout: '',
    stderr: 'uvxlan: File exists\n',
  });
  assert.equal((await uvxlan('fdb del 00:00:00:00:00:00 dev v4 dst 192.0.2.2')).status, 0);
  assert.equal((await uvxlan('fdb del 02:00:00:00:00:01 dev v4')).status, 0);
  assert.equal((await uvxlan('fdb')).stdout, '00:00:00:00:00:00 dev v4 dst 192.0.2.3 port 4789 self permanent\n');
  assert.equal(
    (await uvxlan('-s fdb get 00:00:00:00:00:00 dev v4')).stdout,
    '00:00:00:00:00:00 dev v4 dst 192.0.2.3 port 4789 used 3/4 self permanent\n',
  );
  assert.equal(
    (await uvxlan('fdb get to 00:00:00:00:00:00 dev v4')).stdout,
    '00:00:00:00:00:00 dev v4 dst 192.0.2.3 port 4789 self permanent\n',
  );
  assert.equal((await uvxlan('fdb flush dev v4')).status, 0);
  assert.deepEqual(await uvxlan('fdb show'), { status: 0, stdout: '', stderr: '' });
  assert.equal((await uvxlan('fdb show -j')).stdout, '[]\n');
  assert.equal((await uvxlan('fdb show dev v9')).stderr, 'uvxlan: Cannot find device "v9"\n');
});

test('get prints the last changes behind the entry', async (t) => {
  const daemon = new FakeDaemon();
  daemon.entries = [{ mac: MAC, ifname: 'v4', dst: '192.0.2.3', flags: ['self'], state: '' }];
  const time = new Date(2026, 2, 1, 9, 30).getTime();
  const history = [
    { time: time + 5, event: 'moved', dst: '192.0.2.3', from: '192.0.2.2' },
    { time, event: 'learned', dst: '192.0.2.2' },
  ] as const;
  daemon.history = { changes: 2, history };
  const uvxlan = await commandLine(t, daemon);
  const lines = [
    `${MAC} dev v4 dst 192.0.2.3 self `,
    '    2026-03-01 09:30:00.005 moved dst 192.0.2.3 from 192.0.2.2',
    '    2026-03-01 09:30:00.000 learned dst 192.0.2.2',
  ];
  assert.equal((await uvxlan(`fdb get ${MAC} dev v4`)).stdout, `${lines.join('\n')}\n`);
  const [record] = JSON.parse((await uvxlan(`-j fdb get ${MAC} dev v4`)).stdout);
  assert.deepEqual(record, { ...daemon.entries[0], changes: 2, history });
  daemon.history = { changes: 30, history };
  assert.match((await uvxlan(`fdb get ${MAC} dev v4`)).stdout, /\n {4}of 30 changes\n$/);
});

const BATCH = `# three good ones, with and without the object
fdb add 02:00:00:00:00:01 dev v4 dst 192.0.2.1
add 02:00:00:00:00:02 dev v4 dst 192.0.2.2
fdb add 02:00:00:00:00:03 \\
  dev v4 dst 192.0.2.3
fdb add 02:00:00:00:00:03 dev v4 dst 192.0.2.4
fdb add 02:00:00:00:00:05 dev v4 frob
fdb add 02:00:00:00:00:06 dev v4 dst 192.0.2.6
fdb show dev v4
`;

test('a batch stops at the first failure and names its line', async (t) => {
  const daemon = new FakeDaemon();
  const uvxlan = await commandLine(t, daemon);
  const directory = addDirectory();
  t.after(() => removeDirectory(directory));
  const file = join(directory, 'batch');
  writeFileSync(file, BATCH);
  assert.deepEqual(await uvxlan(['-batch', file]), {
    status: 1,
    stdout: '',
    stderr: `uvxlan: File exists\nuvxlan: Command failed ${file}:6\n`,
  });
  assert.equal(daemon.entries.length, 3);
});

test('a forced batch goes on, complains in order, and prints what it shows', async (t) => {
  const daemon = new FakeDaemon();
  const uvxlan = await commandLine(t, daemon);
  const { status, stdout, stderr } = await uvxlan('fdb -force -batch -', BATCH);
  assert.equal(status, 1);
  assert.equal(
    stderr,
    'uvxlan: File exists\nuvxlan: Command failed -:6\n' +
      'uvxlan: unknown word "frob", see uvxlan fdb --help\nuvxlan: Command failed -:7\n',
  );
  assert.equal(stdout.split('\n').length, 5);
  assert.equal(daemon.entries.length, 4);
});

test('what stands before a wrong line has run, what stands after it has not', async (t) => {
  const daemon = new FakeDaemon();
  const uvxlan = await commandLine(t, daemon);
  const { status, stderr } = await uvxlan(
    '-batch -',
    'fdb add 02:00:00:00:00:01 dev v4 dst 192.0.2.1\nfrob\nfdb add 02:00:00:00:00:02 dev v4 dst 192.0.2.1\n',
  );
  assert.equal(status, 1);
  assert.match(stderr, /^uvxlan: Command "frob" is unknown.*\nuvxlan: Command failed -:2\n$/);
  assert.equal(daemon.entries.length, 1);
});

test('a large batch is sent in parts that the daemon takes', async (t) => {
  const daemon = new FakeDaemon();
  const uvxlan = await commandLine(t, daemon);
  const lines = Array.from({ length: 3000 }, (_, n) => {
    const low = n.toString(16).padStart(4, '0');
    return `fdb append 02:00:00:00:${low.slice(0, 2)}:${low.slice(2)} dev v4 dst 192.0.2.1\n`;
  });
  assert.deepEqual(await uvxlan('-batch -', lines.join('')), { status: 0, stdout: '', stderr: '' });
  assert.equal(daemon.entries.length, 3000);
});

test('a batch file that is not there, and an empty one', async (t) => {
  const uvxlan = await commandLine(t, new FakeDaemon());
  const { status, stderr } = await uvxlan('-batch /nonexistent');
  assert.deepEqual([status, stderr], [1, 'uvxlan: Cannot open file "/nonexistent" for reading: ENOENT\n']);
  assert.deepEqual(await uvxlan('-batch -', '# nothing\n'), { status: 0, stdout: '', stderr: '' });
});

test('the same words make the same entries as the kernel has, in text and in JSON', KERNEL, async (t) => {
  const host = kernelHost();
  t.after(() => removeNamespaces([host]));
  const commands = [
    'add 00:00:00:00:00:00 dev v4 dst 192.0.2.2',
    'append 00:00:00:00:00:00 dev v4 dst 192.0.2.3',
    'add 02:00:00:00:00:01 dev v4 dst 192.0.2.2',
    'add 02:00:00:00:00:02 dev v4 dst 192.0.2.2 port 4789 vni 77',
    'add 02:00:00:00:00:03 dev v4 dst 192.0.2.2 via lo static',
    'add 02:00:00:00:00:04 dev v4 dst 192.0.2.2 self dynamic',
    'add to 02:00:00:00:00:05 dev v4 dst 192.0.2.2 local',
    'add 02:00:00:00:00:06 temp dev v4 dst 192.0.2.2',
    'add 02:00:00:00:00:07 dev v4 dst 192.0.2.2 port 0 vni 0',
    'add 02:00:00:00:00:08 dev v4 dst 192.0.2.2 port 8472 vni 6',
    'append 33:33:00:00:00:01 dev v4 dst 192.0.2.8',
    'replace 02:00:00:00:00:01 dev v4 dst 192.0.2.9',
    'a 02:00:00:00:00:09 dev v4 dst 192.0.2.9',
    'del 02:00:00:00:00:09 dev v4',
  ];
  const uvxlan = await commandLine(t, new FakeDaemon());
  for (const command of commands) {
    bridge(host, `fdb ${command}`);
    assert.deepEqual(await uvxlan(`fdb ${command}`), { status: 0, stdout: '', stderr: '' }, command);
  }
  // The kernel lists by hash.
  const sorted = (text: string) => text.split('\n').sort();
  assert.deepEqual(sorted((await uvxlan('fdb show dev v4')).stdout), sorted(bridge(host, 'fdb show dev v4')));
  const ofDevice = (text: string) => sorted(text).filter((line) => line.includes(' dev v4 '));
  assert.deepEqual(ofDevice((await uvxlan('fdb show')).stdout), ofDevice(bridge(host, 'fdb show')));
  for (const words of ['-j fdb show dev v4', '-j fdb show']) {
    const entries = (text: string) =>
      (JSON.parse(text) as { ifname?: string }[])
        .filter(({ ifname }) => ifname === undefined || ifname === 'v4')
        .map((entry) => JSON.stringify(entry)) // as text: the order of the keys counts too
        .sort();
    assert.deepEqual(entries((await uvxlan(words)).stdout), entries(bridge(host, words)));
  }
});

test('link show prints a device as ip prints the same one', KERNEL, async (t) => {
  const host = kernelHost();
  t.after(() => removeNamespaces([host]));
  const [link]: [LinkRecord] = JSON.parse(run('ip', '-n', host, '-d', '-s', '-j', 'link', 'show', 'v4'));
  const uvxlan = await commandLine(t, new FakeDaemon([{ ...link, uvxlan: OWN }, fakeLink('other')]));
  assert.equal((await uvxlan('link show v4')).stdout, run('ip', '-n', host, 'link', 'show', 'v4'));
  const details = (text: string) =>
    / (vxlan .*?)(?: addrgenmode .*?)?( gso_max_size \d+)/.exec(text)!.slice(1).join('');
  assert.equal(
    details((await uvxlan('link show v4 -d')).stdout),
    details(run('ip', '-n', host, '-d', 'link', 'show', 'v4')),
  );
  const counters = (text: string) =>
    text
      .split('\n')
      .slice(2)
      .map((line) => line.trimEnd().split(/ +/));
  assert.deepEqual(
    counters((await uvxlan('link show v4 -s')).stdout),
    counters(run('ip', '-n', host, '-s', 'link', 'show', 'v4')),
  );
  const { linkinfo } = JSON.parse((await uvxlan('link show v4 -j')).stdout)[0];
  assert.deepEqual(linkinfo, link.linkinfo);
});

/** A namespace with the kernel's own device, v4. */
function kernelHost(): string {
  const host = addNamespace('cli');
  const words =
    'add v4 type vxlan id 6 dev lo local 127.0.0.1 nolearning dstport 8472 srcport 1000 2000 ttl 64 noudpcsum';
  run('ip', '-n', host, 'link', ...words.split(' '));
  return host;
}

function bridge(host: string, words: string): string {
  return run('bridge', '-n', host, ...words.split(' '));
}

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${stderr}`);
  return stdout;
}
