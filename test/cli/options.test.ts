import assert from 'node:assert/strict';
import test from 'node:test';
import { batchLines } from '../../cli/batch.ts';
import { matchCommand, takeOptions } from '../../cli/options.ts';
import { UsageError } from '../../control/words.ts';

test('options have one dash or two and stand anywhere', () => {
  const allowed = ['json', 'details', 'batch', 'config'] as const;
  assert.deepEqual(takeOptions(['show', '-j', 'dev', 'v1', '--details'], allowed), {
    options: { json: true, details: true },
    words: ['show', 'dev', 'v1'],
  });
  assert.deepEqual(takeOptions(['-batch', '-', '--config=a=b'], allowed), {
    options: { batch: '-', config: 'a=b' },
    words: [],
  });
  // A negative number is a word, for its validator to refuse.
  assert.deepEqual(takeOptions(['id', '-1'], []), { options: {}, words: ['id', '-1'] });
});

const REFUSED: [string, string][] = [
  ['-x', 'option "-x" is unknown here, known are --json, --batch and --help'],
  ['--jsn', 'option "--jsn" is unknown here, did you mean "--json"?'],
  ['-force', 'option "-force" is unknown here, known are --json, --batch and --help'],
  ['-batch', 'option "-batch" wants a value'],
  ['--batch=', 'option "--batch=" wants a value'],
  ['--json=yes', 'option "-json" takes no value'],
  ['-b one -b two', 'duplicate option "-b"'],
  ['--constructor', 'option "--constructor" is unknown here, known are --json, --batch and --help'],
];

for (const [line, message] of REFUSED) {
  test(`option refused: ${line}`, () => {
    assert.throws(() => takeOptions(line.split(' '), ['json', 'batch']), { constructor: UsageError, message });
  });
}

test('the beginning of a command will do, and a mistyped one is told the nearest', () => {
  const commands = ['add', 'append', 'replace', 'show'] as const;
  assert.equal(matchCommand('a', commands, 'fdb'), 'add');
  assert.equal(matchCommand('app', commands, 'fdb'), 'append');
  assert.throws(() => matchCommand('shwo', commands, 'fdb'), /Command "shwo" is unknown, did you mean "show"\?/);
  assert.throws(() => matchCommand('', commands, 'fdb'), /Command "" is unknown, try "uvxlan fdb --help"/);
});

test('a batch has comments, quotes, continued lines, and numbers as iproute2 counts them', () => {
  const text = [
    'fdb add one # a comment',
    '# only a comment',
    '',
    'fdb \\',
    'add "two words" \'three\'',
    'fdb add four#five',
    'last \\',
  ].join('\n');
  assert.deepEqual(
    [...batchLines(text)],
    [
      { number: 1, words: ['fdb', 'add', 'one'] },
      { number: 5, words: ['fdb', 'add', 'two words', 'three'] },
      { number: 6, words: ['fdb', 'add', 'four'] },
      { number: 7, words: ['last', '\\'] },
    ],
  );
});
