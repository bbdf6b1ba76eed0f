import assert from 'node:assert/strict';
import test from 'node:test';
import { PacketMemory, sharePacketMemory, WORKER_BYTES } from '../../dataplane/memory.ts';

const share = sharePacketMemory(2);

test('gives each worker its own slice, aligned, and no more', () => {
  for (const worker of [0, 1]) {
    const memory = new PacketMemory(share, worker);
    let end = worker * WORKER_BYTES;
    for (const bytes of [1, 63, 64, 65, 100_000]) {
      const at = memory.take(bytes);
      assert.ok(at >= end && at % 64 === 0);
      end = at + bytes;
    }
    assert.throws(() => memory.take(WORKER_BYTES), /too small/);
  }
});

test('hands out structures zeroed, whatever an earlier worker left there', () => {
  new Uint8Array(share.memory.buffer).fill(0xa5, 0, 200_000);
  const memory = new PacketMemory(share, 0);
  const at = memory.take(4096);
  assert.ok(memory.u8.subarray(at, at + 4096).every((byte) => byte === 0));
  memory.u8.fill(0xa5, at, at + 4096);
  memory.give(at, 4096);
  assert.equal(memory.take(4096), at, 'what was given back comes first');
  assert.ok(memory.u8.subarray(at, at + 4096).every((byte) => byte === 0));
  assert.notEqual(memory.take(4096), at);
});

test('writes pointers as the kernel reads them', () => {
  const memory = new PacketMemory(share, 0);
  const at = memory.take(32);
  memory.setIovec(at, 1, 1234, 5678);
  const iovec = Buffer.from(memory.u8.slice(at + 16, at + 32));
  assert.equal(Number(iovec.readBigUInt64LE(0)), memory.address + 1234);
  assert.equal(Number(iovec.readBigUInt64LE(8)), 5678);
  memory.setPointer(at, 77);
  assert.equal(Number(Buffer.from(memory.u8.slice(at, at + 8)).readBigUInt64LE(0)), memory.address + 77);
});
