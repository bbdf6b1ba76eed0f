/**
 * The daemon's counters in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4): names and
 * units as its documentation asks for. Series are bounded: devices, uplinks, directions and drop reasons; never peers, MACs or flows.
 */
import { type LinkRecord, type StatsRecord, VERSION } from '../protocol.ts';

/** What one scrape shows. */
export interface MetricsView {
  readonly links: readonly LinkRecord[];
  /** Of devices and uplinks. */
  readonly stats: readonly StatsRecord[];
  /** System calls by device and direction: packets over these say how well GSO and GRO work. */
  readonly writes: readonly { readonly ifname: string; readonly tx: number; readonly rx: number }[];
  readonly workerRestarts: number;
  /** Seconds: the longest that the main thread kept an event waiting since the last scrape, and its 99th percentile. */
  readonly delay: { readonly max: number; readonly p99: number };
  readonly memoryBytes: number;
  readonly cpuSeconds: number;
}

type Labels = Readonly<Record<string, string | number>>;
type Sample = readonly [labels: Labels, value: number];

export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

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

function metric(name: string, type: 'counter' | 'gauge', help: string, samples: readonly Sample[]): string {
  const lines = samples.map(([labels, value]) => `uvxlan_${name}${labelsText(labels)} ${value}\n`);
  return `# HELP uvxlan_${name} ${help}\n# TYPE uvxlan_${name} ${type}\n${lines.join('')}`;
}

function labelsText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(`${value}`)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escaped(value: string): string {
  return value.replace(/["\\\n]/g, (character) => (character === '\n' ? '\\n' : `\\${character}`));
}
