import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { changes, desiredTable, differs, peersOffLink } from '../../../control/flannel/host-table.ts';
import type { Lease } from '../../../control/flannel/lease.ts';

const overlay = (device: string | null, network: string, spansNetwork = false) => ({ device, network, spansNetwork });
const VXLAN = { ipv4: overlay('flannel.1', '10.244.0.0/16'), ipv6: null };
const DUAL = { ipv4: VXLAN.ipv4, ipv6: overlay('flannel-v6.1', 'fd00::/48') };

function lease(node: number, ipv6 = false): Lease {
  const mac = `02:00:00:00:00:0${node}`;
  return {
    node: `n${node}`,
    ipv4: { subnet: `10.244.${node}.0/24`, publicIp: `192.0.2.${node}`, vtepMac: mac },
    ipv6: ipv6 ? { subnet: `fd00:0:0:${node}::/64`, publicIp: `2001:db8::${node}`, vtepMac: mac } : null,
  };
}

test('vxlan: a neighbour and an onlink route for each peer, as flannel has them', () => {
  const table = desiredTable(VXLAN, 'eth0', lease(1), [lease(2)], () => false);
  assert.deepEqual(
    [...table],
    [
      ['link flannel.1', 'up address 02:00:00:00:00:01'],
      ['address 10.244.1.0/32 dev flannel.1', ''],
      ['neigh 10.244.2.0 dev flannel.1', 'lladdr 02:00:00:00:00:02'],
      ['route 10.244.2.0/24', 'via 10.244.2.0 dev flannel.1 onlink'],
    ],
  );
});

test('dual stack: each family has its device', () => {
  const table = desiredTable(DUAL, 'eth0', lease(1, true), [lease(2, true)], () => false);
  assert.equal(table.get('address fd00:0:0:1::/128 dev flannel-v6.1'), '');
  assert.equal(table.get('neigh fd00:0:0:2:: dev flannel-v6.1'), 'lladdr 02:00:00:00:00:02');
  assert.equal(table.get('route fd00:0:0:2::/64'), 'via fd00:0:0:2:: dev flannel-v6.1 onlink');
  assert.equal(table.get('route 10.244.2.0/24'), 'via 10.244.2.0 dev flannel.1 onlink');
});

test('DirectRouting: a peer on the link is sent packets as they are, one behind a gateway is not', () => {
  const table = desiredTable(VXLAN, 'eth0', lease(1), [lease(2), lease(3)], (ip) => ip === '192.0.2.2');
  assert.equal(table.get('route 10.244.2.0/24'), 'via 192.0.2.2 dev eth0');
  assert.equal(table.get('route 10.244.3.0/24'), 'via 10.244.3.0 dev flannel.1 onlink');
});

test('host-gw: routes alone', () => {
  const hostGateway = { ipv4: overlay(null, '10.244.0.0/16'), ipv6: null };
  const table = desiredTable(hostGateway, 'eth0', lease(1), [lease(2)], () => true);
  assert.deepEqual([...table], [['route 10.244.2.0/24', 'via 192.0.2.2 dev eth0']]);
});

test('host-gw: a peer behind a router gets no route, and is named', () => {
  const hostGateway = { ipv4: overlay(null, '10.244.0.0/16'), ipv6: overlay(null, 'fd00::/48') };
  const peers = [lease(2, true), lease(3), lease(4, true)];
  const isOnLink = (ip: string) => ip === '192.0.2.2' || ip === '2001:db8::2' || ip === '192.0.2.4';
  assert.deepEqual(
    [...desiredTable(hostGateway, 'eth0', lease(1, true), peers, isOnLink)],
    [
      ['route 10.244.2.0/24', 'via 192.0.2.2 dev eth0'],
      ['route fd00:0:0:2::/64', 'via 2001:db8::2 dev eth0'],
      ['route 10.244.4.0/24', 'via 192.0.2.4 dev eth0'],
    ],
  );
  assert.deepEqual(peersOffLink(hostGateway, peers, isOnLink), ['n3 (192.0.2.3)', 'n4 (2001:db8::4)']);
  assert.deepEqual(peersOffLink(VXLAN, peers, isOnLink), [], 'with a device none is out of reach');
});

test("udp: the device's address spans the network, and peers need nothing", () => {
  const udp = { ipv4: overlay('flannel0', '10.244.0.0/16', true), ipv6: null };
  const own = { ...lease(1), ipv4: { subnet: '10.244.1.0/24', publicIp: '192.0.2.1', vtepMac: null } };
  const table = desiredTable(udp, 'eth0', own, [lease(2)], () => false);
  assert.deepEqual(
    [...table],
    [
      ['link flannel0', 'up'],
      ['address 10.244.1.0/16 dev flannel0', ''],
    ],
  );
});

