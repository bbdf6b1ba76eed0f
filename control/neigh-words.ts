/** `ip neigh`'s words. */
import {
  NUD_DELAY,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_NOARP,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  NUD_STALE,
} from '../fdb/neighbors.ts';
import { formatIp, parseIp } from '../wire/address.ts';
import { DEVICE_FIELDS, FDB_FIELDS, WrongValue } from './fields.ts';
import { nearest } from './nearest.ts';
import { CommandError } from './protocol.ts';
import { duplicate, incomplete, UsageError, wrongArgument } from './words.ts';

/** The states that a neighbour of ours may be given; nothing of ours probes or ages it. */
export const NEIGH_STATES = ['permanent', 'noarp', 'reachable', 'stale'] as const;
export type NeighState = (typeof NEIGH_STATES)[number];

export type NeighCommand = 'add' | 'replace' | 'change' | 'del';

/** A neighbour as asked for. */
export interface NeighArguments {
  /** Canonical text. */
  readonly dst: string;
  readonly dev: string;
  readonly lladdr: string;
  readonly nud: NeighState;
  readonly router: boolean;
}

/** Which neighbours; null: all, as far as NUD_ bits `states` let. */
export interface NeighFilter {
  readonly dev: string | null;
  /** An address or a prefix. */
  readonly to: string | null;
  readonly states: number;
}

/** As `ip -j neigh show` prints one. */
export interface NeighRecord {
  readonly dst: string;
  readonly dev: string;
  readonly lladdr: string;
  readonly router?: null;
  readonly state: readonly string[];
  /** `kernel`: the host's own entry (`ip neigh`), which the device answers with as well. */
  readonly protocol?: 'kernel';
}

export const NUD_NAMES: Readonly<Record<string, number>> = {
  incomplete: NUD_INCOMPLETE,
  reachable: NUD_REACHABLE,
  stale: NUD_STALE,
  delay: NUD_DELAY,
  probe: NUD_PROBE,
  failed: NUD_FAILED,
  noarp: NUD_NOARP,
  permanent: NUD_PERMANENT,
};
const ALL_STATES = 0xff;
/** What iproute2 shows and flushes when no state is named (ip/ipneigh.c: do_show_or_flush). */
export const SHOWN_STATES = ALL_STATES & ~NUD_NOARP;
export const FLUSHED_STATES = ALL_STATES & ~(NUD_NOARP | NUD_PERMANENT);

/** One validator for each field, for words and for requests on the control socket. Each throws WrongValue. */
export const NEIGH_FIELDS: { readonly [K in keyof NeighArguments]: (text: string) => NeighArguments[K] } = {
  dst: ipAddress,
  dev: DEVICE_FIELDS.name,
  lladdr: FDB_FIELDS.mac,
  nud: neighState,
  router: (text) => text === 'true',
};

const LABELS: Partial<Record<keyof NeighArguments, string>> = { dst: 'address', dev: 'device name', nud: 'nud state' };
const VALUES = ['to', 'dev', 'lladdr', 'nud'] as const;

/** `ADDR lladdr MAC dev DEV [nud STATE] [router]` in any order. `del` needs neither lladdr nor state. Throws UsageError. */
export function parseNeighbour(words: readonly string[], command: NeighCommand): NeighArguments {
  const fields: Partial<Record<keyof NeighArguments, unknown>> = {};
  const set = (key: keyof NeighArguments, text: string, word: string): void => {
    if (key in fields) throw duplicate(word, text);
    fields[key] = fieldValue(key, text);
  };
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    if (word === 'router') set('router', 'true', word);
    else if (VALUES.some((value) => value === word)) {
      if (next >= words.length) throw incomplete(word, 1);
      set(word === 'to' ? 'dst' : (word as keyof NeighArguments), words[next++], word);
    } else if ('dst' in fields) throw unknownWord(word, [...VALUES, 'router']);
    else set('dst', word, 'to');
  }
  if (fields.dev === undefined || fields.dst === undefined)
    throw new UsageError('Device and destination are required arguments.');
  if (command !== 'del' && fields.lladdr === undefined)
    throw new UsageError('lladdr is a required argument: the MAC address of the neighbour');
  return { lladdr: '', nud: 'permanent', router: false, ...fields } as NeighArguments;
}

