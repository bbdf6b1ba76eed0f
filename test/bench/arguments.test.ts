import assert from 'node:assert/strict';
import test from 'node:test';
import { ArgumentError, type CompareOptions, parseArguments } from '../../bench/arguments.ts';

function options(...argv: string[]): CompareOptions {
  const command = parseArguments(argv);
  assert.equal(command.name, 'compare');
  return (command as { options: CompareOptions }).options;
}

test('without words: everything, within half an hour', () => {
  const { peers, measures, rounds, limit } = options();
  assert.equal(peers[1]?.name, 'kernel');
  assert.ok(measures.some(({ name }) => name === 'jumbo'));
  assert.ok(rounds === 3 && limit < 30 * 60);
});

test('--quick, and what is said besides', () => {
  const quick = options('--quick', '--rounds', '5', '--peers', 'redirect,kernel,redirect');
  assert.deepEqual(
    quick.peers.map(({ name }) => name),
    ['redirect', 'kernel'],
  );
  assert.equal(options('--quick', '--congestion', 'cubic').congestion, 'cubic');
  assert.ok(quick.rounds === 5 && quick.limit < 180 && quick.pace.seconds === 1);
});

test('peers of two kinds, without offloads, from elsewhere', () => {
  const [pair, tier, other] = options('--peers', 'redirect:kernel,udp/uso+gro,redirect@/nowhere').peers;
  assert.deepEqual([pair!.left.name, pair!.right.name], ['redirect', 'kernel']);
  assert.match(tier!.about, /without uso, gro/);
  assert.match(other!.left.lacks()!, /\/nowhere\/dist\/cli\/main.js is not there/);
  assert.ok(options('--peers', 'tiers').peers.length > 8);
});

test('a peer that is named in two ways is one', () => {
  const names = options('--peers', 'kernel,kernel:kernel,udp').peers.map(({ name }) => name);
  assert.deepEqual(names, ['kernel', 'udp']);
});

test('measurements come in the order in which they are taken', () => {
  const names = options('--measures', 'tcp1,rtt').measures.map(({ name }) => name);
  assert.deepEqual(names, ['rtt', 'tcp1']);
});

test('other commands', () => {
  assert.deepEqual(parseArguments(['micro', 'encap']), { name: 'micro', word: 'encap' });
  assert.deepEqual(parseArguments(['report', 'a.json', '--output', 'x']), {
    name: 'report',
    file: 'a.json',
    output: 'x',
  });
  assert.deepEqual(parseArguments(['transfer']), { name: 'transfer', megabytes: 1024 });
  assert.equal(parseArguments(['list', '--help']).name, 'help');
});

const WRONG: readonly (readonly [string, RegExp])[] = [
  ['--fast', /Unknown option '--fast'/],
  ['compare now', /unknown word "now"/],
  ['measure', /no command "measure"/],
  ['--rounds 0', /--rounds "0" is not a whole number from 1 to 100/],
  ['--rounds 1.5', /whole/],
  ['--seconds x', /--seconds "x"/],
  ['--peers kernel,vpp', /no peer "vpp"; --peers takes veth, kernel/],
  ['--peers redirect/tso', /nothing is called "tso"; known are tunnel-gso/],
  ['--peers ovs:kernel', /ovs is measured with itself only/],
  ['--peers udp:udp:udp', /more than two ends/],
  ['--measures tcp2', /no measurement "tcp2"; --measures takes rtt/],
  ['scale --quick', /--quick goes with compare only/],
  ['report', /one FILE/],
  ['transfer much', /MEGABYTES "much"/],
];

test('what is wrong is said', async (t) => {
  for (const [line, message] of WRONG) {
    await t.test(line, () => {
      assert.throws(
        () => parseArguments(line.split(' ')),
        (error) => error instanceof ArgumentError && message.test(error.message),
      );
    });
  }
});
