// IPv6 outside, beside IPv4:
//
//   left                                                      right
//   flannel.1 10.244.1.1 fd00:1::1                            flannel.1 10.244.2.1 fd00:1::2
//        | vxlan                                                   |
//   eth0 192.0.2.1 2001:db8::1 ----------- veth ------------- eth0 192.0.2.2 2001:db8::2

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Host, type LinkOptions, Network } from '../../cli/lab/network.ts';
import { introduce, kernelVtep, tell, uvxlan, uvxlanFdb, uvxlanVtep, type Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { Capture, tsharkFields } from './capture.ts';
import { type Kind, LEFT, RIGHT, resolved, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { noise, sendDatagrams } from './raw.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, drops, restingStats } from './stats.ts';

const skip = lacking('tun', 'kernel-vxlan', 'ethtool', 'tcpdump', 'tshark');
const MB = 1024 * 1024;
const LEFT6 = { ...LEFT, local: '2001:db8::1' };
const RIGHT6 = { ...RIGHT, local: '2001:db8::2' };
const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
/** Uplink, and what is hidden from it. */
const KINDS = [
  ['redirect', ''],
  ['redirect', '--without tcx'],
  ['udp', ''],
] as const;

function hosts(t: TestContext, link: LinkOptions = {}): { left: Host; right: Host } {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24 2001:db8::1/64', 'right eth0 192.0.2.2/24 2001:db8::2/64', link]],
  });
  return { left: network.host('left'), right: network.host('right') };
}

async function pair6(t: TestContext, kind: Kind, peer: Kind, own = '', link: LinkOptions = {}): Promise<[Vtep, Vtep]> {
  const { left, right } = hosts(t, link);
  const vteps = (await Promise.all([
    uvxlanVtep(left, { ...LEFT6, words: `${WORDS} uplink ${kind} workers 2 ${own}` }),
    peer === 'kernel'
      ? kernelVtep(right, { ...RIGHT6, words: WORDS })
      : uvxlanVtep(right, { ...RIGHT6, words: `${WORDS} uplink ${peer} workers 2 ${own}` }),
  ])) as [Vtep, Vtep];
  await introduce(...vteps);
  await resolved(left, kind);
  await resolved(right, peer);
  return vteps;
}

for (const [uplink, own] of KINDS) {
  for (const peer of own === '' ? (['kernel', uplink] as const) : (['kernel'] as const)) {
    const name = `${uplink} ${own}, ${peer === 'kernel' ? 'kernel vxlan' : 'uvxlan'} on the other side`;
    test(name, { skip, timeout: 180_000 }, async (t) => {
      const [left, right] = await pair6(t, uplink, peer, own);
      for (const { host } of [left, right]) {
        assert.equal(host.ipJson<{ mtu: number }[]>('link show dev flannel.1')[0]!.mtu, 1500 - 70);
      }
      for (const [index, address] of right.addresses.entries()) {
        const size = 1430 - 28 - 20 * index;
        const largest = await ping(left.host, address, { count: 5, interval: 0.01, size, dontFragment: true });
        assert.equal(largest.received, 5, `${size} bytes to ${address}`);
        const fragments = await ping(left.host, address, { count: 5, interval: 0.01, size: 20_000 });
        assert.equal(fragments.received, 5, `fragments to ${address}`);
        await bulkTransfer(left.host, right.host, address, 8 * MB);
        await bulkTransfer(right.host, left.host, left.addresses[index]!, 8 * MB);
      }
      const records = await restingStats(left.host);
      assertBalanced(records);
      for (const name of ['tx_unresolved', 'tx_too_big', 'tx_uplink_error', 'rx_outer_malformed'] as const)
        assert.equal(drops(records, name), 0, name);
    });
  }
}

const FIELDS = [
  'frame.len',
  'eth.src',
  'eth.dst',
  'eth.type',
  'ipv6.src',
  'ipv6.dst',
  'ipv6.plen',
  'ipv6.hlim',
  'ipv6.nxt',
  'ipv6.tclass',
  'udp.srcport',
  'udp.dstport',
  'udp.length',
  'udp.checksum',
  'udp.checksum.status',
  'tcp.checksum.status',
  'vxlan.flags',
  'vxlan.vni',
  '_ws.malformed',
] as const;

