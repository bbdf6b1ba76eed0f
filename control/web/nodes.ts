/** The daemons that a page shows, and what it is told of them: their own commands' answers, in fewer words. */
import { setImmediate } from 'node:timers/promises';
import type { CaptureRequest } from '../capture/capture.ts';
import type { NeighRecord } from '../neigh-words.ts';
import type {
  FdbRecord,
  LinkRecord,
  PeerRate,
  PeerRecord,
  SampleRecord,
  StatsRecord,
  ThreadRecord,
} from '../protocol.ts';
import type { Counts, DeviceState, FdbRow, NeighbourRow, NodeState, Page, PeerRow } from './shapes.ts';

/** A daemon, however it is reached. */
export interface Node {
  readonly name: string;
  /** One command of the control socket; throws what the daemon says. */
  ask<T>(command: string, args?: unknown): Promise<T>;
  /** Packets as pcapng, until finish() is called. */
  capture(request: CaptureRequest): Promise<{ readonly chunks: AsyncIterable<Uint8Array>; finish(): void }>;
}

/** Rows that one answer has at most. */
export const PAGE_ROWS = 100;
/** VTEPs that a device is drawn with; the table has all. */
const MAP_PEERS = 8;
/** A large FDB is not listed anew for each letter of a search, in milliseconds. */
const KEEP = 2_000;

export async function nodeState(node: Node, tables: Tables): Promise<NodeState> {
  try {
    // Each takes a large daemon some milliseconds, tens of them the first time: others have their turn in between.
    await setImmediate();
    const links = await node.ask<LinkRecord[]>('link show', { name: null });
    await setImmediate();
    const stats = await node.ask<StatsRecord[]>('stats', { name: null });
    await setImmediate();
    const samples = await node.ask<SampleRecord>('samples');
    const threads = await node.ask<ThreadRecord[]>('threads');
    await setImmediate();
    const peers = await tables.allPeers();
    const { version } = await node.ask<{ version: string }>('status');
    const uplinks = stats.filter(({ ifname }) => ifname.startsWith('uplink '));
    return {
      name: node.name,
      version,
      devices: links.map((link) => {
        const own = stats.find(({ ifname }) => ifname === link.ifname);
        return deviceState(link, own, peersOf(link.ifname, peers, samples.peers));
      }),
      uplinks: uplinks.map(({ ifname, rx }) => ({ name: ifname, rx: counts(rx) })),
      threads,
      samples: samples.drops.map(({ dev, reason, time }) => ({ dev, reason, time })),
    };
  } catch (error) {
    return { name: node.name, error: (error as Error).message, devices: [], uplinks: [], threads: [], samples: [] };
  }
}

const NO_RATE = { packets: 0, bytes: 0 };

/** Those that cannot be reached come first, as many as leave room for the busiest. */
function peersOf(dev: string, all: readonly PeerRow[], rates: readonly PeerRate[]): DeviceState['peers'] {
  const own = all.filter((row) => row.dev === dev);
  const known = new Map(own.map((row) => [row.address, row]));
  const measured = new Map(rates.filter((rate) => rate.dev === dev).map((rate) => [rate.address, rate]));
  const broken = own.filter(({ reason }) => reason !== '').slice(0, MAP_PEERS / 2);
  // A VTEP may send without being in the FDB.
  const busy = [...measured.keys()].map((address) => known.get(address) ?? { address, dev, macs: 0, reason: '' });
  const shown = [...new Set([...broken, ...busy, ...own.slice(0, MAP_PEERS)])].slice(0, MAP_PEERS);
  const rows = shown.map((row) => {
    const { tx = NO_RATE, rx = NO_RATE } = measured.get(row.address) ?? {};
    return { ...row, tx, rx };
  });
  return { total: own.length, rows };
}