test('a peer with a new MAC or a new public IP changes what it has to, and nothing else', () => {
  const before = desiredTable(VXLAN, 'eth0', lease(1), [lease(2), lease(3)], () => false);
  const moved = { ...lease(2), ipv4: { ...lease(2).ipv4!, vtepMac: '02:00:00:00:00:99' } };
  const after = desiredTable(VXLAN, 'eth0', lease(1), [moved, lease(3)], () => false);
  assert.deepEqual(changes(before, after), [
    'neigh replace 10.244.2.0 dev flannel.1 lladdr 02:00:00:00:00:99 nud permanent protocol 118',
  ]);
  assert.deepEqual(
    changes(
      before,
      desiredTable(VXLAN, 'eth0', lease(1), [lease(3)], () => false),
    ),
    ['route del 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 118', 'neigh del 10.244.2.0 dev flannel.1'],
  );
});

test('events: what is as it was put there differs in nothing, what somebody has changed or taken away does', () => {
  const table = desiredTable(DUAL, 'eth0', lease(1, true), [lease(2, true), lease(3)], (ip) => ip === '192.0.2.3');
  const told: [string, boolean | undefined][] = [
    ['[NEIGH]10.244.2.0 dev flannel.1 lladdr 02:00:00:00:00:02 PERMANENT proto 118 ', false],
    ['[NEIGH]10.244.2.0 dev flannel.1 lladdr 02:00:00:00:00:66 PERMANENT proto 118 ', true],
    ['[NEIGH]10.244.2.0 dev flannel.1 lladdr 02:00:00:00:00:02 STALE proto 118 ', true],
    ['[NEIGH]10.244.9.0 dev flannel.1 lladdr 02:00:00:00:00:09 PERMANENT proto 118 ', true],
    ['[NEIGH]Deleted 10.244.2.0 dev flannel.1 lladdr 02:00:00:00:00:02 PERMANENT proto 118 ', true],
    ['[NEIGH]Deleted 10.244.9.0 dev flannel.1 lladdr 02:00:00:00:00:09 PERMANENT proto 118 ', false],
    // The dataplane's.
    ['[NEIGH]192.0.2.254 dev eth0 lladdr 02:00:00:00:00:fe managed REACHABLE proto 118 ', false],
    ['[NEIGH]Deleted 192.0.2.254 dev eth0 managed FAILED proto 118 ', false],
    ['[NEIGH]10.244.2.0 dev flannel.1 lladdr 02:00:00:00:00:02 PERMANENT', undefined],
    ['[ROUTE]10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 118 onlink ', false],
    ['[ROUTE]10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 118 onlink linkdown ', false],
    ['[ROUTE]10.244.2.0/24 via 192.0.2.254 dev eth0 proto 118 ', true],
    ['[ROUTE]10.244.3.0/24 via 192.0.2.3 dev eth0 proto 118 ', false],
    ['[ROUTE]10.244.9.0/24 via 192.0.2.9 dev eth0 proto 118 ', true],
    ['[ROUTE]blackhole 10.244.9.0/24 proto 118 ', true],
    ['[ROUTE]Deleted 10.244.3.0/24 via 192.0.2.3 dev eth0 proto 118 ', true],
    ['[ROUTE]Deleted 10.244.9.0/24 via 192.0.2.9 dev eth0 proto 118 ', false],
    ['[ROUTE]fd00:0:0:2::/64 via fd00:0:0:2:: dev flannel-v6.1 proto 118 metric 1024 onlink pref medium', false],
    ['[ROUTE]10.244.2.0/24 via 192.0.2.254 dev eth0 ', undefined],
  ];
  for (const [line, expected] of told) assert.equal(differs(line, table), expected, line);
});

test('a device is never taken away by a comparison', () => {
  assert.deepEqual(changes(new Map([['link flannel.1', 'up']]), new Map()), []);
});

test('carried out, the changes make any table into any other', () => {
  const tables = fc.uniqueArray(fc.integer({ min: 2, max: 9 })).map((nodes) =>
    desiredTable(
      VXLAN,
      'eth0',
      lease(1),
      nodes.map((node) => lease(node)),
      (ip) => ip === '192.0.2.3',
    ),
  );
  fc.assert(
    fc.property(tables, tables, (from, to) => {
      assert.deepEqual(sorted(carriedOut(from, changes(from, to))), sorted(to));
    }),
  );
});

function sorted(table: ReadonlyMap<string, string>): [string, string][] {
  return [...table].sort(([one], [other]) => (one < other ? -1 : 1));
}

/** What ip(8) would make of the lines. */
function carriedOut(table: ReadonlyMap<string, string>, lines: readonly string[]): Map<string, string> {
  const result = new Map(table);
  for (const line of lines) {
    const [, object, verb, rest] = line.match(/^(\S+) (\S+) (.*)$/)!;
    const words = rest.split(' ');
    const isRoute = object === 'route';
    const key = `${object} ${isRoute ? words[0] : words.slice(0, 3).join(' ')}`;
    const value = words.slice(isRoute ? 1 : 3).join(' ');
    if (verb === 'del') assert.ok(result.delete(key), `${key} was there`);
    else result.set(key, value.replace(/ (nud permanent protocol|proto) 118$/, ''));
  }
  return result;
}
