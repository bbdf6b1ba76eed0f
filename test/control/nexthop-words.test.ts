import assert from 'node:assert/strict';
import test from 'node:test';
import { nexthopOf, parseNexthop, parseNexthopId } from '../../control/nexthop-words.ts';
import { UsageError } from '../../control/words.ts';

const words = (line: string) => line.split(' ').filter((word) => word !== '');

test("ip nexthop's words", () => {
  assert.deepEqual(parseNexthop(words('id 5 via 192.0.2.1 fdb')), { id: 5, via: '192.0.2.1' });
  assert.deepEqual(parseNexthop(words('fdb group 1/2/3 id 10')), { id: 10, group: [1, 2, 3] });
  assert.deepEqual(parseNexthopId(words('id 5')), { id: 5 });
  assert.deepEqual(parseNexthopId([]), { id: null });
});

for (const [line, message] of [
  ['via 192.0.2.1 fdb', '"id" is required'],
  ['id 5 via 192.0.2.1', '"fdb" is missing: uvxlan has nexthops for FDB entries only'],
  ['id 5 fdb', 'one of "via" and "group" is required'],
  ['id 5 via 192.0.2.1 group 1 fdb', 'one of "via" and "group" is required'],
  ['id 0 via 192.0.2.1 fdb', 'argument "0" is wrong: invalid id value, it is out of range 1..4294967295'],
  ['id 5 via 192.0.2 fdb', 'argument "192.0.2" is wrong: invalid address, it is not an IP address'],
  ['id 5 group 1,2/3 fdb', '"1,2": groups are equal-cost in uvxlan, without weights'],
  ['id 5 group 1/x fdb', 'argument "x" is wrong: invalid id value, it is not a number 1..4294967295'],
  ['id 5 id 6', 'duplicate "id": "6" is the second value.'],
  ['id', 'Command line is not complete: "id" wants a value'],
  ['id 5 vai 192.0.2.1 fdb', 'unknown word "vai", did you mean "via"?'],
] as const) {
  test(`refused: ${line}`, () => {
    assert.throws(() => parseNexthop(words(line)), { constructor: UsageError, message });
  });
}

test('what comes over the socket is checked as well', () => {
  assert.deepEqual(nexthopOf({ id: 5, via: '192.0.2.1' }), { id: 5, via: '192.0.2.1' });
  assert.deepEqual(nexthopOf({ id: 5, group: [1, 2] }), { id: 5, group: [1, 2] });
  for (const wrong of [{ id: 5 }, { id: 5, group: 1 }, { id: 5, via: '192.0.2.1', frob: 1 }]) {
    assert.throws(() => nexthopOf(wrong), { errno: 'EINVAL' });
  }
  assert.throws(() => nexthopOf({ id: 'x', via: '192.0.2.1' }), UsageError);
});
