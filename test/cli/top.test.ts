import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import test from 'node:test';
import { short, topText } from '../../cli/top/text.ts';
import { type Look, topView } from '../../cli/top/view.ts';
import { startApi } from '../../control/api.ts';
import { type StatsRecord, socketPath } from '../../control/protocol.ts';
import type { TrafficSample } from '../../control/traffic/sample.ts';
import { FakeDaemon, fakeLink } from '../control/fake-daemon.ts';
import { commandLine } from './command.ts';

function record(ifname: string, out: number, bytes: number, drops: Record<string, number> = {}): StatsRecord {
  const tx = { in: out, copies: 0, out, bytes, drops, offloaded: out / 2 };
  return { ifname, tx, rx: { in: 0, copies: 0, out: 0, bytes: 0, drops: {} } };
}

const count = (packets: number, bytes: number, seen: number) => ({ packets, bytes, seen });
const flow = (src: string, dst: string, peer: string, packets: number, bytes: number, seen = packets) => ({
  ...{ dev: 'flannel.1', direction: 'tx' as const, protocol: 'TCP', src, dst, peer },
  ...count(packets, bytes, seen),
});
const SAMPLE: TrafficSample = {
  ...{ milliseconds: 500, seen: 200, lost: 3, flowCount: 40, peerCount: 1 },
  totals: [{ dev: 'flannel.1', tx: count(110, 10_000, 110), rx: count(0, 0, 0) }],
  flows: [
    flow('10.244.1.10:5000', '10.244.2.2:80', '192.0.2.2', 100, 900, 25),
    flow('10.244.1.9:6000', '10.244.2.2:80', '192.0.2.2', 10, 9000),
    flow(`[${'fd00:1111:2222:3333:4444:5555:6666:7777'}]:65535`, '[fd00::2]:443', '2001:db8::2', 1, 60),
  ],
  peers: [{ dev: 'flannel.1', dst: '192.0.2.2', tx: count(110, 9900, 64), rx: count(0, 0, 0) }],
};
const look = (time: number, out: number, dropped: number, cpu: number): Look => ({
  time,
  stats: [record('flannel.1', out, out * 100, { tx_no_remote: dropped }), record('uplink udp port 8472', 0, 0)],
  threads: [{ name: 'main', cpu, wait: cpu / 10, sleeps: cpu * 1000 }],
});
const VIEW = topView(look(0, 1000, 5, 1), look(2000, 5000, 25, 2), SAMPLE, 'bytes');

test('rates from two looks and a sample', () => {
  const [device] = VIEW.devices;
  assert.equal(VIEW.devices.length, 1, 'uplinks are none');
  assert.deepEqual(device, {
    ifname: 'flannel.1',
    tx: { packets: 2000, bits: 1_600_000 },
    rx: { packets: 0, bits: 0 },
    drops: 10,
    offloaded: 0.5,
  });
  assert.deepEqual(VIEW.drops, [{ ifname: 'flannel.1', reason: 'tx_no_remote', rate: 10, count: 25 }]);
  assert.deepEqual(VIEW.threads, [{ name: 'main', busy: 0.5, wait: 0.05, sleeps: 500, turn: 0.001 }]);
  assert.deepEqual(VIEW.sample, { seconds: 0.5, isWhole: false, seen: 200, lost: 3, flows: 40, peers: 1 });
  const [most, next] = VIEW.flows;
  assert.deepEqual([most.src, most.bits, most.packets], ['10.244.1.9:6000', 144_000, 20]);
  assert.equal(next.error, Math.sqrt(0.75 / 25));
  const byPackets = topView(look(0, 0, 0, 1), look(2000, 1, 0, 2), SAMPLE, 'packets');
  assert.equal(byPackets.flows[0].src, '10.244.1.10:5000');
  assert.deepEqual(
    topView(look(0, 0, 0, 1), look(500, 1, 0, 2), SAMPLE, 'name').flows.map(({ src, error }) => [src[0], error]),
    [
      ['[', 0],
      ['1', 0],
      ['1', 0],
    ],
    'looked at all of the time',
  );
});

test('a counter that begins anew is no rate, and a device that has come has none yet', () => {
  const after = look(2000, 10, 0, 0.1);
  const { devices, drops, threads } = topView(
    look(0, 1000, 5, 1),
    { ...after, stats: [...after.stats, record('new', 5, 5)] },
    'more than 8 captures at a time',
    'bytes',
  );
  assert.deepEqual(
    [devices.map(({ ifname, tx }) => [ifname, tx.packets]), drops, threads],
    [[['flannel.1', 0]], [], []],
  );
});

test('fits into 80 columns and into few rows', () => {
  const lines = topText(VIEW, 'bytes', { columns: 80, rows: 24 });
  for (const line of lines) assert.ok(line.length <= 80, `${line.length}: ${line}`);
  const text = lines.join('\n');
  assert.match(text, /sampled for 0\.50 s, ± standard error: 200 packets, 3 lost/);
  assert.match(text, /^ +144k +20 +28 % tx TCP +10\.244\.1\.9:6000 > 10\.244\.2\.2:80, 192\.0\.2\.2$/m);
  assert.match(text, /FLOW, VTEP \(3 of 40\)/);
  assert.match(text, /^flannel\.1 +2\.00k +1\.60M +0 +0 +10 +50 %$/m);
  assert.match(text, /…$/m, 'what does not fit says so');
  for (let rows = 1; rows < 24; rows++) assert.ok(topText(VIEW, 'bytes', { columns: 80, rows }).length <= rows);
  assert.match(topText({ ...VIEW, sample: 'no room' }, 'bytes', { columns: 80, rows: 24 }).join('\n'), /no room$/);
});

