import assert from 'node:assert/strict';
import test from 'node:test';
import { type FaultKind, FaultLog } from '../../../control/flannel/faults.ts';
import type { Lease } from '../../../control/flannel/lease.ts';
import { type NetConf, parseNetConf } from '../../../control/flannel/net-conf.ts';
import { Peers } from '../../../control/flannel/peers.ts';
import { backendData, type Claim, type Reading, readClaim } from '../../../control/flannel/reading.ts';

const BACKEND = { Type: 'vxlan', VNI: 7 };
const CONF = conf({ Network: '10.244.0.0/16', Backend: BACKEND });
const DUAL = conf({ Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd00::/48', Backend: BACKEND });

function conf(value: unknown): NetConf {
  return parseNetConf(JSON.stringify(value), 'net-conf').conf;
}

const mac = (n: number) => `02:00:00:00:00:${n.toString(16).padStart(2, '0')}`;

function claim(n: number, changes: Partial<{ subnet: string; publicIp: unknown; data: unknown }> = {}): Claim {
  const data = { VNI: 7, VtepMAC: mac(n) };
  const ipv4 = { subnet: `10.244.${n}.0/24`, publicIp: `192.0.2.${n}`, data, ...changes };
  return { backendType: 'vxlan', ipv4, ipv6: null };
}

const read = (node: string, said: Claim): Reading => readClaim(node, said, CONF);

function lease(node: string, n: number): Lease {
  return { node, ipv4: { subnet: `10.244.${n}.0/24`, publicIp: `192.0.2.${n}`, vtepMac: mac(n) }, ipv6: null };
}

class Bench {
  readonly lines: string[] = [];
  readonly faults = new FaultLog((line) => this.lines.push(line));
  readonly peers = new Peers(this.faults);

  update(node: string, said: Claim): void {
    this.peers.update(node, read(node, said));
  }

  changed(): string[] {
    return [...this.peers.takeChanged()].sort();
  }

  /** The lines since this was last asked, and that each was counted as one fault of this kind. */
  said(kind?: FaultKind): string[] {
    if (kind) assert.ok(this.faults.counts[kind] > 0, `${kind} was not counted`);
    return this.lines.splice(0);
  }
}

test('a claim becomes a lease, canonical, for the families that the cluster has', () => {
  const data = { VNI: 7, VtepMAC: '02:0A:00:00:00:01' };
  const ipv4 = { subnet: '10.244.1.5/24', publicIp: '192.0.2.1', data };
  const ipv6 = { subnet: 'FD00:0:0:1::/64', publicIp: '2001:DB8:0::1', data: { VtepMAC: mac(2) } };
  const share4 = { subnet: '10.244.1.0/24', publicIp: '192.0.2.1', vtepMac: '02:0a:00:00:00:01' };
  const share6 = { subnet: 'fd00:0:0:1::/64', publicIp: '2001:db8::1', vtepMac: mac(2) };
  const both = { backendType: 'vxlan', ipv4, ipv6 };
  assert.deepEqual(readClaim('a', both, DUAL), { lease: { node: 'a', ipv4: share4, ipv6: share6 } });
  assert.deepEqual(readClaim('a', both, CONF), { lease: { node: 'a', ipv4: share4, ipv6: null } });
  assert.deepEqual(readClaim('a', { ...both, ipv6: null }, DUAL), { lease: { node: 'a', ipv4: share4, ipv6: null } });
  const hostGw = conf({ Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } });
  assert.deepEqual(readClaim('a', { backendType: 'host-gw', ipv4: { ...ipv4, data: null }, ipv6: null }, hostGw), {
    lease: { node: 'a', ipv4: { ...share4, vtepMac: null }, ipv6: null },
  });
});

test('what is wrong with a claim has a kind and a clause', () => {
  const wrong: [Claim, FaultKind, string][] = [
    [{ ...claim(1), backendType: 'udp' }, 'backend_type', 'has the backend "udp", the cluster vxlan'],
    [{ ...claim(1), backendType: undefined }, 'backend_type', 'has the backend nothing, the cluster vxlan'],
    [
      claim(1, { subnet: '10.9.0.0/24' }),
      'subnet_outside',
      'has the subnet 10.9.0.0/24, outside the network 10.244.0.0/16',
    ],
    [
      claim(1, { subnet: '10.0.0.0/8' }),
      'subnet_outside',
      'has the subnet 10.0.0.0/8, outside the network 10.244.0.0/16',
    ],
    [claim(1, { subnet: '10.244.1.0' }), 'lease', 'has "10.244.1.0" for its IPv4 subnet'],
    [claim(1, { subnet: 'fd00::/64' }), 'lease', 'has "fd00::/64" for its IPv4 subnet'],
    [claim(1, { publicIp: '192.0.2' }), 'lease', 'says "192.0.2" is not an IPv4 address'],
    [claim(1, { publicIp: '127.0.0.1' }), 'lease', 'says "127.0.0.1" is not the unicast address of a host'],
    [claim(1, { publicIp: null }), 'lease', 'says null is not an IPv4 address'],
    [claim(1, { data: null }), 'lease', 'has null for its backend data'],
    [claim(1, { data: { VNI: 8, VtepMAC: mac(1) } }), 'vni', 'has the VNI 8, the cluster 7'],
    [claim(1, { data: { VNI: '7', VtepMAC: mac(1) } }), 'vni', 'has the VNI "7", the cluster 7'],
    [
      claim(1, { data: { VNI: 7, VtepMAC: '01:00:5e:00:00:01' } }),
      'lease',
      'says "01:00:5e:00:00:01" is not a unicast MAC address such as 02:00:00:00:00:01',
    ],
    [{ ...claim(1), ipv4: null }, 'lease', 'has no subnet of IPv4'],
  ];
  for (const [said, kind, message] of wrong) assert.deepEqual(read('a', said), { kind, message });
});

test('backend data is written as flannel writes it: VNI first, and 16 bits of it', () => {
  const endpoint = { publicIp: '192.0.2.1', vtepMac: mac(1) };
  assert.equal(JSON.stringify(backendData(endpoint, CONF)), '{"VNI":7,"VtepMAC":"02:00:00:00:00:01"}');
  const large = conf({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan', VNI: 70_000 } });
  const data = backendData(endpoint, large);
  assert.deepEqual(data, { VNI: 4464, VtepMAC: mac(1) });
  assert.deepEqual(readClaim('a', claim(1, { data }), large), { lease: lease('a', 1) });
});

test('peers come, change and go, and only what changed is told', () => {
  const bench = new Bench();
  bench.peers.replace(new Map([1, 2, 3].map((n) => [`n${n}`, read(`n${n}`, claim(n))])));
  assert.deepEqual(bench.changed(), ['n1', 'n2', 'n3']);
  bench.update('n2', claim(2));
  assert.deepEqual(bench.changed(), []);
  bench.update('n2', claim(2, { publicIp: '192.0.2.22' }));
  assert.deepEqual(bench.changed(), ['n2']);
  assert.equal(bench.peers.leases.get('n2')?.ipv4?.publicIp, '192.0.2.22');
  bench.peers.remove('n1');
  bench.peers.remove('n9');
  assert.deepEqual(bench.changed(), ['n1']);
  bench.peers.replace(new Map([3, 4].map((n) => [`n${n}`, read(`n${n}`, claim(n))])));
  assert.deepEqual(bench.changed(), ['n2', 'n4']);
  assert.deepEqual([...bench.peers.leases.keys()].sort(), ['n3', 'n4']);
  assert.deepEqual(bench.said(), []);
});

test('what is wrong leaves the last good lease, is said once, and touches nobody else', () => {
  const bench = new Bench();
  bench.update('a', claim(1));
  bench.update('b', claim(2));
  bench.changed();
  const bad = claim(1, { data: { VNI: 8, VtepMAC: mac(1) } });
  bench.update('a', bad);
  bench.update('a', bad);
  assert.deepEqual(bench.said('vni'), ['node a has the VNI 8, the cluster 7: its last good lease stays']);
  assert.equal(bench.faults.counts.vni, 1);
  assert.deepEqual(bench.peers.leases.get('a'), lease('a', 1));
  assert.deepEqual(bench.changed(), []);
  bench.update('c', bad);
  assert.deepEqual(bench.said(), ['node c has the VNI 8, the cluster 7: it is left out']);
  bench.update('a', claim(1));
  assert.deepEqual(bench.changed(), [], 'it is what it was');
  bench.update('c', claim(3));
  assert.deepEqual(bench.said(), ['node c is right again']);
  assert.deepEqual(bench.changed(), ['c']);
});

test('of two nodes with one subnet the first keeps it, and the second gets it when the first lets go', () => {
  const bench = new Bench();
  bench.update('a', claim(1));
  bench.update('b', claim(2, { subnet: '10.244.1.128/25' }));
  assert.deepEqual(bench.said('subnet_taken'), [
    'node b claims the subnet 10.244.1.128/25, which node a has: it is left out',
  ]);
  assert.deepEqual(bench.changed(), ['a']);
  bench.peers.remove('a');
  assert.deepEqual(bench.changed(), ['a', 'b']);
  assert.deepEqual([...bench.peers.leases.keys()], ['b']);
});

test('two nodes that swap subnets in one list both have their new ones', () => {
  const bench = new Bench();
  bench.update('a', claim(1));
  bench.update('b', claim(2));
  bench.update('c', claim(3));
  bench.changed();
  // a takes b's while b still has it, then b moves on: a has waited.
  bench.update('a', claim(1, { subnet: '10.244.2.0/24' }));
  assert.equal(bench.peers.leases.get('a')?.ipv4?.subnet, '10.244.1.0/24', 'its last good lease stays');
  bench.update('b', claim(2, { subnet: '10.244.4.0/24' }));
  assert.equal(bench.peers.leases.get('a')?.ipv4?.subnet, '10.244.2.0/24');
  assert.deepEqual(bench.changed(), ['a', 'b']);
});

test('of two nodes with one MAC address the first keeps it, but one node may have two subnets', () => {
  const bench = new Bench();
  bench.update('a', claim(1));
  bench.update('b', claim(2, { data: { VNI: 7, VtepMAC: mac(1) } }));
  assert.deepEqual(bench.said('mac_taken'), [
    'node b claims the MAC address 02:00:00:00:00:01, which node a has: it is left out',
  ]);
  const same = { publicIp: '192.0.2.1', data: { VNI: 7, VtepMAC: mac(1) } };
  bench.update('c', claim(3, same));
  bench.peers.remove('a');
  assert.deepEqual([...bench.peers.leases.keys()], ['c'], 'c still has the MAC address');
  bench.peers.remove('c');
  assert.deepEqual([...bench.peers.leases.keys()], ['b']);
});

test("nobody may claim what is this node's own, and this node is no peer of itself", () => {
  const bench = new Bench();
  bench.update('self', claim(1));
  bench.update('thief', claim(2));
  bench.changed();
  bench.peers.setOwn(lease('self', 2));
  assert.deepEqual(bench.changed(), ['self', 'thief']);
  assert.deepEqual([...bench.peers.leases.keys()], []);
  assert.deepEqual(bench.said('own_taken'), [
    "node thief claims the subnet 10.244.2.0/24, which is this node's own: it is left out",
  ]);
  bench.update('b', claim(3, { data: { VNI: 7, VtepMAC: mac(2) } }));
  bench.update('c', claim(4, { publicIp: '192.0.2.2' }));
  bench.update('self', claim(5));
  assert.deepEqual(bench.said(), [
    "node b claims the MAC address 02:00:00:00:00:02, which is this node's own: it is left out",
    "node c claims the public IP 192.0.2.2, which is this node's own: it is left out",
  ]);
  assert.deepEqual(bench.changed(), []);
  bench.peers.setOwn(lease('self', 6));
  assert.deepEqual(bench.changed(), ['c', 'thief'], 'what they waited for is free; b now waits for thief');
});

test('5,000 peers come at once and change one by one', () => {
  const bench = new Bench();
  const at = (i: number, changes = {}) =>
    claim(1, {
      subnet: `10.244.${i >> 6}.${(i & 63) << 2}/30`,
      publicIp: `10.1.${i >> 8}.${i & 255}`,
      data: {
        VNI: 7,
        VtepMAC: `02:00:00:00:${(i >> 8).toString(16).padStart(2, '0')}:${(i & 255).toString(16).padStart(2, '0')}`,
      },
      ...changes,
    });
  bench.peers.replace(new Map(Array.from({ length: 5000 }, (_, i) => [`n${i}`, read(`n${i}`, at(i))])));
  assert.equal(bench.changed().length, 5000);
  for (let i = 0; i < 5000; i++) bench.update(`n${i}`, at(i, { publicIp: `10.2.${i >> 8}.${i & 255}` }));
  assert.equal(bench.changed().length, 5000);
  assert.equal(bench.peers.leases.get('n4999')?.ipv4?.publicIp, '10.2.19.135');
});
