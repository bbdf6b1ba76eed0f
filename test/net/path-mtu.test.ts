// A path that takes less than the NIC: the outer packets are fragmented on the way, or before it when the host knows.
//
//   left                                                                         right
//   flannel.1 10.244.1.1                                                         flannel.1 10.244.2.1
//   eth0 192.0.2.1 ------- 192.0.2.254 router 203.0.113.254 -- MTU 1400 -------- eth0 203.0.113.1

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, type UvxlanVtep, uvxlanVtep, type Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { Capture, tsharkFields } from './capture.ts';
import { Stream } from './live.ts';
import { LEFT, RIGHT, resolved, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { Listener, noise, sendDatagrams } from './raw.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, drops, restingStats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan', 'tcpdump', 'tshark'), timeout: 180_000 };
const MB = 1024 * 1024;
const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
const FAMILIES = {
  IPv4: { prefix: ['192.0.2.', '203.0.113.', '/24'], largest: 1450 },
  IPv6: { prefix: ['2001:db8:1::', '2001:db8:2::', '/64'], largest: 1430 },
} as const;
type Family = keyof typeof FAMILIES;

interface Routed {
  left: UvxlanVtep;
  right: Vtep;
  router: Host;
}

async function routed(t: TestContext, uplink: string, family: Family, own = ''): Promise<Routed> {
  const { prefix, largest } = FAMILIES[family];
  const [near, far, length] = prefix;
  const end = family === 'IPv4' ? '254' : 'fe';
  const network = Network.build(t, {
    hosts: { left: {}, router: { forward: true }, right: {} },
    links: [
      [`left eth0 ${near}1${length}`, `router eth0 ${near}${end}${length}`],
      [`router eth1 ${far}${end}${length}`, `right eth0 ${far}1${length}`, { mtu: 1400 }],
    ],
    routes: { left: [`default via ${near}${end}`], right: [`default via ${far}${end}`] },
  });
  const left = await uvxlanVtep(network.host('left'), {
    ...{ ...LEFT, local: `${near}1` },
    words: `${WORDS} uplink ${uplink} workers 2 ${own}`,
  });
  const right = kernelVtep(network.host('right'), { ...RIGHT, local: `${far}1`, words: WORDS.replace('dev eth0', '') });
  // As wide as the left end, which knows nothing of the narrow link: with a NIC the kernel would not let it.
  right.host.ip(`link set flannel.1 mtu ${largest}`);
  await introduce(left, right);
  await resolved(left.host, uplink as 'udp');
  // The kernel's device drops the first packet that does not fit its own path, to tell its sender (skb_tunnel_check_pmtu).
  await ping(right.host, left.addresses[0]!, { size: largest - 28, count: 2, interval: 0.01 });
  return { left, right, router: network.host('router') };
}

for (const uplink of UPLINKS) {
  test(`${uplink}: the router fragments what does not fit`, options, async (t) => {
    const { left, right, router } = await routed(t, uplink, 'IPv4');
    const capture = await Capture.start(router, 'eth1', 'src host 192.0.2.1', 100);
    const { received } = await ping(left.host, right.addresses[0]!, { size: 1422, dontFragment: true, count: 5 });
    assert.equal(received, 5);
    const packets = await tsharkFields(await capture.stop(10), [
      'ip.flags.mf',
      'ip.flags.df',
      'ip.frag_offset',
      'ip.len',
    ]);
    assert.equal(packets.length, 10, 'two fragments of each');
    assert.ok(packets.every((packet) => packet['ip.flags.df'][0] === '0' && Number(packet['ip.len'][0]) <= 1400));
    await everything({ left, right });
  });

  for (const family of ['IPv4', 'IPv6'] as const) {
    test(`${uplink} over ${family}: the host knows the path's MTU and fragments`, options, async (t) => {
      const { left, right, router } = await routed(t, uplink, family);
      const [, far, length] = FAMILIES[family].prefix;
      const via = family === 'IPv4' ? '192.0.2.254' : '2001:db8:1::fe';
      const route = `route replace ${far}${family === 'IPv4' ? '0' : ''}${length} via ${via}`;
      // It becomes known while traffic flows; over IPv6 before it, since no router fragments there.
      const narrow = () => left.host.ip(`${route} mtu lock 1400`);
      const stream = family === 'IPv4' ? await Stream.start(left.host, right.host, right.addresses[0]!) : undefined;
      narrow();
      right.host.ip(
        family === 'IPv4' ? 'route change default via 203.0.113.254' : `route change default via ${far}fe mtu 1400`,
      );
      await stream?.goesOn('the MTU is known');
      await stream?.finish();
      await ping(right.host, left.addresses[0]!, { size: FAMILIES[family].largest - 28, count: 2, interval: 0.3 });
      const before = fragmented(router);
      const size = FAMILIES[family].largest - 28;
      const { received } = await ping(left.host, right.addresses[0]!, { size, dontFragment: true, count: 5 });
      assert.equal(received, 5);
      assert.equal(fragmented(router), before, 'nothing is left for the router to fragment');
      await everything({ left, right });
    });
  }

  test(`${uplink} over IPv6: a narrow link that nobody knows of is found out`, options, async (t) => {
    const { left, right } = await routed(t, uplink, 'IPv6');
    // The router drops and tells so (RFC 4443, 3.2): the first packets are lost, as with the kernel's device.
    const size = FAMILIES.IPv6.largest - 28;
    await ping(left.host, right.addresses[0]!, { size, dontFragment: true, count: 20, interval: 0.05 });
    const { received } = await ping(left.host, right.addresses[0]!, { size, dontFragment: true, count: 5 });
    assert.equal(received, 5);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, MB);
    assertBalanced(await restingStats(left.host));
  });
}

