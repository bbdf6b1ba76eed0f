// The lessons: what is one and what is none, and all of docs/lessons in one lab, which each of them leaves as it was.

import assert from 'node:assert/strict';
import test from 'node:test';
import { answerFault, firstMissing, parseLesson } from '../../cli/lab/lesson.ts';
import { lessonFiles, readLesson, runLesson } from '../../cli/lab/lesson-run.ts';
import type { Host } from '../../cli/lab/network.ts';
import { buildNetwork, introduceTo, kernelNode, LEFT, RIGHT, resolved, uvxlanNode } from '../../cli/lab/nodes.ts';
import { eventually, Process, run } from '../../cli/lab/process.ts';
import { MAIN, uvxlan } from '../../cli/lab/vtep.ts';
import { lacking } from '../net/requirements.ts';

const LESSON = `# Lesson 9: a title

Some *prose*,
in two lines.

\`\`\`sh left
echo a x b
echo c
\`\`\`
\`\`\`text
a ... b
\`\`\`
\`\`\`sh right-pod fails
false
\`\`\`

## Question

How many?

<!-- needs: sed awk -->
<!-- answer: 3 | (\\d+) of them -->

## Answer

This many:

\`\`\`sh left
echo 3 of them
\`\`\`
`;

test('a lesson is taken apart', () => {
  assert.deepEqual(parseLesson(LESSON), {
    title: 'Lesson 9: a title',
    needs: ['sed', 'awk'],
    before: [
      '# Lesson 9: a title\n\nSome *prose*,\nin two lines.',
      { place: 'left', script: 'echo a x b\necho c', fails: false, expected: ['a ... b'] },
      { place: 'right-pod', script: 'false', fails: true, expected: [] },
      '## Question\n\nHow many?',
    ],
    after: ['## Answer\n\nThis many:', { place: 'left', script: 'echo 3 of them', fails: false, expected: [] }],
    answer: { value: '3', pattern: /(\d+) of them/m },
  });
});

