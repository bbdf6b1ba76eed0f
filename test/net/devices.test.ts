// Several devices, VNIs, ports and NICs, changed while TCP runs over one of them; NICs of other kinds:
//
//   left                                          right
//   eth0 192.0.2.1 ------------ veth ------------ eth0 192.0.2.2
//   eth1 198.51.100.1 --------- veth ------------ eth1 198.51.100.2
//   lo 10.255.0.1                                 lo 10.255.0.2

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { addNamespace, removeNamespaces } from '../../cli/lab/namespace.ts';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, links, tell, uvxlanFdb, uvxlanUp, type Vtep } from '../../cli/lab/vtep.ts';
import type { LinkRecord } from '../../control/protocol.ts';
import { bulkTransfer } from './bulk.ts';
import { Capture, tsharkFields } from './capture.ts';
import { Pings, Stream } from './live.ts';
import { resolved, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { assertAddsUp, assertBalanced, drops, restingStats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan', 'tcpdump', 'tshark'), timeout: 180_000 };
const MB = 1024 * 1024;
/** Milliseconds without an answer that a busy machine may cost, and a change may not. */
const LIMIT = 5_000;

function hosts(t: TestContext): { left: Host; right: Host } {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [
      ['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24'],
      ['left eth1 198.51.100.1/24', 'right eth1 198.51.100.2/24'],
    ],
  });
  const [left, right] = [network.host('left'), network.host('right')];
  left.ip('address add 10.255.0.1/32 dev lo');
  right.ip('address add 10.255.0.2/32 dev lo');
  return { left, right };
}

interface Plan {
  id: number;
  /** Outer addresses, left and right. */
  outer: readonly [string, string];
  /** Words of both sides, and those of uvxlan alone. */
  words: string;
  own?: string;
}

/** Device vxN of VNI `id` at both ends, inner addresses 10.N.1.1 and 10.N.2.1; the first is created with the daemon. */
async function connect(
  number: number,
  left: Host,
  right: Host,
  { id, outer, words, own = '' }: Plan,
): Promise<[Vtep, Vtep]> {
  const name = `vx${number}`;
  const inner = (side: number) => ({ address: `10.${number}.${side}.1`, mac: `02:00:00:00:0${side}:0${number}` });
  const all = `${name} id ${id} local ${outer[0]} address ${inner(1).mac} ${words} ${own}`;
  if (number === 1) await uvxlanUp(left, all);
  else await tell(left, `link add ${all} type vxlan`);
  left.ip(`address add ${inner(1).address}/16 dev ${name}`);
  const ours: Vtep = {
    ...{ host: left, device: name, local: outer[0], addresses: [inner(1).address], mac: inner(1).mac },
    fdb: (args) => uvxlanFdb(left, args),
  };
  const theirs = kernelVtep(right, {
    ...{ name, local: outer[1], addresses: `${inner(2).address}/16`, mac: inner(2).mac },
    words: `id ${id} ${words} nolearning`,
  });
  await introduce(ours, theirs);
  await resolved(left, 'udp');
  return [ours, theirs];
}

async function carries([ours, theirs]: readonly [Vtep, Vtep], bytes = 8 * MB): Promise<void> {
  await bulkTransfer(ours.host, theirs.host, theirs.addresses[0]!, bytes);
  await bulkTransfer(theirs.host, ours.host, ours.addresses[0]!, bytes);
}

async function link(host: Host, name: string): Promise<LinkRecord> {
  return (await links(host, name))[0]!;
}

