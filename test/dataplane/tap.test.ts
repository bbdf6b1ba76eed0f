import assert from 'node:assert/strict';
import test from 'node:test';
import { Batch } from '../../dataplane/batch.ts';
import { HEADROOM, LARGEST_FRAME } from '../../dataplane/memory.ts';
import { receiveFrames, takeTapArena } from '../../dataplane/tap.ts';
import { frame, otherFrame, packet, payload, superFrame, unfinished } from './packet.ts';
import { Rig, TestPort } from './rig.ts';

const { memory } = new Rig();
const fences = [memory.take(65_536)];
const arena = takeTapArena(memory);
fences.push(memory.take(65_536));
for (const at of fences) memory.u8.fill(0x5a, at, at + 65_536);
const tap = new TestPort(memory);
const batch = new Batch(64);

function receive(...packets: Uint8Array[]): void {
  tap.waiting.push(...packets);
  receiveFrames(tap, memory, arena, batch);
}

const received = (i: number) => memory.u8.slice(batch.at[i], batch.at[i] + batch.length[i]);

test('reads frames with their metadata', () => {
  const whole = superFrame(frame({ payload: payload(5000) }), 1000);
  const single = unfinished(frame({ version: 6, tags: [1], payload: payload(10) }));
  const arp = packet(otherFrame(0x0806, 28));
  receive(whole, arp, single, packet(new Uint8Array(0)));
  assert.equal(batch.count, 4);
  for (const [i, bytes] of [whole, arp, single].entries()) assert.deepEqual([...received(i)], [...bytes.subarray(12)]);
  const metadata = [
    batch.flags,
    batch.gsoType,
    batch.gsoSize,
    batch.headerLength,
    batch.checksumStart,
    batch.checksumOffset,
  ];
  assert.deepEqual(
    metadata.map((field) => [...field.subarray(0, 4)]),
    [
      [1, 0, 1, 0],
      [1, 0, 0, 0],
      [1000, 0, 0, 0],
      [54, 0, 0, 0],
      [34, 0, 58, 0],
      [16, 0, 16, 0],
    ],
  );
  assert.equal(batch.length[3], 0);
  receive();
  assert.equal(batch.count, 0);
});

test('leaves room in front of each frame, and puts IP headers on whole words', () => {
  receive(...Array.from({ length: 64 }, (_, i) => packet(otherFrame(0x88cc, 37 * i))));
  assert.equal(batch.count, 64);
  let end = arena;
  for (let i = 0; i < 64; i++) {
    assert.equal(batch.at[i] % 4, 2);
    assert.ok(batch.at[i] - HEADROOM >= end);
    end = batch.at[i] + batch.length[i];
  }
});

test('leaves to the next round what does not fit its memory', () => {
  const large = packet(new Uint8Array(LARGEST_FRAME - 12).fill(7));
  tap.waiting.length = 0;
  for (let i = 0; i < 50; i++) tap.waiting.push(large);
  const rounds: number[] = [];
  for (let total = 0; total < 50; total += batch.count) {
    receive();
    rounds.push(batch.count);
    for (let i = 0; i < batch.count; i++) assert.equal(batch.length[i], LARGEST_FRAME - 12);
  }
  assert.deepEqual(rounds, [20, 20, 10]);
  for (const at of fences) assert.ok(memory.u8.subarray(at, at + 65_536).every((byte) => byte === 0x5a));
});
