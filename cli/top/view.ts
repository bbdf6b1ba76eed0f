/** What `uvxlan top` shows: rates from two looks at the counters, and from a sample of packets in between. Pure. */
import type { StatsRecord, ThreadRecord } from '../../control/protocol.ts';
import type { FlowCount, PeerCount, TrafficCount, TrafficSample } from '../../control/traffic/sample.ts';

/** A look at the daemon. */
export interface Look {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly stats: readonly StatsRecord[];
  readonly threads: readonly ThreadRecord[];
}

/** All rates are per second. */
export interface Rate {
  readonly packets: number;
  readonly bits: number;
}

export interface DeviceRates {
  readonly ifname: string;
  readonly tx: Rate;
  readonly rx: Rate;
  readonly drops: number;
  /** Of the packets, the part that the kernel carried by itself. */
  readonly offloaded: number;
}

export interface DropRate {
  readonly ifname: string;
  readonly reason: string;
  readonly rate: number;
  readonly count: number;
}

export interface ThreadRates {
  readonly name: string;
  /** Parts of the time: on a CPU, and waiting for one. */
  readonly busy: number;
  readonly wait: number;
  readonly sleeps: number;
  /** Seconds of CPU from waking up to going to sleep again, on the average. */
  readonly turn: number;
}

/** `error`: of a rate that was not measured all the time, its standard error as a part of it. */
export type PeerRates = {
  readonly dev: string;
  readonly dst: string;
  readonly tx: Rate;
  readonly rx: Rate;
  readonly error: number;
};
export type FlowRates = Omit<FlowCount, keyof TrafficCount> & Rate & { readonly error: number };

export interface TopView {
  readonly time: number;
  /** Since the look before. */
  readonly seconds: number;
  readonly devices: readonly DeviceRates[];
  /** Reasons that were counted in this time, and uplinks' too. */
  readonly drops: readonly DropRate[];
  readonly threads: readonly ThreadRates[];
  /** Of these seconds the part for which packets were looked at; flows and VTEPs are of it. A string: why there are none. */
  readonly sample:
    | {
        readonly seconds: number;
        readonly isWhole: boolean;
        readonly seen: number;
        readonly lost: number;
        readonly flows: number;
        readonly peers: number;
      }
    | string;
  readonly peers: readonly PeerRates[];
  readonly flows: readonly FlowRates[];
}

export const SORTS = ['bytes', 'packets', 'name'] as const;
export type Sort = (typeof SORTS)[number];

export function topView(before: Look, after: Look, sample: TrafficSample | string, sort: Sort): TopView {
  const seconds = Math.max(after.time - before.time, 1) / 1000;
  const was = new Map(before.stats.map((record) => [record.ifname, record]));
  const known = after.stats.flatMap((record) => {
    const old = was.get(record.ifname);
    return old ? [{ record, old }] : [];
  });
  const devices = known
    .filter(({ record }) => !record.ifname.startsWith('uplink '))
    .map(({ record, old }) => deviceRates(old, record, seconds));
  return {
    time: after.time,
    seconds,
    devices: sorted(
      devices,
      sort,
      ({ tx, rx }) => sum(tx, rx),
      ({ ifname }) => ifname,
    ),
    drops: known.flatMap(({ record, old }) => dropRates(old, record, seconds)).sort((a, b) => b.rate - a.rate),
    threads: threadRates(before.threads, after.threads, seconds),
    ...traffic(sample, devices, seconds, sort),
  };
}

function deviceRates(old: StatsRecord, { ifname, tx, rx }: StatsRecord, seconds: number): DeviceRates {
  const per = (now: number, then: number): number => Math.max(0, now - then) / seconds;
  const rate = (now: StatsRecord['tx'], then: StatsRecord['tx']): Rate => ({
    packets: per(now.out, then.out),
    bits: 8 * per(now.bytes, then.bytes),
  });
  const rates = { tx: rate(tx, old.tx), rx: rate(rx, old.rx) };
  const offloaded = per((tx.offloaded ?? 0) + (rx.offloaded ?? 0), (old.tx.offloaded ?? 0) + (old.rx.offloaded ?? 0));
  const packets = rates.tx.packets + rates.rx.packets;
  const dropped = dropRates(old, { ifname, tx, rx }, seconds).reduce((total, { rate }) => total + rate, 0);
  return { ifname, ...rates, drops: dropped, offloaded: packets === 0 ? 0 : Math.min(1, offloaded / packets) };
}