for (const uplink of UPLINKS) {
  test(`${uplink}: four devices on two NICs and two ports, changed while traffic flows`, options, async (t) => {
    const { left, right } = hosts(t);
    const [near, far] = [
      ['192.0.2.1', '192.0.2.2'],
      ['198.51.100.1', '198.51.100.2'],
    ] as const;
    const own = `uplink ${uplink} workers 2`;
    const first = await connect(1, left, right, { id: 1, outer: near, words: 'dev eth0 dstport 8472', own });
    const streams = await Promise.all([
      Stream.start(left, right, first[1].addresses[0]!),
      Stream.start(right, left, first[0].addresses[0]!),
    ]);
    const pings = await Pings.start(left, first[1].addresses[0]!);
    const undisturbed = async (what: string, change: () => Promise<unknown>) => {
      const milliseconds = await pings.through(what, change);
      t.diagnostic(`${what}: longest time without an answer on the other device ${milliseconds} ms`);
      assert.ok(milliseconds < LIMIT, `${what}: ${milliseconds} ms`);
    };
    const others: [Vtep, Vtep][] = [];
    await undisturbed('three devices added', async () => {
      others.push(await connect(2, left, right, { id: 2, outer: near, words: 'dev eth0 dstport 8472', own }));
      others.push(await connect(3, left, right, { id: 3, outer: far, words: 'dev eth1 dstport 8472', own }));
      others.push(await connect(4, left, right, { id: 1, outer: near, words: 'dev eth0 dstport 4789', own }));
    });
    await Promise.all(others.map((pair) => carries(pair)));
    for (const name of ['vx2', 'vx3', 'vx4']) {
      assert.ok(left.counter(name, 'rx', 'bytes') > 8 * MB && left.counter(name, 'tx', 'bytes') > 8 * MB, name);
    }

    await undisturbed('ttl changed', () => tell(left, 'link set vx3 type vxlan ttl 9'));
    assert.equal((await link(left, 'vx3')).linkinfo.info_data.ttl, 9);
    const capture = await Capture.start(right, 'eth1', 'udp dst port 8472 and src host 198.51.100.1', 200);
    await ping(left, '10.3.2.1');
    const seen = await tsharkFields(await capture.stop(3), ['ip.ttl']);
    assert.deepEqual([...new Set(seen.map((packet) => packet['ip.ttl'][0]))], ['9']);

    const other = uplink === 'udp' ? 'redirect' : 'udp';
    const running = await Stream.start(left, right, '10.3.2.1');
    await undisturbed(`uplink ${other}`, () => tell(left, `link set vx3 type vxlan uplink ${other}`));
    assert.equal((await link(left, 'vx3')).uvxlan.uplink, other);
    await running.goesOn(`uplink ${other}`);
    await running.finish();
    await undisturbed('another NIC, address and remote', async () => {
      await tell(left, 'link set vx3 type vxlan local 192.0.2.1 dev eth0 remote 192.0.2.2');
      right.ip('link del vx3');
      const theirs = { name: 'vx3', local: '192.0.2.2', addresses: '10.3.2.1/16', mac: '02:00:00:00:02:03' };
      kernelVtep(right, { ...theirs, words: 'id 3 remote 192.0.2.1 dev eth0 dstport 8472' });
      await tell(left, 'fdb del 02:00:00:00:02:03 dev vx3');
      left.ip('neigh flush dev vx3 nud permanent');
      await carries(others[1]!);
    });
    assert.equal((await link(left, 'vx3')).linkinfo.info_data.remote, '192.0.2.2');
    await undisturbed('vx2 removed', () => tell(left, 'link del vx2'));
    await assert.rejects(links(left, 'vx2'), /Cannot find device "vx2"/);
    right.ip('link del vx2');
    await undisturbed('vx2 added again', async () => {
      await carries(await connect(2, left, right, { id: 2, outer: near, words: 'dev eth0 dstport 8472', own }));
    });
    await pings.stop();
    for (const stream of streams) await stream.finish();
    assertAddsUp(await restingStats(left));
  });
}

test('no dev: the route to each VTEP decides, and policy rules', options, async (t) => {
  const { left, right } = hosts(t);
  left.ip('route add 10.255.0.2 via 192.0.2.2');
  right.ip('route add 10.255.0.1 via 192.0.2.1');
  const [ours, theirs] = await connect(1, left, right, {
    ...{ id: 1, outer: ['10.255.0.1', '10.255.0.2'], words: 'dstport 8472', own: 'workers 2' },
  });
  const { uplink, reason } = (await link(left, 'vx1')).uvxlan;
  assert.deepEqual(
    [uplink, reason],
    ['udp', 'redirect does not work here: without dev, the route to each VTEP decides which NIC to use'],
  );
  await carries([ours, theirs]);
  const stream = await Stream.start(left, right, theirs.addresses[0]!);
  const pings = await Pings.start(left, theirs.addresses[0]!);
  const over = async (nic: string, what: string, change: () => void) => {
    const before = left.counter(nic, 'tx', 'packets');
    t.diagnostic(`${what}: longest time without an answer ${await pings.through(what, change)} ms`);
    await stream.goesOn(what);
    await eventually(`packets over ${nic}`, () => left.counter(nic, 'tx', 'packets') > before + 100);
  };
  await over('eth1', 'another route', () => left.ip('route replace 10.255.0.2 via 198.51.100.2'));
  await over('eth0', 'a policy rule', () => {
    left.ip('route add 10.255.0.2 via 192.0.2.2 table 100');
    left.ip('rule add from 10.255.0.1 lookup 100');
  });
  await over('eth1', 'the rule gone', () => left.ip('rule del from 10.255.0.1 lookup 100'));
  await pings.stop();
  await stream.finish();
  assertBalanced(await restingStats(left));
});

