import assert from 'node:assert/strict';
import test from 'node:test';
import type { LayerShape, PacketShape } from '../../control/web/shapes.ts';
import { shownFirst, stepsOf } from '../../web/steps.ts';

const LENGTHS: readonly [title: string, depth: number, length: number][] = [
  ['outer Ethernet', 0, 14],
  ['outer IPv4', 0, 20],
  ['outer UDP', 0, 8],
  ['VXLAN', 0, 8],
  ['inner Ethernet', 1, 14],
];

function packet(direction: PacketShape['direction'], ...comments: string[]): PacketShape {
  let offset = 0;
  const layers = LENGTHS.map(([title, depth, length]): LayerShape => {
    offset += length;
    return { title, depth, offset: offset - length, length, reference: '', fields: [] };
  });
  return { time: '', interface: 'eth0', direction, summary: '', length: 64, hex: '00'.repeat(64), comments, layers };
}

const told = (shape: PacketShape): string[] => stepsOf(shape).map(({ text, from }) => `${from} ${text}`);

test('a packet that is sent is followed to the other node', () => {
  const steps = stepsOf(packet('out', 'to VTEP 192.0.2.2'));
  assert.deepEqual(
    steps.map(({ from }) => from),
    [50, 50, 42, 34, 14, 0, 0, 0, 14, 34, 42, 50, 50],
  );
  assert.match(steps[1].text, /looked up in the FDB: to VTEP 192\.0\.2\.2/);
  assert.equal(steps[shownFirst(steps)].text, 'Sent on the NIC.');
});

test('a packet that arrives is taken apart', () => {
  const steps = stepsOf(packet('in'));
  assert.deepEqual(
    steps.map(({ from }) => from),
    [0, 14, 34, 42, 50, 50],
  );
  assert.equal(shownFirst(steps), 0);
});

test('one that was dropped ends there', () => {
  const dropped = 'dropped, rx_unknown_vni: no device has it';
  assert.deepEqual(told(packet('in', dropped)), ['0 The packet arrives on the NIC.', `0 It was ${dropped}`]);
  const out = packet('out', 'dropped, tx_busy: full');
  assert.deepEqual(told(out).slice(-2), ['0 outer Ethernet in front: 14 bytes.', '0 It was dropped, tx_busy: full']);
  assert.equal(shownFirst(stepsOf(out)), 6);
});

test('of a packet without VXLAN there is nothing to tell', () => {
  assert.deepEqual(stepsOf({ ...packet('out'), layers: [] }), []);
});
