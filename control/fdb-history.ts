/** The last changes of FDB entries, also of entries that are gone: who moved this MAC, when, from where. Bounded; the oldest are forgotten. */
import type { FdbChange, FdbRecord } from '../fdb/writer.ts';

export interface FdbHistoryChange {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly event: FdbChange;
  /** The VTEP from then on, or that the entry had when it went; a nexthop group in its place. */
  readonly dst?: string;
  readonly nhid?: number;
  /** The VTEP until then. */
  readonly from?: string;
}

export interface FdbHistory {
  /** All changes since the MAC is followed; `history` has the last ones. */
  readonly changes: number;
  /** The last one first. */
  readonly history: readonly FdbHistoryChange[];
}

/** Changes of a MAC, and MACs: at most some megabytes. */
const MOST_CHANGES = 8;
const MOST_MACS = 8192;

export class FdbHistories {
  /** By device and MAC, the one that has changed last behind all others. */
  readonly #histories = new Map<string, { changes: number; readonly last: FdbHistoryChange[] }>();

  note(device: number, event: FdbChange, { mac, dst, nhid }: FdbRecord, from: string | undefined, time: number): void {
    const key = `${device} ${mac}`;
    const history = this.#histories.get(key) ?? { changes: 0, last: [] };
    this.#histories.delete(key);
    this.#histories.set(key, history);
    history.changes++;
    history.last.push({
      ...{ time, event },
      ...(dst === undefined ? {} : { dst }),
      ...(nhid === undefined ? {} : { nhid }),
      ...(from === undefined ? {} : { from }),
    });
    if (history.last.length > MOST_CHANGES) history.last.shift();
    if (this.#histories.size > MOST_MACS) this.#histories.delete(this.#histories.keys().next().value!);
  }

  of(device: number, mac: string): FdbHistory {
    const { changes, last } = this.#histories.get(`${device} ${mac}`) ?? { changes: 0, last: [] };
    return { changes, history: last.toReversed() };
  }

  /** Another device may get the number. */
  forget(device: number): void {
    for (const key of this.#histories.keys()) if (key.startsWith(`${device} `)) this.#histories.delete(key);
  }
}

/** '2026-03-01 09:30:00.123 moved dst 192.0.2.3 from 192.0.2.2', in local time. */
export function changeText({ time, event, dst, nhid, from }: FdbHistoryChange): string {
  const local = new Date(time - new Date(time).getTimezoneOffset() * 60_000);
  const to = nhid === undefined ? `dst ${dst}` : `nhid ${nhid}`;
  return `${local.toISOString().slice(0, -1).replace('T', ' ')} ${event} ${to}${from === undefined ? '' : ` from ${from}`}`;
}
