/**
 * How long a worker goes on looking for packets before it blocks. Being woken costs more than carrying a packet does, most of all in a
 * virtual machine, whose idle CPUs have to come back from the hypervisor; but who looks in vain keeps others from the CPU. So the time
 * follows what was seen, as in the kernel's halt polling (virt/kvm/kvm_main.c: grow_halt_poll_ns): it doubles when a packet came so
 * soon after blocking that looking on would have met it, and halves when none did. An idle worker blocks at once.
 */
import * as libc from '../system/libc.ts';

/** `busy-poll` when it is not given, in microseconds. */
export const DEFAULT_BUSY_POLL = 50;
/** Milliseconds: the shortest time that is worth looking on, and the longest wait. */
const SHORTEST = 0.01;
const LONGEST_WAIT = 1000;

export class BusyPoll {
  readonly #limit: number;
  /** Milliseconds to look on now. */
  window = 0;

  /** `limit` in microseconds; 0: always block at once. */
  constructor(limit: number) {
    this.#limit = limit / 1000;
  }

  /** As poll(2): the number of descriptors that can be read, 0 or -1 when there was nothing for a second. */
  wait(pollfds: number, count: number): number {
    const window = this.window;
    const start = window > 0 ? performance.now() : 0;
    for (;;) {
      const ready = libc.poll(pollfds, count, 0);
      if (ready !== 0) return ready;
      if (window === 0 || performance.now() - start >= window) break;
      // Whoever else has work goes first: on a busy machine looking on costs nobody anything.
      libc.schedYield();
    }
    const asleep = performance.now();
    const ready = libc.poll(pollfds, count, LONGEST_WAIT);
    if (ready >= 0) this.waited(performance.now() - asleep);
    return ready;
  }

  /** A wait has taken so many milliseconds. */
  waited(milliseconds: number): void {
    if (milliseconds > this.#limit) this.window = this.window > SHORTEST ? this.window / 2 : 0;
    else this.window = Math.min(this.#limit, Math.max(SHORTEST, this.window * 2));
  }
}
