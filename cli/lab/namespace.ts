// Network namespaces and directories that a run creates and, whatever happens, removes again: at the end of a test, at
// process exit, on signals, and by the next run after a kill -9. A name holds the process id and start time of the run
// that made it (uvx-PID-START-NUMBER-LABEL), so a sweep tells a dead run's leftovers from what a live one is using.

import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { runSync } from './process.ts';

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

/** Creates a directory for the files of a test; returns its path. */
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
 * their devices. Blocks, because it must also work while the process exits; usually some 10 ms.
 */
export function removeNamespaces(names: Iterable<string>): void {
  const existing = new Set(namespaces());
  const targets = [...names].filter((name) => existing.has(name));
  const inodes = new Set(targets.map((name) => `net:[${statSync(namespacePath(name)).ino}]`));
  if (targets.length > 0 && !endProcesses(inodes, 'SIGTERM', GRACE)) endProcesses(inodes, 'SIGKILL', GRACE);
  for (const name of targets) {
    // Another run may be sweeping the same leftover: gone is gone.
    if (namespaces().includes(name)) runSync(`ip netns delete ${name}`);
    present.namespaces.delete(name);
  }
}

export function removeDirectory(path: string): void {
  rmSync(path, { recursive: true, force: true });
  present.directories.delete(path);
}

/** Removes what runs that are no longer alive have left behind. */
export function sweep(): void {
  removeNamespaces(namespaces().filter(isOrphan));
  for (const name of ours(tmpdir()).filter(isOrphan)) removeDirectory(join(tmpdir(), name));
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

/** Start time of a process in clock ticks after boot (field 22 of /proc/PID/stat, proc(5)); undefined when it is gone. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field is the command in parentheses and may hold spaces: count from the last parenthesis.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Signals the processes in the namespaces until there are none (true) or `timeout` ms are over. */
function endProcesses(inodes: ReadonlySet<string>, signal: NodeJS.Signals, timeout: number): boolean {
  const signalled = new Set<number>();
  for (const deadline = Date.now() + timeout; ; Atomics.wait(sleeper, 0, 0, 5)) {
    const pids = processesIn(inodes);
    if (pids.length === 0) return true;
    if (Date.now() > deadline) return false;
    for (const pid of pids) {
      if (signalled.has(pid)) continue;
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
function processesIn(inodes: ReadonlySet<string>): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        return inodes.has(readlinkSync(`/proc/${pid}/ns/net`));
      } catch {
        return false;
      }
    })
    .map(Number);
}

function removeOnExit(): void {
  process.on('exit', () => {
    removeNamespaces(present.namespaces);
    for (const path of present.directories) removeDirectory(path);
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }
}
