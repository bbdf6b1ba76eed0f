// Every tier of offloads: what a kernel may lack is hidden, and the same traffic has to get through; also over links that carry more, or
// less, than an Ethernet's 1500 bytes. The pair is drawn in pair.ts.

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import type { Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { type Kind, type PairOptions, pair, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { Listener, noise, sendDatagrams } from './raw.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, drops, restingStats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };

const TIERS: readonly [Kind, string][] = [
  ['redirect', 'tunnel-gso'],
  ['redirect', 'uso'],
  ['redirect', 'tcx,gro'],
  ['redirect', 'tunnel-gso,uso,udp-gso,gro,tcx'],
  ['udp', 'udp-gso'],
  ['udp', 'gro'],
  ['udp', 'uso'],
  ['udp', 'uso,udp-gso,gro'],
];

for (const [uplink, without] of TIERS) {
  test(`${uplink} without ${without}`, options, async (t) => {
    await carriesAll(t, uplink, 1422, { own: `workers 2 --without ${without}` });
  });
  if (!without.includes('uso,')) continue;
  test(`${uplink} without ${without} at both ends`, options, async (t) => {
    await carriesAll(t, uplink, 1422, { own: `workers 2 --without ${without}` }, uplink);
  });
}

for (const uplink of UPLINKS) {
  test(`${uplink}: jumbo frames`, options, async (t) => {
    await carriesAll(t, uplink, 9000 - 50 - 28, { link: { mtu: 9000 } });
  });

  test(`${uplink}: no checksum outside`, options, async (t) => {
    await carriesAll(t, uplink, 1422, { own: 'workers 2 noudpcsum' });
  });

  test(`${uplink}: a device whose frames the network has to fragment`, options, async (t) => {
    // `df unset`; the kernel's device has no such MTU where it has a NIC.
    const { left, right } = await pair(t, uplink, uplink, { own: 'workers 2 mtu 2000' });
    const size = 2000 - 28;
    const there = await ping(left.host, right.addresses[0]!, { size, dontFragment: true });
    assert.equal(there.received, 3);
    await bulkTransfer(left.host, right.host, right.addresses[0]!, 4 * 1024 * 1024);
    await bulkTransfer(right.host, left.host, left.addresses[0]!, 4 * 1024 * 1024);
    assertBalanced(await restingStats(left.host));
  });
}

/** Pings of `largest` bytes, the largest that fit, bulk transfers, IPv4 one way and IPv6 the other, and UDP super-frames, each way. */
async function carriesAll(
  t: TestContext,
  uplink: Kind,
  largest: number,
  options: PairOptions,
  peer: Kind = 'kernel',
): Promise<void> {
  const { left, right } = await pair(t, uplink, peer, options);
  const ways: readonly (readonly [Vtep, Vtep])[] = [
    [left, right],
    [right, left],
  ];
  for (const [family, [from, to]] of ways.entries()) {
    const { received } = await ping(from.host, to.addresses[0]!, { size: largest, dontFragment: true });
    assert.equal(received, 3);
    await bulkTransfer(from.host, to.host, to.addresses[family]!, 8 * 1024 * 1024);
    const listener = Listener.datagrams(to.host, 5001);
    const payload = noise(30 * 1200 - 7);
    sendDatagrams(from.host, to.addresses[0]!, [{ to: 5001, segment: 1200, payload }]);
    assert.equal((await listener.atLeast(30)).join(''), payload.toString('hex'));
    listener.stop();
  }
  const records = await restingStats(left.host);
  assertBalanced(records);
  assert.equal(drops(records, 'tx_too_big'), 0);
}
