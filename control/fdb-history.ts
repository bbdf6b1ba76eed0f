/** The last changes of FDB entries, also of entries that are gone: who moved this MAC, when, from where. Bounded; the oldest are forgotten. */
import { LRUCache } from 'lru-cache';
import type { FdbRecord } from '../fdb/records.ts';
import type { FdbChange } from '../fdb/writer.ts';

export interface FdbHistoryChange {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly event: FdbChange;
  /** The VTEP from then on, or that the entry had when it went; a nexthop group in its place. */
  readonly dst?: string;
  readonly nhid?: number;
  /** Where they are not the device's own. */
  readonly port?: number;
  readonly vni?: number;
  /** The VTEP until then. */
  readonly from?: string;
}

export interface FdbHistory {
  /** All changes since the MAC is followed; `history` has the last ones. */
  readonly changes: number;
  /** The last one first. */
  readonly history: readonly FdbHistoryChange[];
}

interface History {
  changes: number;
  readonly last: FdbHistoryChange[];
}

/** Changes of a MAC, and MACs: at most some megabytes. */
const MOST_CHANGES = 8;
const MOST_MACS = 16_384;

export class FdbHistories {
  /** By device and MAC; those that have not changed for longest are forgotten. */
  readonly #histories = new LRUCache<string, History>({ max: MOST_MACS });

  note(device: number, event: FdbChange, record: FdbRecord, from: string | undefined, time: number): void {
    const { mac, dst, nhid, port, vni } = record;
    const key = `${device} ${mac}`;
    let history = this.#histories.get(key);
    if (!history) this.#histories.set(key, (history = { changes: 0, last: [] }));
    history.changes++;
    const change: { -readonly [K in keyof FdbHistoryChange]: FdbHistoryChange[K] } = { time, event };
    if (dst !== undefined) change.dst = dst;
    if (nhid !== undefined) change.nhid = nhid;
    if (port !== undefined) change.port = port;
    if (vni !== undefined) change.vni = vni;
    if (from !== undefined) change.from = from;
    history.last.push(change);
    if (history.last.length > MOST_CHANGES) history.last.shift();
  }

  of(device: number, mac: string): FdbHistory {
    const { changes, last } = this.#histories.peek(`${device} ${mac}`) ?? { changes: 0, last: [] };
    return { changes, history: last.toReversed() };
  }

  /** Another device may get the number. */
  forget(device: number): void {
    for (const key of this.#histories.keys()) if (key.startsWith(`${device} `)) this.#histories.delete(key);
  }
}

/** Where an entry points to, in the words of `fdb`: 'dst 192.0.2.3 port 4789 vni 7', or 'nhid 12'. */
function remoteText({ dst, nhid, port, vni }: FdbHistoryChange): string {
  const to = nhid === undefined ? `dst ${dst}` : `nhid ${nhid}`;
  return `${to}${port === undefined ? '' : ` port ${port}`}${vni === undefined ? '' : ` vni ${vni}`}`;
}

/** '2026-03-01 09:30:00.123 moved dst 192.0.2.3 from 192.0.2.2', in local time. */
export function changeText(change: FdbHistoryChange): string {
  const { time, event, from } = change;
  const local = new Date(time - new Date(time).getTimezoneOffset() * 60_000);
  return `${local.toISOString().slice(0, -1).replace('T', ' ')} ${event} ${remoteText(change)}${from === undefined ? '' : ` from ${from}`}`;
}
