/** The command line of `npm run bench`. */
import { parseArgs } from 'node:util';
import type { Measure, Pace } from './measures/measure.ts';
import { parseMeasures } from './measures/measures.ts';
import { type Peer, parsePeers } from './peers/peers.ts';

export const HELP = `Usage: npm run bench -- [ COMMAND ] [ OPTIONS ]
compare (the default): uvxlan beside the kernel's VXLAN and others, two hosts on this machine, rounds interleaved. Needs root.
  --quick             two rounds of the most important, within 3 minutes; default is all, within 30
  --peers LIST        which overlays, in this order: veth, kernel, redirect, offload, udp, raw, auto, ovs; LEFT:RIGHT for two kinds;
                      redirect/tunnel-gso+uso without what --without hides; redirect@DIR from another checkout;
                      groups: quick, full, tiers
  --measures LIST     which measurements; groups: quick, full
  --rounds N          how many rounds, as long as there is time
  --seconds S         whole seconds of a run of streams, round trips or connections, default 1; a trial of a search takes half of it,
                      and a search at most 10 trials (--quick: 8)
  --congestion NAME   TCP congestion control of the runs, e.g. cubic; default is the machine's, which the report names
  --limit MINUTES     begins no round that would not end within so many
  --output DIR        also writes report.json, report.md and report.html there
list                  peers and measurements, and which of them cannot run here
report FILE           report.json once more as text; with --output as the other reports
scale [--output DIR]  FDB of 10 to 1,000,000 entries, 1 to 1,000 VTEPs, flood lists, VNIs: in memory, without root
micro [ WORD ]        nanoseconds of single functions, and no garbage collection; only those with WORD in their names
transfer [ MEGABYTES ]  a checked bulk transfer over each uplink, both ways, without and with 1 % loss; default 1024
Exit status: 0 when all worked, 1 when something did not, 2 when the words are wrong.`;

export class ArgumentError extends Error {}

export interface CompareOptions {
  readonly peers: readonly Peer[];
  readonly measures: readonly Measure[];
  readonly rounds: number;
  readonly pace: Pace;
  /** Seconds. */
  readonly limit: number;
  readonly congestion: string | undefined;
  readonly output: string | undefined;
}

export type Command =
  | { readonly name: 'help' | 'list' }
  | { readonly name: 'compare'; readonly options: CompareOptions }
  | { readonly name: 'report'; readonly file: string; readonly output: string | undefined }
  | { readonly name: 'scale'; readonly output: string | undefined }
  | { readonly name: 'micro'; readonly word: string }
  | { readonly name: 'transfer'; readonly megabytes: number };

const FULL = { peers: 'full', measures: 'full', rounds: 3, seconds: 1, trials: 10, limit: 29 };
const QUICK = { peers: 'quick', measures: 'quick', rounds: 2, seconds: 1, trials: 8, limit: 2.9 };

/** Throws ArgumentError that says what is wrong. */
export function parseArguments(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv);
  const [name = 'compare', ...rest] = positionals;
  if (values.help) return { name: 'help' };
  const none = () => {
    if (rest.length > 0) throw new ArgumentError(`unknown word "${rest[0]}"`);
  };
  const { output, ...others } = values;
  const given = Object.keys(others);
  if (name !== 'compare' && given.length > 0) throw new ArgumentError(`--${given[0]} goes with compare only`);
  switch (name) {
    case 'compare':
      none();
      return { name, options: compareOptions(values) };
    case 'list':
      none();
      return { name };
    case 'scale':
      none();
      return { name, output };
    case 'report':
      if (rest.length !== 1) throw new ArgumentError('report wants one FILE');
      return { name, file: rest[0]!, output };
    case 'micro':
      if (rest.length > 1) throw new ArgumentError('micro wants one WORD');
      return { name, word: rest[0] ?? '' };
    case 'transfer':
      if (rest.length > 1) throw new ArgumentError(`unknown word "${rest[1]}"`);
      return { name, megabytes: number('MEGABYTES', rest[0] ?? '1024', 1, 65_536) };
    default:
      throw new ArgumentError(`there is no command "${name}"`);
  }
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        quick: { type: 'boolean' },
        peers: { type: 'string' },
        measures: { type: 'string' },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
        limit: { type: 'string' },
        congestion: { type: 'string' },
        output: { type: 'string' },
      },
    });
  } catch (error) {
    throw new ArgumentError((error as Error).message.split('. ')[0]);
  }
}

function compareOptions(values: ReturnType<typeof parse>['values']): CompareOptions {
  const preset = values.quick ? QUICK : FULL;
  const seconds = number('--seconds', values.seconds ?? preset.seconds, 1, 60, true);
  return {
    peers: named(() => parsePeers(values.peers ?? preset.peers)),
    measures: named(() => parseMeasures(values.measures ?? preset.measures)),
    rounds: number('--rounds', values.rounds ?? preset.rounds, 1, 100, true),
    pace: { seconds, trialSeconds: seconds / 2, trials: preset.trials },
    limit: number('--limit', values.limit ?? preset.limit, 0.1, 600) * 60,
    congestion: values.congestion,
    output: values.output,
  };
}

function named<T>(parsed: () => T): T {
  try {
    return parsed();
  } catch (error) {
    throw new ArgumentError((error as Error).message);
  }
}

function number(what: string, text: string | number, min: number, max: number, whole = false): number {
  const value = Number(text);
  if (text === '' || !(value >= min && value <= max) || (whole && !Number.isInteger(value))) {
    throw new ArgumentError(`${what} "${text}" is not a ${whole ? 'whole ' : ''}number from ${min} to ${max}`);
  }
  return value;
}
