/**
 * Counters in shared memory: a block a worker and scope (a device or an uplink). A worker is the only writer of its blocks, so
 * plain additions do; blocks are whole cache lines, so workers do not disturb each other. The main thread adds them up.
 *
 * What goes in comes out, or is dropped under a name:
 *     device:  tx_frames + tx_replicas + tx_segments = tx_packets + tx_answered + tx drops
 *              rx_packets = rx_frames + rx drops
 *     uplink:  rx_packets = rx_passed + rx drops
 * What uplinks passed on is what their devices got, as long as none of either was taken away.
 * A super-frame that stays whole counts as one; the packets of a GRO train count one each.
 */
import { DROPS, type DropName } from './drops.ts';

const PLAIN = [
  'tx_frames', // read from the TAP
  'tx_bytes', // of these frames
  'tx_replicas', // further copies of a frame, by head-end replication
  'tx_segments', // further packets made by cutting up super-frames that the uplink does not take whole
  'tx_packets', // VXLAN packets handed to the uplink
  'tx_answered', // frames that were answered here, and went no further (ARP/ND suppression)
  'tx_writes', // system calls that took
  'rx_packets', // VXLAN packets that arrived
  'rx_passed', // by an uplink to a device
  'rx_bytes', // of the frames written to the TAP
  'rx_frames', // delivered to the TAP
  'rx_writes', // system calls that took
] as const;

export type CounterName = (typeof PLAIN)[number] | DropName;
export const COUNTERS: readonly CounterName[] = [...PLAIN, ...DROPS.map((drop) => drop.name)];

/** Index of each counter within a block. */
export const COUNTER = Object.fromEntries(COUNTERS.map((name, index) => [name, index])) as Readonly<
  Record<CounterName, number>
>;

/** Behind the counters: the errno of the last error that had no reason of its own. */
export const TX_ERRNO = COUNTERS.length;
export const RX_ERRNO = COUNTERS.length + 1;

/** Float64 words of a block: whole cache lines, with a line to spare. */
export const BLOCK = ((COUNTERS.length + 7) & ~7) + 8;
/** Devices use scopes 0.., uplinks those from here on. */
export const FIRST_UPLINK_SCOPE = 256;
const SCOPES = FIRST_UPLINK_SCOPE + 64;

export function allocateCounters(workers: number): SharedArrayBuffer {
  return new SharedArrayBuffer(workers * SCOPES * BLOCK * 8);
}

/** First word of a block. */
export function block(worker: number, scope: number): number {
  return (worker * SCOPES + scope) * BLOCK;
}

/** The sums over all workers of a scope's counters. */
export function total(counters: Float64Array, scope: number): Record<CounterName, number> {
  const workers = counters.length / (SCOPES * BLOCK);
  const sums = Object.fromEntries(COUNTERS.map((name) => [name, 0])) as Record<CounterName, number>;
  for (let worker = 0; worker < workers; worker++) {
    const at = block(worker, scope);
    for (let i = 0; i < COUNTERS.length; i++) sums[COUNTERS[i]] += counters[at + i];
  }
  return sums;
}

/** The errno that a worker has noted for a scope (TX_ERRNO or RX_ERRNO), 0 when there was none. */
export function lastErrno(counters: Float64Array, scope: number, which: number): number {
  const workers = counters.length / (SCOPES * BLOCK);
  let errno = 0;
  for (let worker = 0; worker < workers; worker++) errno ||= counters[block(worker, scope) + which];
  return errno;
}

/** Sets a scope's counters to zero, as for a device that was just made. */
export function clear(counters: Float64Array, scope: number): void {
  const workers = counters.length / (SCOPES * BLOCK);
  for (let worker = 0; worker < workers; worker++) {
    const at = block(worker, scope);
    counters.fill(0, at, at + BLOCK);
  }
}

const TX_DROPS = DROPS.flatMap((drop) => (drop.direction === 'tx' ? [COUNTER[drop.name]] : []));
const RX_DROPS = DROPS.flatMap((drop) => (drop.direction === 'rx' ? [COUNTER[drop.name]] : []));

const sumOf = (counters: Float64Array, at: number, indices: readonly number[]): number =>
  indices.reduce((sum, index) => sum + counters[at + index], 0);

/**
 * After a worker failed: what went into its blocks and neither came out nor was dropped was lost with it. `uplinks` and `devices` are
 * the first words of their blocks.
 */
export function settle(counters: Float64Array, uplinks: readonly number[], devices: readonly number[]): void {
  for (const at of uplinks) {
    counters[at + COUNTER.rx_worker_lost] +=
      counters[at + COUNTER.rx_packets] - counters[at + COUNTER.rx_passed] - sumOf(counters, at, RX_DROPS);
  }
  for (const at of devices) {
    const taken = [COUNTER.tx_frames, COUNTER.tx_replicas, COUNTER.tx_segments];
    const done = [COUNTER.tx_packets, COUNTER.tx_answered];
    counters[at + COUNTER.tx_worker_lost] +=
      sumOf(counters, at, taken) - sumOf(counters, at, done) - sumOf(counters, at, TX_DROPS);
    counters[at + COUNTER.rx_worker_lost] +=
      counters[at + COUNTER.rx_packets] - counters[at + COUNTER.rx_frames] - sumOf(counters, at, RX_DROPS);
  }
}