test('a NIC without link-layer addresses: auto takes udp', options, async (t) => {
  const { left, right } = hosts(t);
  const pipe = fileURLToPath(new URL('./tun-pipe.js', import.meta.url));
  for (const [host, side, other] of [
    [left, 1, 2],
    [right, 2, 1],
  ] as const) {
    const process_ = host.spawn([process.execPath, pipe, 'tun0', `192.0.2.${side}`, `192.0.2.${other}`]);
    await process_.waitFor(/ready/);
    host.ip('link set tun0 mtu 1400 up');
    host.ip(`address add 203.0.113.${side}/24 dev tun0`);
  }
  const outer = ['203.0.113.1', '203.0.113.2'] as const;
  const refused = uvxlanUp(left, 'vx1 id 1 local 203.0.113.1 dev tun0 uplink redirect');
  await assert.rejects(
    refused,
    /uplink redirect does not work here: tun0 is not an Ethernet device; use 'uplink udp' or 'auto'/,
  );
  const pair = await connect(1, left, right, { id: 1, outer, words: 'dev tun0 dstport 8472', own: 'workers 2' });
  const { mtu, uvxlan: own } = await link(left, 'vx1');
  assert.deepEqual(
    [mtu, own.uplink, own.reason],
    [1350, 'udp', 'redirect does not work here: tun0 is not an Ethernet device'],
  );
  await carries(pair, MB);
  const records = await restingStats(left);
  assertBalanced(records);
  assert.equal(drops(records, 'tx_uplink_error'), 0);
});

/** Kinds of NICs on top of another: what to add, and to which address. */
const STACKED = {
  macvlan: [
    'link add nic0 link eth0 type macvlan mode bridge',
    'link set nic0 up',
    'address add 203.0.113.SIDE/24 dev nic0',
  ],
  vlan: ['link add nic0 link eth0 type vlan id 7', 'link set nic0 up', 'address add 203.0.113.SIDE/24 dev nic0'],
  vrf: [
    'link add nic0 type vrf table 100',
    'link set nic0 up',
    'link set eth0 master nic0',
    'address add 203.0.113.SIDE/24 dev eth0',
  ],
} as const;

for (const [kind, commands] of Object.entries(STACKED)) {
  const skip = options.skip || (!hasKind(kind) && `needs a kernel with ${kind} devices`);
  for (const uplink of UPLINKS) {
    test(`${uplink}: a ${kind} NIC`, { ...options, skip }, async (t) => {
      const { left, right } = hosts(t);
      for (const [host, side] of [
        [left, '1'],
        [right, '2'],
      ] as const) {
        for (const command of commands) host.ip(command.replace('SIDE', side));
      }
      const dev = kind === 'vrf' ? 'eth0' : 'nic0';
      const outer = ['203.0.113.1', '203.0.113.2'] as const;
      const own = `workers 2 uplink ${uplink}`;
      const pair = await connect(1, left, right, { id: 1, outer, words: `dev ${dev} dstport 8472`, own });
      await carries(pair);
      assertBalanced(await restingStats(left));
    });
  }
}

/** Whether the kernel knows such devices: on lo it may complain, but of another thing. */
function hasKind(kind: string): boolean {
  const name = addNamespace('probe');
  const words = `link add link lo name nic0 type ${kind}${kind === 'vlan' ? ' id 7' : kind === 'vrf' ? ' table 100' : ''}`;
  const { stderr } = spawnSync('ip', ['-n', name, ...words.split(' ')], { encoding: 'utf8' });
  removeNamespaces([name]);
  return !/Unknown device type|not supported/.test(stderr);
}
