// The baseline: one packet a call, through the raw-socket package on the main thread, over either family.
//
//   left                                                      right
//   flannel.1 10.244.1.1 fd00:1::1                            flannel.1 10.244.2.1 fd00:1::2
//        | uvxlan, uplink raw                                      | kernel vxlan, or uvxlan again
//   eth0 192.0.2.1 2001:db8::1 ----------- veth ------------- eth0 192.0.2.2 2001:db8::2

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import test from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, uvxlanVtep } from '../../cli/lab/vtep.ts';
import type { StatsRecord } from '../../control/protocol.ts';
import { bulkTransfer } from './bulk.ts';
import { LEFT, RIGHT } from './pair.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { allDrops, assertBalanced, restingStats } from './stats.ts';

const MB = 1024 * 1024;
const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
const FAMILIES = {
  IPv4: { ends: ['192.0.2.1', '192.0.2.2'], overhead: 50 },
  IPv6: { ends: ['2001:db8::1', '2001:db8::2'], overhead: 70 },
} as const;

function lacksPackage(): string | false {
  try {
    createRequire(import.meta.url).resolve('raw-socket');
    return false;
  } catch {
    return 'needs the raw-socket package, which is optional: npm install raw-socket';
  }
}

/** What was dropped, but for the multicast that IPv6 sends for itself: nobody takes it. */
function losses(records: readonly StatsRecord[]): Record<string, number> {
  const { tx_no_remote: _, ...others } = allDrops(records);
  return others;
}

const skip = lacking('tun', 'kernel-vxlan') || lacksPackage();

for (const [family, peer] of [
  ['IPv4', 'kernel vxlan'],
  ['IPv6', 'kernel vxlan'],
  ['IPv6', 'itself'],
] as const) {
  const { ends, overhead } = FAMILIES[family];
  test(`raw over ${family}, ${peer} on the other side`, { skip, timeout: 180_000 }, async (t) => {
    const network = Network.build(t, {
      hosts: { left: {}, right: {} },
      links: [['left eth0 192.0.2.1/24 2001:db8::1/64', 'right eth0 192.0.2.2/24 2001:db8::2/64']],
    });
    const raw = `${WORDS} uplink raw`;
    const left = await uvxlanVtep(network.host('left'), { ...LEFT, local: ends[0], words: raw });
    const place = { ...RIGHT, local: ends[1] };
    const right =
      peer === 'itself'
        ? await uvxlanVtep(network.host('right'), { ...place, words: raw })
        : kernelVtep(network.host('right'), { ...place, words: WORDS });
    await introduce(left, right);
    const mtu = 1500 - overhead;
    assert.equal(left.host.ipJson<{ mtu: number }[]>('link show dev flannel.1')[0]!.mtu, mtu);
    for (const [index, address] of right.addresses.entries()) {
      await eventually('an answer', async () => (await ping(left.host, address, { count: 1 })).received === 1);
      const size = mtu - 28 - 20 * index;
      const { received } = await ping(left.host, address, { count: 5, interval: 0.01, size, dontFragment: true });
      assert.equal(received, 5, `${size} bytes to ${address}`);
      await bulkTransfer(left.host, right.host, address, MB);
      await bulkTransfer(right.host, left.host, left.addresses[index]!, MB);
    }
    const records = await restingStats(left.host);
    assertBalanced(records);
    assert.deepEqual(losses(records), {});

    // What the kernel does not take is counted, although it says so only later.
    left.host.ip(`route add unreachable ${ends[1]}`);
    assert.equal((await ping(left.host, right.addresses[0]!, { count: 5, interval: 0.01 })).received, 0);
    left.host.ip(`route del unreachable ${ends[1]}`);
    const after = await restingStats(left.host);
    assertBalanced(after);
    assert.deepEqual(losses(after), { tx_unresolved: 5 });
    assert.equal((await ping(left.host, right.addresses[0]!, { count: 5, interval: 0.01 })).received, 5);
  });
}
