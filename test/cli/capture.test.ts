import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import test from 'node:test';
import { readCapture } from '../../packets/capture-reader.ts';
import { enhancedPacket, interfaceDescription, interfaceStatistics, sectionHeader } from '../../packets/pcapng.ts';
import { FakeDaemon, fakeLink } from '../control/fake-daemon.ts';
import { payload } from '../dataplane/packet.ts';
import { commandLine } from './command.ts';

const SIZE = 400_000;

function daemonWith(packets: number): FakeDaemon {
  const daemon = new FakeDaemon();
  daemon.links = [fakeLink('flannel.1')];
  const bytes = payload(SIZE);
  daemon.captureBlocks = [
    sectionHeader('test'),
    interfaceDescription('flannel.1', 'inner'),
    ...Array.from({ length: packets }, (_, i) =>
      enhancedPacket({ interface: 0, time: i, bytes, length: SIZE, comments: [`number ${i}`] }),
    ),
    interfaceStatistics(0, packets, { received: packets + 3, lost: 3, delivered: packets }),
  ];
  return daemon;
}

async function commentsOf(bytes: Uint8Array): Promise<string[]> {
  const comments: string[] = [];
  for await (const packet of readCapture(Readable.from([bytes]))) {
    comments.push(...packet.comments);
  }
  return comments;
}

test('a ring of files: each can be read by itself, and the oldest is written anew', async (t) => {
  const uvxlan = await commandLine(t, daemonWith(7));
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-capture-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const { status, stderr } = await uvxlan(`capture -w ${directory}/x count 7 seconds 1 size 1 files 3`);
  assert.equal(status, 0, stderr);
  assert.match(stderr, /7 packets captured, 3 lost/);
  assert.deepEqual(readdirSync(directory), ['x0', 'x1', 'x2']);
  const read = await Promise.all(['x0', 'x1', 'x2'].map((name) => commentsOf(readFileSync(join(directory, name)))));
  assert.deepEqual(read, [['number 6'], ['number 2', 'number 3'], ['number 4', 'number 5']]);
});

test('a file that cannot be written ends it', async (t) => {
  const daemon = daemonWith(1);
  const uvxlan = await commandLine(t, daemon);
  for (const [file, fault] of [
    ['/nowhere/x', /ENOENT.*\/nowhere\/x/],
    ['/dev/full', /ENOSPC/],
  ] as const) {
    const { status, stderr } = await uvxlan(`capture -w ${file}`);
    assert.equal(status, 1);
    assert.match(stderr, fault);
  }
});

test('what is asked of the daemon', async (t) => {
  const daemon = daemonWith(1);
  const uvxlan = await commandLine(t, daemon);
  const asked: unknown[] = [];
  const { capture } = daemon;
  daemon.capture = (request) => {
    asked.push(request);
    return capture.call(daemon, request);
  };
  const { stdout } = await uvxlan('capture -outer udp dev flannel.1 count 1 snaplen 96 icmp or arp');
  assert.ok(stdout.includes('number 0'), 'standard output that is no terminal');
  assert.deepEqual(asked, [
    { dev: 'flannel.1', filter: 'icmp or arp', outerFilter: 'udp', snapLength: 96, segments: false },
  ]);
  assert.deepEqual(daemon.captures, [], 'it was ended');
});

test('capture refuses what it does not understand', async (t) => {
  const uvxlan = await commandLine(t, daemonWith(0));
  const refused = async (words: string, status: number, message: RegExp): Promise<void> => {
    const outcome = await uvxlan(words);
    assert.deepEqual({ status: outcome.status, stdout: outcome.stdout }, { status, stdout: '' }, words);
    assert.match(outcome.stderr, message);
  };
  await refused('capture count 0', 2, /count wants a number from 1 on, not "0"/);
  await refused('capture files 3', 2, /files wants a size/);
  await refused('capture size 3', 2, /size wants files to write/);
  await refused('capture port http', 2, /"http" at character 6 of the filter/);
  await refused('capture -outer host', 2, /the filter ends too early/);
  await refused('capture dev nothere', 1, /Cannot find device "nothere"/);
});
