// `uvxlan fdb` on a running daemon and `bridge fdb` on the kernel's device, command by command: the same entries, the same outcome.
// The pair is drawn in pair.ts.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { addDirectory, removeDirectory } from '../../cli/lab/namespace.ts';
import type { Result } from '../../cli/lab/process.ts';
import { uvxlan } from '../../cli/lab/vtep.ts';
import { pair } from './pair.ts';
import { lacking } from './requirements.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };
const ZERO = '00:00:00:00:00:00';
const A = '02:00:00:00:00:0a';
const B = '02:00:00:00:00:0b';
const GROUP = '01:00:5e:00:00:05';

const COMMANDS = [
  `add ${A} dev flannel.1 dst 192.0.2.9`,
  `add ${A} dev flannel.1 dst 192.0.2.9`, // exists
  `add ${A} dev flannel.1 dst 192.0.2.8`, // exists
  `append ${A} dev flannel.1 dst 192.0.2.8`, // a unicast MAC has one
  `replace ${A} dev flannel.1 dst 192.0.2.7 static`,
  `replace ${B} dev flannel.1 dst 192.0.2.7 port 4789 vni 77 dynamic`,
  `add ${B} dev flannel.1 dst 192.0.2.7 port 4789`,
  `append ${ZERO} dev flannel.1 dst 192.0.2.3`,
  `append ${ZERO} dev flannel.1 dst 192.0.2.4 port 4790`,
  `append ${ZERO} dev flannel.1 dst 192.0.2.4 port 4790`, // there already
  `append ${ZERO} dev flannel.1 dst 192.0.2.4 vni 5`,
  `append ${ZERO} dev flannel.1 dst 192.0.2.5 via eth0`,
  `add ${ZERO} dev flannel.1 dst 192.0.2.6`, // exists
  `replace ${ZERO} dev flannel.1 dst 192.0.2.6`, // not for this MAC
  `append ${GROUP} dev flannel.1 dst 192.0.2.3`,
  `append ${GROUP} dev flannel.1 dst 192.0.2.4 static`,
  `add ff:ff:ff:ff:ff:ff dev flannel.1 dst 192.0.2.4`,
  `add ${A} dev nowhere dst 192.0.2.9`,
  `add 02:00:00:00:00:0c dev flannel.1 dst fd00::1`, // the other family
  `del ${ZERO} dev flannel.1 dst 192.0.2.4 port 4790`,
  `del ${ZERO} dev flannel.1 dst 192.0.2.99`, // not one of its remotes
  `del ${A} dev flannel.1 dst 192.0.2.1`,
  `del ${A} dev flannel.1 dst 192.0.2.7`,
  `del ${A} dev flannel.1`, // gone
  `del ${GROUP} dev flannel.1`,
  `del ${B} dev flannel.1 dst 192.0.2.7 port 4789 vni 77`,
] as const;

test('fdb commands do to the daemon what bridge does to the kernel', options, async (t) => {
  const both = await tools(t);
  // All entries are shown after each command, on a line of JSON.
  const input = COMMANDS.map((command) => `fdb ${command}\nfdb show dev flannel.1\n`).join('');
  const [ours, kernels] = (await Promise.all(both.map((tool) => tool('-j -force -batch -', input)))) as [
    Result,
    Result,
  ];
  const [our, kernel] = [failures(ours), failures(kernels)];
  const [ourEntries, kernelEntries] = [shown(ours), shown(kernels)];
  assert.equal(kernelEntries.length, COMMANDS.length);
  for (const [index, command] of COMMANDS.entries()) {
    assert.equal(our.get(2 * index + 1), kernel.get(2 * index + 1), command);
    assert.deepEqual(ourEntries[index], kernelEntries[index], command);
  }
  assert.ok(kernel.size >= 8);
  const [text, bridges] = await Promise.all(both.map((tool) => tool('fdb show dev flannel.1')));
  assert.deepEqual(sentences(text!.stdout).sort(), sentences(bridges!.stdout).sort());
  assert.ok(sentences(text!.stdout).sort().length >= 4);
});

test('batches, with a mistake in the middle', options, async (t) => {
  const both = await tools(t);
  const commands = Array.from({ length: 600 }, (_, number) => {
    const last = [number >> 8, number & 0xff].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
    return `fdb add 02:00:00:00:${last} dev flannel.1 dst 192.0.2.${1 + (number % 250)}`;
  });
  const directory = addDirectory();
  t.after(() => removeDirectory(directory));
  const file = join(directory, 'batch');
  const mistake = ['# a comment, and one that is there already', commands[0]];
  // The client sends some hundreds at a time, and reads on meanwhile: nothing behind a mistake may get to the daemon.
  for (const [force, place, expected] of [
    ['', 100, 100],
    ['-force ', 550, 600],
  ] as const) {
    writeFileSync(file, [...commands.slice(0, place), ...mistake, ...commands.slice(place), ''].join('\n'));
    if (force) await Promise.all(both.map((tool) => tool(`fdb del 02:00:00:00:00:00 dev flannel.1`)));
    const [ours, kernels] = (await Promise.all(both.map((tool) => tool(`${force}-batch ${file}`)))) as [Result, Result];
    assert.deepEqual([ours.status, kernels.status], [1, 1]);
    assert.match(ours.stderr, /File exists/);
    const failed = (result: Result) => result.stderr.match(/Command failed .*:\d+/g);
    assert.deepEqual(failed(ours), failed(kernels));
    const [our, kernel] = await Promise.all(both.map(entries));
    assert.deepEqual(our, kernel);
    assert.equal(our!.length, expected);
  }
});

/** `uvxlan` on the left, `bridge` on the right. */
type Tool = (words: string, input?: string) => Promise<Result>;

async function tools(t: TestContext): Promise<[Tool, Tool]> {
  const { left, right } = await pair(t, 'udp', 'kernel');
  const ours: Tool = (words, input = '') => uvxlan(left.host, words, { check: false, input });
  const kernels: Tool = (words, input = '') => right.host.run(`bridge ${words}`, { check: false, input });
  await ours('fdb flush dev flannel.1');
  // `bridge fdb flush` is younger than the kernel's vxlan.
  for (const { mac } of await entries(kernels)) await kernels(`fdb del ${mac} dev flannel.1`);
  return [ours, kernels];
}

interface Entry {
  mac: string;
}

async function entries(tool: Tool): Promise<Entry[]> {
  return shown(await tool('-j fdb show dev flannel.1'))[0]!;
}

/** What each `fdb show` of a batch has printed, in an order of its own. */
function shown({ stdout }: Result): Entry[][] {
  const text = (entry: Entry) => JSON.stringify(entry);
  return sentences(stdout).map((line) => (JSON.parse(line) as Entry[]).sort((a, b) => (text(a) < text(b) ? -1 : 1)));
}

/** What was said of each line of a batch that failed: `RTNETLINK answers: File exists`, `Command failed -:7`. */
function failures({ stderr }: Result): Map<number, string> {
  const said = new Map<number, string>();
  let sentence = '';
  for (const line of sentences(stderr.replaceAll('uvxlan: ', ''))) {
    const number = line.match(/^Command failed -:(\d+)$/)?.[1];
    if (number) said.set(Number(number), sentence);
    else sentence = line.replace('RTNETLINK answers: ', '');
  }
  return said;
}

function sentences(text: string): string[] {
  return text.split('\n').filter(Boolean);
}
