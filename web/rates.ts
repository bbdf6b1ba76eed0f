/** Rates out of two states of the counters. */
import type { Counts, DeviceState, Live } from '../control/web/shapes.ts';

export interface Rates {
  readonly packets: number;
  readonly bytes: number;
  readonly drops: number;
}

export interface DeviceRates {
  readonly tx: Rates;
  readonly rx: Rates;
}

/** Packets, bytes and drops a second between two states, by 'NODE DEVICE'. A device that is new, or counts anew, has none. */
export function ratesBetween(before: Live | undefined, now: Live): Map<string, DeviceRates> {
  const rates = new Map<string, DeviceRates>();
  if (!before) return rates;
  const seconds = Math.max(0.001, (now.time - before.time) / 1000);
  const known = new Map<string, DeviceState>();
  for (const { name, devices } of before.nodes)
    for (const device of devices) known.set(`${name} ${device.name}`, device);
  for (const { name, devices } of now.nodes) {
    for (const device of devices) {
      const last = known.get(`${name} ${device.name}`);
      if (!last) continue;
      rates.set(`${name} ${device.name}`, {
        tx: between(last.tx, device.tx, seconds),
        rx: between(last.rx, device.rx, seconds),
      });
    }
  }
  return rates;
}

function between(before: Counts, now: Counts, seconds: number): Rates {
  const rate = (from: number, to: number): number => Math.max(0, to - from) / seconds;
  return {
    packets: rate(before.packets, now.packets),
    bytes: rate(before.bytes, now.bytes),
    drops: rate(total(before.drops), total(now.drops)),
  };
}

export function total(drops: Readonly<Record<string, number>>): number {
  return Object.values(drops).reduce((sum, count) => sum + count, 0);
}

/** Microseconds a time that a worker wakes up: of work until it sleeps again, and of waiting for a CPU. */
export interface Latency {
  readonly work: number;
  readonly wait: number;
}

/** The mean over the workers of all nodes. */
export function latencyBetween(before: Live, now: Live): Latency {
  let [work, wait, sleeps] = [0, 0, 0];
  for (const { name: node, threads } of now.nodes) {
    const known = before.nodes.find(({ name }) => name === node)?.threads ?? [];
    for (const thread of threads.filter(({ name }) => name !== 'main')) {
      const last = known.find(({ name }) => name === thread.name);
      if (!last || thread.cpu < last.cpu) continue; // new, or started again
      work += thread.cpu - last.cpu;
      wait += thread.wait - last.wait;
      sleeps += thread.sleeps - last.sleeps;
    }
  }
  const scale = 1e6 / Math.max(1, sleeps);
  return { work: work * scale, wait: wait * scale };
}
