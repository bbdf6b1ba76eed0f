/** What the machine does: CPU time of all of it and of single processes, and resident memory (proc(5)). */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/** Clock ticks a second, as /proc counts them on every Linux (USER_HZ). */
const TICKS = 100;

export interface CpuTime {
  /** Seconds of all CPUs in which they worked: programs, kernel, interrupts. */
  readonly busy: number;
  /** Seconds that a hypervisor gave to others although this machine had work. */
  readonly stolen: number;
  /** Seconds of all CPUs. */
  readonly total: number;
}

/**
 * Since some moment in the past. What is not idle is work: kernels commonly charge a whole tick to what they find when it comes
 * (CONFIG_TICK_CPU_ACCOUNTING), which says nothing about work that comes in step with the tick, such as a paced sender's (0.25 to 3.1 seconds were
 * told for the same load), but measure idle time exactly (CONFIG_NO_HZ_IDLE; kernel/time/tick-sched.c: get_cpu_idle_time_us).
 */
export function cpuTime(): CpuTime {
  const total = (performance.now() / 1000) * cpus().length;
  const line = readFileSync('/proc/stat', 'latin1').split('\n')[0]!;
  const [, , , idle, wait, , , stolen] = line.split(/\s+/).slice(1).map(Number) as number[];
  return { busy: total - (idle! + wait! + stolen!) / TICKS, stolen: stolen! / TICKS, total };
}

/** CPU seconds that the whole machine works while `work` is done, the programs that measure included. */
export async function cpuSecondsOf<T>(work: () => Promise<T>): Promise<{ result: T; seconds: number }> {
  const before = cpuTime().busy;
  const result = await work();
  return { result, seconds: cpuTime().busy - before };
}

/** The share of the machine, 0 to 1, that works for others while we do nothing. */
export async function background(milliseconds = 300): Promise<number> {
  const before = cpuTime();
  await sleep(milliseconds);
  const after = cpuTime();
  const total = after.total - before.total;
  return total > 0 ? (after.busy - before.busy + after.stolen - before.stolen) / total : 0;
}

/** Bytes. */
export function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))![1]) * 1024;
}
