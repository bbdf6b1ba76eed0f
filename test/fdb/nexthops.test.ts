import assert from 'node:assert/strict';
import test from 'node:test';
import { FdbError } from '../../fdb/error.ts';
import { NextHopReader, NextHops, TEMPLATE_WORDS, type Template } from '../../fdb/nexthops.ts';
import { startReader } from './reader.ts';

const GRACE = 100;

function create(limit = 10) {
  const events: string[] = [];
  const nextHops = new NextHops(
    { onNextHop: (index, { ip }) => events.push(`+${index} ${ip}`), onRelease: (index) => events.push(`-${index}`) },
    limit,
    GRACE,
  );
  return { nextHops, events };
}

function key(ip: string) {
  return { device: 1, ip, port: 8472, vni: 7, via: '' };
}

/** A template all of whose words are `word`. */
function template(word: number): Template {
  const words = new Int32Array(TEMPLATE_WORDS).fill(word);
  return { outerLength: word, ipSum: 1, pseudoSum: 2, uplink: 3, flags: 1, mtu: 1500, words };
}

test('one record for one next hop, released with its last reference', () => {
  const { nextHops, events } = create();
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  assert.equal(nextHops.acquire(key('192.0.2.1'), 0), index);
  assert.deepEqual(nextHops.key(index), key('192.0.2.1'));
  for (const other of [{ device: 2 }, { ip: '192.0.2.2' }, { port: 4789 }, { vni: 8 }, { via: 'eth1' }]) {
    assert.notEqual(nextHops.acquire({ ...key('192.0.2.1'), ...other }, 0), index);
  }
  assert.equal(nextHops.size, 6);
  assert.equal(nextHops.indexes(1).length, 5);
  nextHops.release(index, 0);
  assert.equal(nextHops.find(key('192.0.2.1')), index);
  nextHops.release(index, 0);
  assert.equal(nextHops.find(key('192.0.2.1')), 0);
  assert.equal(events.filter((event) => event === `-${index}`).length, 1);
  assert.equal(nextHops.size, 5);
});

test('a released record rests for the grace period, unless its own next hop comes back', () => {
  const { nextHops, events } = create(1);
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  nextHops.release(index, 1000);
  assert.throws(
    () => nextHops.acquire(key('192.0.2.2'), 1000 + GRACE - 1),
    (error: unknown) => error instanceof FdbError && error.errno === 'ENOBUFS',
  );
  assert.equal(nextHops.acquire(key('192.0.2.1'), 1001), index);
  nextHops.release(index, 1002);
  assert.throws(() => nextHops.acquire(key('192.0.2.2'), 1000 + GRACE));
  assert.equal(nextHops.acquire(key('192.0.2.2'), 1002 + GRACE), index);
  assert.deepEqual(events, ['+1 192.0.2.1', '-1', '+1 192.0.2.1', '-1', '+1 192.0.2.2']);
});

test('headers are there between publish and unresolve', () => {
  const { nextHops } = create();
  const reader = new NextHopReader(nextHops.buffer);
  const copy = new Int32Array(2 + TEMPLATE_WORDS);
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  assert.equal(reader.copyTemplate(index, copy, 2), 0);
  nextHops.publish(index, template(50));
  assert.equal(nextHops.isResolved(index), true);
  assert.equal(reader.copyTemplate(index, copy, 2), 50);
  assert.deepEqual([...copy], [0, 0, ...Array(TEMPLATE_WORDS).fill(50)]);
  // Word by word as the dataplane reads it: sequence, state, outer length, sums, uplink, flags, MTU.
  assert.deepEqual([...reader.words.subarray(index * 32 + 1, index * 32 + 9)], [2, 50, 1, 2, 3, 1, 1500, 50]);
  nextHops.unresolve(index);
  assert.equal(nextHops.isResolved(index), false);
  assert.equal(reader.copyTemplate(index, copy, 2), 0);
});

test('a record that is used anew is not resolved, and one that is not used stays so', () => {
  const { nextHops } = create();
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  nextHops.publish(index, template(50));
  nextHops.release(index, 0);
  nextHops.unresolve(index); // too late: a worker may be about to send
  assert.equal(nextHops.isResolved(index), true);
  nextHops.acquire(key('192.0.2.1'), 0);
  assert.equal(nextHops.isResolved(index), false);
  nextHops.release(index, 0);
  nextHops.publish(index, template(60));
  assert.equal(nextHops.isResolved(index), false);
});

test("record 0 is nobody's", () => {
  const { nextHops } = create();
  assert.equal(nextHops.acquire(key('192.0.2.1'), 0), 1);
  assert.equal(new NextHopReader(nextHops.buffer).copyTemplate(0, new Int32Array(TEMPLATE_WORDS), 0), 0);
});

test('a reader never copies half of a template', async (t) => {
  const { nextHops } = create();
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  const reader = startReader<{ copies: number; unresolved: number; torn: number }>(t, 'nextHops', {
    buffer: nextHops.buffer,
    index,
  });
  await reader.started;
  const end = performance.now() + 1000;
  for (let n = 1; performance.now() < end; n++) {
    nextHops.publish(index, template(n));
    if (n % 3 === 0) nextHops.unresolve(index);
  }
  const { copies, unresolved, torn } = await reader.stop();
  assert.ok(copies > 1000 && unresolved > 1000, `${copies} copies, ${unresolved} times unresolved`);
  assert.equal(torn, 0);
});
