/** What the figures depend on. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import os from 'node:os';

export interface Environment {
  readonly uvxlan: string;
  readonly node: string;
  readonly linux: string;
  readonly arch: string;
  readonly cpu: string;
  readonly cpus: number;
  readonly memoryGB: number;
  /** Hypervisor, cpufreq governor, clock, and our priority: what makes one machine differ from its like. */
  readonly machine: string;
  /** Congestion control, buffers, qdisc of the runs; undefined where no network is measured. */
  readonly sockets?: string | undefined;
  /** Of the last minute, at the start. */
  readonly load: number;
  readonly tools: string;
}

export function environment(): Environment {
  const [cpu] = os.cpus();
  return {
    uvxlan: `${packageVersion()}${commit()}`,
    node: process.version,
    linux: os.release(),
    arch: process.arch,
    cpu: cpu?.model.trim() ?? 'unknown CPU',
    cpus: os.availableParallelism(),
    memoryGB: Math.round(os.totalmem() / 1e9),
    machine: machine(),
    load: os.loadavg()[0]!,
    tools: ['iperf3', 'ovs-vswitchd'].flatMap((tool) => version(tool) ?? []).join(', '),
  };
}

export function environmentText(it: Environment): string {
  return (
    `uvxlan ${it.uvxlan}, Node ${it.node}, Linux ${it.linux} ${it.arch}, ${it.cpus} x ${it.cpu}, ${it.memoryGB} GB, ` +
    `${it.machine};${it.sockets ? ` ${it.sockets};` : ''} load ${it.load.toFixed(1)} at the start; ${it.tools}`
  );
}

const ROOT = new URL('../../', import.meta.url);

function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL('package.json', ROOT), 'utf8')) as { version: string }).version;
}

/** " (COMMIT)", with a + when files differ from it; nothing outside of a clone. */
function commit(): string {
  const git = (...args: string[]) => output('git', ['-C', ROOT.pathname, ...args])?.trim();
  const hash = git('rev-parse', '--short', 'HEAD');
  return hash ? ` (${hash}${git('status', '--porcelain', '--untracked-files=no') ? '+' : ''})` : '';
}

function machine(): string {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'latin1').trim();
    } catch {
      return undefined;
    }
  };
  const virtual = /^flags.*\bhypervisor\b/m.test(read('/proc/cpuinfo') ?? '') ? 'virtual machine' : 'bare metal';
  const governor = read('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor');
  const clock = read('/sys/devices/system/clocksource/clocksource0/current_clocksource');
  const nice = os.getPriority();
  return [virtual, governor && `governor ${governor}`, clock && `clock ${clock}`, nice !== 0 && `run at nice ${nice}`]
    .filter(Boolean)
    .join(', ');
}

function version(tool: string): string | undefined {
  const line = output(tool, ['--version'])?.match(/\d+\.\d+[\w.-]*/);
  return line ? `${tool} ${line[0]}` : undefined;
}

function output(command: string, args: readonly string[]): string | undefined {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return undefined;
  }
}
