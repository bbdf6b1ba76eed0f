// Head-end replication: what goes to the all-zeros MAC's remotes, one copy each.
//
//   self  uvxlan          10.244.0.1   192.0.2.1 ---+
//   near  kernel vxlan    10.244.0.2   192.0.2.2 ---+--- lan (bridge)
//   far   kernel vxlan    10.244.0.3   192.0.2.3 ---+
//   twin  uvxlan          10.244.0.4   192.0.2.4 ---+

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import type { Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { resolved, UPLINKS, vtep } from './pair.ts';
import { ping } from './ping.ts';
import { frame, Listener, sendFrames } from './raw.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, drops, restingStats, stats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };
const ZERO = '00:00:00:00:00:00';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const EXPERIMENTAL = '88b5';
const NAMES = ['self', 'near', 'far', 'twin'] as const;

/** A switch and hosts on it, without IPv6, which would multicast of its own accord. */
function lan(t: TestContext): Network {
  const network = Network.build(t, {
    hosts: Object.fromEntries(NAMES.map((name) => [name, {}])),
    switches: { lan: NAMES.map((name, index) => `${name} eth0 192.0.2.${index + 1}/24`) },
  });
  for (const name of NAMES) {
    network.host(name).exec('sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1');
  }
  return network;
}

function place(index: number) {
  return { local: `192.0.2.${index + 1}`, addresses: `10.244.0.${index + 1}/24`, mac: `02:00:00:00:00:0${index + 1}` };
}

const numbered = (source: Vtep, count: number) =>
  Array.from({ length: count }, (_, number) => frame(BROADCAST, source.mac, EXPERIMENTAL, Buffer.alloc(64, number)));

for (const uplink of UPLINKS) {
  test(`${uplink}: a broadcast reaches each of three VTEPs exactly once`, options, async (t) => {
    const network = lan(t);
    const kinds = [uplink, 'kernel', 'kernel', uplink] as const;
    const [self, ...others] = (await Promise.all(
      NAMES.map((name, index) => vtep(network.host(name), kinds[index]!, place(index))),
    )) as [Vtep, ...Vtep[]];
    // The kernel's would answer to whom they do not know; here nobody does.
    for (const other of others) await self.fdb(`append ${ZERO} dev flannel.1 dst ${other.local}`);
    await resolved(self.host, uplink);

    const listeners = others.map(({ host, device }) => Listener.frames(host, device, EXPERIMENTAL));
    const frames = numbered(self, 50);
    sendFrames(self.host, self.device, frames);
    // A frame that came twice would come before the last.
    const last = frame(BROADCAST, self.mac, EXPERIMENTAL, Buffer.alloc(64, 0xff));
    sendFrames(self.host, self.device, [last]);
    for (const listener of listeners) {
      const received = await listener.atLeast(frames.length + 1);
      assert.deepEqual(received.sort(), [...frames, last].map((each) => each.toString('hex')).sort());
    }
    const records = await restingStats(self.host);
    assert.equal(records[0]!.tx.in, frames.length + 1);
    assert.equal(records[0]!.tx.copies, 2 * (frames.length + 1));
    assert.equal(records[0]!.tx.out, 3 * (frames.length + 1));
    assertBalanced(records);

    await t.test('super-frames to an unknown MAC are flooded whole', async () => {
      const [near] = others as [Vtep];
      self.host.ip(`neigh replace 10.244.0.2 lladdr ${near.mac} dev flannel.1`);
      near.host.ip(`neigh replace 10.244.0.1 lladdr ${self.mac} dev flannel.1`);
      await near.fdb(`append ${self.mac} dev flannel.1 dst ${self.local}`);
      await bulkTransfer(self.host, near.host, '10.244.0.2', 8 * 1024 * 1024);
      assertBalanced(await restingStats(self.host));
    });

    await t.test('once a remote is removed nothing reaches it any more', async () => {
      await self.fdb(`del ${ZERO} dev flannel.1 dst ${others[1]!.local}`);
      const before = listeners.map((listener) => listener.received.length);
      sendFrames(self.host, self.device, [last]);
      for (const index of [0, 2]) await listeners[index]!.atLeast(before[index]! + 1);
      assert.deepEqual(
        listeners.map((listener, index) => listener.received.length - before[index]!),
        [1, 0, 1],
      );
    });
  });

  test(`${uplink}: an entry's own port and VNI`, options, async (t) => {
    const network = lan(t);
    const words = { near: 'id 1 dev eth0 dstport 4790 nolearning', far: 'id 77 dev eth0 dstport 8472 nolearning' };
    const self = await vtep(network.host('self'), uplink, place(0));
    const near = await vtep(network.host('near'), 'kernel', place(1), words.near);
    const far = await vtep(network.host('far'), 'kernel', place(2), words.far);
    await self.fdb(`append ${ZERO} dev flannel.1 dst 192.0.2.2 port 4790`);
    await self.fdb(`append ${ZERO} dev flannel.1 dst 192.0.2.3 vni 77`);
    await self.fdb(`append ${far.mac} dev flannel.1 dst 192.0.2.3 vni 77`);
    await resolved(self.host, uplink);
    const listeners = await Promise.all(
      [near, far].map((each) => Listener.frames(each.host, each.device, EXPERIMENTAL)),
    );
    const broadcasts = numbered(self, 3);
    const direct = frame(far.mac, self.mac, EXPERIMENTAL, Buffer.alloc(64, 0xee));
    sendFrames(self.host, self.device, [...broadcasts, direct]);
    const received = await Promise.all([listeners[0]!.atLeast(3), listeners[1]!.atLeast(4)]);
    const hex = broadcasts.map((each) => each.toString('hex'));
    assert.deepEqual(received[0].sort(), hex);
    assert.deepEqual(received[1].sort(), [direct.toString('hex'), ...hex].sort());
  });

  test(`${uplink}: without a default there is a drop with a name`, options, async (t) => {
    const network = lan(t);
    const self = await vtep(network.host('self'), uplink, place(0));
    const near = await vtep(network.host('near'), 'kernel', place(1));
    sendFrames(self.host, self.device, numbered(self, 20));
    const taken = (count: number) =>
      eventually(`${count} frames taken`, async () => (await stats(self.host))[0]!.tx.in >= count);
    await taken(20);
    let records = await restingStats(self.host);
    assert.equal(drops(records, 'tx_no_remote'), 20);
    assertBalanced(records);
    // One MAC is known, others are not.
    await self.fdb(`append ${near.mac} dev flannel.1 dst ${near.local}`);
    await near.fdb(`append ${self.mac} dev flannel.1 dst ${self.local}`);
    await resolved(self.host, uplink);
    for (const [a, b] of [
      [self, near],
      [near, self],
    ] as const) {
      a.host.ip(`neigh replace ${b.addresses[0]} lladdr ${b.mac} dev flannel.1 nud permanent`);
    }
    assert.equal((await ping(self.host, near.addresses[0]!)).received, 3);
    sendFrames(self.host, self.device, [frame('02:00:00:00:00:99', self.mac, EXPERIMENTAL, Buffer.alloc(64))], 5);
    await taken(28);
    records = await restingStats(self.host);
    assert.equal(drops(records, 'tx_no_remote'), 25);
    assert.equal(records[0]!.tx.out, 3);
    assertBalanced(records);
  });
}
