// Network namespaces and directories that a run (a lab, a test) creates and, whatever happens, removes again: when it is done
// with them, at process exit, on signals, and by the next run after a kill -9. A name holds the process id and start time of
// the run that made it (uvx-PID-START-NUMBER-LABEL), so a sweep tells a dead run's leftovers from what a live one is using.

import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { socketPath } from '../../control/protocol.ts';
import { endChildren, runSync } from './process.ts';

const NAMESPACES = '/run/netns';
const NAME = /^uvx-(\d+)-(\d+)-/;
/** A daemon has this many milliseconds to end by itself before it is killed. */
const GRACE = 2_500;

const own = `uvx-${process.pid}-${startTime(process.pid)}`;
const present = { namespaces: new Set<string>(), directories: new Set<string>() };
const sleeper = new Int32Array(new SharedArrayBuffer(4));
let created = 0;

/** Creates a namespace with its loopback device up; returns its name. */
export function addNamespace(label: string): string {
  const name = newName(label);
  present.namespaces.add(name);
  runSync(`ip netns add ${name}`);
  runSync(`ip -n ${name} link set lo up`);
  return name;
}

/** Creates a directory for the files of a run; returns its path. */
export function addDirectory(): string {
  const path = join(tmpdir(), newName('files'));
  mkdirSync(path);
  present.directories.add(path);
  return path;
}

/** Where setns(2) finds the namespace. */
export function namespacePath(name: string): string {
  return `${NAMESPACES}/${name}`;
}

/**
 * Ends every process in the namespaces (SIGTERM, then SIGKILL for those that do not listen) and removes them with all
 * their devices. Blocks, because it must also work while the process exits; usually some 10 ms, with a daemon 100 ms.
 * Processes in `told` have had their SIGTERM: many a program does not outlive a second one.
 */
export function removeNamespaces(names: Iterable<string>, told: ReadonlySet<number> = new Set()): void {
  const existing = new Set(namespaces());
  const targets = [...names].filter((name) => existing.has(name));
  const inodes = new Set(targets.map((name) => statSync(namespacePath(name)).ino));
  if (targets.length > 0 && !endProcesses(inodes, 'SIGTERM', told)) endProcesses(inodes, 'SIGKILL');
  removeRuntimeFiles(inodes);
  for (const name of targets) {
    deleteNamespace(name);
    present.namespaces.delete(name);
  }
}

/** Another run may be sweeping the same leftover: gone is gone. */
function deleteNamespace(name: string): void {
  for (let tries = 1; namespaces().includes(name); tries++) {
    try {
      // In a session of its own an impatient second Ctrl-C does not reach it; should it come before that, once more.
      runSync(`setsid ip netns delete ${name}`);
    } catch (error) {
      if (tries === 3 && namespaces().includes(name)) throw error;
    }
  }
}

/** What a daemon that was killed leaves outside of its namespace: INODE.sock and the like. Another namespace may get the number. */
function removeRuntimeFiles(inodes: ReadonlySet<number>): void {
  const directory = dirname(socketPath());
  if (inodes.size === 0 || !existsSync(directory)) return;
  for (const name of readdirSync(directory)) {
    if (inodes.has(Number.parseInt(name, 10))) rmSync(join(directory, name), { force: true });
  }
}

export function removeDirectory(path: string): void {
  rmSync(path, { recursive: true, force: true });
  present.directories.delete(path);
}

/** Removes what runs that are no longer alive have left behind; returns the names of the namespaces. */
export function sweep(): string[] {
  const orphans = namespaces().filter(isOrphan);
  removeNamespaces(orphans);
  for (const name of ours(tmpdir()).filter(isOrphan)) removeDirectory(join(tmpdir(), name));
  return orphans;
}

/** Names of all namespaces that any run, this one or another, has created and not removed yet. */
export function namespaces(): string[] {
  return ours(NAMESPACES);
}

/** The first name of a run makes it sweep, and promise to clean up after itself. */
function newName(label: string): string {
  if (created === 0) {
    removeOnExit();
    sweep();
  }
  return `${own}-${++created}-${label}`;
}

function ours(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => NAME.test(name));
  } catch {
    return []; // no namespace was ever created here
  }
}

function isOrphan(name: string): boolean {
  const [, pid, start] = name.match(NAME)!;
  return startTime(Number(pid)) !== start;
}

/** Start time of a process in clock ticks after boot; undefined when it is gone. */
function startTime(pid: number): string | undefined {
  return statField(pid, 22);
}

/** A field of /proc/PID/stat as proc(5) numbers them, from 3 on; undefined when the process is gone. */
function statField(pid: number, number: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field is the command in parentheses and may hold spaces: count from the last parenthesis.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[number - 3];
  } catch {
    return undefined;
  }
}

/**
 * Signals the processes in the namespaces until there are none (true) or GRACE is over. SIGTERM goes only to those whose
 * parent is outside: a daemon ends its own children, and needs the commands that it cleans up with.
 */
function endProcesses(inodes: ReadonlySet<number>, signal: NodeJS.Signals, told?: ReadonlySet<number>): boolean {
  const signalled = new Set(told);
  for (const deadline = Date.now() + GRACE; ; Atomics.wait(sleeper, 0, 0, 5)) {
    const pids = processesIn(inodes);
    if (pids.size === 0) return true;
    if (Date.now() > deadline) return false;
    for (const pid of pids) {
      if (signalled.has(pid) || (signal === 'SIGTERM' && pids.has(Number(statField(pid, 4))))) continue;
      signalled.add(pid);
      try {
        process.kill(pid, signal);
      } catch {
        // ended in this moment
      }
    }
  }
}

/** A zombie counts as gone: it has no namespace any more. */
function processesIn(inodes: ReadonlySet<number>): Set<number> {
  const links = new Set([...inodes].map((inode) => `net:[${inode}]`));
  const pids = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        return links.has(readlinkSync(`/proc/${pid}/ns/net`));
      } catch {
        return false;
      }
    });
  return new Set(pids.map(Number));
}

function removeOnExit(): void {
  process.on('exit', () => {
    // First those that nsenter(1) has not yet taken into their namespace: there they would not be found.
    removeNamespaces(present.namespaces, endChildren());
    for (const path of present.directories) removeDirectory(path);
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    // Not `once`: a second Ctrl-C would then end the process in the middle of its cleaning up.
    process.on(signal, () => process.exit(128 + constants.signals[signal]));
  }
}
