// `uvxlan lab` as a reader runs it: a process that is to work, and to leave nothing behind whatever happens to it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { addDirectory, namespacePath, namespaces, removeDirectory } from '../../cli/lab/namespace.ts';
import { eventually, Process } from '../../cli/lab/process.ts';
import { find } from '../../cli/lab/programs.ts';
import { MAIN } from '../../cli/lab/vtep.ts';
import { lacking } from '../net/requirements.ts';

const ROOT = { skip: lacking('tun'), timeout: 180_000 };
const TIMEOUT = 30_000;
const NOBODY = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--'];
let labs = 0;

interface Lab extends Process {
  /** In the environment of the lab and of every process that it starts. */
  marker: string;
}

/** Starts `uvxlan lab --once`, or a command that ends in it. */
function startLab(
  t: TestContext,
  command: readonly string[] = [process.execPath, MAIN],
  env: NodeJS.ProcessEnv = {},
): Lab {
  const marker = `UVXLAN_LAB_TEST=${process.pid}-${++labs}`;
  const lab = new Process([...command, 'lab', '--once'], { ...env, UVXLAN_LAB_TEST: marker.split('=')[1] });
  t.after(() => lab.signal('SIGTERM'));
  return Object.assign(lab, { marker });
}

function namespacesOf(lab: Lab): string[] {
  return namespaces().filter((name) => name.startsWith(`uvx-${lab.pid}-`));
}

/** Namespaces (with all their devices), files and processes of a lab. */
function leavings(lab: Lab): string[] {
  const files = readdirSync(tmpdir()).filter((name) => name.startsWith(`uvx-${lab.pid}-`));
  const processes = readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0').includes(lab.marker);
    } catch {
      return false;
    }
  });
  return [...namespacesOf(lab), ...files, ...processes.map((pid) => `process ${pid}`)];
}

async function assertWorks(lab: Lab): Promise<void> {
  const { status } = await lab.ended(TIMEOUT);
  assert.equal(status, 0, lab.output);
  assert.match(lab.stdout, /left: uvxlan; uplink \w+ \(.+\)/);
  assert.match(lab.stdout, /ping left-pod -> right-pod: 10 sent, 10 received, 0 % loss, rtt/);
  assert.match(lab.stdout, /TCP left-pod -> right-pod: [\d.]+ Gbit\/s/);
  assert.match(lab.stdout, /TCP right-pod -> left-pod: [\d.]+ Gbit\/s/);
  assert.match(lab.stdout, /packets to the network +[\d,]{2,} +[\d,]{2,}\n/);
  assert.match(lab.stdout, /^ {2}VXLAN, 8 bytes at 42 \(RFC 7348, 5\)$/m);
  assert.match(lab.stdout, /VNI +00 00 01 +1 {2}/);
  assert.match(lab.stdout, /type +08 +8 {2}echo request$/m);
  assert.equal(lab.stdout.includes('\x1b'), false, 'colours only on a terminal');
  assert.equal(lab.stderr, '');
  assert.deepEqual(leavings(lab), []);
}

/** A directory for PATH, with links to the programs of /usr/bin but for some. */
function programs(t: TestContext, ...without: readonly string[]): string {
  const directory = addDirectory();
  t.after(() => removeDirectory(directory));
  for (const name of readdirSync('/usr/bin')) {
    if (!without.includes(name)) symlinkSync(join('/usr/bin', name), join(directory, name));
  }
  return directory;
}

/** Puts a program into such a directory that does something else when its arguments hold some words. */
function replace(directory: string, program: string, words: string, instead: string): void {
  const script = `#!/bin/sh\ncase "$*" in *"${words}"*) ${instead};; esac\nexec ${find(program)} "$@"\n`;
  writeFileSync(join(directory, program), script, { mode: 0o755 });
}