/** `[to] [ADDR | PREFIX] [dev DEV] [nud STATE]`; `states` are those that are meant when none is named. Throws UsageError. */
export function parseNeighFilter(words: readonly string[], states: number): NeighFilter {
  let [dev, to, named]: [string | null, string | null, number] = [null, null, 0];
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    const takesValue = VALUES.some((value) => value === word && value !== 'lladdr');
    if (takesValue && next >= words.length) throw incomplete(word, 1);
    if (word === 'nud') named |= statesOf(words[next++]);
    else if (word === 'dev') {
      if (dev !== null) throw duplicate(word, words[next]);
      dev = fieldValue('dev', words[next++]) as string;
    } else {
      if (to !== null) throw unknownWord(word, ['to', 'dev', 'nud']);
      to = prefix(word === 'to' ? words[next++] : word);
    }
  }
  return { dev, to, states: named || states };
}

/** A neighbour as it came over the control socket: whoever can open it can send anything. */
export function neighbourOf(args: Record<string, unknown>, command: NeighCommand): NeighArguments {
  const words: string[] = [];
  for (const [key, value] of Object.entries(args)) {
    if (!Object.hasOwn(NEIGH_FIELDS, key)) throw new CommandError(`the argument ${key} is unknown`, 'EINVAL');
    if (key === 'router') words.push(...(value === true ? ['router'] : []));
    else if (key !== 'lladdr' || value !== '') words.push(key === 'dst' ? 'to' : key, String(value));
  }
  return parseNeighbour(words, command);
}

/** As above, with the states that were asked for. */
export function neighFilterOf({ dev = null, to = null, states }: Record<string, unknown>): NeighFilter {
  const words = [...(dev === null ? [] : ['dev', String(dev)]), ...(to === null ? [] : ['to', String(to)])];
  return parseNeighFilter(words, Number(states) & ALL_STATES);
}

function statesOf(name: string): number {
  if (name === 'all') return ALL_STATES;
  if (Object.hasOwn(NUD_NAMES, name)) return NUD_NAMES[name];
  throw new UsageError(`nud state is bad: "${name}" is not all, ${Object.keys(NUD_NAMES).join(', ')}`);
}

/** Canonical text; throws UsageError. */
function prefix(text: string): string {
  const [address, length, ...more] = text.split('/');
  const bytes = parseIp(address);
  const bits = length === undefined ? undefined : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN;
  if (bytes === undefined || more.length > 0 || (bits !== undefined && !(bits <= bytes.length * 8)))
    throw new UsageError(`"${text}" is neither an address nor a prefix such as 10.244.0.0/16`);
  return text;
}

function ipAddress(text: string): string {
  const bytes = parseIp(text);
  if (bytes === undefined) throw new WrongValue(text, 'is not an IP address');
  return formatIp(bytes);
}

function neighState(text: string): NeighState {
  const found = NEIGH_STATES.find((state) => state === text);
  if (found !== undefined) return found;
  const known = Object.hasOwn(NUD_NAMES, text) || text === 'none';
  const why = known ? 'is a state of a neighbour that is being asked for: uvxlan does not ask' : 'is not a state';
  throw new WrongValue(text, `${why}; give one of ${NEIGH_STATES.join(', ')}`);
}

function fieldValue(key: keyof NeighArguments, text: string): unknown {
  try {
    return NEIGH_FIELDS[key](text);
  } catch (error) {
    if (error instanceof WrongValue) throw wrongArgument(error, LABELS[key] ?? key);
    throw error;
  }
}

function unknownWord(word: string, known: readonly string[]): UsageError {
  const suggestion = nearest(word, known);
  return new UsageError(
    `unknown word "${word}", ${suggestion ? `did you mean "${suggestion}"?` : 'see uvxlan neigh --help'}`,
  );
}
