// Unknown and broadcast frames go to a multicast group, which uvxlan and a kernel device have joined: they find each other by it, with nothing
// in either's FDB.
//
//   left (uvxlan)                                    right (kernel)
//   flannel.1 10.244.1.1                             flannel.1 10.244.2.1
//   eth0 192.0.2.1 2001:db8::1 -- veth -- eth0 192.0.2.2 2001:db8::2

import assert from 'node:assert/strict';
import test from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { ask, kernelVtep, links, uvxlanVtep } from '../../cli/lab/vtep.ts';
import type { FdbRecord } from '../../control/protocol.ts';
import { Capture, tsharkFields } from './capture.ts';
import { LEFT, RIGHT, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, restingStats } from './stats.ts';

const skip = lacking('tun', 'kernel-vxlan', 'tcpdump', 'tshark');
const UNDERLAYS = [
  { group: '239.1.1.1', local: ['192.0.2.1', '192.0.2.2'], key: 'group', ttl: 'ip.ttl', mac: '01:00:5e:01:01:01' },
  {
    group: 'ff05::100',
    local: ['2001:db8::1', '2001:db8::2'],
    key: 'group6',
    ttl: 'ipv6.hlim',
    mac: '33:33:00:00:01:00',
  },
] as const;

for (const uplink of UPLINKS) {
  for (const { group, local, key, ttl, mac } of UNDERLAYS) {
    test(`${uplink}: group ${group}`, { skip, timeout: 180_000 }, async (t) => {
      const network = Network.build(t, {
        hosts: { left: {}, right: {} },
        links: [['left eth0 192.0.2.1/24 2001:db8::1/64', 'right eth0 192.0.2.2/24 2001:db8::2/64']],
      });
      const words = `id 1 group ${group} dev eth0 dstport 8472`;
      const left = await uvxlanVtep(network.host('left'), {
        ...LEFT,
        local: local[0],
        words: `${words} uplink ${uplink} workers 2`,
      });
      const right = kernelVtep(network.host('right'), { ...RIGHT, local: local[1], words });
      const capture = await Capture.start(
        right.host,
        'eth0',
        `dst host ${group} and udp and src host ${local[0]}`,
        200,
      );
      assert.equal((await ping(left.host, right.addresses[0]!)).received, 3, 'we ask, the kernel answers');
      right.host.ip('neigh flush dev flannel.1');
      right.host.bridge('fdb flush dev flannel.1 nopermanent');
      assert.equal((await ping(right.host, left.addresses[0]!)).received, 3, 'the kernel asks, we answer');

      const seen = await tsharkFields(await capture.stop(), ['eth.dst', ttl]);
      assert.ok(seen.length > 0, 'something went to the group');
      for (const packet of seen) assert.deepEqual([packet['eth.dst'][0], packet[ttl][0]], [mac, '1']);
      const [link] = await links(left.host);
      assert.equal(link!.linkinfo.info_data[key], group);
      const entries = await ask<FdbRecord[]>(left.host, 'fdb show', { dev: null });
      assert.equal(entries.find((entry) => entry.mac === '00:00:00:00:00:00')?.dst, group);
      assert.equal(entries.find((entry) => entry.mac === RIGHT.mac)?.dst, local[1], 'learned from what came');
      assertBalanced(await restingStats(left.host));
    });
  }
}
