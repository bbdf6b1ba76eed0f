import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { loadSum } from '../../dataplane/checksum.ts';
import { Coalescer } from '../../dataplane/coalesce.ts';
import { block } from '../../dataplane/counters.ts';
import * as libc from '../../system/libc.ts';
import { headers, superFrames } from './arbitrary.ts';
import {
  ACK,
  assertFrames,
  CWR,
  FIN,
  type FrameSpec,
  finish,
  frame,
  onWire,
  otherFrame,
  PSH,
  packet,
  payload,
  readVnet,
  SYN,
  setPseudo,
  shape,
} from './packet.ts';
import { Rig, TestPort } from './rig.ts';

const rig = new Rig();
const { memory } = rig;
const tap = new TestPort(memory);
const sum = loadSum(memory);
const buffer = memory.take(2 << 20);
const coalescer = new Coalescer(memory, tap, sum, rig.counters, block(0, 0), true);
const tcpOnly = new Coalescer(memory, tap, sum, rig.counters, block(0, 1), false);

/** What the TAP gets when the frames come in one batch, one behind the other in memory as in a train. */
function coalesced(frames: readonly Uint8Array[], maybeUnfinished = false, to = coalescer): Uint8Array[] {
  let at = buffer + 2;
  for (const bytes of frames) {
    memory.u8.set(bytes, at);
    at += bytes.length + 8;
  }
  at = buffer + 2;
  for (const bytes of frames) {
    to.add(at, bytes.length, maybeUnfinished);
    at += bytes.length + 8;
  }
  to.flush();
  return tap.take();
}

/** The same as the wire shows it. */
function onWireAgain(frames: readonly Uint8Array[], maybeUnfinished = false): Uint8Array[] {
  return coalesced(frames, maybeUnfinished).flatMap((written) => onWire(written));
}

/** How many frames each packet that the TAP gets is made of. */
function grouping(frames: readonly Uint8Array[], to = coalescer): number[] {
  return coalesced(frames, false, to).map((written) => onWire(written).length);
}

/** `count` consecutive segments of one flow. */
function stream(count: number, spec: Partial<FrameSpec> = {}): Uint8Array[] {
  const { sequence = 1000, id = 7 } = spec;
  return Array.from({ length: count }, (_, i) =>
    frame({ payload: payload(100, i), ...spec, sequence: sequence + 100 * i, id: id + i }),
  );
}

test('gives a super-frame back from its segments, to the byte', () => {
  const whole = superFrames(100, { plain: true }).filter(({ spec, size }) => spec.payload.length > size);
  fc.assert(
    fc.property(whole, ({ packet: original }) => {
      const [back, ...more] = coalesced(onWire(original));
      assert.equal(more.length, 0);
      // PSH comes from the last segment, so it is back as well. The MSS, the offsets, the sums: nothing may differ.
      assertFrames([back], [original]);
    }),
    { numRuns: 1000 },
  );
});

test('passes the segments of any super-frame on, merged or not, in order', () => {
  fc.assert(
    fc.property(superFrames(300), ({ packet: original }) => {
      const segments = onWire(original);
      assertFrames(onWireAgain(segments), segments);
    }),
    { numRuns: 500 },
  );
});

/** Frames of a few flows, each next to what GRO may join it with, or differing from it in one thing. */
const CHANGES: readonly ((spec: FrameSpec) => Partial<FrameSpec>)[] = [
  () => ({}),
  () => ({}),
  () => ({}),
  ({ sequence }) => ({ sequence: sequence - 200 }),
  ({ ack }) => ({ ack: ack + 1 }),
  ({ window }) => ({ window: window ^ 1 }),
  ({ tos }) => ({ tos: tos ^ 3 }),
  ({ ttl }) => ({ ttl: ttl ^ 1 }),
  ({ id, dontFragment }) => ({ id: dontFragment ? id : (id + 5) & 0xffff }),
  ({ dontFragment }) => ({ dontFragment: !dontFragment }),
  ({ flowLabel }) => ({ flowLabel: flowLabel ^ 1 }),
  ({ reserved }) => ({ reserved: reserved ^ 1 }),
  ({ flags }) => ({ flags: flags ^ PSH }),
  ({ flags }) => ({ flags: flags ^ FIN }),
  ({ flags }) => ({ flags: flags ^ CWR }),
  ({ flags }) => ({ flags: flags ^ SYN }),
  ({ flags }) => ({ flags: flags ^ ACK }),
  ({ tcpOptions }) => ({ tcpOptions: tcpOptions.map((byte) => byte ^ 0x80) }),
  ({ tags }) => ({ tags: tags.map((tag) => tag ^ 1) }),
  ({ from }) => ({ from: from ^ 1 }),
  ({ sourcePort }) => ({ sourcePort: sourcePort ^ 1 }),
  ({ protocol }) => ({ protocol: protocol === 'tcp' ? 'udp' : 'tcp' }),
  ({ version }) => ({ version: version === 4 ? 6 : 4, ipOptions: new Uint8Array(version === 4 ? 8 : 4) }),
];

