// What a daemon counts, and that nothing is missing: packets in = packets out + drops, on every record.

import assert from 'node:assert/strict';
import type { Host } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { ask } from '../../cli/lab/vtep.ts';
import type { StatsRecord } from '../../control/protocol.ts';
import type { DropName } from '../../dataplane/drops.ts';

/** Milliseconds without a change after which counters are at rest. */
const REST = 200;

export function stats(host: Host): Promise<StatsRecord[]> {
  return ask(host, 'stats', { name: null });
}

/** The counters when they have come to rest. */
export async function restingStats(host: Host): Promise<StatsRecord[]> {
  let last = '';
  let since = 0;
  let records: StatsRecord[] = [];
  await eventually(`the counters of ${host.name} at rest`, async () => {
    records = await stats(host);
    const now = JSON.stringify(records);
    if (now !== last) since = Date.now();
    last = now;
    return Date.now() - since >= REST;
  });
  return records;
}

/** Packets that the uplinks have received. */
export function arrived(records: readonly StatsRecord[]): number {
  return records.reduce((sum, { ifname, rx }) => sum + (ifname.startsWith('uplink ') ? rx.in : 0), 0);
}

/** A drop counter's sum over all records. */
export function drops(records: readonly StatsRecord[], name: DropName): number {
  return records.reduce((sum, { tx, rx }) => sum + (tx.drops[name] ?? 0) + (rx.drops[name] ?? 0), 0);
}

/** The counters that are not zero, by name. */
export function allDrops(records: readonly StatsRecord[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const { tx, rx } of records) {
    for (const [name, count] of [...Object.entries(tx.drops), ...Object.entries(rx.drops)]) {
      if (count > 0) sums[name] = (sums[name] ?? 0) + count;
    }
  }
  return sums;
}

/** Fails unless every record adds up. An uplink that was opened anew counts from zero, its devices go on. */
export function assertAddsUp(records: readonly StatsRecord[]): void {
  for (const { ifname, tx, rx } of records) {
    for (const [direction, counters] of Object.entries({ tx, rx })) {
      const dropped = Object.values(counters.drops).reduce((sum, count) => sum + count, 0);
      assert.equal(
        counters.in + counters.copies,
        counters.out + (counters.answered ?? 0) + dropped,
        `${ifname} ${direction} ${JSON.stringify(counters)}`,
      );
    }
  }
}

/** Fails unless every record adds up, and what the uplinks let through is what the devices got. */
export function assertBalanced(records: readonly StatsRecord[]): void {
  assertAddsUp(records);
  let passed = 0;
  let arrived = 0;
  for (const { ifname, rx } of records) {
    if (ifname.startsWith('uplink ')) passed += rx.out;
    else arrived += rx.in;
  }
  assert.equal(arrived, passed, 'packets that the devices got, and that the uplinks let through');
}
