/** What `uvxlan doctor` finds: one thing that was looked at, how it stands, and what to do about it. */

/** ok: nothing to do. warn: it works, but slower than it could, or it could not be looked at. fail: traffic does not get through. */
export type Status = 'ok' | 'warn' | 'fail';

export interface Finding {
  /** The VXLAN device or the NIC that it is about; null: the machine. */
  readonly subject: string | null;
  /** What was looked at, `rp_filter` say. */
  readonly check: string;
  readonly status: Status;
  readonly message: string;
  /** What to do about it; absent when there is nothing to do. */
  readonly advice?: string;
}

/** Collects findings about one subject. */
export class Findings {
  readonly list: Finding[] = [];
  readonly #subject: string | null;

  constructor(subject: string | null = null) {
    this.#subject = subject;
  }

  ok(check: string, message: string): void {
    this.#add('ok', check, message);
  }

  warn(check: string, message: string, advice?: string): void {
    this.#add('warn', check, message, advice);
  }

  fail(check: string, message: string, advice?: string): void {
    this.#add('fail', check, message, advice);
  }

  #add(status: Status, check: string, message: string, advice?: string): void {
    this.list.push({ subject: this.#subject, check, status, message, ...(advice ? { advice } : {}) });
  }
}
