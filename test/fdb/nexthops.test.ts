import assert from 'node:assert/strict';
import test from 'node:test';
import { FdbError } from '../../fdb/error.ts';
import { NextHops, RECORD, RESOLVED, STATE, TEMPLATE_WORDS, type Template, VIA_HOST } from '../../fdb/nexthops.ts';
import { startReader } from './reader.ts';

const GRACE = 100;

function create(limit = 10) {
  const events: string[] = [];
  const nextHops = new NextHops(
    { onNextHop: (index, { ip }) => events.push(`+${index} ${ip}`), onRelease: (index) => events.push(`-${index}`) },
    limit,
    GRACE,
  );
  const words = new Int32Array(nextHops.buffer);
  return { nextHops, events, words, stateOf: (index: number) => words[index * RECORD + STATE] };
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
  nextHops.release(index, 0);
  assert.equal(nextHops.find(key('192.0.2.1')), index);
  nextHops.release(index, 0);
  assert.equal(nextHops.find(key('192.0.2.1')), 0);
  assert.equal(events.filter((event) => event === `-${index}`).length, 1);
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

test('headers are there after publish', () => {
  const { nextHops, words, stateOf } = create();
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  assert.equal(stateOf(index), 1);
  nextHops.publish(index, template(50));
  // Word by word as the dataplane reads it: state, outer length, sums, uplink, flags, MTU, template.
  const expected = [RESOLVED, 50, 1, 2, 3, 1, 1500, ...Array(TEMPLATE_WORDS).fill(50)];
  assert.deepEqual([...words.subarray(index * RECORD + 1, (index + 1) * RECORD)], expected);
  nextHops.publish(index, template(70), VIA_HOST);
  assert.equal(stateOf(index), VIA_HOST);
});

test('a record that is used anew is not resolved, and one that is not used stays as it is', () => {
  const { nextHops, stateOf } = create();
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  nextHops.publish(index, template(50));
  nextHops.release(index, 0);
  assert.equal(stateOf(index), RESOLVED, 'a worker may be about to send');
  nextHops.acquire(key('192.0.2.1'), 0);
  assert.equal(stateOf(index), 1);
  nextHops.release(index, 0);
  nextHops.publish(index, template(60));
  assert.equal(stateOf(index), 1);
});

test("record 0 is nobody's", () => {
  const { nextHops, stateOf } = create();
  assert.equal(nextHops.acquire(key('192.0.2.1'), 0), 1);
  assert.equal(stateOf(0), 0);
});

test('a reader never copies half of a template', async (t) => {
  const { nextHops } = create();
  const index = nextHops.acquire(key('192.0.2.1'), 0);
  nextHops.publish(index, template(1));
  const reader = startReader<{ copies: number; viaHost: number; torn: number }>(t, 'nextHops', {
    buffer: nextHops.buffer,
    index,
  });
  await reader.started;
  const end = performance.now() + 1000;
  for (let n = 1; performance.now() < end; n++) {
    nextHops.publish(index, template(n), n % 3 === 0 ? VIA_HOST : RESOLVED);
  }
  const { copies, viaHost, torn } = await reader.stop();
  assert.ok(copies > 1000 && viaHost > 1000, `${copies} resolved, ${viaHost} by the host`);
  assert.equal(torn, 0);
});