function dropRates(old: StatsRecord, { ifname, tx, rx }: StatsRecord, seconds: number): DropRate[] {
  const before: Record<string, number> = { ...old.tx.drops, ...old.rx.drops };
  return Object.entries({ ...tx.drops, ...rx.drops }).flatMap(([reason, count]) => {
    const rate = (count - (before[reason] ?? 0)) / seconds;
    return rate > 0 ? [{ ifname, reason, rate, count }] : [];
  });
}

function threadRates(before: readonly ThreadRecord[], after: readonly ThreadRecord[], seconds: number): ThreadRates[] {
  return after.flatMap(({ name, cpu, wait, sleeps }) => {
    const old = before.find((thread) => thread.name === name);
    // One that was started again counts from zero.
    if (!old || cpu < old.cpu) return [];
    const [spent, slept] = [cpu - old.cpu, sleeps - old.sleeps];
    return [
      {
        ...{ name, busy: spent / seconds, wait: (wait - old.wait) / seconds },
        ...{ sleeps: slept / seconds, turn: spent / Math.max(1, slept) },
      },
    ];
  });
}

/** A look that took so much of an interval has seen it: the rest is what asking takes. */
const WHOLE = 0.85;

/**
 * What the sums of a sample are times a second: so that all flows of a device have its rate, which is counted. undefined where the sample
 * saw nothing, or the kernel carried some of it by itself: then the time tells.
 */
function scaleOf(
  { totals }: TrafficSample,
  devices: readonly DeviceRates[],
  dev: string,
  direction: 'tx' | 'rx',
): number | undefined {
  const device = devices.find(({ ifname }) => ifname === dev);
  const bytes = totals.find((total) => total.dev === dev)?.[direction].bytes ?? 0;
  if (!device || device.offloaded > 0 || bytes === 0 || device[direction].bits === 0) return undefined;
  return device[direction].bits / 8 / bytes;
}

function traffic(
  sample: TrafficSample | string,
  devices: readonly DeviceRates[],
  seconds: number,
  sort: Sort,
): Pick<TopView, 'sample' | 'peers' | 'flows'> {
  if (typeof sample === 'string') return { sample, peers: [], flows: [] };
  const looked = Math.max(1, sample.milliseconds) / 1000;
  const isWhole = looked >= WHOLE * seconds;
  const rate = ({ packets, bytes }: TrafficCount, dev: string, direction: 'tx' | 'rx'): Rate => {
    const scale = scaleOf(sample, devices, dev, direction) ?? 1 / looked;
    return { packets: packets * scale, bits: 8 * bytes * scale };
  };
  // Reads and writes taken as independent of each other, out of so many as there are in all of the time.
  const errorOf = (seen: number): number => (isWhole ? 0 : Math.sqrt((1 - looked / seconds) / Math.max(1, seen)));
  const peers = sample.peers.map(({ dev, dst, tx, rx }: PeerCount) => {
    return { dev, dst, tx: rate(tx, dev, 'tx'), rx: rate(rx, dev, 'rx'), error: errorOf(tx.seen + rx.seen) };
  });
  const flows = sample.flows.map(({ packets, bytes, seen, ...flow }) => ({
    ...flow,
    ...rate({ packets, bytes, seen }, flow.dev, flow.direction),
    error: errorOf(seen),
  }));
  const { seen, lost, flowCount, peerCount } = sample;
  return {
    sample: { seconds: looked, isWhole, seen, lost, flows: flowCount, peers: peerCount },
    peers: sorted(
      peers,
      sort,
      ({ tx, rx }) => sum(tx, rx),
      ({ dst }) => dst,
    ),
    flows: sorted(
      flows,
      sort,
      (flow) => flow,
      ({ src }) => src,
    ),
  };
}

function sum(one: Rate, other: Rate): Rate {
  return { packets: one.packets + other.packets, bits: one.bits + other.bits };
}

function sorted<Row>(
  rows: readonly Row[],
  sort: Sort,
  rate: (row: Row) => Rate,
  name: (row: Row) => string,
): readonly Row[] {
  if (sort === 'name') return rows.toSorted((a, b) => name(a).localeCompare(name(b), 'en', { numeric: true }));
  const key = sort === 'bytes' ? 'bits' : 'packets';
  return rows.toSorted((a, b) => rate(b)[key] - rate(a)[key]);
}