test('two labs side by side work, and leave nothing behind', ROOT, async (t) => {
  const both = [startLab(t), startLab(t)];
  await both[1].waitFor(/each node knows the other/, TIMEOUT);
  assert.equal(namespacesOf(both[1]).length, 4);
  for (const lab of both) await assertWorks(lab);
});

test('a kernel without VXLAN and a machine without iperf3', ROOT, async (t) => {
  const path = programs(t, 'ip', 'iperf3');
  replace(path, 'ip', 'type vxlan', 'echo "Error: Unknown device type." >&2; exit 2');
  const lab = startLab(t, undefined, { PATH: path });
  await assertWorks(lab);
  assert.match(lab.stdout, /right: uvxlan, because this kernel has no VXLAN; uplink/);
  assert.match(
    lab.stdout,
    /\(64 MB with our own program, every byte checked; iperf3 is not installed: apt-get install iperf3\)/,
  );
});

test('what does not work is told in a sentence, with status 1', ROOT, async (t) => {
  const path = programs(t, 'ip');
  replace(path, 'ip', 'route add 10.244.1.0/24', 'exit 0');
  const lab = startLab(t, undefined, { PATH: path });
  assert.equal((await lab.ended(TIMEOUT)).status, 1);
  assert.equal(lab.stderr, 'uvxlan: the lab failed: ping left-pod -> right-pod: 10 sent, 0 received, 100 % loss\n');
  assert.deepEqual(leavings(lab), []);
});

test('signals at any moment leave nothing behind', ROOT, async (t) => {
  for (const [moment, signal, status] of [
    [/Two nodes/, 'SIGTERM', 143],
    [/namespaces, bridges/, 'SIGINT', 130],
    [/each node knows/, 'SIGHUP', 129],
    [/ping left-pod/, 'SIGINT', 130],
  ] as const) {
    const lab = startLab(t);
    await lab.waitFor(moment, TIMEOUT);
    lab.signal(signal);
    lab.signal(signal); // an impatient reader
    assert.deepEqual(await lab.ended(TIMEOUT), { status, signal: null }, lab.output);
    assert.match(lab.stdout, /The lab is being removed\.$/m);
    assert.equal(lab.stderr, '');
    assert.deepEqual(leavings(lab), []);
  }
});

test('what kill -9 leaves behind is removed by the next lab, and not what a live one uses', ROOT, async (t) => {
  const [victim, other] = [startLab(t), startLab(t)];
  for (const lab of [victim, other]) await lab.waitFor(/each node knows/, TIMEOUT);
  const inodes = namespacesOf(victim).map((name) => statSync(namespacePath(name)).ino);
  victim.signal('SIGKILL');
  other.signal('SIGSTOP');
  await victim.ended(TIMEOUT);
  const next = startLab(t);
  await next.waitFor(/namespaces, bridges/, TIMEOUT);
  assert.deepEqual(leavings(victim), []);
  const runtimeFiles = existsSync('/run/uvxlan') ? readdirSync('/run/uvxlan') : [];
  assert.deepEqual(
    runtimeFiles.filter((name) => inodes.includes(Number.parseInt(name, 10))),
    [],
  );
  assert.equal(namespacesOf(other).length, 4);
  for (const lab of [next, other]) {
    lab.signal('SIGCONT');
    lab.signal('SIGINT');
    await lab.ended(TIMEOUT);
    assert.deepEqual(leavings(lab), []);
  }
});

/**
 * The beginning of a command line that runs the rest as an ordinary user: in a mount namespace where /dev/net/tun has the
 * given mode, and where the program is in a place that everybody can read.
 */
function ordinaryUser(t: TestContext, tunMode: string): { command: string[]; main: string } {
  const directory = addDirectory();
  t.after(() => removeDirectory(directory));
  chmodSync(directory, 0o755);
  const root = join(MAIN, '../../..');
  const script = `set -e
    mount -t tmpfs -o mode=755 tmpfs ${directory}
    mknod ${directory}/tun c 10 200
    chmod ${tunMode} ${directory}/tun
    mount --bind ${directory}/tun /dev/net/tun
    mkdir ${directory}/root
    mount --bind ${root} ${directory}/root
    exec "$@"`;
  const main = join(directory, 'root', MAIN.slice(root.length));
  return { command: ['unshare', '-m', '--', 'sh', '-c', script, 'sh', ...NOBODY], main };
}

