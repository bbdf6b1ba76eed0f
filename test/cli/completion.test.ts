import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { COMMANDS } from '../../cli/commands.ts';
import { wordsOf } from '../../cli/completion.ts';
import { MAIN } from '../../cli/lab/vtep.ts';
import { FLAGS } from '../../control/flannel/flags.ts';

const completion = (target: string) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, 'completion', target], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
};
const lacks = (program: string) => spawnSync('which', [program]).status !== 0 && `needs ${program}`;

test('the words of a command are those of its usage and its options', () => {
  const help =
    'Usage: uvxlan fdb { add | del } MAC dev DEV\n       uvxlan fdb [ -force ] -batch FILE\nTells of other words.\n  --config FILE  x';
  assert.deepEqual(wordsOf('fdb', help), ['--config', '--help', 'add', 'del', 'dev']);
});

test('bash completes commands, their words and their options', () => {
  const script = completion('bash');
  const complete = (...line: string[]) => {
    const set = `COMP_WORDS=(${line.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${line.length - 1}`;
    const { stdout, stderr } = spawnSync(
      'bash',
      ['-c', `${script}\n${set}; _uvxlan; printf '%s\\n' "\${COMPREPLY[@]}"`],
      {
        encoding: 'utf8',
      },
    );
    assert.equal(stderr, '');
    return stdout.split('\n').filter((word) => word !== '');
  };
  for (const name of Object.keys(COMMANDS)) assert.ok(complete('uvxlan', '').includes(name), name);
  assert.deepEqual(complete('uvxlan', 'flan'), ['flannel']);
  assert.deepEqual(complete('uvxlan', 'flannel', '--iface-'), ['--iface-can-reach', '--iface-regex']);
  for (const flag of Object.keys(FLAGS)) assert.ok(complete('uvxlan', 'flannel', '').includes(`--${flag}`), flag);
  assert.ok(complete('uvxlan', '-j', 'fdb', 'app').includes('append'));
});

test("the other shells name every command, and the agent's flags", () => {
  for (const shell of ['zsh', 'fish']) {
    const script = completion(shell);
    for (const name of Object.keys(COMMANDS)) assert.match(script, new RegExp(`\\b${name}\\b`), `${shell}: ${name}`);
    for (const flag of Object.keys(FLAGS)) assert.match(script, new RegExp(`\\b${flag}\\b`), `${shell}: ${flag}`);
  }
});

test('the manual page has every command, and man takes it without a warning', { skip: lacks('groff') }, () => {
  const page = completion('man');
  for (const name of Object.keys(COMMANDS)) assert.ok(page.includes(`.SH "${name.toUpperCase()}"`), name);
  for (const flag of Object.keys(FLAGS)) assert.ok(page.replaceAll('\\-', '-').includes(`--${flag}`), flag);
  const { stderr, stdout } = spawnSync('groff', ['-man', '-ww', '-Tascii', '-P-cbou', '-rLL=130n'], {
    input: page,
    encoding: 'utf8',
  });
  assert.equal(stderr, '');
  assert.match(stdout, /--iface-can-reach ADDRESS/);
});
