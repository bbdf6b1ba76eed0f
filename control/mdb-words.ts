/** `bridge mdb`'s words for vxlan devices (iproute2 6.3 and later, bridge/mdb.c). */
import type { FilterMode, MdbEntry, MdbSelection } from '../fdb/mdb.ts';
import { formatIp, parseIp } from '../wire/address.ts';
import { FDB_FIELDS, WrongValue } from './fields.ts';
import { nearest } from './nearest.ts';
import { CommandError } from './protocol.ts';
import { duplicate, incomplete, UsageError, wrongArgument } from './words.ts';

/** An entry's remote, and the device that it belongs to. */
export type MdbArguments = MdbEntry & { readonly dev: string };

/** One validator for each field, for words and for requests on the control socket. Each throws WrongValue. */
const FIELDS: { readonly [K in keyof MdbArguments]-?: (text: string) => MdbArguments[K] } = {
  dev: FDB_FIELDS.via as (text: string) => string,
  grp: address,
  src: address,
  dst: (text) => FDB_FIELDS.dst(text) ?? undefined,
  dst_port: (text) => FDB_FIELDS.port(text) ?? undefined,
  vni: (text) => FDB_FIELDS.vni(text) ?? undefined,
  src_vni: (text) => FDB_FIELDS.vni(text) ?? undefined,
  via: (text) => FDB_FIELDS.via(text) ?? undefined,
  filter_mode: filterMode,
  source_list: (text) => text.split(',').map(address),
  state: state,
};
type Key = keyof typeof FIELDS;

const LABELS: Partial<Record<Key, string>> = {
  dev: 'device name',
  grp: 'group address',
  src: 'source address',
  dst: 'dst address',
  dst_port: 'dst port',
  vni: 'VNI',
  src_vni: 'source VNI',
  via: 'device name',
  source_list: 'source address',
};

const ENTRY_KEYS: readonly Key[] = ['src', 'filter_mode', 'source_list', 'dst', 'dst_port', 'vni', 'src_vni', 'via'];
const SELECTION_KEYS: readonly Key[] = ['dst', 'dst_port', 'vni', 'src_vni'];

/** Words of bridge's that mean nothing here, and why. */
const FOREIGN_WORDS: Record<string, string> = {
  vid: 'for the MDB of a bridge: Error: vxlan: VID must not be specified.',
  proto: 'not there in uvxlan: all entries are "proto static"',
};

/** `dev DEV port DEV grp GROUP [src SRC] dst VTEP ...` in any order. Throws UsageError. */
export function parseMdbEntry(words: readonly string[]): MdbArguments {
  const { port, ...fields } = parse(words, ['dev', 'grp', ...ENTRY_KEYS], ['port', 'permanent', 'temp']);
  const { dev, grp } = fields;
  if (dev === undefined || grp === undefined || port === undefined)
    throw new UsageError('Device, group address and port name are required arguments.');
  if (port !== dev) throw new UsageError('Error: vxlan: Port net device must be the VXLAN net device.');
  return { ...fields, dev, grp };
}

/** `[dev DEV]`. Throws UsageError. */
export function parseMdbShow(words: readonly string[]): { dev: string | null } {
  return { dev: parse(words, ['dev'], []).dev ?? null };
}

/** `dev DEV grp GROUP [src SRC] [src_vni VNI]`. Throws UsageError. */
export function parseMdbGet(words: readonly string[]): MdbArguments {
  const { dev, grp, ...rest } = parse(words, ['dev', 'grp', 'src', 'src_vni'], []);
  if (dev === undefined || grp === undefined) throw new UsageError('Device and group address are required arguments.');
  return { dev, grp, ...rest };
}

/** `dev DEV [port DEV] [dst VTEP] [dst_port P] [vni N] [src_vni N] [[no]permanent]`. Throws UsageError. */
export function parseMdbFlush(words: readonly string[]): { dev: string; selection: MdbSelection } {
  const {
    dev,
    port,
    state: _,
    ...selection
  } = parse(words, ['dev', ...SELECTION_KEYS], ['port', 'permanent', 'nopermanent']);
  if (dev === undefined) throw new UsageError('Device is a required argument.');
  if (port !== undefined && port !== dev) throw new UsageError('Error: vxlan: Invalid port net device.');
  return { dev, selection };
}

/** An entry that came over the control socket: whoever can open it can send anything. Throws CommandError, WrongValue. */
export function mdbEntryOf(args: Readonly<Record<string, unknown>>): MdbArguments {
  const { dev, grp, ...rest } = checked(args, ['dev', 'grp', 'state', ...ENTRY_KEYS]);
  if (dev === undefined || grp === undefined)
    throw new CommandError(`the argument ${dev === undefined ? 'dev' : 'grp'} is missing`, 'EINVAL');
  return { dev, grp, ...rest };
}

export function mdbSelectionOf(args: Readonly<Record<string, unknown>>): MdbSelection {
  return checked(args, SELECTION_KEYS);
}

function checked(args: Readonly<Record<string, unknown>>, known: readonly Key[]): Partial<MdbArguments> {
  const fields: Partial<Record<Key, unknown>> = {};
  for (const [key, value] of Object.entries(args)) {
    if (!known.includes(key as Key)) throw new CommandError(`the argument ${key} is unknown`, 'EINVAL');
    if (value !== null && value !== undefined) fields[key as Key] = FIELDS[key as Key](String(value));
  }
  return fields as Partial<MdbArguments>;
}

function parse(
  words: readonly string[],
  withValue: readonly Key[],
  others: readonly string[],
): Partial<MdbArguments> & { port?: string } {
  const fields: Partial<Record<Key | 'port', unknown>> = {};
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    const isKnown = withValue.includes(word as Key) || others.includes(word);
    if (!isKnown) throw unknownWord(word, [...withValue, ...others]);
    if (word === 'nopermanent') throw new UsageError('Error: vxlan: Only permanent MDB entries are supported.');
    const isState = word === 'permanent' || word === 'temp';
    const key = isState ? 'state' : (word as Key | 'port');
    if (!isState && next >= words.length) throw incomplete(word, 1);
    const text = isState ? word : words[next++];
    if (key in fields) throw duplicate(key, text);
    fields[key] = fieldValue(key === 'port' ? 'dev' : key, text);
  }
  return fields as Partial<MdbArguments> & { port?: string };
}

function fieldValue(key: Key, text: string): unknown {
  try {
    return FIELDS[key](text);
  } catch (error) {
    if (error instanceof WrongValue) throw wrongArgument(error, LABELS[key] ?? key);
    throw error;
  }
}

function address(text: string): string {
  const bytes = parseIp(text);
  if (bytes === undefined) throw new WrongValue(text, 'is not an IP address');
  return formatIp(bytes);
}

function filterMode(text: string): FilterMode {
  if (text !== 'include' && text !== 'exclude') throw new WrongValue(text, 'is neither include nor exclude');
  return text;
}

function state(text: string): 'permanent' | 'temp' {
  if (text !== 'permanent' && text !== 'temp') throw new WrongValue(text, 'is neither permanent nor temp');
  return text;
}

function unknownWord(word: string, known: readonly string[]): UsageError {
  if (Object.hasOwn(FOREIGN_WORDS, word)) return new UsageError(`"${word}" is ${FOREIGN_WORDS[word]}`);
  const suggestion = nearest(word, known);
  return new UsageError(
    `unknown word "${word}", ${suggestion ? `did you mean "${suggestion}"?` : 'see uvxlan mdb --help'}`,
  );
}