/** Why no ordinary user can run the lab on this machine. */
function lackingForUser(): string | false {
  const works = ([command, ...args]: string[]) => spawnSync(command, args, { timeout: 5_000 }).status === 0;
  if (lacking('tun')) return lacking('tun');
  if (!works(['unshare', '-m', 'mount', '-t', 'tmpfs', 'tmpfs', tmpdir()])) return 'needs permission to mount';
  if (!works([...NOBODY, process.execPath, '-e', '0'])) return 'needs a Node that every user can run';
  return !works([...NOBODY, 'unshare', '-Urnm', 'true']) && 'needs user namespaces for ordinary users';
}

const ORDINARY = { skip: lackingForUser(), timeout: 180_000 };

test('an ordinary user runs it in a user namespace', ORDINARY, async (t) => {
  const { command, main } = ordinaryUser(t, '666');
  const lab = startLab(t, [...command, process.execPath, main]);
  await assertWorks(lab);
  assert.match(lab.stdout, /^Not root: the lab runs in a user namespace of its own/);

  const interrupted = startLab(t, [...command, process.execPath, main]);
  await interrupted.waitFor(/each node knows/, TIMEOUT);
  interrupted.signal('SIGINT');
  assert.deepEqual(await interrupted.ended(TIMEOUT), { status: 130, signal: null });
  assert.deepEqual(leavings(interrupted), []);

  const killed = startLab(t, [...command, process.execPath, main]);
  await killed.waitFor(/each node knows/, TIMEOUT);
  killed.signal('SIGKILL');
  await killed.ended(TIMEOUT);
  await eventually('its processes have ended, and with them its namespaces', () => leavings(killed).length === 0);
});

test('what it cannot do without is told in a sentence', ORDINARY, async (t) => {
  const refused = async (command: readonly string[], reason: RegExp, env?: NodeJS.ProcessEnv) => {
    const lab = startLab(t, command, env);
    assert.deepEqual(await lab.ended(TIMEOUT), { status: 1, signal: null }, lab.output);
    assert.match(lab.stderr, reason);
    assert.match(lab.stderr, /^uvxlan: the lab cannot run: [^\n]+\n$/);
    assert.equal(lab.stdout, '');
    assert.deepEqual(leavings(lab), []);
  };
  const { command, main } = ordinaryUser(t, '600');
  await refused([...command, process.execPath, main], /\/dev\/net\/tun is not open to this user: .*chmod 666/);
  const noTun = ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs tmpfs /dev/net && exec "$@"', 'sh'];
  await refused([...noTun, process.execPath, MAIN], /there is no \/dev\/net\/tun: "modprobe tun"/);
  // In a user namespace that may have no further ones, and without the privileges that come with it.
  const noNamespaces = 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all "$@"';
  const shut = ['unshare', '-Ur', 'sh', '-c', noNamespaces, 'sh', process.execPath, MAIN];
  await refused(shut, /user namespaces are not to be had here \(unshare: .+\): run the lab as root/);
  const path = programs(t, 'ping', 'nsenter');
  const lacks = /ping, nsenter are not installed: apt-get install iputils-ping util-linux/;
  await refused([process.execPath, MAIN], lacks, { PATH: path });
});

test('wrong words', async (t) => {
  const lab = new Process([process.execPath, MAIN, 'lab', 'rat']);
  t.after(() => lab.signal('SIGKILL'));
  assert.equal((await lab.ended(TIMEOUT)).status, 2);
  assert.equal(lab.stderr, 'uvxlan: unknown word "rat": lab takes none\n');
});
