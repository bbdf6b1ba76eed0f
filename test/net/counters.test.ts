// Every packet that is not delivered is counted, under one name: what is broken on purpose, what is too much, and what a failing
// worker loses. The pair is drawn in pair.ts.

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { iperf3 } from '../../cli/lab/measure.ts';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, type UvxlanVtep, uvxlan, uvxlanFdb, type Vtep } from '../../cli/lab/vtep.ts';
import type { StatsRecord } from '../../control/protocol.ts';
import type { DropName } from '../../dataplane/drops.ts';
import { LEFT, pair, RIGHT, resolved, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { frame, Listener, noise, sendDatagrams, sendFrames, udpPacket } from './raw.ts';
import { lacking } from './requirements.ts';
import { allDrops, arrived, assertBalanced, drops, restingStats, stats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan', 'iperf3'), timeout: 180_000 };
const PORT = 8472;
const EXPERIMENTAL = '88b5';

function vxlan(header: string, inner: Uint8Array = frame(LEFT.mac, RIGHT.mac, EXPERIMENTAL, noise(50))): Buffer {
  return Buffer.concat([Buffer.from(header, 'hex'), inner]);
}

const GOOD = '0800000000000100';

/** Payloads for the VXLAN port that are to be dropped, by the counter that they are to add to. */
const HOSTILE: Partial<Record<DropName, readonly Uint8Array[]>> = {
  rx_invalid_header: [
    // Cut off in the header, at every length.
    ...Array.from({ length: 8 }, (_, length) => vxlan(GOOD).subarray(0, length)),
    vxlan('0000000000000100'), // no I flag
  ],
  rx_reserved_bits: [
    vxlan('0c00000000000100'), // VXLAN-GPE's P flag
    vxlan('8800000000000100'), // the group policy's G flag
    vxlan('0800000100000100'),
    vxlan('0800000000000101'),
  ],
  rx_unknown_vni: ['0800000000000000', '0800000000000200', '08000000ffffff00', 'ffffffffffffffff'].map((header) =>
    vxlan(header),
  ),
  // Cut off in the inner Ethernet header, at every length.
  rx_inner_truncated: Array.from({ length: 14 }, (_, length) => vxlan(GOOD).subarray(0, 8 + length)),
  rx_invalid_source_mac: ['00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', '01:00:5e:00:00:01'].map((mac) =>
    vxlan(GOOD, frame(LEFT.mac, mac, EXPERIMENTAL, noise(50))),
  ),
  rx_own_mac: [vxlan(GOOD, frame(RIGHT.mac, LEFT.mac, EXPERIMENTAL, noise(50)))],
};

for (const uplink of UPLINKS) {
  test(`${uplink}: hostile packets on the port`, options, async (t) => {
    const { left, right } = await pair(t, uplink, 'kernel');
    withoutIpv6(left, right);
    // The counters as each step finds them.
    let past = await restingStats(left.host);

    for (const [name, payloads] of Object.entries(HOSTILE) as [DropName, readonly Uint8Array[]][]) {
      await t.test(`${payloads.length} times ${name}`, async () => {
        sendDatagrams(
          right.host,
          left.local,
          payloads.map((payload) => ({ to: PORT, payload })),
        );
        await eventually(
          `all of ${name}`,
          async () => arrived(await stats(left.host)) - arrived(past) >= payloads.length,
        );
        const now = await restingStats(left.host);
        assert.equal(drops(now, name) - drops(past, name), payloads.length);
        assert.equal(dropped(now) - dropped(past), payloads.length);
        assertBalanced(now);
        past = now;
      });
    }

    await t.test('random bytes of every length, and random inner packets', async () => {
      const payloads = [
        ...Array.from({ length: 300 }, (_, seed) => noise((seed * 5) % 1473, seed + 1)),
        // What looks like IP inside, with nonsense behind it: lengths, header lengths and offsets that lie.
        ...['0800', '86dd', '8100', '0806'].flatMap((type) =>
          Array.from({ length: 100 }, (_, seed) => {
            const packet = noise(20 + 7 * seed, seed + 1);
            packet[0] = (type === '86dd' ? 0x60 : 0x40) | (packet[0]! & 0x0f);
            if (seed % 2 === 0) packet[type === '86dd' ? 6 : 9] = seed % 4 === 0 ? 6 : 17;
            return vxlan(GOOD, frame(LEFT.mac, RIGHT.mac, type, packet));
          }),
        ),
      ];
      sendDatagrams(
        right.host,
        left.local,
        payloads.map((payload) => ({ to: PORT, payload })),
      );
      await eventually(
        'all of them counted',
        async () => arrived(await stats(left.host)) - arrived(past) >= payloads.length,
      );
      const now = await restingStats(left.host);
      assert.equal(arrived(now) - arrived(past), payloads.length);
      assertBalanced(now);
      past = now;
    });

    await t.test('outer headers that contradict each other, wrong checksums', () =>
      brokenOutside(left, right.host, uplink, past),
    );

    await t.test('the daemon goes on as if nothing had been', async () => {
      assert.equal(left.daemon.exit, undefined);
      assert.doesNotMatch(left.daemon.output, /failed/);
      assert.equal((await ping(left.host, right.addresses[0]!)).received, 3);
      assert.equal(drops(await stats(left.host), 'rx_worker_lost'), 0);
    });
  });

  test(`${uplink}: more than the workers can take is counted where it is dropped`, options, async (t) => {
    const { left, right } = await pair(t, uplink, 'kernel');
    const count = 8_000;
    withoutIpv6(left, right);
    const past = await restingStats(left.host);
    // Nobody reads: queues fill up and overflow, whatever the machine's speed.
    left.daemon.signal('SIGSTOP');
    const payload = noise(1400);
    sendFrames(left.host, left.device, [frame(right.mac, left.mac, EXPERIMENTAL, payload)], count);
    sendFrames(right.host, right.device, [frame(left.mac, right.mac, EXPERIMENTAL, payload)], count);
    left.daemon.signal('SIGCONT');
    await eventually('all of them counted', async () => {
      const now = await stats(left.host);
      return arrived(now) - arrived(past) >= count && now[0]!.tx.in - past[0]!.tx.in >= count;
    });
    const now = await restingStats(left.host);
    assertBalanced(now);
    assert.equal(now[0]!.tx.in - past[0]!.tx.in, count);
    assert.equal(arrived(now) - arrived(past), count);
    for (const name of ['tx_tap_overflow', 'rx_uplink_overflow'] as const) {
      const lost = drops(now, name) - drops(past, name);
      assert.ok(lost > 0 && lost < count, `${name} ${lost}`);
    }
  });

  test(`${uplink}: floods beyond what two cores can take`, options, async (t) => {
    const { left, right } = await pair(t, uplink, 'kernel');
    for (const reverse of [false, true]) {
      const load = { seconds: 1, udp: true, bitrate: 0, length: 64, streams: 2, reverse };
      const { packets } = await iperf3(left.host, right.host, right.addresses[0]!, load);
      assert.ok(packets > 1_000);
    }
    await iperf3(left.host, right.host, right.addresses[0]!, { seconds: 1, streams: 8 });
    const records = await restingStats(left.host);
    assertBalanced(records);
    t.diagnostic(JSON.stringify(allDrops(records)));
    // The kernel's own view of the TAP: frames that it handed out, and that it could not.
    const handed = left.host.counter(left.device, 'tx', 'packets') + left.host.counter(left.device, 'tx', 'dropped');
    assert.equal(records[0]!.tx.in, handed);
    assert.equal((await ping(left.host, right.addresses[0]!)).received, 3);
  });

  test(`${uplink}: workers that fail under load are started again`, options, async (t) => {
    const { left, right } = await failingPair(t, uplink);
    const load = iperf3(left.host, right.host, right.addresses[0]!, { seconds: 2, streams: 4 });
    await eventually('traffic', async () => (await stats(left.host))[0]!.tx.out > 1_000);
    for (let failures = 1; failures <= 4; failures++) {
      left.daemon.signal('SIGUSR2');
      await eventually(`failure ${failures}`, () => restarts(left) === failures);
    }
    const { bitsPerSecond } = await load;
    assert.ok(bitsPerSecond > 1e7, `${bitsPerSecond} bit/s`);
    assert.match(left.daemon.output, /worker 0 failed and is started again/);
    assert.match(left.daemon.output, /worker 1 failed and is started again/);
    assert.equal((await ping(left.host, right.addresses[0]!)).received, 3);
    assert.match((await uvxlan(left.host, 'link show -d')).stdout, /workers 2 restarts 4 /);
    assertBalanced(await restingStats(left.host));
    assert.deepEqual(await left.daemon.stop('SIGTERM'), { status: 0, signal: null });
  });
}

/** With IPv6 hosts multicast of their own accord, and the uvxlan device would count that. */
function withoutIpv6(...vteps: readonly Vtep[]): void {
  for (const { host } of vteps) host.exec('sysctl -qw net.ipv6.conf.all.disable_ipv6=1');
}

/**
 * Raw packets on the wire to the port, right in all but one thing. Redirect has to find it out; a socket does not get those whose
 * lengths lie, and counts wrong checksums with what it had no room for.
 */
async function brokenOutside(
  left: UvxlanVtep,
  right: Host,
  uplink: string,
  past: readonly StatsRecord[],
): Promise<void> {
  const whole = udpPacket({ source: RIGHT.local, destination: LEFT.local, ports: [50000, PORT], payload: vxlan(GOOD) });
  const changed = (offset: number, ...bytes: number[]) => {
    const packet = Buffer.from(whole);
    packet.set(bytes, offset);
    return packet;
  };
  const packets = [
    // UDP lengths that are too short, too long for IP, and beyond the frame.
    ...[changed(24, 0, 7), changed(24, 0, whole.length - 20 + 1), changed(24, 0xff, 0xff)],
    // A byte of the inner frame, and the checksum itself.
    ...[changed(60, whole[60]! ^ 1), changed(26, whole[26]! ^ 0x80)],
    whole,
  ];
  const listener = Listener.frames(left.host, left.device, EXPERIMENTAL);
  const macs = [left.host.mac('eth0'), right.mac('eth0')] as const;
  sendFrames(
    right,
    'eth0',
    packets.map((packet) => frame(...macs, '0800', packet)),
  );
  await listener.atLeast(1);
  listener.stop();
  const now = await restingStats(left.host);
  const expected = uplink === 'redirect' ? { rx_outer_malformed: 3, rx_outer_checksum: 2 } : { rx_uplink_overflow: 2 };
  for (const [name, count] of Object.entries(expected) as [DropName, number][]) {
    assert.equal(drops(now, name) - drops(past, name), count, name);
  }
  const all = Object.values(expected).reduce((sum, count) => sum + count, 0);
  assert.equal(dropped(now) - dropped(past), all);
  assert.equal(arrived(now) - arrived(past), all + 1);
  assertBalanced(now);
}

/** uvxlan left, in a process that lets its workers fail, and the kernel right. */
async function failingPair(t: TestContext, uplink: string): Promise<{ left: UvxlanVtep; right: Vtep }> {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']],
  });
  const host = network.host('left');
  const program = fileURLToPath(new URL('./failing.js', import.meta.url));
  const words = `flannel.1 id 1 local ${LEFT.local} dev eth0 dstport ${PORT} address ${LEFT.mac} workers 2 uplink ${uplink}`;
  const daemon = host.spawn([process.execPath, program, ...words.split(' ')]);
  await daemon.waitFor(/flannel.1 is up/);
  for (const address of LEFT.addresses.split(' ')) host.ip(`address add ${address} dev flannel.1`);
  const left: UvxlanVtep = {
    ...{ host, daemon, device: 'flannel.1', local: LEFT.local, mac: LEFT.mac },
    addresses: LEFT.addresses.split(' ').map((address) => address.split('/')[0]!),
    fdb: (args) => uvxlanFdb(host, args),
  };
  const right = kernelVtep(network.host('right'), RIGHT);
  await introduce(left, right);
  await resolved(host, 'udp');
  return { left, right };
}

function restarts({ daemon }: UvxlanVtep): number {
  return daemon.output.match(/failed and is started again/g)?.length ?? 0;
}

function dropped(records: readonly StatsRecord[]): number {
  return Object.values(allDrops(records)).reduce((sum, count) => sum + count, 0);
}