for (const uplink of UPLINKS) {
  // Without checksum offload nothing is left for a NIC to do: what is seen is what a network would see.
  test(`${uplink}: headers on the wire`, { skip, timeout: 180_000 }, async (t) => {
    const hops = uplink === 'udp' ? 'ttl 9' : '';
    const [left, right] = await pair6(t, uplink, 'kernel', hops, { checksumOffload: false });
    const capture = await Capture.start(right.host, 'eth0', 'udp dst port 8472 and ip6 src host 2001:db8::1', 1600);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, MB);
    await bulkTransfer(left.host, right.host, right.addresses[1]!, MB);
    await ping(left.host, right.addresses[0]!, { size: 3000 });
    sendDatagrams(left.host, right.addresses[0]!, [
      ...[0, 1, 1300].map((size) => ({ to: 6000, payload: noise(size) })),
      { to: 6000, segment: 1300, payload: noise(20 * 1300 + 7) },
    ]);
    await restingStats(left.host);
    const packets = await tsharkFields(await capture.stop(), FIELDS);
    assert.ok(packets.length > 1500, `${packets.length} packets`);
    const macs = [left.host.mac('eth0'), right.host.mac('eth0')];
    for (const packet of packets) {
      const shown = JSON.stringify(packet);
      const length = Number(packet['frame.len'][0]);
      const outer = Object.fromEntries(FIELDS.map((field) => [field, packet[field][0]]));
      assert.ok(length <= 1514, shown);
      assert.deepEqual(
        [outer['eth.src'], outer['eth.dst'], outer['eth.type']],
        [...macs, '0x86dd'],
        `Ethernet addresses and type of ${shown}`,
      );
      assert.deepEqual([outer['ipv6.src'], outer['ipv6.dst']], [left.local, right.local], shown);
      assert.equal(outer['ipv6.plen'], `${length - 14 - 40}`, shown);
      assert.equal(outer['udp.length'], outer['ipv6.plen'], shown);
      assert.equal(outer['ipv6.hlim'], hops ? '9' : '64', shown);
      assert.equal(outer['ipv6.nxt'], '17', shown);
      assert.equal(Number(outer['ipv6.tclass']), 0, shown);
      assert.ok(Number(outer['udp.srcport']) >= 32768 && outer['udp.dstport'] === '8472', shown);
      assert.notEqual(Number(outer['udp.checksum']), 0, `no UDP checksum: ${shown}`);
      for (const status of [...packet['udp.checksum.status'], ...packet['tcp.checksum.status']])
        assert.ok(status === '1' || status === '2', `checksum of ${shown}`); // 2: of a datagram in fragments
      assert.equal(outer['udp.checksum.status'], '1', shown);
      assert.deepEqual([outer['vxlan.flags'], outer['vxlan.vni']], ['0x0800', '1'], shown);
      assert.deepEqual(packet['_ws.malformed'], [], shown);
    }
    assert.ok(packets.filter((packet) => packet['frame.len'][0] === '1514').length > 1000, 'full packets');
  });
}

for (const uplink of UPLINKS) {
  test(`${uplink}: both families at once, two devices of one VNI`, { skip, timeout: 180_000 }, async (t) => {
    const { left, right } = hosts(t);
    const other = {
      left: { name: 'vx6', addresses: '10.6.1.1/16', mac: '02:00:00:00:06:01', local: '2001:db8::1' },
      right: { name: 'vx6', addresses: '10.6.2.1/16', mac: '02:00:00:00:06:02', local: '2001:db8::2' },
    };
    const four = [
      await uvxlanVtep(left, { ...LEFT, words: `${WORDS} uplink ${uplink} workers 2` }),
      kernelVtep(right, { ...RIGHT, words: WORDS }),
    ] as const;
    await tell(left, `link add vx6 type vxlan local 2001:db8::1 ${WORDS} uplink ${uplink}`);
    left.ip(`link set vx6 address ${other.left.mac}`);
    left.ip(`address add ${other.left.addresses} dev vx6`);
    const fdb: Vtep['fdb'] = (args) => uvxlanFdb(left, args);
    const six = [
      { ...other.left, host: left, device: 'vx6', addresses: ['10.6.1.1'], fdb },
      kernelVtep(right, { ...other.right, words: WORDS }),
    ] as const;
    await introduce(...four);
    await introduce(...six);
    await resolved(left, uplink);
    await Promise.all([
      bulkTransfer(left, right, '10.244.2.1', 8 * MB),
      bulkTransfer(left, right, '10.6.2.1', 8 * MB),
      bulkTransfer(right, left, '10.244.1.1', 8 * MB),
      bulkTransfer(right, left, '10.6.1.1', 8 * MB),
    ]);
    // Each went its own way.
    for (const name of ['flannel.1', 'vx6']) assert.ok(left.counter(name, 'rx', 'bytes') > 8 * MB, name);
    const twin = await uvxlan(left, `link add twin type vxlan local 2001:db8::1 ${WORDS}`, { check: false });
    assert.match(twin.stderr, /A VXLAN device with the specified VNI already exists: vx6/);
    assertBalanced(await restingStats(left));
  });
}
