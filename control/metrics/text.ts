/**
 * The daemon's counters for Prometheus. Series are bounded: devices, uplinks, directions, drop reasons, threads, tables, and so many VTEPs as
 * are asked for; never MACs or flows.
 */

import { type LinkRecord, type StatsRecord, type ThreadRecord, VERSION } from '../protocol.ts';
import { metric, type Sample } from './format.ts';

/** What one scrape shows. */
export interface MetricsView {
  readonly links: readonly LinkRecord[];
  /** Of devices and uplinks. */
  readonly stats: readonly StatsRecord[];
  /** System calls by device and direction: packets over these say how well GSO and GRO work. */
  readonly writes: readonly { readonly ifname: string; readonly tx: number; readonly rx: number }[];
  readonly workerRestarts: number;
  readonly threads: readonly ThreadRecord[];
  readonly tables: readonly { readonly table: string; readonly entries: number; readonly limit: number }[];
  /** All VTEPs, of which `mostPeers` get a series: those that cannot be reached first. */
  readonly peers: readonly PeerState[];
  readonly mostPeers: number;
  /** Seconds: the longest that the main thread kept an event waiting since the last scrape, and its 99th percentile. */
  readonly delay: { readonly max: number; readonly p99: number };
  readonly memoryBytes: number;
  readonly cpuSeconds: number;
}

export interface PeerState {
  readonly dev: string;
  readonly dst: string;
  readonly isUp: boolean;
}

export function metricsText(view: MetricsView): string {
  const { links, stats, writes } = view;
  const isDevice = ({ ifname }: StatsRecord): boolean => links.some((link) => link.ifname === ifname);
  const devices = stats.filter(isDevice);
  const both = (tx: (record: StatsRecord) => number, rx: (record: StatsRecord) => number): Sample[] =>
    devices.flatMap((record) => [
      [{ device: record.ifname, direction: 'tx' }, tx(record)],
      [{ device: record.ifname, direction: 'rx' }, rx(record)],
    ]);
  const drops = stats.flatMap((record) =>
    (['tx', 'rx'] as const).flatMap((direction) =>
      Object.entries(record[direction].drops).map(
        ([reason, count]): Sample => [{ interface: record.ifname, direction, reason }, count],
      ),
    ),
  );
  const perLink = (value: (link: LinkRecord) => number): Sample[] =>
    links.map((link) => [{ device: link.ifname }, value(link)]);
  return [
    metric('build_info', 'gauge', 'Constant 1; the version that runs.', [[{ version: VERSION }, 1]]),
    metric(
      'device_info',
      'gauge',
      'Constant 1; what a device is.',
      links.map(({ ifname, linkinfo, uvxlan }) => [
        { device: ifname, vni: linkinfo.info_data.id, uplink: uvxlan.uplink },
        1,
      ]),
    ),
    metric(
      'device_up',
      'gauge',
      'Whether the device is up.',
      perLink(({ flags }) => Number(flags.includes('UP'))),
    ),
    metric(
      'frames_total',
      'counter',
      'Inner frames: tx that the host sent on the device, rx that it was given. A super-frame counts as one.',
      both(
        ({ tx }) => tx.in,
        ({ rx }) => rx.out,
      ),
    ),
    metric(
      'bytes_total',
      'counter',
      'Bytes of inner frames, Ethernet headers included.',
      both(
        ({ tx }) => tx.bytes,
        ({ rx }) => rx.bytes,
      ),
    ),
    metric(
      'packets_total',
      'counter',
      'Encapsulated packets: tx handed to the uplink, rx that arrived for the device.',
      both(
        ({ tx }) => tx.out,
        ({ rx }) => rx.in,
      ),
    ),
    metric(
      'copies_total',
      'counter',
      'Packets made beyond the frames sent, by head-end replication and by cutting super-frames up.',
      devices.map((record) => [{ device: record.ifname }, record.tx.copies]),
    ),
    metric(
      'writes_total',
      'counter',
      'System calls that took packets (tx) or frames (rx): packets over writes is what GSO and GRO save.',
      writes.flatMap(({ ifname, tx, rx }) => [
        [{ device: ifname, direction: 'tx' }, tx],
        [{ device: ifname, direction: 'rx' }, rx],
      ]),
    ),
    metric(
      'drops_total',
      'counter',
      'Packets that were not delivered, by reason (uvxlan stats says what to do).',
      drops,
    ),
    metric(
      'fdb_entries',
      'gauge',
      'MACs in the forwarding database.',
      perLink(({ uvxlan }) => uvxlan.fdb_entries),
    ),
    metric(
      'nexthops',
      'gauge',
      'Remote VTEPs in use.',
      perLink(({ uvxlan }) => uvxlan.nexthops),
    ),
    metric(
      'nexthops_unresolved',
      'gauge',
      'Remote VTEPs whose way is not known.',
      perLink(({ uvxlan }) => uvxlan.nexthops_unresolved),
    ),
    ...peerMetrics(view.peers, view.mostPeers),
    metric(
      'offloaded_packets_total',
      'counter',
      'Of packets_total, those that the kernel carried by itself.',
      both(
        ({ tx }) => tx.offloaded ?? 0,
        ({ rx }) => rx.offloaded ?? 0,
      ),
    ),
    metric(
      'not_learned_total',
      'counter',
      'Packets whose source MAC could not be learned: maxaddress or the table is full.',
      perLink(({ uvxlan }) => uvxlan.not_learned ?? 0),
    ),
    metric(
      'table_entries',
      'gauge',
      'Entries of the tables that all devices share.',
      view.tables.map(({ table, entries }) => [{ table }, entries]),
    ),
    metric(
      'table_limit',
      'gauge',
      'Entries that they take; of the FDB, learned ones take three quarters at most.',
      view.tables.map(({ table, limit }) => [{ table }, limit]),
    ),
    ...threadMetrics(view.threads),
    metric(
      'workers',
      'gauge',
      'Worker threads of a device.',
      perLink(({ uvxlan }) => uvxlan.workers),
    ),
    metric('worker_restarts_total', 'counter', 'Workers that failed and were started again.', [
      [{}, view.workerRestarts],
    ]),
    metric('event_loop_delay_seconds', 'gauge', 'How long events of the control plane waited since the last scrape.', [
      [{ quantile: '0.99' }, view.delay.p99],
      [{ quantile: '1' }, view.delay.max],
    ]),
    metric('resident_memory_bytes', 'gauge', 'Memory of the daemon.', [[{}, view.memoryBytes]]),
    metric('cpu_seconds_total', 'counter', 'CPU time of all threads of the daemon.', [[{}, view.cpuSeconds]]),
  ].join('');
}

