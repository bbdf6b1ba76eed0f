import assert from 'node:assert/strict';
import test from 'node:test';
import { icmpName } from '../../wire/icmp.ts';

test('names messages', () => {
  assert.equal(icmpName(8, 0), 'echo request');
  assert.equal(icmpName(3, 4), 'fragmentation needed');
  assert.equal(icmpName(3, 13), 'destination unreachable');
  assert.equal(icmpName(42, 1), 'type 42 code 1');
});
