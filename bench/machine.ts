/** What the machine does: CPU time of all of it and of single processes, and resident memory (proc(5)). */
import { readFileSync } from 'node:fs';
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

export function cpuTime(): CpuTime {
  const line = readFileSync('/proc/stat', 'latin1').split('\n')[0]!;
  const [user, nice, system, idle, wait, irq, softirq, stolen] = line.split(/\s+/).slice(1).map(Number) as number[];
  const busy = user! + nice! + system! + irq! + softirq!;
  return { busy: busy / TICKS, stolen: stolen! / TICKS, total: (busy + idle! + wait! + stolen!) / TICKS };
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
