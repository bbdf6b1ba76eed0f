import { setTimeout as sleep } from 'node:timers/promises';
import { RefusedError } from './http.ts';

/** Growing pauses between attempts: each about twice as long as the last, up to a limit, and by up to half shorter by chance. */
export class Backoff {
  readonly #first: number;
  readonly #longest: number;
  readonly #random: () => number;
  #next: number;

  /** In milliseconds. */
  constructor(first: number, longest: number, random: () => number = Math.random) {
    this.#first = first;
    this.#longest = longest;
    this.#random = random;
    this.#next = first;
  }

  /** Milliseconds to wait now. */
  pause(): number {
    const pause = this.#next * (1 - this.#random() / 2);
    this.#next = Math.min(this.#next * 2, this.#longest);
    return pause;
  }

  reset(): void {
    this.#next = this.#first;
  }
}

/** Asks until there is an answer. Rejects with the signal's reason when that is aborted; all else goes to `failed`, and is asked again. */
export async function insist<T>(
  ask: () => Promise<T>,
  failed: (error: unknown) => void,
  backoff: Backoff,
  signal: AbortSignal,
): Promise<T> {
  for (;;) {
    signal.throwIfAborted();
    let wait: number;
    try {
      return await ask();
    } catch (error) {
      signal.throwIfAborted();
      failed(error);
      wait = retryAfter(error);
    }
    await pause(backoff, signal, wait);
  }
}

/** Milliseconds for which a server that has refused does not want to be asked. */
export function retryAfter(error: unknown): number {
  return error instanceof RefusedError ? error.retryAfter : 0;
}

/** `atLeast`: milliseconds. Rejects with the signal's reason when that is aborted meanwhile. */
export async function pause(backoff: Backoff, signal: AbortSignal, atLeast = 0): Promise<void> {
  await sleep(Math.max(backoff.pause(), atLeast), undefined, { signal }).catch(() => signal.throwIfAborted());
}
