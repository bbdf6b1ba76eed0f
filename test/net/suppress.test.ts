// ARP and ND suppression, held against the kernel: the same frames to a kernel vxlan device and to uvxlan's, and the same frames out
// of them, to the network and back.
//
//   generator eth0 --- port0 br0 vx0 | kernel eth0 192.0.2.1 ----- eth0 192.0.2.2   sink
//   generator eth0 --- port0 br0 vx0 | ours   eth0 198.51.100.1 -- eth1 198.51.100.2
//
// `proxy` is the device's own: frames are put on it from where it stands. `neigh_suppress` is a bridge port's in the kernel and the
// device's in uvxlan, so there both are ports of a bridge, and frames come from another one.

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { uvxlan, uvxlanUp } from '../../cli/lab/vtep.ts';
import type { NeighRecord } from '../../control/neigh-words.ts';
import { formatMac } from '../../wire/address.ts';
import { ASKER, arp, ip4, ip6, nd } from '../dataplane/discovery.ts';
import { mac } from '../dataplane/packet.ts';
import { resolved } from './pair.ts';
import { Listener, sendFrames } from './raw.ts';
import { lacking } from './requirements.ts';
import { allDrops, assertAddsUp, restingStats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan', 'ethtool'), timeout: 60_000 };
const OUTER = 50;

/** Last bytes of MAC and IP addresses: neighbours in each state, one that is not behind the device, one of the host's own, nobody. */
const STATES = { 33: 'permanent', 34: 'reachable', 35: 'stale', 36: 'noarp' } as const;
const [ELSEWHERE, OWN, NOBODY, ROUTER] = [0x25, 0x26, 0x27, 0x28];
const TARGETS = [...Object.keys(STATES).map(Number), ELSEWHERE, OWN, NOBODY, ROUTER, ASKER];
const text = (last: number): string => formatMac(Uint8Array.from(mac(last)));
const address = (last: number, family: 4 | 6): string =>
  family === 4 ? `10.0.0.${last}` : `fd00::${last.toString(16)}`;

/** Every frame once: they are told apart by what they hold. */
function stimuli(): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (const last of TARGETS) {
    frames.push(arp(ip4(last)), nd(ip6(last)));
    frames.push(arp(ip4(last), { to: mac(0x21) }), nd(ip6(last), { to: mac(0x21) }));
    frames.push(arp(ip4(last), { sender: [0, 0, 0, 0] }), nd(ip6(last), { sender: Array(16).fill(0) }));
    frames.push(arp(ip4(last), { sender: ip4(last) }), nd(ip6(last), { option: '' }));
    frames.push(arp(ip4(last), { operation: 2 }), arp(ip4(last), { operation: 2, sender: ip4(last) }));
    frames.push(arp(ip4(last), { operation: 2, sender: ip4(last), to: mac(0x21) }));
    frames.push(nd(ip6(last), { type: 136, flags: 0x20 }), nd(ip6(last), { type: 136, flags: 0x60 }));
    frames.push(nd(ip6(last), { option: `0e01 000000000000 0101 ${text(ASKER).replaceAll(':', '')}` }));
    frames.push(arp(ip4(last), { operation: 3 }), arp(ip4(last), { operation: 4, sender: ip4(last) }));
    frames.push(nd(ip6(last), { option: '0100 000000000000' }));
  }
  for (const target of [
    [127, 0, 0, 1],
    [224, 0, 0, 9],
    [0, 0, 0, 0],
  ]) {
    frames.push(arp(target));
  }
  frames.push(nd([0xff, 2, ...Array(13).fill(0), 9]), arp(ip4(0x21), { senderMac: mac(0x55) }));
  const other = (offset: number, value: number) => {
    const bytes = arp(ip4(0x21));
    bytes[offset] = value;
    return bytes;
  };
  // Hardware type, protocol, lengths of addresses; a traffic class; code 1.
  frames.push(other(15, 6), other(15, 7), other(16, 9), other(18, 8), other(19, 16));
  for (const [offset, value] of [
    [14, 0x6b],
    [55, 1],
    [20, 17],
  ] as const) {
    const bytes = nd(ip6(0x22));
    bytes[offset] = value;
    frames.push(bytes);
  }
  return frames;
}

