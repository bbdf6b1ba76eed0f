/** Whether the machine was quiet enough, and what its noise leaves undecided. */
import { BASE, cellOf, type Result } from './result.ts';

/** Shares of the machine that others may take before a report says so. */
const BACKGROUND = 0.1;
const STOLEN = 0.02;
/** (max - min) / median of the kernel's own figures: what repeating the same thing gives. */
const SPREAD = 0.3;
/** With fewer rounds the order of any two peers may be chance, so that no pair is named. */
export const ROUNDS_TO_TELL = 3;

export interface Verdict {
  readonly noisy: boolean;
  /** A sentence each. */
  readonly reasons: readonly string[];
  /** Pairs of peers whose order in a quantity is not the same in every round. */
  readonly undecided: readonly { readonly title: string; readonly peers: readonly [string, string] }[];
}

export function judge(result: Result): Verdict {
  const reasons: string[] = [];
  const busy = result.runs.filter(({ background }) => background > BACKGROUND);
  if (busy.length > 0) {
    const most = Math.max(...busy.map(({ background }) => background));
    reasons.push(`others used up to ${percent(most)} of the CPUs before ${busy.length} of ${result.runs.length} runs`);
  }
  const stolen = Math.max(0, ...result.runs.map((run) => run.stolen));
  if (stolen > STOLEN) reasons.push(`the hypervisor took up to ${percent(stolen)} of the CPU time`);
  const unsteady = result.quantities.filter(({ key, noRatio }) => {
    const base = result.runs.filter(({ peer }) => peer === BASE).flatMap(({ values }) => values[key] ?? []);
    if (noRatio || base.length < 2) return false;
    const { value } = cellOf(result, { key, title: '', unit: '', better: 'more' }, BASE);
    return (value!.max - value!.min) / value!.median > SPREAD;
  });
  const compared = result.quantities.filter(({ noRatio }) => !noRatio).length;
  if (unsteady.length > compared / 3) {
    reasons.push(
      `the kernel's own figures spread by more than ${percent(SPREAD)} in ${unsteady.length} of ${compared} quantities`,
    );
  }
  return { noisy: reasons.length > 0, reasons, undecided: undecided(result) };
}

function undecided({ runs, quantities, peers }: Result): Verdict['undecided'] {
  return quantities.flatMap(({ key, title, noRatio }) => {
    if (noRatio) return [];
    const pairs = peers.flatMap(({ name: a }, i) => peers.slice(i + 1).map(({ name: b }) => [a, b] as const));
    return pairs
      .filter(([a, b]) => {
        const of = (peer: string) =>
          new Map(runs.filter((run) => run.peer === peer).map((run) => [run.round, run.values[key]]));
        const [first, second] = [of(a), of(b)];
        const signs = [...first].flatMap(([round, value]) => {
          const other = second.get(round);
          return value === undefined || other === undefined ? [] : Math.sign(value - other);
        });
        return signs.length >= ROUNDS_TO_TELL && signs.some((sign) => sign === 0 || sign !== signs[0]);
      })
      .map((pair) => ({ title, peers: pair }));
  });
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}