for (const uplink of UPLINKS) {
  test(`${uplink}: with DF set, a narrow link is found out and senders are told`, options, async (t) => {
    const { left, right, router } = await routed(t, uplink, 'IPv4', 'df set');
    const pings = async (address: string, size: number) =>
      (await left.host.run(`ping -n -M do -s ${size} -c 1 -W 1 ${address}`, { check: false })).stdout;
    // The first ones are lost, of which the router tells uvxlan.
    await eventually('ping is told', async () => /mtu ?= ?1350/.test(await pings(right.addresses[0]!, 1422)));
    await eventually('ping6 is told', async () => /mtu ?= ?1350/.test(await pings(right.addresses[1]!, 1402)));
    assert.match(await pings(right.addresses[0]!, 1322), / 0% packet loss/);
    assert.match(await pings(right.addresses[1]!, 1302), / 0% packet loss/);
    const before = fragmented(router);
    for (const address of right.addresses) await bulkTransfer(left.host, right.host, address, MB);
    // Datagrams that their host may fragment, and now does.
    const listener = Listener.datagrams(right.host, 5001);
    sendDatagrams(left.host, right.addresses[0]!, [{ to: 5001, payload: noise(5000) }]);
    assert.equal((await listener.atLeast(1))[0], noise(5000).toString('hex'));
    listener.stop();
    assert.equal(fragmented(router), before);
    const records = await restingStats(left.host);
    assertBalanced(records);
    assert.ok(drops(records, 'tx_too_big') >= 1);
  });
}

/** TCP and UDP both ways, every byte; and every packet is counted. */
async function everything({ left, right }: Pick<Routed, 'left' | 'right'>): Promise<void> {
  for (const [from, to] of [
    [left, right],
    [right, left],
  ] as const) {
    await bulkTransfer(from.host, to.host, to.addresses[0]!, MB);
    const listener = Listener.datagrams(to.host, 5001);
    const payload = noise(20 * 1300 - 7);
    sendDatagrams(from.host, to.addresses[0]!, [{ to: 5001, segment: 1300, payload }]);
    assert.equal((await listener.atLeast(20)).join(''), payload.toString('hex'));
    listener.stop();
  }
  const records = await restingStats(left.host);
  assertBalanced(records);
  for (const name of ['tx_too_big', 'tx_unresolved', 'tx_uplink_error'] as const)
    assert.equal(drops(records, name), 0, name);
}

/** IPv4 packets that a router had to cut: FragOKs, the 17th number of the Ip line. */
function fragmented(router: Host): number {
  const [names, values] = router
    .exec('cat /proc/net/snmp')
    .split('\n')
    .filter((line) => line.startsWith('Ip: '))
    .map((line) => line.split(' '));
  return Number(values![names!.indexOf('FragOKs')]);
}