interface Outcome {
  /** Names of the frames that left for the network, in order. */
  sent: string[];
  /** What came back, as hex, in order. */
  replies: { arp: string[]; nd: string[] };
}

interface Side {
  host: Host;
  local: string;
  remote: string;
  /** Of the sink, where outer packets arrive. */
  nic: string;
}

function build(t: TestContext): { network: Network; kernel: Side; ours: Side } {
  const network = Network.build(t, {
    hosts: { kernel: {}, ours: {}, sink: {}, generator: {} },
    links: [
      ['kernel eth0 192.0.2.1/24', 'sink eth0 192.0.2.2/24'],
      // Without offloads runs are seen as the packets that they are.
      ['ours eth0 198.51.100.1/24', 'sink eth1 198.51.100.2/24', { checksumOffload: false }],
      ['kernel port0', 'generator eth0'],
      ['ours port0', 'generator eth1'],
    ],
  });
  return {
    network,
    kernel: { host: network.host('kernel'), local: '192.0.2.1', remote: '192.0.2.2', nic: 'eth0' },
    ours: { host: network.host('ours'), local: '198.51.100.1', remote: '198.51.100.2', nic: 'eth1' },
  };
}

/** The words of neighbour `last`; undefined for one that nobody tells the device of. */
function neighbourWords(last: number): string | undefined {
  if (last === OWN || last === NOBODY) return undefined;
  return `lladdr ${text(last)} nud ${STATES[last as keyof typeof STATES] ?? 'permanent'}`;
}

/** Makes the kernel's device, with the FDB and neighbours that the tests have. */
function makeKernel({ host, local, remote }: Side, words: string): void {
  host.ip(`link add vx0 type vxlan id 5 local ${local} dev eth0 dstport 8472 nolearning ${words}`);
  host.ip('link set vx0 addrgenmode none');
  host.ip('link set vx0 up');
  host.bridge(`fdb append 00:00:00:00:00:00 dev vx0 dst ${remote}`);
}

/** The same of uvxlan. */
async function makeOurs({ host, local, remote }: Side, words: string): Promise<void> {
  await uvxlanUp(host, `vx0 id 5 local ${local} dev eth0 dstport 8472 nolearning uplink redirect workers 1 ${words}`);
  host.ip('link set vx0 addrgenmode none');
  await uvxlan(host, `fdb append 00:00:00:00:00:00 dev vx0 dst ${remote}`);
  await resolved(host, 'redirect');
}

/** Sends the frames on `device` of `from`, and takes down what becomes of them; replies come to the same device. */
async function outcome(
  side: Side,
  sink: Host,
  from: Host,
  device: string,
  frames: readonly Uint8Array[],
): Promise<Outcome> {
  const [outer, arps, nds] = await Promise.all([
    Listener.frames(sink, side.nic, '0800'),
    Listener.frames(from, device, '0806'),
    Listener.frames(from, device, '86dd'),
  ]);
  // The last one goes out in any case: when it has arrived, so have all.
  const last = Uint8Array.from([...mac(0x21), ...mac(ASKER), 0x88, 0xb5, ...Array(50).fill(0)]);
  await sendFrames(from, device, [...frames, last]);
  const names = new Map([...frames, last].map((bytes, i) => [Buffer.from(bytes).toString('hex'), `frame ${i}`]));
  const sent = () =>
    outer.received.map((hex) => names.get(hex.slice(OUTER * 2))).filter((name): name is string => name !== undefined);
  await eventually('the last frame arrives', () => sent().at(-1) === `frame ${frames.length}`);
  // What is for whoever asks; the bridge's host answers for its own address, too.
  const mine = (received: readonly string[]) => received.filter((hex) => hex.slice(12, 22) === '0200000000');
  let replies = { arp: [] as string[], nd: [] as string[] };
  await eventually('replies at rest', () => {
    const before = replies.arp.length + replies.nd.length;
    replies = { arp: mine(arps.received), nd: mine(nds.received) };
    return before > 0 && before === replies.arp.length + replies.nd.length;
  });
  await Promise.all([outer.stop(), arps.stop(), nds.stop()]);
  return { sent: sent(), replies };
}

