import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { enhancedPacket, interfaceDescription, OUTBOUND, sectionHeader } from '../../packets/pcapng.ts';
import { frame, outerFrame, vxlan } from '../dataplane/packet.ts';
import { commandLine } from './command.ts';

const PACKET = outerFrame(
  vxlan(42, frame({ protocol: 'udp', payload: Buffer.from('<script>alert(1)</script>') })),
  4789,
);
const HEX = Buffer.from(PACKET).toString('hex');

/** As `xxd`, `tcpdump -XX` and a plain dump print it. */
function dumps(): string[] {
  const rows = Array.from({ length: Math.ceil(PACKET.length / 16) }, (_, i) => HEX.slice(i * 32, i * 32 + 32));
  const words = rows.map((row) => row.replace(/....(?=.)/g, '$& '));
  const offset = (i: number): string => (i * 16).toString(16).padStart(4, '0');
  return [
    HEX,
    words.map((row, i) => `0000${offset(i)}: ${row.padEnd(39)}  .abcdef 0123.`).join('\n'),
    `12:00:00.000000 IP 10.0.0.11 > 10.0.0.10\n${words.map((row, i) => `\t0x${offset(i)}:  ${row.padEnd(39)}  E..T`).join('\n')}`,
    rows.map((row) => row.replace(/..(?=.)/g, '$&:')).join('\n'),
    words.map((row, i) => `000${offset(i)} ${row.replace(/ /g, '').replace(/..(?=.)/g, '$& ')}`).join('\n'),
  ];
}

test('explain shows hex digits, however they were dumped', async (t) => {
  const uvxlan = await commandLine(t);
  const outcomes = await uvxlan('explain -j', `\n${dumps().join('\n\n')}`);
  assert.equal(outcomes.stderr, '');
  const packets = outcomes.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    packets.map(({ bytes }) => bytes),
    dumps().map(() => HEX),
  );
  const vxlanLayer = packets[0].layers.find(({ name }: { name: string }) => name === 'VXLAN');
  const vni = vxlanLayer.fields.find(({ name }: { name: string }) => name === 'VNI');
  assert.deepEqual(vni, {
    ...{ name: 'VNI', offset: 46, bit: 0, bits: 24, value: 42, text: '42' },
    ...{ meaning: 'the overlay network', reference: 'RFC 7348, 5' },
  });
});

test('explain on standard output, and what is wrong with a packet', async (t) => {
  const uvxlan = await commandLine(t);
  const { status, stdout, stderr } = await uvxlan('explain', HEX.slice(0, 45 * 2));
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  assert.match(stdout, /^Packet 1, 45 bytes\n {2}Ethernet, 14 bytes at 0 \(IEEE 802.3, 3.2\)\n/);
  assert.match(stdout, /^ {6}destination port {7}12 b5 +4789 {2}VXLAN, IANA's port$/m);
  assert.match(stdout, /^ {2}Malformed: the VXLAN header is cut off: 3 of 8 bytes are there$/m);
  assert.ok(!stdout.includes('\x1b'), 'colours only on a terminal');
});

test('explain reads captures, with count and filter', async (t) => {
  const uvxlan = await commandLine(t);
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-explain-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'a.pcapng');
  const packet = (bytes: Uint8Array, comment: string): Buffer =>
    enhancedPacket({
      interface: 0,
      time: 1700000000250,
      bytes,
      length: bytes.length,
      direction: OUTBOUND,
      comments: [comment],
    });
  const blocks = [packet(frame(), 'one'), packet(PACKET, 'two'), packet(PACKET, 'three')];
  writeFileSync(file, Buffer.concat([sectionHeader('test'), interfaceDescription('eth0', ''), ...blocks]));
  const filtered = await uvxlan(`explain ${file} count 1 udp port 4789`);
  assert.match(filtered.stdout, /^Packet 2, 2023-11-14 22:13:20.250Z, eth0, out, 117 bytes\n {2}# two\n/);
  assert.ok(!filtered.stdout.includes('Packet 3'));

  const other = outerFrame(vxlan(42, frame()), 5555);
  writeFileSync(file, Buffer.concat([sectionHeader('test'), interfaceDescription('eth0', ''), packet(other, '')]));
  assert.doesNotMatch((await uvxlan(`explain ${file}`)).stdout, /VXLAN/);
  assert.match((await uvxlan(`explain -vxlan-port 5555 ${file}`)).stdout, /^ {6}VNI .* 42 /m);
  writeFileSync(file, Buffer.concat([sectionHeader('test'), interfaceDescription('eth0', ''), ...blocks]));

  const page = await uvxlan(`explain -html ${file}`);
  assert.match(page.stdout, /^<!doctype html>.*Content-Security-Policy.*<\/html>\n$/s);
  assert.ok(!page.stdout.includes('<script>alert'), 'nothing of a packet is taken for HTML');
  assert.ok(!/(src|href)=/.test(page.stdout), 'no outside address');

  writeFileSync(
    file,
    Buffer.concat([sectionHeader('<b>'), interfaceDescription('<b>', ''), blocks[0], blocks[1].subarray(0, 50)]),
  );
  const broken = await uvxlan(`explain ${file}`);
  assert.equal(broken.status, 1);
  assert.match(broken.stdout, /Packet 1/);
  assert.match(broken.stderr, /^uvxlan: the capture ends within a block/);
});

test('explain refuses what it does not understand', async (t) => {
  const uvxlan = await commandLine(t);
  const refused = async (words: string, status: number, message: RegExp, input = ''): Promise<void> => {
    const outcome = await uvxlan(words, input);
    assert.deepEqual({ status: outcome.status, stdout: outcome.stdout }, { status, stdout: '' }, words);
    assert.match(outcome.stderr, message);
  };
  await refused('explain - -vxlan-port 65536', 2, /-vxlan-port wants a UDP port, 1 to 65535, not "65536"/);
  await refused('explain - count x', 2, /count wants a number from 1 on, not "x"/);
  await refused('explain - prot 5', 2, /"prot" at character 1 of the filter: not a word of a filter/);
  await refused('explain /nowhere/x.pcap', 1, /ENOENT.*\/nowhere\/x.pcap/);
  await refused('explain', 1, /line 1: "z" is no hex digit/, '0000zz');
  await refused('explain', 1, /line 1: an odd number of hex digits/, '000');
  await refused('explain', 1, /the capture is empty/);
});