test('what is no lesson is refused, with the line', () => {
  const refused = (from: string | RegExp, to: string, message: RegExp) => {
    assert.notEqual(LESSON.replace(from, to), LESSON);
    assert.throws(() => parseLesson(LESSON.replace(from, to)), message);
  };
  refused(
    'sh left',
    'sh middle',
    /^Error: line 6: "middle" is no place of the lab: left, right, left-pod, right-pod are$/,
  );
  refused('sh left', 'sh', /^Error: line 6: "" is no place/);
  refused('pod fails', 'pod falls', /^Error: line 13: "sh right-pod falls" is no block of a lesson/);
  refused('sh left', 'bash left', /^Error: line 6: "bash left" is no block of a lesson/);
  refused(/```\n$/, '', /^Error: line 28: a block without an end$/);
  refused('sh left\necho a x b\necho c', 'text', /^Error: line 6: text without commands that print it$/);
  refused('## Question', '## Query', /a lesson has a title, a question and an answer/);
  refused('## Answer', '## Solution', /a lesson has a title, a question and an answer/);
  refused('answer: 3 |', 'answer: 3', /a lesson has a line <!-- answer: VALUE \| PATTERN -->/);
});

test('expected lines come in their order, with any white space, and "..." for anything', () => {
  const output = '  tx: in 2 = out 1\n  rx:   in 0\n  a.b (c)\n';
  assert.equal(firstMissing(['in 2 ... 1', 'rx: in 0', 'a.b (c)'], output), undefined);
  assert.equal(firstMissing(['rx: in 0', 'tx: in 2'], output), 'tx: in 2');
  assert.equal(firstMissing(['rx: in 0', 'rx: in 0'], output), 'rx: in 0', 'each is a line of its own');
  assert.equal(firstMissing(['a-b (c)'], output), 'a-b (c)');
  assert.equal(firstMissing(['axb'], 'a.b'), 'axb');
  assert.equal(firstMissing(['a.b'], 'axb'), 'a.b', 'a dot is a dot');
});

test('an answer is what was printed', () => {
  const { answer } = parseLesson(LESSON);
  assert.equal(answerFault(answer, 'x\n3 of them\n'), undefined);
  assert.match(answerFault(answer, '4 of them')!, /said to be 3, what was printed says 4/);
  assert.match(answerFault(answer, 'none')!, /nothing that was printed matches/);
});

const REQUIREMENTS = ['kernel-vxlan', 'tun', 'ethtool', 'iptables'] as const;

test('in the lab', { skip: lacking(...REQUIREMENTS), timeout: 180_000 }, async (t) => {
  const network = buildNetwork();
  t.after(() => network.remove());
  const left = await uvxlanNode(network, LEFT);
  const right = kernelNode(network, RIGHT)!;
  await introduceTo(left, right);
  await introduceTo(right, left);
  await resolved(left);
  const hosts = ['left', 'right', 'left-pod', 'right-pod'].map((name) => network.host(name));
  // What duplicate address detection ends with (addresses, routes) is no doing of a lesson's.
  await eventually('no address is tentative', () =>
    hosts.every((host) => !host.ip('address show').includes('tentative')),
  );
  const files = lessonFiles();
  assert.deepEqual(
    files.map((name) => name[0]),
    ['1', '2', '3', '4', '5', '6', '7', '8'],
  );
  const found = await labState(hosts);
  for (const file of files) {
    await t.test(file, async () => {
      const lesson = readLesson(file);
      let printed = '';
      const stage = {
        host: (place: string) => network.host(place),
        print: (text: string) => {
          printed += `${text}\n`;
        },
        ask: async () => lesson.answer.value,
      };
      try {
        await runLesson(lesson, stage);
      } catch (error) {
        assert.fail(`${printed}\n${(error as Error).message}`);
      }
      assert.match(printed, /Your answer, \d+, is right\.\n$/);
      assert.deepEqual(await labState(hosts), found, 'the lab is as it was');
    });
  }
  await t.test('one that is not true fails', async () => {
    const asked = async (text: string, answer?: string) => {
      let printed = '';
      const print = (line: string) => {
        printed += `${line}\n`;
      };
      await runLesson(parseLesson(text), { host: (place) => network.host(place), print, ask: async () => answer });
      return printed;
    };
    assert.match(await asked(LESSON), /\n {2}left\$ echo a x b\n {2}left\$ echo c\n {4}a x b\n {4}c\n/);
    assert.match(await asked(LESSON), /The answer is 3, as was just seen\.\n$/);
    assert.match(await asked(LESSON, '3 of them'), /Your answer, 3 of them, is right\.\n$/);
    assert.match(await asked(LESSON, '4'), /Your answer was "4"; it is 3: what was just printed shows it\.\n$/);
    await assert.rejects(asked(LESSON.replace('a ... b', 'b a')), /on left: "b a" was expected$/);
    await assert.rejects(asked(LESSON.replace('\nfalse', '\ntrue')), /on right-pod: status 0, but it had to fail$/);
    await assert.rejects(asked(LESSON.replace('echo c', 'false\necho c')), /on left: status 1$/);
    await assert.rejects(asked(LESSON.replace('echo 3', 'echo 4')), /said to be 3, what was printed says 4/);
  });
});

/** What the commands of a lesson may have changed, host by host. */
async function labState(hosts: readonly Host[]): Promise<Record<string, string>> {
  const state: Record<string, string> = {};
  for (const host of hosts) {
    for (const command of [
      'ip link show',
      'ip -d link show type vxlan',
      'ip address show',
      'ip route show table all',
      'ip neigh show nud permanent',
      'bridge fdb show brport flannel.1 self',
      'iptables -t mangle -S',
      'ethtool -k eth0',
      'ss -Hlun',
    ]) {
      state[`${host.name}: ${command}`] = (await host.run(command, { check: false })).stdout;
    }
  }
  const [left] = hosts;
  state.device = (await uvxlan(left, 'fdb show')).stdout;
  state.offloads = left.exec('ethtool -k flannel.1');
  return state;
}

test('on a terminal the reader is asked', { skip: lacking(...REQUIREMENTS), timeout: 180_000 }, async (t) => {
  const lab = new Process(['script', '-qec', `${process.execPath} ${MAIN} lab --lesson 1`, '/dev/null']);
  t.after(() => lab.signal('SIGTERM'));
  await lab.waitFor(/Your answer, a number: /, 40_000);
  assert.doesNotMatch(lab.output, /mtu 1450/, 'the answer comes after the question');
  lab.endInput('1450\n');
  assert.equal((await lab.ended(20_000)).status, 0, lab.output);
  assert.match(lab.output, /mtu 1450.*Your answer, 1450, is right\./s);
});

test('a lesson that there is not', async () => {
  const { status, stderr } = await run([process.execPath, MAIN, 'lab', '--lesson', '9'], { check: false });
  assert.deepEqual({ status, stderr }, { status: 2, stderr: 'uvxlan: there is no lesson "9": 1 to 8\n' });
});
