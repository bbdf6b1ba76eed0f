// Routed underlays: a router between the two hosts, whose MAC address changes, and whose far link takes less.
//
//   left                                                                     right
//   flannel.1 10.244.1.1                                                     flannel.1 10.244.2.1
//   eth0 192.0.2.1 ---- eth0 192.0.2.254 router eth1 203.0.113.254 ----- eth0 203.0.113.1

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { introduce, type Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { type Kind, LEFT, RIGHT, resolved, UPLINKS, vtep } from './pair.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, restingStats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };

interface Routed {
  router: Host;
  left: Vtep;
  right: Vtep;
}

/** `mtu` is that of the router's far link; the overlay's is 1450 at both ends in any case. */
async function routed(t: TestContext, left: Kind, right: Kind, mtu: number): Promise<Routed> {
  const network = Network.build(t, {
    hosts: { left: {}, router: { forward: true }, right: {} },
    links: [
      ['left eth0 192.0.2.1/24', 'router eth0 192.0.2.254/24'],
      ['router eth1 203.0.113.254/24', 'right eth0 203.0.113.1/24', { mtu }],
    ],
    routes: { left: ['default via 192.0.2.254'], right: ['default via 203.0.113.254'] },
  });
  const router = network.host('router');
  const vteps = await Promise.all([
    vtep(network.host('left'), left, LEFT),
    vtep(network.host('right'), right, { ...RIGHT, local: '203.0.113.1' }),
  ]);
  vteps[1].host.ip('link set flannel.1 mtu 1450');
  await introduce(...vteps);
  await resolved(network.host('left'), left);
  await resolved(network.host('right'), right);
  return { router, left: vteps[0], right: vteps[1] };
}

for (const uplink of UPLINKS) {
  test(`${uplink}: traffic through a gateway, whose MAC address changes meanwhile`, options, async (t) => {
    const { router, left, right } = await routed(t, uplink, 'kernel', 1500);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, 8 * 1024 * 1024);
    await bulkTransfer(right.host, left.host, left.addresses[1]!, 8 * 1024 * 1024);

    // As a router does that takes over from another: it tells its neighbours.
    router.exec('sysctl -qw net.ipv4.conf.eth0.arp_notify=1');
    const traffic = ping(left.host, right.addresses[0]!, { count: 300, interval: 0.005 });
    router.ip('link set eth0 address 02:00:00:00:fe:fe');
    const { sent, received } = await traffic;
    assert.ok(sent - received <= 200, `${sent - received} of ${sent} lost: more than a second`);
    const after = await ping(left.host, right.addresses[0]!, { count: 20, interval: 0.005 });
    assert.equal(after.received, 20);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, 8 * 1024 * 1024);
    assertBalanced(await restingStats(left.host));
  });

  test(`${uplink}: fragmented outer packets are sent and received`, options, async (t) => {
    const { router, left, right } = await routed(t, uplink, uplink, 1400);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, 4 * 1024 * 1024);
    await bulkTransfer(left.host, right.host, right.addresses[1]!, 4 * 1024 * 1024);
    assert.ok(ipCounter(router, 'FragCreates') > 1000);
    assert.ok(ipCounter(right.host, 'ReasmOKs') > 1000);
    for (const { host } of [left, right]) assertBalanced(await restingStats(host));
  });

  test(`${uplink}: fragments of the kernel's packets arrive too`, options, async (t) => {
    const { right, left } = await routed(t, 'kernel', uplink, 1400);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, 4 * 1024 * 1024);
    assert.ok(ipCounter(right.host, 'ReasmOKs') > 1000);
    const { received } = await ping(left.host, right.addresses[0]!, { count: 10, interval: 0.01, size: 1422 });
    assert.equal(received, 10);
    assertBalanced(await restingStats(right.host));
  });
}

/** A counter of the host's IPv4: /proc/net/snmp, a line of names and a line of numbers. */
function ipCounter(host: Host, name: string): number {
  const [names, values] = host
    .exec('cat /proc/net/snmp')
    .split('\n')
    .filter((line) => line.startsWith('Ip: '))
    .map((line) => line.split(' '));
  return Number(values![names!.indexOf(name)]);
}
