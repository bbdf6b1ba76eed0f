/** Says in the log which VTEPs cannot be reached, and which can again: what lasts, once, bursts summed up. */
import type { Log } from './log.ts';

/** Milliseconds from a change to the log: an address that is being resolved is no news. */
const PATIENCE = 2_000;

export class ReachLog {
  readonly #log: Log;
  /** Why each VTEP cannot be reached; undefined when it can. Only what has changed since the log last spoke. */
  readonly #changed = new Map<string, string | undefined>();
  /** Those of which the log has said that they cannot be reached. */
  readonly #said = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  /** `reason` undefined: it can be reached. */
  note(vtep: string, reason: string | undefined): void {
    this.#changed.set(vtep, reason);
    this.#timer ??= setTimeout(() => this.#speak(), PATIENCE).unref();
  }

  /** Nobody sends to it any more. */
  forget(vtep: string): void {
    this.#changed.delete(vtep);
    this.#said.delete(vtep);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #speak(): void {
    this.#timer = undefined;
    const lost: [string, string][] = [];
    const found: string[] = [];
    for (const [vtep, reason] of this.#changed) {
      if (reason !== undefined && !this.#said.has(vtep)) lost.push([vtep, reason]);
      if (reason === undefined && this.#said.has(vtep)) found.push(vtep);
    }
    this.#changed.clear();
    for (const [vtep] of lost) this.#said.add(vtep);
    for (const vtep of found) this.#said.delete(vtep);
    if (lost.length > 0) {
      const [[vtep, reason]] = lost;
      this.#log(`VTEP ${vtep}${others(lost.length)} cannot be reached: ${reason}`, { level: 'warn', peer: vtep });
    }
    if (found.length > 0) this.#log(`VTEP ${found[0]}${others(found.length)} can be reached again`, { peer: found[0] });
  }
}

function others(count: number): string {
  return count > 1 ? ` and ${count - 1} more` : '';
}
