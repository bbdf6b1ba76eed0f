// Learning and vtep-filter, held against the kernel's own device: the same forged packets to both, the same FDB and the same frames.
//
//   peers   any address in 192.0.2.0/24 ---+
//   kernel  vxlan          192.0.2.1    ---+--- lan (bridge)
//   ours    uvxlan         192.0.2.2    ---+

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { ask, kernelVtep, links, MAIN, tell, uvxlan, uvxlanVtep, type Vtep } from '../../cli/lab/vtep.ts';
import type { DaemonEvent } from '../../control/events.ts';
import type { FdbHistoryChange } from '../../control/fdb-history.ts';
import type { FdbRecord } from '../../control/protocol.ts';
import { UPLINKS } from './pair.ts';
import { frame, Listener, sendFrames, udpPacket } from './raw.ts';
import { lacking } from './requirements.ts';
import { allDrops, arrived, assertBalanced, restingStats, stats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };
const TYPE = '88b5';
const VNI = 1;
const place = (last: number) => ({
  local: `192.0.2.${last}`,
  addresses: '10.244.0.1/24',
  mac: '02:00:00:00:00:01',
});
const mac = (last: number) => `02:00:00:00:00:${last.toString(16).padStart(2, '0')}`;

function lan(t: TestContext): Network {
  const names = ['kernel', 'ours', 'peers'] as const;
  const network = Network.build(t, {
    hosts: Object.fromEntries(names.map((name) => [name, {}])),
    switches: { lan: names.map((name, index) => `${name} eth0 192.0.2.${index + 1}/24`) },
  });
  for (const name of names) {
    network.host(name).exec('sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1');
  }
  return network;
}

interface Packet {
  /** Last byte of the sender's address, of the inner source MAC; what tells the packet from others. */
  vtep: number;
  from: number | string;
  mark: number;
}

/** Sends packets from forged senders to each of the VTEPs, one after the other. */
function forge(peers: Host, vteps: readonly Vtep[], packets: readonly Packet[]): void {
  const frames = vteps.flatMap((vtep) => forged(peers, vtep, packets));
  sendFrames(peers, 'eth0', frames);
}

function forged(peers: Host, to: Vtep, packets: readonly Packet[]): Uint8Array[] {
  const [{ address }] = to.host.ipJson<{ address: string }[]>('link show dev eth0');
  const [{ address: own }] = peers.ipJson<{ address: string }[]>('link show dev eth0');
  return packets.map(({ vtep, from, mark }) => {
    const source = typeof from === 'string' ? from : mac(from);
    const inner = frame('ff:ff:ff:ff:ff:ff', source, TYPE, Buffer.alloc(50, mark));
    const payload = Buffer.concat([Buffer.from([8, 0, 0, 0, 0, 0, VNI, 0]), inner]);
    const packet = udpPacket({ source: `192.0.2.${vtep}`, destination: to.local, ports: [50_000, 8472], payload });
    return frame(address!, own!, '0800', packet);
  });
}

/** The FDB without the port and names that do not matter here, sorted. */
async function entries(vtep: Vtep): Promise<string[]> {
  const records = await ask<FdbRecord[]>(vtep.host, 'fdb show', { dev: vtep.device });
  return records.map(({ mac, dst, state }) => `${mac} ${dst} ${state}`).sort();
}

const kernelFdb = (vtep: Vtep): string[] =>
  (JSON.parse(vtep.host.bridge(`-j fdb show dev ${vtep.device}`)) as FdbRecord[])
    .filter(({ mac }) => !mac.startsWith('33:33') && !mac.startsWith('01:00:5e'))
    .map(({ mac, dst, state }) => `${mac} ${dst} ${state}`)
    .sort();

const STEPS: [string, string[], Packet[]][] = [
  ['unknown MACs are learned', [], [1, 2, 3].map((n) => ({ vtep: 10 + n, from: 0x10 + n, mark: n }))],
  ['a MAC moves', [], [{ vtep: 20, from: 0x11, mark: 4 }]],
  [
    'a static and a permanent MAC do not move, and their packets are dropped',
    [`add ${mac(0x21)} dev flannel.1 dst 192.0.2.11 static`, `add ${mac(0x22)} dev flannel.1 dst 192.0.2.12`],
    [
      { vtep: 20, from: 0x21, mark: 5 },
      { vtep: 20, from: 0x22, mark: 6 },
      { vtep: 12, from: 0x22, mark: 7 },
    ],
  ],
  [
    'a dynamic MAC moves',
    [`add ${mac(0x23)} dev flannel.1 dst 192.0.2.13 port 4789 dynamic`],
    [{ vtep: 20, from: 0x23, mark: 8 }],
  ],
  [
    'invalid source MACs and our own are dropped',
    [],
    ['01:00:5e:00:00:05', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', mac(1)].map((from, n) => ({
      vtep: 30,
      from,
      mark: 9 + n,
    })),
  ],
  [
    'what does not fit into maxaddress is delivered, and not learned',
    [],
    Array.from({ length: 5 }, (_, n) => ({ vtep: 40, from: 0x40 + n, mark: 20 + n })),
  ],
  ['a MAC that was deleted is learned again', [`del ${mac(0x12)} dev flannel.1`], [{ vtep: 31, from: 0x12, mark: 30 }]],
];

