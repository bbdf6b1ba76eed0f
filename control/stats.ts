/** What devices and uplinks have carried: the workers' counters, and the kernel's for the queues of our TAPs and sockets. */
import { type CounterName, FIRST_UPLINK_SCOPE, lastErrno, RX_ERRNO, TX_ERRNO, total } from '../dataplane/counters.ts';
import { DROPS } from '../dataplane/drops.ts';
import { errnoName } from '../system/libc.ts';
import { socketDrops } from '../system/socket.ts';
import type { VxlanDevice } from './device.ts';
import type { Host } from './host.ts';
import type { OffloadCounters } from './offload/mirror.ts';
import type { DirectionCounters, StatsRecord } from './protocol.ts';
import type { Uplink } from './uplinks.ts';

const NOT_OFFLOADED: OffloadCounters = {
  ...{ tx_packets: 0, tx_bytes: 0, tx_lost: 0 },
  ...{ rx_packets: 0, rx_bytes: 0, rx_lost: 0 },
};

/** `offloaded`: what the kernel has carried beside the workers, in whose sums it is contained. */
export async function deviceStats(
  counters: Float64Array,
  device: VxlanDevice,
  offloaded: OffloadCounters = NOT_OFFLOADED,
): Promise<StatsRecord> {
  const sums = total(counters, device.index);
  sums.tx_frames += offloaded.tx_packets + offloaded.tx_lost;
  sums.tx_packets += offloaded.tx_packets;
  sums.tx_bytes += offloaded.tx_bytes;
  sums.tx_offload_lost = offloaded.tx_lost;
  sums.rx_packets += offloaded.rx_packets + offloaded.rx_lost;
  sums.rx_frames += offloaded.rx_packets;
  sums.rx_bytes += offloaded.rx_bytes;
  sums.rx_offload_lost = offloaded.rx_lost;
  // What the kernel dropped never reached a worker: it went in, and was dropped.
  sums.tx_tap_overflow = await device.atHome((host) => queueDrops(host, device.name));
  return {
    ifname: device.name,
    tx: {
      in: sums.tx_frames + sums.tx_tap_overflow,
      copies: sums.tx_replicas + sums.tx_segments,
      out: sums.tx_packets,
      ...(sums.tx_answered > 0 ? { answered: sums.tx_answered } : {}),
      ...(offloaded.tx_packets > 0 ? { offloaded: offloaded.tx_packets } : {}),
      bytes: sums.tx_bytes,
      drops: drops(sums, 'tx'),
      ...errorName(counters, device.index, TX_ERRNO),
    },
    rx: {
      in: sums.rx_packets,
      copies: 0,
      out: sums.rx_frames,
      ...(offloaded.rx_packets > 0 ? { offloaded: offloaded.rx_packets } : {}),
      bytes: sums.rx_bytes,
      drops: drops(sums, 'rx'),
      ...errorName(counters, device.index, RX_ERRNO),
    },
  };
}

/** An uplink's own record: what arrived, and what was dropped before its device was known. */
export async function uplinkStats(
  host: Host,
  counters: Float64Array,
  uplink: Uplink,
  offloaded: readonly (OffloadCounters | undefined)[] = [],
): Promise<StatsRecord> {
  const [{ index, port }] = uplink.specs;
  const sums = total(counters, FIRST_UPLINK_SCOPE + index);
  for (const device of offloaded) sums.rx_packets += device ? device.rx_packets + device.rx_lost : 0;
  const { tap } = uplink;
  // Somebody may just have taken it away; another uplink takes its place.
  sums.rx_uplink_overflow = tap === undefined ? 0 : await queueDrops(host, tap).catch(() => 0);
  for (const { receiver } of uplink.specs) sums.rx_uplink_overflow += socketDrops(receiver);
  const dropped = drops(sums, 'rx');
  const arrived = sums.rx_packets + sums.rx_uplink_overflow;
  const nothing: DirectionCounters = { in: 0, copies: 0, out: 0, bytes: 0, drops: {} };
  return {
    ifname: `uplink ${uplink.kind} port ${port}${tap ? ` (${tap})` : ''}`,
    tx: nothing,
    rx: { in: arrived, copies: 0, out: arrived - sumOf(dropped), bytes: 0, drops: dropped },
  };
}

function drops(sums: Readonly<Record<CounterName, number>>, direction: 'tx' | 'rx'): Record<string, number> {
  return Object.fromEntries(DROPS.filter((drop) => drop.direction === direction).map(({ name }) => [name, sums[name]]));
}

function errorName(counters: Float64Array, scope: number, which: number): { last_error?: string } {
  const errno = lastErrno(counters, scope, which);
  return errno === 0 ? {} : { last_error: errnoName(errno) };
}

function sumOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** Packets for a TAP that its queues had no room for. Linux counts them as dropped on sending (tun_net_xmit). */
async function queueDrops(host: Host, name: string): Promise<number> {
  const rows = await host.iproute.json<{ stats64: { tx: { dropped: number } } }[]>('ip', [
    '-j',
    '-s',
    'link',
    'show',
    'dev',
    name,
  ]);
  return rows[0].stats64.tx.dropped;
}