const mixes = fc.tuple(
  fc.array(headers({ plain: true }), { minLength: 1, maxLength: 3 }),
  fc.array(
    fc.record({
      flow: fc.nat(2),
      change: fc.nat(CHANGES.length - 1),
      length: fc.constantFrom(0, 1, 99, 100, 100, 100, 100, 101),
      damage: fc.oneof({ weight: 8, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(200) }),
      padding: fc.constantFrom(0, 0, 0, 6),
    }),
    { maxLength: 40 },
  ),
);

function mixed([flows, steps]: typeof mixes extends fc.Arbitrary<infer T> ? T : never): Uint8Array[] {
  const next = flows.map((flow) => ({ ...flow }));
  return steps.map(({ flow, change, length, damage, padding }, i) => {
    const spec = next[flow % next.length];
    const bytes = frame({ ...spec, payload: payload(length, i), ...CHANGES[change](spec) });
    spec.sequence = (spec.sequence + length) >>> 0;
    spec.id = (spec.id + 1) & 0xffff;
    if (damage >= 0) bytes[14 + (damage % (bytes.length - 14))] ^= 0x10;
    return Buffer.concat([bytes, new Uint8Array(padding)]);
  });
}

/** A frame without what follows its IP packet: coalescing, like the kernel's GRO, may cut that off. */
function trimmed(bytes: Uint8Array): Uint8Array {
  let network = 14;
  while ([0x8100, 0x88a8].includes((bytes[network - 2] << 8) | bytes[network - 1])) network += 4;
  const at = bytes[network] >> 4 === 4 ? network + 2 : network + 4;
  const length = (bytes[network] >> 4 === 4 ? network : network + 40) + ((bytes[at] << 8) | bytes[at + 1]);
  return bytes.length - length === 6 ? bytes.subarray(0, length) : bytes;
}

test('merges nothing that differs, hides no damage, and keeps the order', () => {
  fc.assert(
    fc.property(mixes, (mix) => {
      const frames = mixed(mix);
      assertFrames(onWireAgain(frames).map(trimmed), frames.map(trimmed));
    }),
    { numRuns: 3000 },
  );
});

test('merges nothing across what differs', () => {
  const [first, second] = stream(2);
  const third = (spec: Partial<FrameSpec>) => frame({ payload: payload(100, 2), sequence: 1200, id: 9, ...spec });
  assert.deepEqual(grouping([first, second, third({})]), [3]);
  const different: Record<string, Partial<FrameSpec>> = {
    acknowledgment: { ack: 2001 },
    window: { window: 502 },
    options: { tcpOptions: Uint8Array.of(1, 1, 1, 0) },
    'reserved bits': { reserved: 1 },
    TOS: { tos: 4 },
    'ECN mark': { tos: 3 },
    TTL: { ttl: 63 },
    DF: { dontFragment: false },
    'lost segment': { sequence: 1300 },
    retransmission: { sequence: 1000 },
    port: { sourcePort: 40001 },
    address: { from: 3 },
    VLAN: { tags: [7] },
    'longer segment': { payload: payload(101) },
    'IPv4 options': { ipOptions: new Uint8Array(4) },
    FIN: { flags: ACK | FIN },
    SYN: { flags: ACK | SYN },
    CWR: { flags: ACK | CWR },
    'no payload': { payload: new Uint8Array(0) },
    UDP: { protocol: 'udp' },
  };
  for (const [name, spec] of Object.entries(different)) {
    assert.deepEqual(grouping([first, second, third(spec)]), [2, 1], name);
  }
  assert.deepEqual(
    grouping([first, second, third({ flags: ACK | PSH }), ...stream(2, { sequence: 1300, id: 10 })]),
    [3, 2],
    'PSH',
  );
  assert.deepEqual(
    grouping([first, second, third({ payload: payload(50) }), ...stream(2, { sequence: 1250, id: 10 })]),
    [3, 2],
    'shorter',
  );
});

test('requires consecutive ids only where a packet may be fragmented (RFC 6864)', () => {
  const ids = (dontFragment: boolean, ...list: number[]) =>
    list.map((id, i) => frame({ dontFragment, id, sequence: 1000 + 100 * i, payload: payload(100, i) }));
  const writes = (frames: Uint8Array[]) => coalesced(frames).length;
  assert.equal(writes(ids(true, 0, 0, 0)), 1);
  assert.equal(writes(ids(true, 5, 9, 2)), 1);
  assert.equal(writes(ids(false, 0xffff, 0, 1)), 1);
  assert.equal(writes(ids(false, 5, 6, 8)), 2);
  assert.equal(writes(ids(false, 5, 5, 5)), 3);
});