for (const uplink of UPLINKS) {
  test(`${uplink}: learns as the kernel does`, options, async (t) => {
    const network = lan(t);
    const peers = network.host('peers');
    const words = 'id 1 dev eth0 dstport 8472 maxaddress 8';
    const kernel = kernelVtep(network.host('kernel'), { ...place(1), words });
    const ours = await uvxlanVtep(network.host('ours'), { ...place(2), words: `${words} uplink ${uplink} workers 2` });
    const vteps = [kernel, ours];
    const monitor = ours.host.spawn([process.execPath, MAIN, 'monitor', 'fdb', '-j']);
    t.after(() => monitor.stop('SIGKILL'));
    const listeners = vteps.map(({ host, device }) => Listener.frames(host, device, TYPE));
    await eventually('the monitor listens', async () => {
      await ours.fdb(`replace ${mac(0xee)} dev flannel.1 dst 192.0.2.99`);
      await ours.fdb(`del ${mac(0xee)} dev flannel.1`);
      return monitor.stdout.includes('deleted');
    });
    for (const [what, commands, packets] of STEPS) {
      for (const vtep of vteps) for (const command of commands) await vtep.fdb(command);
      const before = arrived(await stats(ours.host));
      forge(peers, vteps, packets);
      await eventually('all packets taken', async () => arrived(await stats(ours.host)) >= before + packets.length);
      let [expected, actual]: string[][] = [];
      await eventually(what, async () => {
        expected = kernelFdb(kernel);
        actual = await entries(ours);
        return actual.join() === expected.join();
      }).catch(() => assert.deepEqual(actual, expected, what));
    }
    // Senders may be different workers'.
    let [theirs, own]: string[][] = [];
    await eventually('the same frames', () => {
      [theirs, own] = listeners.map(({ received }) => received.toSorted());
      return own.join() === theirs.join();
    }).catch(() => assert.deepEqual(own, theirs, 'the same frames'));
    const records = await restingStats(ours.host);
    assertBalanced(records);
    assert.deepEqual(allDrops(records), { rx_static_mac: 2, rx_invalid_source_mac: 3, rx_own_mac: 1 });
    await assertHistory(ours);
    const heard = () =>
      monitor.stdout
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as DaemonEvent)
        .map(({ event, mac, dst, from }) => [event, mac, dst, ...(from ? [from] : [])].join(' '));
    for (const expected of [
      `learned ${mac(0x11)} 192.0.2.11`,
      `moved ${mac(0x11)} 192.0.2.20 192.0.2.11`,
      `added ${mac(0x21)} 192.0.2.11`,
      `moved ${mac(0x23)} 192.0.2.20 192.0.2.13`,
      `deleted ${mac(0x12)} 192.0.2.12`,
      `learned ${mac(0x12)} 192.0.2.31`,
    ]) {
      await eventually(`the monitor tells: ${expected}`, () => heard().includes(expected));
    }
    const refused = /^refused 02:00:00:00:00:4. 192\.0\.2\.40$/;
    await eventually('the monitor tells of a refusal', () => heard().some((line) => refused.test(line)));
  });
}

/** Who moved a MAC; and of one that is not there any more, when it went. */
async function assertHistory(ours: Vtep): Promise<void> {
  const [{ changes, history }] = JSON.parse(await ours.fdb(`get ${mac(0x11)} dev ${ours.device} -j`));
  assert.equal(changes, 2);
  assert.deepEqual(
    history.map(({ event, dst, from }: FdbHistoryChange) => [event, dst, from]),
    [
      ['moved', '192.0.2.20', '192.0.2.11'],
      ['learned', '192.0.2.11', undefined],
    ],
  );
  assert.ok(history[0].time >= history[1].time && Math.abs(Date.now() - history[0].time) < 60_000);
  await assert.rejects(
    ours.fdb(`get ${mac(0xee)} dev ${ours.device}`),
    /Fdb entry not found\. Its last change: .* deleted dst 192\.0\.2\.99/,
  );
}

test('vtep-filter keeps strangers out, and shows them', options, async (t) => {
  const network = lan(t);
  const peers = network.host('peers');
  const words = 'id 1 dev eth0 dstport 8472 nolearning vtep-filter known';
  const ours = await uvxlanVtep(network.host('ours'), { ...place(2), words });
  const listener = Listener.frames(ours.host, ours.device, TYPE);
  await ours.fdb('append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.11');
  await ours.fdb(`add ${mac(0x12)} dev flannel.1 dst 192.0.2.12`);
  const packets = [
    { vtep: 66, from: 0x12, mark: 1 },
    { vtep: 66, from: 0x12, mark: 1 },
    { vtep: 11, from: 0x12, mark: 2 },
    { vtep: 12, from: 0x12, mark: 3 },
  ];
  forge(peers, [ours], packets);
  assert.deepEqual((await listener.atLeast(2)).map((hex) => hex.slice(-2)).sort(), ['02', '03']);
  await tell(ours.host, 'link set flannel.1 type vxlan vtep-filter strict');
  forge(peers, [ours], packets);
  assert.deepEqual((await listener.atLeast(3)).map((hex) => hex.slice(-2)).sort(), ['02', '03', '03']);
  const records = await restingStats(ours.host);
  assertBalanced(records);
  assert.deepEqual(allDrops(records), { rx_unknown_vtep: 4, rx_wrong_vtep: 1 });
  const [link] = await links(ours.host, 'flannel.1');
  // Those that two workers tell of at once may come in either order.
  const offenders = link!.uvxlan.offenders!.toSorted((a, b) => a.src.localeCompare(b.src));
  assert.deepEqual(
    offenders.map(({ src, mac, reason, count }) => [src, mac, reason, count]),
    [
      ['192.0.2.11', mac(0x12), 'rx_wrong_vtep', 1],
      ['192.0.2.66', mac(0x12), 'rx_unknown_vtep', 4],
    ],
  );
  assert.match(offenders[0]!.sample, /^0800000000000100ffffffffffff02000000001288b50202/);
  assert.match(
    (await uvxlan(ours.host, 'link show -d')).stdout,
    /kept out 192\.0\.2\.66 02:00:00:00:00:12 \(rx_unknown_vtep\)/,
  );
});
