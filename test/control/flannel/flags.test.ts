import assert from 'node:assert/strict';
import test from 'node:test';
import { FLAGS, Flags, flagsHelp } from '../../../control/flannel/flags.ts';
import { UsageError } from '../../../control/words.ts';

const flags = (words: string, environment: NodeJS.ProcessEnv = {}) =>
  new Flags(
    words.split(' ').filter((word) => word !== ''),
    environment,
  );

test("values are given as Go's flags take them", () => {
  assert.equal(flags('--subnet-file /a').text('subnet-file'), '/a');
  assert.equal(flags('-subnet-file=/a=b').text('subnet-file'), '/a=b');
  assert.equal(flags('').text('subnet-file'), '/run/flannel/subnet.env');
  assert.equal(flags('--ip-masq').flag('ip-masq'), true);
  assert.equal(flags('--iptables-forward-rules=false').flag('iptables-forward-rules'), false);
  assert.equal(flags('--kube-subnet-mgr --ip-masq=T').flag('ip-masq'), true);
  assert.equal(flags('--healthz-port 8081').number('healthz-port', 0, 65535), 8081);
});

test('--iface may be given more than once, and its order counts', () => {
  const given = flags('--iface eth1 --iface-regex ^10 --iface 192.0.2.1');
  assert.deepEqual(given.list('iface'), ['eth1', '192.0.2.1']);
  assert.deepEqual(given.list('iface-regex'), ['^10']);
  assert.deepEqual(flags('').list('iface'), []);
});

test('the environment stands in for the command line, which counts more', () => {
  const environment = { FLANNELD_SUBNET_FILE: '/env', FLANNELD_IP_MASQ: 'true', FLANNELD_IFACE: 'eth5' };
  assert.equal(flags('', environment).text('subnet-file'), '/env');
  assert.equal(flags('', environment).flag('ip-masq'), true);
  assert.equal(flags('--subnet-file /a', environment).text('subnet-file'), '/a');
  assert.deepEqual(flags('--iface eth1', environment).list('iface'), ['eth1']);
  assert.equal(flags('', { FLANNELD_SUBNET_FILE: '' }).text('subnet-file'), '/run/flannel/subnet.env');
});

test('flags of flanneld that mean nothing here are told, with why', () => {
  const given = flags('--v=2 --log_backtrace_at a.go:1 --iptables-resync 10 --ip-masq');
  assert.deepEqual(given.notes, [
    '--v is ignored: levels of logging have names, see --log-level',
    '--log_backtrace_at is ignored: levels of logging have names, see --log-level',
    '--iptables-resync is ignored: rules are compared every 4 seconds',
  ]);
  assert.equal(given.flag('ip-masq'), true);
});

const MISTAKES: [string, RegExp][] = [
  ['--ifase eth0', /flag --ifase is unknown, did you mean --iface\?/],
  ['eth0', /unknown word "eth0"/],
  ['--subnet-file', /--subnet-file wants a value: FILE/],
  ['--subnet-file /a --subnet-file /b', /--subnet-file is given twice/],
];

for (const [words, message] of MISTAKES) {
  test(`refused: ${words}`, () => {
    assert.throws(
      () => flags(words),
      (error: Error) => error instanceof UsageError && message.test(error.message),
    );
  });
}

test('a wrong value is refused where it is asked for', () => {
  assert.throws(() => flags('--ip-masq=maybe').flag('ip-masq'), /--ip-masq=maybe is neither true nor false/);
  assert.throws(() => flags('--healthz-port 70000').number('healthz-port', 0, 65535), /is not a number 0\.\.65535/);
});

test('the help names every flag, and shows no password', () => {
  const help = flagsHelp();
  for (const name of Object.keys(FLAGS)) assert.ok(help.includes(`  --${name}`), name);
});
