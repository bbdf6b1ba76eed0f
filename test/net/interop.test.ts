// Who understands whom: Open vSwitch's userspace datapath, the kernel's vxlan, and uvxlan with each of its uplinks, all on one switch,
// each with a VTEP over IPv4 (VNI 4) and one over IPv6 (VNI 6). Every pair is tried.
//
//   host N   vx4 10.4.0.N fd04::N over 192.0.2.N
//            vx6 10.6.0.N fd06::N over 2001:db8::N      on the switch by eth0, without checksum offload

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, tell, uvxlanVtep, type Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { OpenVswitch } from './openvswitch.ts';
import { ping } from './ping.ts';
import { Listener, noise, sendDatagrams } from './raw.ts';
import { lacking } from './requirements.ts';
import { allDrops, assertBalanced, restingStats } from './stats.ts';

const skip = lacking('tun', 'kernel-vxlan', 'ethtool', 'ovs-vswitchd');
const KINDS = ['ovs', 'kernel', 'redirect', 'udp'] as const;
type Kind = (typeof KINDS)[number];
const MB = 1024 * 1024;
const OVERHEAD = { 4: 50, 6: 70 } as const;
type Family = keyof typeof OVERHEAD;
const WORDS = 'dev eth0 dstport 8472 nolearning';

function place(number: number, family: Family) {
  return {
    name: `vx${family}`,
    local: family === 4 ? `192.0.2.${number}` : `2001:db8::${number}`,
    addresses: `10.${family}.0.${number}/24 fd0${family}::${number}/64`,
    mac: `02:00:00:00:0${family}:0${number}`,
  };
}

/** The two VTEPs of a host. */
async function vteps(host: Host, kind: Kind, number: number): Promise<Record<Family, Vtep>> {
  const [four, six] = [place(number, 4), place(number, 6)];
  if (kind === 'ovs') {
    const ovs = await OpenVswitch.start(host, 'eth0');
    return { 4: await ovs.vtep({ ...four, vni: 4, port: 8472 }), 6: await ovs.vtep({ ...six, vni: 6, port: 8472 }) };
  }
  if (kind === 'kernel') {
    return {
      4: kernelVtep(host, { ...four, words: `id 4 ${WORDS}` }),
      6: kernelVtep(host, { ...six, words: `id 6 ${WORDS}` }),
    };
  }
  const own = `${WORDS} uplink ${kind}`;
  const first = await uvxlanVtep(host, { ...four, words: `id 4 ${own}` });
  await tell(host, `link add vx6 type vxlan id 6 local ${six.local} address ${six.mac} ${own}`);
  for (const address of six.addresses.split(' ')) {
    host.ip(`address add ${address} dev vx6${address.includes(':') ? ' nodad' : ''}`);
  }
  const second = { ...first, ...six, device: 'vx6', addresses: six.addresses.split(' ').map(bare) };
  return { 4: first, 6: second };
}

function bare(address: string): string {
  return address.split('/')[0]!;
}

function build(t: TestContext): Host[] {
  const network = Network.build(t, {
    hosts: Object.fromEntries(KINDS.map((kind) => [kind, {}])),
    switches: { switch: KINDS.map((kind, i) => `${kind} eth0 192.0.2.${i + 1}/24 2001:db8::${i + 1}/64`) },
  });
  const hosts = KINDS.map((kind) => network.host(kind));
  for (const host of hosts) host.exec('ethtool -K eth0 tx off');
  return hosts;
}

test('all pairs, over IPv4 and IPv6', { skip, timeout: 180_000 }, async (t) => {
  const hosts = build(t);
  const all = await Promise.all(KINDS.map((kind, i) => vteps(hosts[i]!, kind, i + 1)));
  for (const family of [4, 6] as const) await introduce(...all.map((each) => each[family]));
  for (const [i, left] of KINDS.entries()) {
    for (const [j, right] of KINDS.entries()) {
      if (j <= i) continue;
      for (const family of [4, 6] as const) {
        await t.test(`${left} and ${right} over IPv${family}`, () =>
          everything(all[i]![family], all[j]![family], family),
        );
      }
    }
  }
  for (const host of hosts.slice(2)) {
    const records = await restingStats(host);
    assertBalanced(records);
    const {
      rx_outer_checksum: checksums,
      rx_outer_malformed: malformed,
      rx_invalid_header: invalid,
    } = allDrops(records);
    assert.deepEqual(
      { checksums, malformed, invalid },
      { checksums: undefined, malformed: undefined, invalid: undefined },
    );
  }
});

async function everything(left: Vtep, right: Vtep, family: Family): Promise<void> {
  const mtu = 1500 - OVERHEAD[family];
  for (const [direction, [from, to]] of (
    [
      [left, right],
      [right, left],
    ] as const
  ).entries()) {
    for (const [index, address] of to.addresses.entries()) {
      // Open vSwitch drops what it has no neighbour for yet.
      await eventually(
        `an answer from ${address}`,
        async () => (await ping(from.host, address, { count: 1 })).received === 1,
      );
      const size = mtu - 28 - 20 * index;
      const { received, errors } = await ping(from.host, address, { interval: 0.01, size, dontFragment: true });
      assert.equal(received, 3, `${size} bytes to ${address}: ${errors}`);
    }
    await bulkTransfer(from.host, to.host, to.addresses[direction]!, MB / 2);
    const listener = Listener.datagrams(to.host, 5001);
    const payload = noise(5 * 1200 - 7);
    sendDatagrams(from.host, to.addresses[0]!, [{ to: 5001, segment: 1200, payload }]);
    assert.equal((await listener.atLeast(5)).join(''), payload.toString('hex'));
    listener.stop();
  }
}
