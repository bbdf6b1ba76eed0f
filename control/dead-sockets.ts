/** Control sockets whose daemon was killed: the one of this network namespace, and those that others have left behind. */
import { linkSync, lstatSync, readdirSync, renameSync, rmSync, type Stats } from 'node:fs';
import { connect } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { CommandError } from './protocol.ts';

/** How long all probes of removeOtherSockets() may take together, in milliseconds. */
const PATIENCE = 500;
/** A socket that was bound just now may belong to a daemon that is about to listen, in milliseconds. */
const YOUNG = 10_000;

export function socketError(path: string, error: NodeJS.ErrnoException): CommandError {
  const hint =
    error.code === 'EACCES' || error.code === 'EPERM' || error.code === 'EROFS'
      ? ': run it as root, or name a directory of yours in UVXLAN_RUNTIME_DIR'
      : '';
  return new CommandError(
    `cannot use the control socket ${path} (${error.code ?? error.message})${hint}`,
    error.code ?? 'EIO',
  );
}

export function secondDaemon(path: string): CommandError {
  return new CommandError(
    `a uvxlan daemon already runs in this network namespace (it serves ${path}): stop it first`,
    'EADDRINUSE',
  );
}

/** Removes the socket of a daemon that is dead, if there is one; throws CommandError (EADDRINUSE) when the daemon is alive. */
export async function removeDeadSocket(path: string): Promise<boolean> {
  let found: Stats | undefined;
  try {
    found = lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw socketError(path, error as NodeJS.ErrnoException);
  }
  if (found === undefined) return false;
  if (!found.isSocket()) throw new CommandError(`${path} is in the way: it is not a socket, remove it`, 'EEXIST');
  try {
    if (await removeUnlessLive(path)) return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw socketError(path, error as NodeJS.ErrnoException);
  }
  throw secondDaemon(path);
}

/**
 * Removes the dead sockets of other network namespaces beside `path`, and returns their paths. Those that cannot be removed, and what is
 * not a socket of this user's, stay without a word: they are in nobody's way.
 *
 * The record of a dead daemon's qdiscs (traffic-control.ts) stays with its namespace, which cannot be seen from here to be gone: a process
 * in another PID namespace or a mount in another mount namespace may keep it.
 */
export async function removeOtherSockets(path: string, now: number = Date.now()): Promise<string[]> {
  const removed: string[] = [];
  const end = performance.now() + PATIENCE;
  try {
    for (const name of readdirSync(dirname(path))) {
      if (performance.now() > end) break;
      if (name === basename(path) || !/^\d+\.sock$/.test(name)) continue;
      const other = join(dirname(path), name);
      if (await removeIfOld(other, now)) removed.push(other);
    }
  } catch {
    // the directory may not be read, or is gone
  }
  return removed;
}

async function removeIfOld(path: string, now: number): Promise<boolean> {
  try {
    const found = lstatSync(path);
    if (!found.isSocket() || found.uid !== process.geteuid?.() || now - found.mtimeMs < YOUNG) return false;
    return await removeUnlessLive(path);
  } catch {
    return false;
  }
}

/**
 * False when somebody listens on the socket. Throws the errors of rename(2).
 *
 * Two daemons that start at once may both find the dead socket; the one that comes second would remove the first one's live
 * socket. So it is moved aside, tried again (a socket is reached by its new name too), and put back when somebody listens.
 */
async function removeUnlessLive(path: string): Promise<boolean> {
  if (await isLive(path)) return false;
  const aside = `${path}.${process.pid}`;
  renameSync(path, aside);
  try {
    if (!(await isLive(aside))) return true;
    linkSync(aside, path);
    return false;
  } finally {
    rmSync(aside, { force: true });
  }
}

/** Whether anybody listens on a socket; an overfull backlog (EAGAIN) and a missing permission count as somebody. */
function isLive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.on('connect', () => resolve(true));
    probe.on('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
    probe.on('connect', () => probe.destroy());
  });
}
