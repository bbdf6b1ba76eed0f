import assert from 'node:assert/strict';
import test from 'node:test';
import {
  FLUSHED_STATES,
  neighbourOf,
  neighFilterOf,
  parseNeighbour,
  parseNeighFilter,
  SHOWN_STATES,
} from '../../control/neigh-words.ts';
import { UsageError } from '../../control/words.ts';
import { NUD_NOARP, NUD_PERMANENT, NUD_STALE } from '../../fdb/neighbors.ts';

const words = (text: string): string[] => text.split(' ');
const refused = (run: () => unknown, pattern: RegExp) =>
  assert.throws(run, (error) => error instanceof UsageError && pattern.test(error.message));

test("takes ip neigh's words in any order", () => {
  const entry = { dst: '10.0.0.1', dev: 'vx0', lladdr: '02:00:00:00:00:01', nud: 'permanent', router: false };
  assert.deepEqual(parseNeighbour(words('10.0.0.1 lladdr 02:00:00:00:00:01 dev vx0'), 'add'), entry);
  assert.deepEqual(parseNeighbour(words('dev vx0 to 10.0.0.1 nud stale router lladdr 02:00:00:00:00:01'), 'replace'), {
    ...entry,
    nud: 'stale',
    router: true,
  });
  assert.equal(parseNeighbour(words('FD00:0::1 lladdr 02:00:00:00:00:01 dev vx0'), 'change').dst, 'fd00::1');
  assert.deepEqual(parseNeighbour(words('10.0.0.1 dev vx0'), 'del'), { ...entry, lladdr: '' });
});

test('says what is wrong with words', () => {
  for (const [text, pattern] of [
    ['10.0.0.1 lladdr 02:00:00:00:00:01', /^Device and destination are required arguments\.$/],
    ['lladdr 02:00:00:00:00:01 dev vx0', /^Device and destination are required/],
    ['10.0.0.1 dev vx0', /lladdr is a required argument/],
    ['10.0.0 lladdr 02:00:00:00:00:01 dev vx0', /"10\.0\.0" is wrong: invalid address, it is not an IP address/],
    ['10.0.0.1 lladdr 02:00 dev vx0', /invalid lladdr/],
    ['10.0.0.1 lladdr 02:00:00:00:00:01 dev vx0 nud probe', /invalid nud state.*does not ask; give one of permanent/],
    ['10.0.0.1 lladdr 02:00:00:00:00:01 dev vx0 nud frob', /is not a state; give one of/],
    ['10.0.0.1 lladdr 02:00:00:00:00:01 dev vx0 dev vx1', /duplicate "dev"/],
    ['10.0.0.1 lladdr 02:00:00:00:00:01 dev', /"dev" wants a value/],
    ['10.0.0.1 lladr 02:00:00:00:00:01 dev vx0', /unknown word "lladr", did you mean "lladdr"/],
  ] as const) {
    refused(() => parseNeighbour(words(text), 'add'), pattern);
  }
});

test('selects by prefix, device and state', () => {
  assert.deepEqual(parseNeighFilter([], SHOWN_STATES), { dev: null, to: null, states: SHOWN_STATES });
  assert.deepEqual(parseNeighFilter(words('to 10.0.0.0/8 dev vx0 nud noarp nud stale'), SHOWN_STATES), {
    dev: 'vx0',
    to: '10.0.0.0/8',
    states: NUD_NOARP | NUD_STALE,
  });
  assert.equal(parseNeighFilter(words('fd00::/16 nud all'), FLUSHED_STATES).states, 0xff);
  assert.deepEqual([SHOWN_STATES & NUD_NOARP, FLUSHED_STATES & (NUD_NOARP | NUD_PERMANENT)], [0, 0]);
  refused(() => parseNeighFilter(words('10.0.0.0/33'), 0), /neither an address nor a prefix/);
  refused(() => parseNeighFilter(words('10.0.0.0/x'), 0), /neither an address nor a prefix/);
  refused(() => parseNeighFilter(words('nud frob'), 0), /nud state is bad/);
  refused(() => parseNeighFilter(words('dev a dev b'), 0), /duplicate/);
  refused(() => parseNeighFilter(words('10.0.0.1 10.0.0.2'), 0), /unknown word/);
});

test('a request on the control socket passes the same validators', () => {
  const entry = { dst: '10.0.0.1', dev: 'vx0', lladdr: '02:00:00:00:00:01', nud: 'stale', router: true };
  assert.deepEqual(neighbourOf(entry, 'add'), entry);
  assert.deepEqual(neighbourOf({ dst: '10.0.0.1', dev: 'vx0', lladdr: '' }, 'del').dst, '10.0.0.1');
  assert.throws(() => neighbourOf({ ...entry, frob: 1 }, 'add'), /argument frob is unknown/);
  refused(() => neighbourOf({ ...entry, dst: 'x' }, 'add'), /not an IP address/);
  refused(() => neighbourOf({ ...entry, dst: undefined }, 'add'), /not an IP address/);
  const filter = { dev: 'vx0', to: '10.0.0.0/8', states: 4 };
  assert.deepEqual(neighFilterOf(filter), filter);
  refused(() => neighFilterOf({ to: '10.0.0.0/99', states: 1 }), /prefix/);
});
