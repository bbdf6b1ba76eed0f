// What people send over an overlay, between uvxlan with each uplink and the kernel's vxlan or uvxlan itself. The pair is drawn
// in pair.ts.

import assert from 'node:assert/strict';
import test from 'node:test';
import { iperf3 } from '../../cli/lab/measure.ts';
import type { Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { Capture, tsharkFields } from './capture.ts';
import { pair, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { frame, Listener, noise, sendDatagrams, sendFrames, udpPacket } from './raw.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, drops, restingStats } from './stats.ts';

const skip = lacking('tun', 'kernel-vxlan', 'iperf3', 'tcpdump', 'tshark');
const MB = 1024 * 1024;
/** IEEE 802, local experimental ethertype. */
const EXPERIMENTAL = '88b5';

for (const uplink of UPLINKS) {
  for (const peer of ['kernel', uplink] as const) {
    const name = `${uplink} uplink, ${peer === 'kernel' ? 'kernel vxlan' : 'uvxlan'} on the other side`;
    test(name, { skip, timeout: 180_000 }, async (t) => {
      const { left, right } = await pair(t, uplink, peer);
      await t.test('ping over IPv4 and IPv6', () => pings(left, right));
      await t.test('pings of exactly the MTU pass, larger ones fail at their sender', () => mtuEdges(left, right));
      await t.test('TCP, four streams each way at once', () => tcp(left, right));
      await t.test('UDP each way, single datagrams and super-frames', () => udp(left, right));
      await t.test('bulk transfers arrive byte by byte, each way', () => bulk(left, right));
      await t.test('tagged frames', () => tagged(left, right));
      await t.test('addresses are resolved by broadcast', () => resolution(left, right));
      await t.test('frames that are not IP, from the smallest to the largest', () => otherFrames(left, right));
      await t.test('nothing was lost without a name', async () => {
        const records = await restingStats(left.host);
        assertBalanced(records);
        for (const drop of [
          'tx_unresolved',
          'tx_too_big',
          'tx_uplink_error',
          'rx_outer_malformed',
          'rx_device_error',
        ] as const)
          assert.equal(drops(records, drop), 0, drop);
      });
    });
  }
}

async function pings(left: Vtep, right: Vtep): Promise<void> {
  for (const address of right.addresses) {
    // 8,000 and 60,000 bytes go in inner fragments.
    for (const size of [56, 8_000, 60_000]) {
      const { received, duplicates } = await ping(left.host, address, {
        count: 5,
        interval: size > 10_000 ? 0.1 : 0.01,
        size,
      });
      assert.deepEqual({ received, duplicates }, { received: 5, duplicates: 0 }, `${size} bytes to ${address}`);
    }
  }
}

async function mtuEdges(left: Vtep, right: Vtep): Promise<void> {
  // 1500 bytes less 50 outside; inside less the IP and ICMP headers.
  for (const [address, largest] of [
    [right.addresses[0]!, 1450 - 28],
    [right.addresses[1]!, 1450 - 48],
  ] as const) {
    const fits = await ping(left.host, address, { count: 2, interval: 0.01, size: largest, dontFragment: true });
    assert.equal(fits.received, 2, `${largest} bytes to ${address}`);
    const command = `ping -n -c 1 -W 0.1 -M do -s ${largest + 1} ${address}`;
    const { status, stdout, stderr } = await left.host.run(command, { check: false });
    assert.match(`${stdout}${stderr}`, /message too long/i);
    assert.notEqual(status, 0);
  }
}

async function tcp(left: Vtep, right: Vtep): Promise<void> {
  const load = { seconds: 1, streams: 4, extra: ['--bidir'] };
  const { report } = await iperf3(left.host, right.host, right.addresses[0]!, load);
  const end = report.end as Record<string, { bits_per_second: number }>;
  for (const direction of ['sum_received', 'sum_received_bidir_reverse']) {
    // It crawls when super-frames are lost or damaged and only what TCP sends again gets through.
    const rate = end[direction]!.bits_per_second;
    assert.ok(rate > 5e7, `${direction}: ${rate} bit/s`);
  }
}

async function udp(left: Vtep, right: Vtep): Promise<void> {
  for (const [from, to] of [
    [left, right],
    [right, left],
  ] as const) {
    const listener = Listener.datagrams(to.host, 5001);
    const single = [1, 1422, 9_000].map((size) => noise(size));
    const train = noise(40 * 1400 - 99);
    sendDatagrams(from.host, to.addresses[0]!, [
      ...single.map((payload) => ({ to: 5001, payload })),
      { to: 5001, segment: 1400, payload: train },
    ]);
    const received = await listener.atLeast(43);
    for (const payload of single) {
      // The largest goes in inner fragments, which are a flow of their own: it may overtake.
      const index = received.indexOf(payload.toString('hex'));
      assert.ok(index >= 0, `${payload.length} bytes`);
      received.splice(index, 1);
    }
    assert.equal(received.join(''), train.toString('hex'));
    listener.stop();
  }
}

async function bulk(left: Vtep, right: Vtep): Promise<void> {
  for (const family of [0, 1]) {
    await bulkTransfer(left.host, right.host, right.addresses[family]!, 32 * MB);
    await bulkTransfer(right.host, left.host, left.addresses[family]!, 32 * MB);
  }
}

async function tagged(left: Vtep, right: Vtep): Promise<void> {
  for (const [from, to] of [
    [left, right],
    [right, left],
  ] as const) {
    // Not a listener: the kernel takes the tag off before a packet socket sees the frame, and tcpdump puts it back.
    const capture = await Capture.start(to.host, to.device, 'vlan');
    const packet = udpPacket({ source: '10.5.0.1', destination: '10.5.0.2', ports: [5, 5], payload: noise(1400) });
    const frames = ['810000050800', '88a80007810000050800'].map((tags) => frame(to.mac, from.mac, tags, packet));
    sendFrames(from.host, from.device, frames);
    const fields = ['ieee8021ad.id', 'vlan.id', 'udp.checksum.status', 'udp.payload'] as const;
    const seen = await tsharkFields(await capture.stop(2), fields);
    seen.sort((a, b) => a['ieee8021ad.id'].length - b['ieee8021ad.id'].length);
    const rest = { 'vlan.id': ['5'], 'udp.checksum.status': ['1'], 'udp.payload': [noise(1400).toString('hex')] };
    assert.deepEqual(seen, [
      { 'ieee8021ad.id': [], ...rest },
      { 'ieee8021ad.id': ['7'], ...rest },
    ]);
  }
}

async function resolution(left: Vtep, right: Vtep): Promise<void> {
  for (const [self, other] of [
    [left, right],
    [right, left],
  ] as const) {
    await self.fdb(`append 00:00:00:00:00:00 dev flannel.1 dst ${other.local}`);
    for (const address of other.addresses) self.host.ip(`neigh del ${address} dev flannel.1`);
  }
  for (const address of right.addresses) {
    assert.equal((await ping(left.host, address)).received, 3, address);
    const [neighbour] = left.host.ipJson<{ lladdr: string }[]>(`neigh show ${address}`);
    assert.equal(neighbour!.lladdr, right.mac);
  }
}

async function otherFrames(left: Vtep, right: Vtep): Promise<void> {
  for (const [from, to] of [
    [left, right],
    [right, left],
  ] as const) {
    const listener = Listener.frames(to.host, to.device, EXPERIMENTAL);
    const frames = [1, 2, 46, 1449, 1450].map((size) => frame(to.mac, from.mac, EXPERIMENTAL, noise(size, size)));
    sendFrames(from.host, from.device, frames);
    const received = await listener.atLeast(frames.length);
    assert.deepEqual(
      received,
      frames.map((each) => each.toString('hex')),
    );
    listener.stop();
  }
}
