// What does not fit the path, held against the kernel: ports of a bridge tell senders by ICMP. The hosts are drawn in beside-kernel.ts.

import assert from 'node:assert/strict';
import test from 'node:test';
import { eventually } from '../../cli/lab/process.ts';
import { ASKER } from '../dataplane/discovery.ts';
import { type FrameSpec, frame, payload, referenceSum } from '../dataplane/packet.ts';
import { bridge, build, makeKernel, makeOurs, outcome } from './beside-kernel.ts';
import { lacking } from './requirements.ts';
import { allDrops, assertAddsUp, restingStats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan', 'ethtool'), timeout: 180_000 };
const PATH = 1400;
/** Of an inner IP packet, IPv4 outside. */
const LARGEST = PATH - 50;
/** The only MAC that is known to be behind vx0. */
const TO = 0x21;

function stimuli(): Uint8Array[] {
  let id = 0;
  const sized = (bytes: number, spec: Partial<FrameSpec> = {}): Uint8Array => {
    const headers = spec.version === 6 ? 60 : 40;
    return frame({ to: TO, from: ASKER, id: ++id, sequence: id, payload: payload(bytes - headers), ...spec });
  };
  const changed = (bytes: Uint8Array, ...changes: [number, number][]): Uint8Array => {
    for (const [offset, value] of changes) bytes[offset] = value;
    if (bytes[12] !== 0x08) return bytes;
    bytes.fill(0, 24, 26);
    new DataView(bytes.buffer, bytes.byteOffset).setUint16(24, 0xffff ^ referenceSum(bytes.subarray(14, 34)));
    return bytes;
  };
  return [
    ...[100, LARGEST - 1, LARGEST, LARGEST + 1, 1450].flatMap((size) => [sized(size), sized(size, { version: 6 })]),
    sized(1450, { ttl: 9, tos: 0xb8 }),
    sized(1450, { version: 6, ttl: 9, tos: 0xb8, flowLabel: 77 }),
    sized(1450, { tags: [5] }),
    // From and to addresses that are nobody's.
    changed(sized(1450), [26, 0], [27, 0], [28, 0], [29, 0]),
    changed(sized(1450), [26, 127]),
    changed(sized(1450), [26, 224]),
    changed(sized(1450), [30, 239]),
    changed(sized(1450, { version: 6 }), [22, 0xff]),
    // ICMP: echo requests, errors, redirects.
    ...[8, 0, 3, 4, 5, 11, 12].map((type) => changed(sized(1450), [23, 1], [34, type])),
    ...[128, 1, 2, 4, 137].map((type) => changed(sized(1450, { version: 6 }), [20, 58], [54, type])),
    // Fragments.
    changed(sized(1450), [20, 0x60]),
    changed(sized(1450, { version: 6 }), [20, 44], [54, 17], [56, 0], [57, 1]),
    changed(sized(1450, { version: 6 }), [20, 44], [54, 17], [56, 0], [57, 0x80]),
  ];
}

test('a port of a bridge tells senders what the kernel would tell them', options, async (t) => {
  const { network, kernel, ours } = build(t);
  const [sink, generator] = [network.host('sink'), network.host('generator')];
  makeKernel(kernel, '');
  await makeOurs(ours, '');
  for (const side of [kernel, ours]) {
    side.host.ip(`route replace ${side.remote}/32 dev eth0 mtu lock ${PATH}`);
    bridge(side);
    side.host.bridge(`fdb replace 02:00:00:00:00:21 dev vx0 master static`);
  }
  const frames = stimuli();
  const expected = await outcome(kernel, sink, generator, 'eth0', frames, ['0800', '86dd']);
  assert.ok(expected.replies.every((replies) => replies.length >= 4));
  const count = expected.replies.flat().length;
  // The route and the bridge are followed within some 100 ms: until then nothing is too large, or the host fragments it.
  await eventually('uvxlan knows the path and the bridge', async () => {
    const probe = [frame({ to: TO, from: ASKER, payload: payload(1400), id: 9999 })];
    const { replies } = await outcome(ours, sink, generator, 'eth1', probe, ['0800']).catch(() => ({ replies: [] }));
    return replies.flat().length === 1;
  });
  assert.deepEqual(await outcome(ours, sink, generator, 'eth1', frames, ['0800', '86dd'], count), expected);
  const records = await restingStats(ours.host);
  assertAddsUp(records);
  assert.ok(allDrops(records).tx_too_big! >= count);
});