test('verifies every checksum before it merges', () => {
  const damaged = (bytes: Uint8Array, at: number) => {
    const result = bytes.slice();
    result[at] ^= 1;
    return result;
  };
  for (const protocol of ['tcp', 'udp'] as const) {
    const [a, b, c] = stream(3, { protocol });
    for (const [name, at] of Object.entries({
      payload: a.length - 1,
      'transport checksum': shape(a).checksum,
      'IPv4 id': 19,
    })) {
      assert.deepEqual(grouping([a, b, damaged(c, at)]), [2, 1], `${protocol} ${name} of the last`);
      assert.deepEqual(grouping([damaged(a, at), b, c]), [1, 2], `${protocol} ${name} of the first`);
    }
  }
});

test('merges UDP datagrams of one size, a shorter last one, and none without a checksum', () => {
  const udp = (...lengths: number[]) =>
    lengths.map((length, i) => frame({ protocol: 'udp', payload: payload(length, i), id: i }));
  assert.deepEqual(grouping(udp(100, 100, 100)), [3]);
  assert.deepEqual(grouping(udp(100, 100, 7, 7, 7, 8)), [3, 2, 1]);
  assert.deepEqual(grouping(udp(0, 0)), [1, 1]);
  assert.deepEqual(grouping(udp(100, 100, 100), tcpOnly), [1, 1, 1]);
  assert.deepEqual(grouping(stream(3), tcpOnly), [3]);
  const unchecked = udp(100, 100, 100).map((bytes) => bytes.fill(0, 40, 42));
  assertFrames(
    coalesced(unchecked),
    unchecked.map((bytes) => packet(bytes)),
  );
  const odd = frame({ protocol: 'udp', payload: payload(100) });
  odd[39] -= 2; // the UDP length is two short of the IP length
  assertFrames(coalesced([odd, odd]), [packet(odd), packet(odd)]);
});

test('neither merges nor reorders fragments, IPv6 extension headers, ARP, truncated and nonsensical frames', () => {
  const [a, b] = stream(2);
  const fragment = frame({ payload: payload(100), dontFragment: false });
  fragment[20] |= 0x20;
  const extension = frame({ version: 6, ipOptions: new Uint8Array(8), payload: payload(100) });
  const noVersion = a.slice();
  noVersion[14] = 0x55;
  const longIp = a.slice();
  longIp[16] = 9;
  const noHeader = a.slice();
  noHeader[46] = 0x10;
  const odd = [
    otherFrame(0x0806, 28),
    fragment,
    extension,
    a.subarray(0, 50),
    a.subarray(0, 14),
    noVersion,
    longIp,
    noHeader,
  ];
  for (const bytes of odd) {
    assert.equal(coalesced([a, bytes, b]).length, 3);
    assertFrames(
      coalesced([a, bytes, bytes, b]),
      [a, bytes, bytes, b].map((frame) => packet(frame)),
    );
  }
});

test('ends a super-frame before it becomes too long, or has too many segments', () => {
  const small = stream(300, { payload: payload(100) });
  const groups = grouping(small);
  assert.equal(
    groups.reduce((all, count) => all + count),
    300,
  );
  assert.ok(groups.length <= 3 && Math.max(...groups) <= 128);
  const large = Array.from({ length: 10 }, (_, i) => frame({ version: 6, sequence: 8000 * i, payload: payload(8000) }));
  const written = coalesced(large);
  assert.deepEqual(
    written.map((bytes) => onWire(bytes).length),
    [8, 2],
  );
  assert.ok(written[0].length < 65536);
});

test('leaves an unfinished checksum to the kernel, where the uplink cannot tell', () => {
  const frames = ['tcp', 'udp'].flatMap((protocol) =>
    ([4, 6] as const).flatMap((version) => stream(2, { version, protocol: protocol as 'tcp' | 'udp' })),
  );
  const syn = frame({ flags: SYN });
  const unfinished = [...frames, syn].map(setPseudo);
  for (const bytes of unfinished) {
    const [written, ...more] = coalesced([bytes], true);
    assert.equal(more.length, 0);
    const { flags, type, start, offset } = readVnet(written, false);
    const { transport, checksum } = shape(bytes);
    assert.deepEqual(
      { flags, type, start, offset },
      { flags: 1, type: 0, start: transport, offset: checksum - transport },
    );
    assertFrames(onWire(written), [finish(bytes, start, offset)]);
    assertFrames(coalesced([bytes], false), [packet(bytes)], 'an uplink that can tell hands finished ones on');
  }
  assertFrames(onWireAgain(unfinished, true), [...frames, syn]);
  assert.equal(coalesced(stream(3), true).length, 1, 'finished ones are merged there as well');
});

test('names what the TAP refuses', () => {
  rig.clear();
  const [a, b, c] = stream(3);
  tap.failure = libc.EIO;
  coalesced([a, b, c]);
  tap.failure = libc.EINVAL;
  coalesced([a, otherFrame(0x0806, 28), b, c]);
  tap.failure = 0;
  assert.deepEqual(rig.device(0), { rx_device_down: 3, rx_device_error: 4, rx_writes: 4 });
});