function deviceState(link: LinkRecord, stats: StatsRecord | undefined, peers: DeviceState['peers']): DeviceState {
  const { id, local, local6, link: nic, port } = link.linkinfo.info_data;
  const { uplink, reason, workers, fdb_entries, unresolved, offload } = link.uvxlan;
  const nothing = { in: 0, copies: 0, out: 0, bytes: 0, drops: {} };
  return {
    ...{
      name: link.ifname,
      vni: id,
      mac: link.address,
      mtu: link.mtu,
      local: local ?? local6 ?? '',
      nic: nic ?? '',
      port,
    },
    ...{ uplink, reason, workers, entries: fdb_entries, peers },
    offload: offload ? `send ${text(offload.send)}, receive ${text(offload.receive)}` : 'off',
    tx: counts(stats?.tx ?? nothing),
    rx: counts(stats?.rx ?? nothing),
    unresolved: (unresolved ?? []).slice(0, MAP_PEERS),
  };
}

function text(state: true | string): string {
  return state === true ? 'on' : `off (${state})`;
}

function counts({ out, bytes, offloaded = 0, drops }: StatsRecord['rx']): Counts {
  return {
    packets: out,
    bytes,
    offloaded,
    drops: Object.fromEntries(Object.entries(drops).filter(([, count]) => count > 0)),
  };
}

/** The FDB, neighbours and peers of one node, searched and by the page. */
export class Tables {
  readonly #node: Node;
  readonly #now: () => number;
  readonly #kept = new Map<string, { readonly at: number; readonly answer: Promise<unknown> }>();

  constructor(node: Node, now: () => number = () => performance.now()) {
    this.#node = node;
    this.#now = now;
  }

  async fdb(query: string, offset: number): Promise<Page<FdbRow>> {
    const records = await this.#ask<FdbRecord[]>('fdb show');
    return page(records, query, offset, ({ mac, ifname, dst, state, port, vni }) => ({
      ...{ mac, dev: ifname, state: state || 'dynamic' },
      dst: `${dst ?? ''}${port === undefined ? '' : ` port ${port}`}${vni === undefined ? '' : ` vni ${vni}`}`,
    }));
  }

  async neighbours(query: string, offset: number): Promise<Page<NeighbourRow>> {
    const records = await this.#ask<NeighRecord[]>('neigh show');
    return page(records, query, offset, ({ dst, dev, lladdr, state, protocol }) => ({
      ...{ address: dst, dev, mac: lladdr, state: [...state, ...(protocol ? [protocol] : [])].join(' ') },
    }));
  }

  async peers(query: string, offset: number): Promise<Page<PeerRow>> {
    return page(await this.allPeers(), query, offset, (row) => row);
  }

  /** The VTEPs of the FDB, with the number of MACs behind each. */
  async allPeers(): Promise<readonly PeerRow[]> {
    const [records, links] = await Promise.all([
      this.#ask<PeerRecord[]>('peer show'),
      this.#ask<LinkRecord[]>('link show', { name: null }),
    ]);
    const reasons = new Map<string, string>();
    for (const { ifname, uvxlan } of links) {
      for (const { dst, reason } of uvxlan.unresolved ?? []) reasons.set(`${ifname} ${dst}`, reason);
    }
    return records.map(({ ifname, dst, macs }) => {
      return { address: dst, dev: ifname, macs, reason: reasons.get(`${ifname} ${dst}`) ?? '' };
    });
  }

  #ask<T>(command: string, args: unknown = { dev: null }): Promise<T> {
    const kept = this.#kept.get(command);
    if (kept && this.#now() - kept.at < KEEP) return kept.answer as Promise<T>;
    const answer = this.#node.ask<T>(command, args);
    this.#kept.set(command, { at: this.#now(), answer });
    answer.catch(() => this.#kept.delete(command));
    return answer;
  }
}

/** Rows that hold all words of the query somewhere; only those that are shown are kept. */
function page<Record, Row extends object>(
  records: readonly Record[],
  query: string,
  offset: number,
  toRow: (record: Record) => Row,
): Page<Row> {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const rows: Row[] = [];
  let total = 0;
  for (const record of records) {
    if (words.length === 0 && (total < offset || rows.length === PAGE_ROWS)) {
      total++;
      continue;
    }
    const row = toRow(record);
    if (words.length > 0) {
      const text = Object.values(row).join(' ').toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    if (total++ >= offset && rows.length < PAGE_ROWS) rows.push(row);
  }
  return { total, offset, rows };
}
