import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { PodNetwork } from '../../../control/flannel/net-conf.ts';
import { SubnetIndex } from '../../../control/flannel/subnet-index.ts';
import { chooseSubnet, inRange, type SubnetRange, subnetRange } from '../../../control/flannel/subnet-range.ts';
import { formatAddressNumber, overlaps, parsePrefix } from '../../../wire/prefix.ts';

function range(network: string, given: Partial<PodNetwork> = {}) {
  return subnetRange({ network, subnetLen: null, subnetMin: null, subnetMax: null, ...given });
}

function show(found: SubnetRange | string): string {
  if (typeof found === 'string') return found;
  const { family, min, max, length } = found;
  return `${formatAddressNumber(min, family)} ${formatAddressNumber(max, family)} /${length}`;
}

test("flannel's defaults", () => {
  assert.equal(show(range('10.5.0.0/16')), '10.5.1.0 10.5.255.0 /24');
  assert.equal(show(range('10.5.0.0/22')), '10.5.1.0 10.5.3.0 /24');
  assert.equal(show(range('10.5.0.0/23')), '10.5.0.128 10.5.1.128 /25');
  assert.equal(show(range('10.5.0.0/28')), '10.5.0.4 10.5.0.12 /30');
  assert.equal(show(range('fd00::/48')), 'fd00:0:0:1:: fd00:0:0:ffff:: /64');
  assert.equal(show(range('fd00::/63')), 'fd00::8000:0:0:0 fd00:0:0:1:8000:: /65');
  assert.equal(show(range('0.0.0.0/0')), '0.0.1.0 255.255.255.0 /24');
});

test('what is given, and what is refused', () => {
  const given = { subnetLen: 28, subnetMin: '10.5.10.16', subnetMax: '10.5.99.240' };
  assert.equal(show(range('10.5.0.0/16', given)), '10.5.10.16 10.5.99.240 /28');
  assert.equal(range('10.5.0.0/29'), 'Network: 10.5.0.0/29 is too small: /28 is the least');
  assert.equal(range('fd00::/125'), 'IPv6Network: fd00::/125 is too small: /124 is the least');
  assert.equal(
    range('10.5.0.0/16', { subnetLen: 17 }),
    'SubnetLen: 17 is too short: four subnets have to fit in 10.5.0.0/16',
  );
  assert.equal(range('10.5.0.0/16', { subnetMin: '10.6.0.0' }), 'SubnetMin: 10.6.0.0 is outside 10.5.0.0/16');
  assert.equal(
    range('10.5.0.0/16', { subnetMax: '10.5.8.1' }),
    'SubnetMax: 10.5.8.1 is not the first address of a /24',
  );
  assert.equal(range('fd00::/48', { subnetMax: 'fd01::' }), 'IPv6SubnetMax: fd01:: is outside fd00::/48');
  assert.equal(
    range('10.5.0.0/16', { subnetMin: '10.5.9.0', subnetMax: '10.5.8.0' }),
    'SubnetMin: 10.5.9.0 is above SubnetMax',
  );
});

test('a previous subnet is kept only when it is of the range', () => {
  const found = range('10.5.0.0/16') as SubnetRange;
  for (const [subnet, expected] of [
    ['10.5.1.0/24', true],
    ['10.5.255.0/24', true],
    ['10.5.0.0/24', false],
    ['10.6.1.0/24', false],
    ['10.5.1.0/25', false],
    ['fd00::/64', false],
  ] as const) {
    assert.equal(inRange(found, parsePrefix(subnet)!), expected, subnet);
  }
});

test('a free subnet is chosen by chance, whatever the others look like', () => {
  const found = range('10.5.0.0/24', { subnetLen: 27 }) as SubnetRange;
  const taken = ['10.5.0.32/27', '10.5.0.64/30', '10.5.0.128/26', '10.5.0.128/27', '10.9.0.0/16', 'fd00::/64'];
  const prefixes = taken.map((text) => parsePrefix(text)!);
  assert.equal(
    chooseSubnet(found, prefixes, () => 0),
    '10.5.0.96/27',
  );
  assert.equal(
    chooseSubnet(found, prefixes, () => 0.999),
    '10.5.0.224/27',
  );
  assert.equal(chooseSubnet(found, [parsePrefix('10.5.0.0/16')!], Math.random), undefined);
});

test('with thousands of nodes, the last free subnet is found', () => {
  const found = range('10.0.0.0/10') as SubnetRange;
  const taken = Array.from({ length: 16_382 }, (_, i) => parsePrefix(`10.${(i + 1) >> 8}.${(i + 1) & 255}.0/24`)!);
  assert.equal(chooseSubnet(found, taken, Math.random), '10.63.255.0/24');
});

test('an index of subnets answers as trying all of them does', () => {
  const prefix = fc
    .record({ length: fc.integer({ min: 20, max: 32 }), bits: fc.nat(0xfff) })
    .map(({ length, bits }) => parsePrefix(`10.0.${bits >> 8}.${bits & 255}/${length}`)!);
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 40 }), prefix, fc.nat(), (candidates, wanted, drop) => {
      const index = new SubnetIndex();
      let there: [typeof wanted, string][] = [];
      for (const candidate of candidates) {
        if (index.overlapping(candidate) !== undefined) continue;
        index.add(candidate, String(there.length));
        there.push([candidate, String(there.length)]);
      }
      const dropped = there[drop % (there.length || 1)];
      if (dropped) index.delete(dropped[0]);
      there = there.filter((entry) => entry !== dropped);
      const expected = there.filter(([subnet]) => overlaps(subnet, wanted)).map(([, owner]) => owner);
      const owner = index.overlapping(wanted);
      assert.equal(owner === undefined, expected.length === 0);
      if (owner !== undefined) assert.ok(expected.includes(owner));
      if (expected.length === 1) assert.equal(index.overlapping(wanted, owner), undefined);
    }),
  );
});
