/** The lab without root: in a user namespace (user_namespaces(7)) whose root may do all of this to its own network. */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync, readFileSync } from 'node:fs';
import { constants as numbers } from 'node:os';
import { runSync } from './process.ts';

/** Bits of CapEff in /proc/PID/status, capabilities(7). */
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;

const INSIDE = 'UVXLAN_LAB_INSIDE';
/** User, network and mount namespace; the user is root in there. */
const UNSHARE = ['unshare', '-Urnm', '--'];
const TUN = '/dev/net/tun';

/** Whether this process may create named network namespaces by itself. */
export function isPrivileged(): boolean {
  const capabilities = BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? 0}`);
  const has = (bit: bigint) => ((capabilities >> bit) & 1n) === 1n;
  return has(CAP_NET_ADMIN) && has(CAP_SYS_ADMIN) && isWritable('/run');
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

export function isInside(): boolean {
  return process.env[INSIDE] !== undefined;
}

/** Why /dev/net/tun cannot be used, and what to do about it; undefined when it can. */
export function tunLacks(): string | undefined {
  try {
    closeSync(openSync(TUN, 'r+'));
    return undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EACCES') return `${TUN} is not open to this user: run the lab as root, or as root "chmod 666 ${TUN}"`;
    const advice = '"modprobe tun" as root, in a container start it with --device /dev/net/tun';
    return `${code === 'ENOENT' ? `there is no ${TUN}` : `${TUN} cannot be opened (${code})`}: ${advice}`;
  }
}

/** Why there can be no user namespace, and what to do about it; undefined when there can. */
export function userNamespaceLacks(): string | undefined {
  const { status, stderr, error } = spawnSync(
    UNSHARE[0],
    [...UNSHARE.slice(1), 'mount', '-t', 'tmpfs', 'tmpfs', '/run'],
    {
      encoding: 'utf8',
    },
  );
  if (status === 0) return undefined;
  const reason = error?.message ?? stderr.trim().split('\n')[0];
  return (
    `user namespaces are not to be had here (${reason}): run the lab as root; in a container, start that with --privileged; ` +
    'or allow them, see sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces and ' +
    'kernel.apparmor_restrict_unprivileged_userns'
  );
}

/** Runs this program with its arguments again, in a user namespace; returns its exit status. */
export async function runInside(): Promise<number> {
  const [node, script, ...args] = process.argv;
  // Should this process be killed, the one inside is to clean up and end.
  const command = [...UNSHARE, 'setpriv', '--pdeathsig', 'TERM', '--', node, ...process.execArgv, script, ...args];
  // What is left of the files goes with the mount namespace.
  const env = { ...process.env, [INSIDE]: '1', TMPDIR: '/run' };
  const child = spawn(command[0], command.slice(1), { stdio: 'inherit', env });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (status, signal) => resolve(status ?? 128 + numbers.signals[signal!]));
  });
}

/** `ip netns add` needs a /run to write to. */
export function enter(): void {
  runSync('mount -t tmpfs tmpfs /run');
}