function peerMetrics(peers: readonly PeerState[], most: number): string[] {
  const shown = peers
    .toSorted((a, b) => Number(a.isUp) - Number(b.isUp) || a.dst.localeCompare(b.dst, 'en', { numeric: true }))
    .slice(0, most);
  return [
    metric(
      'peer_up',
      'gauge',
      'Whether the way to a VTEP is known. Of many only some are told of, those that cannot be reached first.',
      shown.map(({ dev, dst, isUp }) => [{ device: dev, peer: dst }, Number(isUp)]),
    ),
    metric('peers_omitted', 'gauge', 'VTEPs that peer_up does not tell of (--metrics-peers).', [
      [{}, peers.length - shown.length],
    ]),
  ];
}

/** Of a thread that is started again its counters begin anew, as Prometheus expects it. */
function threadMetrics(threads: readonly ThreadRecord[]): string[] {
  const per = (value: (thread: ThreadRecord) => number): Sample[] =>
    threads.map((thread) => [{ thread: thread.name }, value(thread)]);
  return [
    metric(
      'thread_cpu_seconds_total',
      'counter',
      'CPU time of the main thread and the workers: its rate is how busy each is.',
      per(({ cpu }) => cpu),
    ),
    metric(
      'thread_cpu_wait_seconds_total',
      'counter',
      'Time for which they had something to do and no CPU: its rate over that of sleeps is what a packet waits on the average.',
      per(({ wait }) => wait),
    ),
    metric(
      'thread_sleeps_total',
      'counter',
      'How often they went to sleep, a worker in poll: CPU time over sleeps is the length of a turn.',
      per(({ sleeps }) => sleeps),
    ),
  ];
}