test('three digits and a unit', () => {
  for (const [value, text] of [
    [0, '0'],
    [0.34, '0.3'],
    [9.96, '10.0'],
    [12, '12'],
    [999, '999'],
    [999.6, '1.00k'],
    [12_345, '12.3k'],
    [123_456, '123k'],
    [1.2e9, '1.20G'],
    [9.99e15, '9990T'],
  ] as const) {
    assert.equal(short(value), text);
  }
});

function daemonWith(): FakeDaemon {
  const daemon = new FakeDaemon([fakeLink('flannel.1')]);
  let looks = 0;
  Object.defineProperty(daemon, 'counters', { get: () => look(0, 1000 * looks++, looks, 1).stats });
  daemon.sample = SAMPLE;
  daemon.threadRecords = [{ name: 'main', cpu: 1, wait: 0, sleeps: 1 }];
  return daemon;
}

test('batch mode: so many intervals, as text and as JSON', async (t) => {
  const uvxlan = await commandLine(t, daemonWith());
  const { stdout, status } = await uvxlan('top -b -n 2 interval 0.2 sort packets');
  assert.equal(status, 0);
  assert.equal(stdout.match(/^uvxlan top/gm)?.length, 2);
  assert.ok(!stdout.includes('\x1b'), 'plain text');
  const lines = (await uvxlan('top -n 3 -j interval 0.1 dev flannel.1')).stdout.trim().split('\n');
  assert.equal(lines.length, 3);
  const { devices, flows } = JSON.parse(lines[2]!);
  assert.ok(devices[0].tx.packets > 0);
  assert.equal(flows[0].peer, '192.0.2.2');
});

test('refuses what it does not understand', async (t) => {
  const uvxlan = await commandLine(t, daemonWith());
  for (const [words, status, message] of [
    ['top sort frob', 2, /sort wants bytes, packets, name, not "frob"/],
    ['top interval 0', 2, /interval wants seconds/],
    ['top -n 0', 2, /-n wants a number from 1 on/],
    ['top flannel.1 other', 2, /unknown word "other"/],
    ['top dev nothere -n 1 interval 0.1', 1, /Cannot find device "nothere"/],
  ] as const) {
    const outcome = await uvxlan(words);
    assert.equal(outcome.status, status, words);
    assert.match(outcome.stderr, message);
  }
});

for (const [how, end] of [
  ['a signal', (pid: number) => process.kill(pid, 'SIGTERM')],
  ['the key q', (_: number, type: (key: string) => void) => type('q')],
  ['Ctrl-C', (_: number, type: (key: string) => void) => type('\x03')],
] as const) {
  test(`a terminal is as it was after ${how}`, { timeout: 120_000 }, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'uvxlan-top-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const api = await startApi(daemonWith(), join(directory, basename(socketPath())));
    t.after(() => api.close());
    const main = join(import.meta.dirname, '../../cli/main.js');
    // A terminal of its own, by script(1); what it was set to before and afterwards, too.
    const command = `stty rows 24 cols 80; stty -g; sh -c 'echo pid $$; exec ${process.execPath} ${main} top interval 0.1'; echo status $?; stty -g`;
    const child = spawn('script', ['-qec', command, '/dev/null'], {
      env: { ...process.env, TERM: 'xterm', UVXLAN_RUNTIME_DIR: directory },
    });
    t.after(() => child.kill('SIGKILL'));
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const ended = new Promise((resolve) => child.on('close', resolve));
    while (!/FLOW, VTEP/.test(output)) await new Promise((resolve) => setTimeout(resolve, 20));
    end(Number(/pid (\d+)/.exec(output)![1]), (key) => child.stdin.write(key));
    await ended;
    assert.ok(output.includes('\x1b[?1049h\x1b[?25l'), output);
    assert.ok(output.includes('\x1b[?25h\x1b[?1049lstatus 0\r\n'), output);
    const settings = output.match(/^[\da-f]+(:[\da-f]+){10,}(?=\r)/gm)!;
    assert.equal(settings.length, 2);
    assert.equal(settings[0], settings[1]);
    const drawn = output.slice(output.indexOf('\x1b[?1049h'), output.indexOf('\x1b[?1049l'));
    assert.equal(drawn.split('\x1b[2J').length - 1, 1, 'cleared once, then only written over');
  });
}

test('flows have their part of what the device has counted, where workers carried all of it', () => {
  const counted = (time: number, out: number): Look => {
    const { offloaded: _, ...tx } = record('flannel.1', out, out * 100).tx;
    return { ...look(time, out, 0, 1), stats: [{ ...record('flannel.1', 0, 0), tx }] };
  };
  const { flows, peers } = topView(counted(0, 0), counted(2000, 4000), SAMPLE, 'bytes');
  // 200,000 bytes a second, of which the sample gives 9,000 of 10,000 to the first flow.
  assert.equal(Math.round(flows[0].bits), 0.9 * 8 * 200_000);
  assert.equal(Math.round(flows[0].packets), 10 * 20);
  assert.equal(Math.round(peers[0].tx.bits), 0.99 * 8 * 200_000);
});
