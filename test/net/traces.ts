// What a daemon could leave behind in a host.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { namespacePath } from '../../cli/lab/namespace.ts';
import type { Host } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';

/** Milliseconds. */
const CPU_SAMPLE = 300;

export interface Traces {
  links: string[];
  qdiscs: string[];
  filters: string[];
  /** Those that the kernel has been asked to keep fresh. */
  neighbours: string[];
  sockets: string[];
  /** In the runtime directory. */
  files: string[];
}

/** Links, tc, managed neighbours, UDP sockets and runtime files of a host as they are now; equal when nothing was left. */
export function traces(host: Host): Traces {
  const qdiscs = JSON.parse(host.exec('tc -j qdisc show')) as { kind: string; dev: string }[];
  const hooks = qdiscs.filter(({ kind }) => kind === 'clsact' || kind === 'ingress');
  return {
    links: host.ipJson<{ ifname: string }[]>('link show').map(({ ifname }) => ifname),
    qdiscs: qdiscs.map(({ kind, dev }) => `${kind} ${dev}`),
    filters: hooks.flatMap(({ dev }) => lines(host.exec(`tc filter show dev ${dev} ingress`))),
    neighbours: lines(host.ip('neigh show nud all')).filter((line) => line.includes(' managed ')),
    sockets: lines(host.exec('cat /proc/net/udp')).slice(1),
    files: runtimeFiles(host),
  };
}

/** Namespaces share the directory: the inode is in the name. */
export function runtimeFiles(host: Host): string[] {
  const { ino } = statSync(namespacePath(host.namespace));
  try {
    return readdirSync('/run/uvxlan').filter((name) => name.startsWith(`${ino}.`));
  } catch {
    return []; // no daemon has ever run here
  }
}

/** Resolves when a process, all its threads together, takes less than this share of a core. */
export async function takesLess(pid: number, share: number): Promise<void> {
  await eventually(`process ${pid} takes less than ${share} of a core`, async () => {
    const before = cpuTicks(pid);
    await new Promise((resolve) => setTimeout(resolve, CPU_SAMPLE));
    // Clock ticks are 10 ms on every Linux that Node runs on.
    return ((cpuTicks(pid) - before) * 10) / CPU_SAMPLE < share;
  });
}

/** utime and stime, fields 14 and 15 of /proc/PID/stat (proc(5)). */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}
