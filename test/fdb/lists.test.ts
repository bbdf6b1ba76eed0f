import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { FdbError } from '../../fdb/error.ts';
import { Lists } from '../../fdb/lists.ts';
import { startReader } from './reader.ts';

const GRACE = 100;

/** A list that is replaced when it changes, as the writer does it. */
class Owner {
  readonly lists: Lists;
  list: number;

  constructor(lists: Lists) {
    this.lists = lists;
    this.list = lists.create([1], 0);
  }

  become(list: number, now: number): void {
    if (list === this.list) return;
    this.lists.release(this.list, now);
    this.list = list;
  }
}

test('workers find the count at the name and the members behind it', () => {
  const lists = new Lists(64);
  const words = new Int32Array(lists.buffer);
  const list = lists.create([7, 8], 0);
  assert.deepEqual([...words.subarray(list, list + 3)], [2, 7, 8]);
  assert.equal(lists.append(list, 9, 0), list);
  assert.deepEqual([...words.subarray(list, list + 4)], [3, 7, 8, 9]);
});

test('behaves as an array does, for many lists', () => {
  const operation = fc.record({
    which: fc.nat(3),
    append: fc.boolean(),
    member: fc.integer({ min: 1, max: 30 }),
    wait: fc.nat(40),
  });
  const property = fc.property(fc.array(operation, { maxLength: 300 }), (operations) => {
    const lists = new Lists(1 << 12, GRACE);
    const owners = [0, 1, 2, 3].map(() => new Owner(lists));
    const models = owners.map(() => [1]);
    let now = 0;
    for (const { which, append, member, wait } of operations) {
      now += wait;
      const owner = owners[which];
      const model = models[which];
      const has = model.includes(member);
      assert.equal(lists.includes(owner.list, member), has);
      if (append && !has) {
        owner.become(lists.append(owner.list, member, now), now);
        model.push(member);
      } else if (!append && has && model.length > 1) {
        owner.become(lists.remove(owner.list, member, now), now);
        model.splice(model.indexOf(member), 1);
      }
    }
    for (const [i, owner] of owners.entries()) {
      assert.deepEqual(lists.members(owner.list), models[i]);
      assert.equal(lists.count(owner.list), models[i].length);
    }
  });
  fc.assert(property, { numRuns: 200 });
});

test('a list that was given up stays as it is for the grace period', () => {
  const lists = new Lists(32, GRACE); // four of the smallest blocks
  const first = lists.create([1, 2, 3], 0);
  const second = lists.remove(first, 2, 0);
  lists.release(first, 0);
  lists.create([4], 50);
  lists.create([5], GRACE - 1);
  assert.deepEqual(lists.members(first), [1, 2, 3]);
  assert.throws(
    () => lists.create([6], GRACE - 1),
    (error: unknown) => error instanceof FdbError && error.errno === 'ENOBUFS',
  );
  assert.equal(lists.create([6], GRACE), first);
  assert.deepEqual(lists.members(second), [1, 3]);
});

test('a large block is cut up for small lists', () => {
  const lists = new Lists(32, GRACE);
  lists.release(lists.create(Array(30).fill(1), 0), 0);
  const small = [1, 2, 3, 4].map((member) => lists.create([member], GRACE));
  assert.equal(new Set(small).size, 4);
  assert.deepEqual(
    small.map((list) => lists.members(list)),
    [[1], [2], [3], [4]],
  );
  assert.throws(() => lists.create([5], GRACE));
});

test('a member is removed also when there is no room for a new list', () => {
  const lists = new Lists(8, GRACE);
  const list = lists.create([1, 2, 3, 4], 0);
  assert.equal(lists.remove(list, 2, 0), list);
  assert.deepEqual(lists.members(list), [1, 4, 3]);
  assert.equal(lists.remove(list, 3, 0), list);
  assert.deepEqual(lists.members(list), [1, 4]);
});

test('a reader that is faster than the grace period sees whole lists only', async (t) => {
  const lists = new Lists(1 << 16, GRACE);
  const name = new Int32Array(new SharedArrayBuffer(4));
  let list = lists.create([1, 2, 3], 0);
  name[0] = list;
  const reader = startReader<{ lists: number; members: number; mixed: number }>(t, 'lists', {
    buffer: lists.buffer,
    name,
  });
  await reader.started;
  let now = 0;
  let start = 1;
  let round = reader.rounds();
  const end = performance.now() + 1000;
  for (let n = 0; performance.now() < end; n++) {
    const last = start + lists.count(list) - 1;
    let next: number;
    if (n % 8 === 0) next = lists.create([(start = n), n + 1], now);
    else if (n % 8 === 4) next = lists.remove(list, last, now);
    else next = lists.append(list, last + 1, now);
    if (next !== list) {
      Atomics.store(name, 0, next);
      lists.release(list, now);
      list = next;
    }
    // Half a grace period is over when the reader has begun a new round: after two it holds nothing of before.
    if (reader.rounds() - round >= 2) {
      round = reader.rounds();
      now += GRACE / 2;
    } else if (n % 200 === 0) {
      while (reader.rounds() - round < 2);
    }
  }
  const counts = await reader.stop();
  assert.ok(counts.lists > 1000 && counts.members > counts.lists, JSON.stringify(counts));
  assert.equal(counts.mixed, 0);
});
