/** Something that is done over and over: how long it takes, and whether it leaves garbage. */
import { PerformanceObserver, performance } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
import { getHeapStatistics } from 'node:v8';
import Benchmark from 'benchmark';

/** At 8 bytes an operation the young generation (16 MB) would be full before the end. */
const WATCHED_OPERATIONS = 3_000_000;
const WATCHED_SECONDS = 3;

export interface Case {
  readonly name: string;
  /** Operations of a turn: packets, lookups, calls. */
  readonly operations: number;
  /** Bytes that they are about. */
  readonly bytes: number;
  turn(): void;
}

/** Seconds a turn: the quickest sample, since whatever else runs on the machine only adds to it. */
export function measure({ name, turn }: Case, seconds = 0.5): number {
  const { stats, error } = new Benchmark(name, turn, { maxTime: seconds }).run();
  if (error) throw error;
  return Math.min(...stats.sample);
}

export interface Watched {
  /** How often the collector ran. */
  readonly collections: number;
  /** By which the heap grew, an operation. */
  readonly bytes: number;
}

export async function watch({ operations, turn }: Case, seconds: number): Promise<Watched> {
  const runs: number[] = [];
  const observer = new PerformanceObserver((list) => {
    for (const { startTime } of list.getEntries()) runs.push(startTime);
  });
  observer.observe({ entryTypes: ['gc'] });
  await setTimeout(50); // what the measurement before left to be collected
  const turns = Math.ceil(Math.min(WATCHED_OPERATIONS / operations, WATCHED_SECONDS / seconds));
  const heap = getHeapStatistics().used_heap_size;
  const begin = performance.now();
  for (let i = 0; i < turns; i++) turn();
  const end = performance.now();
  const grown = getHeapStatistics().used_heap_size - heap;
  await setTimeout(50); // the observer hears of it later
  observer.disconnect();
  return { collections: runs.filter((at) => at >= begin && at <= end).length, bytes: grown / (turns * operations) };
}
