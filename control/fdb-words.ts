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
  permanent: { key: 'state', means: 'permanent' },
  local: { key: 'state', means: 'permanent' },
  static: { key: 'state', means: 'static' },
  temp: { key: 'state', means: 'static' },
  dynamic: { key: 'state', means: 'dynamic' },
};

const LATER_WORDS = ['src_vni', 'nhid', 'extern_learn', 'use', 'sticky', 'router', 'vlan'];

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
    if (word === 'master') throw new UsageError('"master" is the FDB of a bridge: uvxlan has "self" only');
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
  if (command !== 'del' && !fields.dst)
    throw new UsageError('dst is a required argument: the VTEP that has the address');
  return { dst: null, port: null, vni: null, via: null, state: 'permanent', ...fields, mac, dev };
}

/** `[dev DEV]`. */
export function parseFdbFilter(words: readonly string[]): FdbFilter {
  return { dev: parseOnlyDevice(words) };
}

/** `dev DEV`. */
export function parseFdbFlush(words: readonly string[]): { dev: string } {
  const dev = parseOnlyDevice(words);
  if (dev === null) throw new UsageError('Device is a required argument.');
  return { dev };
}

function parseOnlyDevice(words: readonly string[]): string | null {
  let dev: string | null = null;
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    if (word === 'self') continue;
    if (word !== 'dev' && word !== 'brport')
      throw new UsageError(`unknown word "${word}": only "dev DEV" selects entries so far`);
    if (next >= words.length) throw incomplete(word, 1);
    if (dev !== null) throw duplicate('dev', words[next]);
    dev = fieldValue('dev', words[next++]) as string;
  }
  return dev;
}

function setField(fields: Partial<FdbArguments>, key: EntryKey, text: string, word: string): void {
  if (key in fields) throw duplicate(word, text);
  Object.assign(fields, { [key]: fieldValue(key, text) });
}

function fieldValue(key: EntryKey, text: string): unknown {
  try {
    return ENTRY_FIELDS[key](text);
  } catch (error) {
    if (error instanceof WrongValue) throw wrongArgument(error, LABELS[key] ?? key);
    throw error;
  }
}

function unknownWord(word: string): UsageError {
  if (LATER_WORDS.includes(word)) return new UsageError(`"${word}" is not there yet in uvxlan`);
  const suggestion = nearest(word, Object.keys(ENTRY_WORDS));
  return new UsageError(
    `unknown word "${word}", ${suggestion ? `did you mean "${suggestion}"?` : 'see uvxlan fdb --help'}`,
  );
}
