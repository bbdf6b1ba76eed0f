/** A measurement: what it gives, and how it is taken from two ends of an overlay. */
import type { Pair } from '../peers/peers.ts';

export interface Quantity {
  /** Its name in the JSON report. */
  readonly key: string;
  readonly title: string;
  readonly unit: string;
  /** What is good. */
  readonly better: 'more' | 'less';
  /** Ratios to the kernel make no sense: zeros, or what the kernel does not have. */
  readonly noRatio?: boolean;
}

/** How long things take. */
export interface Pace {
  /** Whole seconds of one TCP stream, one latency run, and the like. */
  readonly seconds: number;
  /** Seconds of one trial of a search. */
  readonly trialSeconds: number;
  /** Trials of a search. */
  readonly trials: number;
}

export interface Sample {
  readonly values: Readonly<Record<string, number>>;
  /** Round trips, counted by size. */
  readonly histograms?: Readonly<Record<string, Histogram>>;
  /** Of the quantities that have no figure although the others do. */
  readonly failures?: readonly Failure[];
}

export interface Failure {
  /** Quantities that have no figure because of it. */
  readonly keys: readonly string[];
  readonly why: string;
}

/** Counts of values in buckets: bucket i holds those from `edges[i]` to below `edges[i + 1]`. */
export interface Histogram {
  readonly edges: readonly number[];
  readonly counts: readonly number[];
}

export interface Measure {
  /** As in --measures. */
  readonly name: string;
  readonly about: string;
  /** Of the veth. */
  readonly mtu: 1500 | 9000;
  readonly quantities: readonly Quantity[];
  /** Why it cannot be taken on this machine; undefined when it can. */
  lacks?(): string | undefined;
  /** Called when the pair is warm, before the first measurement. */
  begin?(pair: Pair): void;
  /** Throws when a figure cannot be had. */
  run(pair: Pair, pace: Pace): Promise<Sample>;
}