/** Neighbours of `device`: of ours IPv4 through `ip neigh`, which it follows, IPv6 through `uvxlan neigh` when `own`. */
async function tellNeighbours(host: Host, device: string, own: boolean): Promise<void> {
  const lines: string[] = [];
  for (const last of TARGETS) {
    const words = neighbourWords(last);
    if (!words) continue;
    host.ip(`neigh replace ${address(last, 4)} ${words} dev ${device}`);
    if (own) lines.push(`neigh add ${address(last, 6)} ${words} dev ${device}\n`);
    else host.ip(`neigh replace ${address(last, 6)} ${words} dev ${device}`);
  }
  if (own) await uvxlan(host, 'neigh -batch -', { input: lines.join('') });
}

async function knows(host: Host, count: number): Promise<void> {
  await eventually(`uvxlan knows ${count} neighbours`, async () => {
    const { stdout } = await uvxlan(host, 'neigh show -j dev vx0 nud all');
    return (JSON.parse(stdout) as NeighRecord[]).length >= count;
  });
}

async function fdb({ host, remote }: Side, own: boolean): Promise<void> {
  for (const last of TARGETS) {
    if (last === ELSEWHERE || last === NOBODY || last === ASKER || last === OWN) continue;
    const words = `add ${text(last)} dev vx0 dst ${remote}`;
    if (own) await uvxlan(host, `fdb ${words}`);
    else host.bridge(`fdb ${words}`);
  }
}

test('proxy does what the kernel does', options, async (t) => {
  const { network, kernel, ours } = build(t);
  const sink = network.host('sink');
  makeKernel(kernel, 'proxy');
  await makeOurs(ours, 'proxy');
  await Promise.all([fdb(kernel, false), fdb(ours, true)]);
  await tellNeighbours(kernel.host, 'vx0', false);
  await tellNeighbours(ours.host, 'vx0', true);
  await knows(ours.host, 2 * (TARGETS.length - 2));
  const frames = stimuli();
  const expected = await outcome(kernel, sink, kernel.host, 'vx0', frames);
  assert.ok(expected.replies.arp.length > 10 && expected.replies.nd.length > 10 && expected.sent.length > 10);
  assert.deepEqual(await outcome(ours, sink, ours.host, 'vx0', frames), expected);
  const records = await restingStats(ours.host);
  assertAddsUp(records);
  assert.equal(records[0]!.tx.answered, expected.replies.arp.length + expected.replies.nd.length);
  assert.ok(allDrops(records).tx_suppressed! > 10);
});

test('neigh_suppress does what a bridge port of the kernel does', options, async (t) => {
  const { network, kernel, ours } = build(t);
  const [sink, generator] = [network.host('sink'), network.host('generator')];
  makeKernel(kernel, '');
  await makeOurs(ours, 'neigh_suppress on');
  await Promise.all([fdb(kernel, false), fdb(ours, true)]);
  for (const { host } of [kernel, ours]) {
    host.ip('link add br0 type bridge mcast_snooping 0 stp_state 0');
    for (const port of ['vx0', 'port0']) host.ip(`link set ${port} master br0`);
    host.ip('link set br0 addrgenmode none up');
    host.ip(`address add ${address(OWN, 4)}/24 dev br0`);
    host.ip(`address add ${address(OWN, 6)}/64 dev br0 nodad`);
    for (const last of TARGETS) {
      if ([ELSEWHERE, NOBODY, ASKER, OWN].includes(last)) continue;
      host.bridge(`fdb replace ${text(last)} dev vx0 master static`);
    }
    await tellNeighbours(host, 'br0', false);
  }
  kernel.host.bridge('link set dev vx0 neigh_suppress on learning off');
  await knows(ours.host, 2 * (TARGETS.length - 2));
  // Bridges flood what comes from a MAC that they have just heard elsewhere; here it is always the same.
  const frames = stimuli();
  const expected = await outcome(kernel, sink, generator, 'eth0', frames);
  assert.ok(expected.replies.arp.length > 5 && expected.replies.nd.length > 5 && expected.sent.length > 50);
  assert.deepEqual(await outcome(ours, sink, generator, 'eth1', frames), expected);
  assertAddsUp(await restingStats(ours.host));
});
