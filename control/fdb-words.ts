import type { FdbFlag } from '../fdb/state.ts';
import { type FdbSelection, SELECTION_FLAGS } from './fdb-selection.ts';
import { FDB_FIELDS, WrongValue } from './fields.ts';
import { nearest } from './nearest.ts';
import type { FdbArguments, FdbFilter } from './protocol.ts';
import { duplicate, incomplete, UsageError, wrongArgument } from './words.ts';

type EntryKey = keyof FdbArguments;

/** `bridge fdb`'s words: the field that each sets, and the value when the bare word stands for one. */
const ENTRY_WORDS: Record<string, { key: EntryKey; means?: string }> = {
  to: { key: 'mac' },
  dev: { key: 'dev' },
  dst: { key: 'dst' },
  port: { key: 'port' },
  vni: { key: 'vni' },
  via: { key: 'via' },
  nhid: { key: 'nhid' },
  permanent: { key: 'state', means: 'permanent' },
  local: { key: 'state', means: 'permanent' },
  static: { key: 'state', means: 'static' },
  temp: { key: 'state', means: 'static' },
  dynamic: { key: 'state', means: 'dynamic' },
  extern_learn: { key: 'flags', means: 'extern_learn' },
  router: { key: 'flags', means: 'router' },
};

/** Words of bridge's that mean nothing here, and why. */
const FOREIGN_WORDS: Record<string, string> = {
  master: 'the FDB of a bridge: uvxlan has "self" only',
  sticky: 'for the FDB of a bridge',
  vlan: 'for the FDB of a bridge',
  use: 'for the FDB of a bridge',
  src_vni: 'for "external" devices, which have several VNIs: uvxlan has a device for each',
};

const ENTRY_FIELDS = { ...FDB_FIELDS, dev: FDB_FIELDS.via };

const LABELS: Partial<Record<EntryKey, string>> = {
  mac: 'mac address',
  dst: 'dst address',
  vni: 'VNI',
  dev: 'device name',
  via: 'device name',
};

/** `MAC dev DEV dst IP [port P] [vni V] [via IF] [self] [STATE]` in any order. Throws UsageError. */
export function parseFdbEntry(words: readonly string[], command: 'add' | 'append' | 'replace' | 'del'): FdbArguments {
  const fields: Partial<FdbArguments> = {};
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    if (word === 'self') continue;
    if (Object.hasOwn(ENTRY_WORDS, word)) {
      const { key, means } = ENTRY_WORDS[word];
      if (means === undefined && next >= words.length) throw incomplete(word, 1);
      setField(fields, key, means ?? words[next++], key === 'state' ? 'state' : word);
    } else if ('mac' in fields || !word.includes(':')) {
      throw unknownWord(word);
    } else {
      setField(fields, 'mac', word, 'to');
    }
  }
  const { mac, dev } = fields;
  if (mac === undefined || dev === undefined) throw new UsageError('Device and address are required arguments.');
  const { dst, port, vni, via, nhid } = fields;
  if (nhid && (dst || port || typeof vni === 'number' || via))
    throw new UsageError('dst, port, vni are mutually exclusive with nhid');
  if (command !== 'del' && !dst && !nhid)
    throw new UsageError('dst is a required argument: the VTEP that has the address');
  return { dst: null, port: null, vni: null, via: null, state: 'permanent', ...fields, mac, dev };
}

/** `[to] MAC dev DEV`. Throws UsageError. */
export function parseFdbGet(words: readonly string[]): { mac: string; dev: string } {
  const [first, ...rest] = words[0] === 'to' ? words.slice(1) : words;
  if (first === undefined || !first.includes(':')) throw new UsageError('Device and address are required arguments.');
  const { dev } = parseSelection(rest, []);
  if (dev === null) throw new UsageError('Device and address are required arguments.');
  return { mac: fieldValue('mac', first) as string, dev };
}

/** `[dev DEV] [state STATE] [dynamic]`, and what flush selects by. Throws UsageError. */
export function parseFdbFilter(words: readonly string[]): FdbFilter {
  return parseSelection(words, [...SELECTION_VALUES, 'state']);
}

/** `dev DEV [dst IP] [port P] [vni V] [via IF] [nhid N] [[no]permanent | ...]`. Throws UsageError. */
export function parseFdbFlush(words: readonly string[]): { dev: string; selection: FdbSelection } {
  const { dev, selection } = parseSelection(words, SELECTION_VALUES);
  if (dev === null) throw new UsageError('Device is a required argument.');
  return { dev, selection };
}

const SELECTION_VALUES = ['dst', 'port', 'vni', 'via', 'nhid'];

/** A device, and words with values of those that are allowed; the flags stand alone. */
function parseSelection(
  words: readonly string[],
  withValue: readonly string[],
): { dev: string | null; selection: FdbSelection } {
  let dev: string | null = null;
  const selection: FdbSelection = {};
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    if (word === 'self') continue;
    const isDevice = word === 'dev' || word === 'brport';
    if (isDevice || withValue.includes(word)) {
      if (next >= words.length) throw incomplete(word, 1);
      const text = words[next++];
      if (isDevice && dev !== null) throw duplicate(word, text);
      if (isDevice) dev = fieldValue('dev', text) as string;
      else if (word === 'state') selection[fieldValue('state', text) as 'static'] = true;
      else Object.assign(selection, { [word]: fieldValue(word as EntryKey, text) });
      continue;
    }
    const flag = SELECTION_FLAGS.find((name) => withValue.length > 0 && (word === name || word === `no${name}`));
    if (flag === undefined)
      throw unknownWord(word, ['dev', ...withValue, ...(withValue.length > 0 ? SELECTION_FLAGS : [])]);
    selection[flag] = word === flag;
  }
  return { dev, selection };
}

function setField(fields: Partial<FdbArguments>, key: EntryKey, text: string, word: string): void {
  const value = fieldValue(key, text);
  if (key === 'flags') Object.assign(fields, { flags: [...(fields.flags ?? []), ...(value as FdbFlag[])] });
  else if (key in fields) throw duplicate(word, text);
  else (fields as Record<string, unknown>)[key] = value;
}

function fieldValue(key: EntryKey, text: string): unknown {
  try {
    return ENTRY_FIELDS[key](text);
  } catch (error) {
    if (error instanceof WrongValue) throw wrongArgument(error, LABELS[key] ?? key);
    throw error;
  }
}

function unknownWord(word: string, known: readonly string[] = Object.keys(ENTRY_WORDS)): UsageError {
  if (Object.hasOwn(FOREIGN_WORDS, word)) return new UsageError(`"${word}" is ${FOREIGN_WORDS[word]}`);
  const suggestion = nearest(word, known);
  return new UsageError(
    `unknown word "${word}", ${suggestion ? `did you mean "${suggestion}"?` : 'see uvxlan fdb --help'}`,
  );
}
