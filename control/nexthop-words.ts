import type { Nexthop } from '../fdb/groups.ts';
import { FDB_FIELDS, WrongValue } from './fields.ts';
import { nearest } from './nearest.ts';
import { CommandError } from './protocol.ts';
import { duplicate, incomplete, UsageError, wrongArgument } from './words.ts';

/** `id N { via ADDRESS | group ID/ID... } fdb` in any order, as `ip nexthop` has it. Throws UsageError. */
export function parseNexthop(words: readonly string[]): Nexthop {
  const given = new Map<string, string>();
  for (let next = 0; next < words.length; ) {
    const word = words[next++];
    if (!['id', 'via', 'group', 'fdb'].includes(word)) throw unknownWord(word);
    if (given.has(word)) throw duplicate(word, words[next] ?? word);
    if (word !== 'fdb' && next >= words.length) throw incomplete(word, 1);
    given.set(word, word === 'fdb' ? '' : words[next++]);
  }
  const [id, via, group] = ['id', 'via', 'group'].map((word) => given.get(word));
  if (id === undefined) throw new UsageError('"id" is required');
  if (!given.has('fdb')) throw new UsageError('"fdb" is missing: uvxlan has nexthops for FDB entries only');
  if ((via === undefined) === (group === undefined)) throw new UsageError('one of "via" and "group" is required');
  return checked({ id, via, group: group?.split('/') });
}

/** `id N`, or nothing. Throws UsageError. */
export function parseNexthopId(words: readonly string[]): { id: number | null } {
  const [word, id, ...more] = words;
  if (word === undefined) return { id: null };
  if (word !== 'id' || more.length > 0) throw unknownWord(more[0] ?? word);
  if (id === undefined) throw incomplete('id', 1);
  return { id: numberOf(id) };
}

/** What came over the control socket. Throws CommandError, UsageError. */
export function nexthopOf({ id, via, group, ...rest }: Readonly<Record<string, unknown>>): Nexthop {
  for (const key of Object.keys(rest)) throw new CommandError(`the argument ${key} is unknown`, 'EINVAL');
  if (group !== undefined && !Array.isArray(group)) throw new CommandError('the group is not a list', 'EINVAL');
  if ((via === undefined) === (group === undefined))
    throw new CommandError('one of via and group is required', 'EINVAL');
  return checked({ id: String(id), via: via === undefined ? undefined : String(via), group: group?.map(String) });
}

function checked({ id, via, group }: { id: string; via: string | undefined; group: string[] | undefined }): Nexthop {
  if (via !== undefined) return { id: numberOf(id), via: value(via, FDB_FIELDS.dst, 'address') };
  const weighted = group!.find((member) => member.includes(','));
  if (weighted !== undefined) throw new UsageError(`"${weighted}": groups are equal-cost in uvxlan, without weights`);
  return { id: numberOf(id), group: group!.map(numberOf) };
}

function numberOf(text: string): number {
  return value(text, FDB_FIELDS.nhid, 'id value');
}

function value<T>(text: string, validate: (text: string) => T, label: string): NonNullable<T> {
  try {
    return validate(text)!;
  } catch (error) {
    if (error instanceof WrongValue) throw wrongArgument(error, label);
    throw error;
  }
}

function unknownWord(word: string): UsageError {
  const suggestion = nearest(word, ['id', 'via', 'group', 'fdb']);
  return new UsageError(
    `unknown word "${word}", ${suggestion ? `did you mean "${suggestion}"?` : 'see uvxlan nexthop --help'}`,
  );
}
