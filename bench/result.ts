/** What a benchmark has found, as it is written to JSON; all reports are made from it. */
import type { Environment } from './environment.ts';
import type { Failure, Histogram, Pace, Quantity } from './measures/measure.ts';
import { addHistograms, type Summary, summarize } from './statistics.ts';

export interface Result {
  readonly format: 1;
  /** ISO 8601. */
  readonly started: string;
  /** How long it took. */
  readonly seconds: number;
  readonly command: string;
  readonly environment: Environment;
  readonly pace: Pace;
  readonly peers: readonly { readonly name: string; readonly about: string }[];
  readonly quantities: readonly Quantity[];
  /** Peers and measurements that were left out, with the reason. */
  readonly skipped: readonly { readonly what: string; readonly why: string }[];
  /** In the order in which they were taken. */
  readonly runs: readonly Run[];
  /** Why there are fewer rounds than asked for. */
  readonly cutShort?: string | undefined;
}

/** One peer in one round. */
export interface Run {
  readonly round: number;
  readonly peer: string;
  /** Share of the machine, 0 to 1, that worked for others just before. */
  readonly background: number;
  /** Share of the CPU time of the run, 0 to 1, that a hypervisor gave to others. */
  readonly stolen: number;
  readonly values: Readonly<Record<string, number>>;
  readonly histograms: Readonly<Record<string, Histogram>>;
  readonly failures: readonly Failure[];
}

/** What everything is compared with. */
export const BASE = 'kernel';

/** A quantity of one peer over all rounds. */
export interface Cell {
  /** undefined: no round gave a figure. */
  readonly value: Summary | undefined;
  /** To the kernel in the same round; undefined where that makes no sense. */
  readonly ratio: Summary | undefined;
  /** Reasons of the rounds that failed. */
  readonly failures: readonly string[];
}

export function cellOf({ runs }: Result, { key, noRatio }: Quantity, peer: string): Cell {
  const own = runs.filter((run) => run.peer === peer);
  const ratios = own.map((run) => {
    const base = runs.find(({ round, peer: other }) => other === BASE && round === run.round)?.values[key];
    return base !== undefined && base > 0 && run.values[key] !== undefined ? run.values[key] / base : undefined;
  });
  return {
    value: summarize(numbers(own.map(({ values }) => values[key]))),
    ratio: noRatio || peer === BASE ? undefined : summarize(numbers(ratios)),
    failures: own.flatMap(({ failures }) => failures.filter(({ keys }) => keys.includes(key)).map(({ why }) => why)),
  };
}

export function histogramOf({ runs }: Result, name: string, peer: string): Histogram | undefined {
  return addHistograms(runs.filter((run) => run.peer === peer).flatMap(({ histograms }) => histograms[name] ?? []));
}

function numbers(values: readonly (number | undefined)[]): number[] {
  return values.filter((value) => value !== undefined);
}
