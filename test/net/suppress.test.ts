// ARP and ND suppression, held against the kernel: the same frames to a kernel vxlan device and to uvxlan's, and the same frames out
// of them, to the network and back.
// `proxy` is the device's own: frames are put on it from where it stands. `neigh_suppress` is a bridge port's in the kernel and the
// device's in uvxlan, so there both are ports of a bridge, and frames come from another one.

import assert from 'node:assert/strict';
import test from 'node:test';
import type { Host } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { ask, tell } from '../../cli/lab/vtep.ts';
import { parseNeigh } from '../../cli/neigh.ts';
import type { NeighRecord } from '../../control/neigh-words.ts';
import { formatMac } from '../../wire/address.ts';
import { ASKER, arp, ip4, ip6, nd } from '../dataplane/discovery.ts';
import { frame, mac, payload } from '../dataplane/packet.ts';
import { bridge, build, makeKernel, makeOurs, outcome, type Side } from './beside-kernel.ts';
import { lacking } from './requirements.ts';
import { allDrops, assertAddsUp, restingStats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan', 'ethtool'), timeout: 180_000 };

/** Last bytes of MAC and IP addresses: neighbours in each state, one that is not behind the device, one of the host's own, nobody. */
const STATES = { 33: 'permanent', 34: 'reachable', 35: 'stale', 36: 'noarp' } as const;
const [ELSEWHERE, OWN, NOBODY, ROUTER] = [0x25, 0x26, 0x27, 0x28];
const TARGETS = [...Object.keys(STATES).map(Number), ELSEWHERE, OWN, NOBODY, ROUTER, ASKER];
/** ARP and IPv6. */
const TYPES = ['0806', '86dd'];
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

/** The words of neighbour `last`; undefined for one that nobody tells the device of. */
function neighbourWords(last: number): string | undefined {
  if (last === OWN || last === NOBODY) return undefined;
  return `lladdr ${text(last)} nud ${STATES[last as keyof typeof STATES] ?? 'permanent'}`;
}

/** Neighbours of `device`: of ours IPv4 through `ip neigh`, which it follows, IPv6 through `uvxlan neigh` when `own`. */
async function tellNeighbours(host: Host, device: string, own: boolean): Promise<void> {
  for (const last of TARGETS) {
    const words = neighbourWords(last);
    if (!words) continue;
    host.ip(`neigh replace ${address(last, 4)} ${words} dev ${device}`);
    if (own) await tell(host, `neigh add ${address(last, 6)} ${words} dev ${device}`);
    else host.ip(`neigh replace ${address(last, 6)} ${words} dev ${device}`);
  }
}

/** Resolves when uvxlan knows all that it was told, and what the host was. */
async function knows(host: Host): Promise<void> {
  const { command, arguments: args } = parseNeigh(['show', 'dev', 'vx0', 'nud', 'all'], {});
  const told = TARGETS.filter(neighbourWords).flatMap((last) => [address(last, 4), address(last, 6)]);
  await eventually('uvxlan knows every neighbour', async () => {
    const known = new Set((await ask<NeighRecord[]>(host, command, args as object)).map(({ dst }) => dst));
    return told.every((each) => known.has(each));
  });
}

async function fdb({ host, remote }: Side, own: boolean): Promise<void> {
  for (const last of TARGETS) {
    if (last === ELSEWHERE || last === NOBODY || last === ASKER || last === OWN) continue;
    const words = `add ${text(last)} dev vx0 dst ${remote}${last === ROUTER ? ' router' : ''}`;
    if (own) await tell(host, `fdb ${words}`);
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
  await knows(ours.host);
  const frames = stimuli();
  const expected = await outcome(kernel, sink, kernel.host, 'vx0', frames, TYPES);
  assert.ok(expected.replies.every((replies) => replies.length > 10) && expected.sent.length > 10);
  assert.deepEqual(
    await outcome(ours, sink, ours.host, 'vx0', frames, TYPES, expected.replies.flat().length),
    expected,
  );
  const records = await restingStats(ours.host);
  assertAddsUp(records);
  assert.equal(records[0]!.tx.answered, expected.replies.flat().length);
  assert.ok(allDrops(records).tx_suppressed! > 10);
});

test('rsc does what the kernel does', options, async (t) => {
  const { network, kernel, ours } = build(t);
  const sink = network.host('sink');
  makeKernel(kernel, 'rsc');
  await makeOurs(ours, 'rsc');
  await Promise.all([fdb(kernel, false), fdb(ours, true)]);
  await tellNeighbours(kernel.host, 'vx0', false);
  await tellNeighbours(ours.host, 'vx0', true);
  await knows(ours.host);
  const frames = TARGETS.flatMap((to) =>
    [ROUTER, 0x21].flatMap((hop) =>
      ([4, 6] as const).map((version) => {
        const bytes = frame({ version, to, from: ASKER, id: hop, payload: payload(20) });
        if (version === 6) bytes.set(ip6(to), 38);
        return Uint8Array.from([...mac(hop), ...bytes.subarray(6)]);
      }),
    ),
  );
  const expected = await outcome(kernel, sink, kernel.host, 'vx0', frames, []);
  assert.ok(expected.sent.filter((name) => !name.startsWith('frame')).length >= 10, 'frames that were changed');
  assert.deepEqual(await outcome(ours, sink, ours.host, 'vx0', frames, []), expected);
});

test('neigh_suppress does what a bridge port of the kernel does', options, async (t) => {
  const { network, kernel, ours } = build(t);
  const [sink, generator] = [network.host('sink'), network.host('generator')];
  makeKernel(kernel, '');
  await makeOurs(ours, 'neigh_suppress on');
  await Promise.all([fdb(kernel, false), fdb(ours, true)]);
  for (const side of [kernel, ours]) {
    const { host } = side;
    bridge(side);
    host.ip(`address add ${address(OWN, 4)}/24 dev br0`);
    host.ip(`address add ${address(OWN, 6)}/64 dev br0 nodad`);
    for (const last of TARGETS) {
      if ([ELSEWHERE, NOBODY, ASKER, OWN].includes(last)) continue;
      host.bridge(`fdb replace ${text(last)} dev vx0 master static`);
    }
    await tellNeighbours(host, 'br0', false);
  }
  kernel.host.bridge('link set dev vx0 neigh_suppress on learning off');
  await knows(ours.host);
  // Bridges flood what comes from a MAC that they have just heard elsewhere; here it is always the same.
  const frames = stimuli();
  const expected = await outcome(kernel, sink, generator, 'eth0', frames, TYPES);
  assert.ok(expected.replies.every((replies) => replies.length > 5) && expected.sent.length > 50);
  assert.deepEqual(
    await outcome(ours, sink, generator, 'eth1', frames, TYPES, expected.replies.flat().length),
    expected,
  );
  assertAddsUp(await restingStats(ours.host));
});
