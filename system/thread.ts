/** How busy a thread is, as the scheduler counts it: nothing has to be counted by the thread itself. proc(5), Linux Documentation/scheduler/sched-stats. */
import { readFileSync, readlinkSync } from 'node:fs';

export interface ThreadTimes {
  /** Seconds on a CPU, and seconds in which it could have run but none was free; the latter 0 where the kernel does not count them. */
  readonly cpu: number;
  readonly wait: number;
  /** How often it went to sleep of its own accord: for a worker, in poll. */
  readonly sleeps: number;
}

/** The calling thread's number. Throws where /proc is not mounted. */
export function threadId(): number {
  return Number(readlinkSync('/proc/thread-self').split('/').at(-1));
}

/** Of a thread of this process; undefined when it has ended. */
export function threadTimes(thread: number): ThreadTimes | undefined {
  try {
    const read = (file: string): string => readFileSync(`/proc/self/task/${thread}/${file}`, 'latin1');
    const [cpu, wait] = read('schedstat').split(' ').map(Number);
    const sleeps = /^voluntary_ctxt_switches:\s*(\d+)$/m.exec(read('status'));
    return { cpu: cpu / 1e9, wait: wait / 1e9, sleeps: Number(sleeps?.[1] ?? 0) };
  } catch {
    return undefined;
  }
}
