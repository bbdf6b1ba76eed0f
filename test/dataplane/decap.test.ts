import assert from 'node:assert/strict';
import test from 'node:test';
import {
  assertFrames,
  type FrameSpec,
  frame,
  onWire,
  otherFrame,
  outerFrame,
  packet,
  payload,
  setPseudo,
  superFrame,
  vxlan,
} from './packet.ts';
import { drops, OWN, PORT, Receiving, random, VNI } from './rig.ts';

const receiving = new Receiving();
const { rig, taps } = receiving;

/** An uplink's packet with this UDP payload, its checksum good. */
const carrying = (bytes: Uint8Array) => packet(outerFrame(bytes, PORT), {}, true);

/** A super-packet as UDP GRO leaves it: several VXLAN packets of one size, the last at most as long. */
function train(packets: readonly Uint8Array[], size = packets[0].length): Uint8Array {
  const outer = setPseudo(outerFrame(Buffer.concat(packets), PORT));
  return packet(outer, { flags: 1, type: 5, headerLength: 42, size, start: 34, offset: 6 }, true);
}

const arp = otherFrame(0x0806, 28);

test('delivers to the device that has the VNI', () => {
  assertFrames(receiving.receive([carrying(vxlan(VNI, arp))]), [packet(arp)]);
  assertFrames(receiving.receive([carrying(vxlan(VNI + 1, arp))]), []);
  assertFrames(taps[1].take(), [packet(arp)]);
  assert.deepEqual([rig.device(0).rx_packets, rig.device(1).rx_packets], [undefined, 1]);
});

test('drops a packet that ends within the VXLAN header or the inner Ethernet header, under the right name', () => {
  const whole = vxlan(VNI, arp);
  for (let length = 0; length < 22; length++) {
    assertFrames(receiving.receive([carrying(whole.subarray(0, length))]), []);
    const expected = length < 8 ? { rx_invalid_header: 1 } : { rx_packets: 1, rx_inner_truncated: 1 };
    assert.deepEqual(receiving.counts(), { arrived: 1, ...expected }, `${length} bytes`);
  }
  assertFrames(receiving.receive([carrying(whole.subarray(0, 22))]), [packet(arp.subarray(0, 14))]);
});

test('drops every header but that of RFC 7348 with its I flag alone', () => {
  const whole = vxlan(VNI, arp);
  for (let bit = 0; bit < 64; bit++) {
    if (bit >= 32 && bit < 56) continue; // the VNI
    const bytes = whole.slice();
    bytes[bit >> 3] ^= 0x80 >> (bit & 7);
    assertFrames(receiving.receive([carrying(bytes)]), []);
    const expected = bit === 4 ? { rx_invalid_header: 1 } : { rx_packets: 1, rx_reserved_bits: 1 };
    assert.deepEqual(receiving.counts(), { arrived: 1, ...expected }, `bit ${bit}`);
  }
});

test('lets the bits pass that a device does not call reserved', () => {
  const arrive = (header: string) => {
    const [frame] = receiving.receive([carrying(Buffer.concat([Buffer.from(header, 'hex'), arp]))]);
    return frame !== undefined;
  };
  const [all, gpe, policy, last] = ['ff', '0c', '88', '08'].map(
    (flags) => `${flags}000000abcdef${flags === '08' ? '01' : '00'}`,
  );
  rig.setOptions(0, { profile: 'rfc7348' });
  assert.deepEqual([all, gpe, policy, last].map(arrive), [true, true, true, true]);
  rig.setOptions(0, { gbp: true });
  assert.deepEqual([all, gpe, policy, last].map(arrive), [false, false, true, false]);
  assert.ok(arrive('88480123abcdef00'), 'D and A flags, policy id 0x123');
  rig.setOptions(0, { reserved_bits: '0x04000000000000fe' });
  assert.deepEqual([all, gpe, policy, last].map(arrive), [false, false, true, true]);
  rig.setOptions(0, {});
});

test('marks a frame whose packet met congestion, and drops it when its sender would not know', () => {
  const marked = (tos: number, spec: Partial<FrameSpec>) =>
    packet(outerFrame(vxlan(VNI, frame(spec)), PORT, { tos }), {}, true);
  for (const version of [4, 6] as const) {
    assertFrames(receiving.receive([marked(3, { version, tos: 2 })]), [packet(frame({ version, tos: 3 }))]);
    assertFrames(receiving.receive([marked(0xb9, { version, tos: 2 })]), [packet(frame({ version, tos: 1 }))]);
    assertFrames(receiving.receive([marked(0xb8, { version, tos: 3 })]), [packet(frame({ version, tos: 3 }))]);
    assertFrames(receiving.receive([marked(3, { version, tos: 0xb8 })]), []);
    assert.deepEqual(receiving.counts(), { arrived: 1, rx_packets: 1, rx_congestion: 1 });
  }
  assertFrames(receiving.receive([packet(outerFrame(vxlan(VNI, arp), PORT, { tos: 3 }), {}, true)]), [packet(arp)]);
});

test('marks every packet of a train, and a super-frame', () => {
  const whole = (tos: number) => superFrame(frame({ tos, payload: payload(4500) }), 1000);
  const packets = onWire(whole(2)).map((bytes) => vxlan(VNI, bytes));
  const outer = setPseudo(outerFrame(Buffer.concat(packets), PORT, { tos: 3 }));
  const vnet = { flags: 1, type: 5, headerLength: 42, size: packets[0].length, start: 34, offset: 6 };
  assertFrames(receiving.receive([packet(outer, vnet, true)]), [whole(3)]);

  const inner = whole(2).subarray(12);
  const tunnel = {
    flags: 1,
    type: 0x21,
    headerLength: 104,
    size: 1000,
    start: 84,
    offset: 16,
    outerTransport: 34,
    innerNetwork: 64,
  };
  const [delivered] = receiving.receive([packet(outerFrame(vxlan(VNI, inner), PORT, { tos: 3 }), tunnel, true)]);
  assert.deepEqual(onWire(delivered), onWire(whole(3)));
});

test('drops a VNI that no device has, an invalid source MAC, and our own', () => {
  const from = (...source: number[]) => {
    const bytes = arp.slice();
    bytes.set(source, 6);
    return vxlan(VNI, bytes);
  };
  const bad: Record<string, [Uint8Array, Record<string, number>]> = {
    VNI: [vxlan(VNI + 2, arp), { rx_unknown_vni: 1 }],
    'low VNI': [vxlan(VNI & 0xffff, arp), { rx_unknown_vni: 1 }],
    'all zeros': [from(0, 0, 0, 0, 0, 0), { rx_packets: 1, rx_invalid_source_mac: 1 }],
    broadcast: [from(255, 255, 255, 255, 255, 255), { rx_packets: 1, rx_invalid_source_mac: 1 }],
    multicast: [from(1, 0, 0x5e, 0, 0, 1), { rx_packets: 1, rx_invalid_source_mac: 1 }],
    'own MAC': [from(2, 0, 0, 0, 0, OWN + 1), { rx_packets: 1, rx_own_mac: 1 }],
  };
  for (const [name, [bytes, expected]] of Object.entries(bad)) {
    assertFrames(receiving.receive([carrying(bytes)]), [], name);
    assert.deepEqual(receiving.counts(), { arrived: 1, ...expected }, name);
  }
  for (const source of [from(2, 0, 0, 0, 0, OWN), from(2, 0, 0, 0, 1, OWN + 1), from(4, 0, 0, 0, 0, OWN + 1)]) {
    assert.equal(receiving.receive([carrying(source)]).length, 1, 'not quite our own');
  }
});

test('splits a train, with a shorter packet last, and merges what belongs together', () => {
  const whole = superFrame(frame({ payload: payload(4500) }), 1000);
  const segments = onWire(whole);
  assertFrames(receiving.receive([train(segments.map((bytes) => vxlan(VNI, bytes)))]), [whole]);
  assert.deepEqual(receiving.counts(), { arrived: 5, rx_packets: 5, rx_frames: 5 });
  const mixed = [arp, arp, otherFrame(0x88cc, 28), arp.subarray(0, 20)];
  assertFrames(
    receiving.receive([train(mixed.map((bytes) => vxlan(VNI, bytes)))]),
    mixed.map((bytes) => packet(bytes)),
  );
});

test('judges each packet of a train by itself', () => {
  const segments = onWire(superFrame(frame({ payload: payload(6900) }), 1000)).map((bytes) => vxlan(VNI, bytes));
  const at = (index: number, change: (bytes: Uint8Array) => void) => {
    segments[index] = segments[index].slice();
    change(segments[index]);
  };
  at(1, (bytes) => bytes.fill(0, 0, 1)); // no I flag
  at(2, (bytes) => bytes.fill(0xff, 4, 7)); // other VNI
  at(3, (bytes) => bytes.fill(1, 14, 15)); // multicast source
  at(5, (bytes) => bytes.fill(VNI & 0xff, 6, 7).fill((VNI & 0xff) + 1, 6, 7)); // the other device's
  const written = receiving.receive([train(segments)]);
  assertFrames(
    written,
    [0, 4, 6].map((i) => packet(segments[i].subarray(8))),
  );
  assertFrames(taps[1].take(), [packet(segments[5].subarray(8))]);
  assert.deepEqual(rig.uplink(0), { rx_packets: 7, rx_passed: 5, rx_invalid_header: 1, rx_unknown_vni: 1 });
  assert.equal(rig.device(0).rx_invalid_source_mac, 1);
  assert.deepEqual([rig.device(0).rx_packets, rig.device(1).rx_packets], [4, 1]);
});

test('takes trains of any segment size', () => {
  const packets = [1, 2, 3].map((seed) => vxlan(VNI, otherFrame(0x88cc, 28, seed)));
  for (let size = 0; size < 200; size++) {
    const written = receiving.receive([train(packets, size)]);
    const { arrived, rx_frames = 0 } = receiving.counts();
    assert.equal(arrived, size === 0 ? 1 : Math.ceil(150 / size), `segment size ${size}`);
    assert.equal(written.length, rx_frames);
    assertBalanced();
    if (size === 50)
      assertFrames(
        written,
        packets.map((bytes) => packet(bytes.subarray(8))),
      );
  }
  assertFrames(receiving.receive([train([new Uint8Array(0)], 50)]), []);
  assert.deepEqual(receiving.counts(), { arrived: 1, rx_invalid_header: 1 }, 'an empty one is a packet');
});

/** What goes in comes out, or is dropped under a name. */
function assertBalanced(): void {
  const [uplink, first, second] = [rig.uplink(0), rig.device(0), rig.device(1)];
  assert.equal(uplink.rx_packets ?? 0, (first.rx_packets ?? 0) + (second.rx_packets ?? 0) + drops(uplink, 'rx'));
  for (const device of [first, second])
    assert.equal(device.rx_packets ?? 0, (device.rx_frames ?? 0) + drops(device, 'rx'));
}

test('keeps within whatever arrives: 200,000 damaged packets', () => {
  const seed = (Math.random() * 2 ** 31) | 0;
  const next = random(seed);
  const stream = onWire(superFrame(frame({ payload: payload(700) }), 100)).map((bytes) => vxlan(VNI, bytes));
  const datagrams = onWire(superFrame(frame({ protocol: 'udp', version: 6, payload: payload(700) }), 100));
  const whole = superFrame(frame({ payload: payload(900) }), 100);
  const good = [
    carrying(vxlan(VNI, arp)),
    carrying(stream[0]),
    packet(outerFrame(stream[1], PORT, { version: 6 }), {}, true),
    packet(
      outerFrame(vxlan(VNI + 1, frame({ version: 6, tags: [1, 2], ipOptions: new Uint8Array(8) })), PORT),
      { flags: 2 },
      true,
    ),
    packet(outerFrame(stream[2], PORT), { flags: 2 }, true),
    train(stream),
    train(datagrams.map((bytes) => vxlan(VNI, bytes))),
    packet(
      outerFrame(vxlan(VNI, whole.subarray(12)), PORT),
      { flags: 9, type: 0x21, size: 100, start: 84, offset: 16 },
      true,
    ),
  ];
  const damaged = () => {
    if (next(20) === 0) return Uint8Array.from({ length: 1 + next(200) }, () => next(256));
    const bytes = good[next(good.length)].slice();
    for (let n = next(4); n > 0; n--) bytes[next(next(2) === 0 ? bytes.length : 130) % bytes.length] = next(256);
    return next(4) === 0 ? bytes.subarray(0, 1 + next(bytes.length)) : bytes;
  };
  // The same packets twice, with other bytes behind each: who reads beyond an end gets another result.
  const arrive = (guard: number, packets: readonly Uint8Array[]) => {
    receiving.port.guard = guard;
    const first = receiving.receive(packets);
    assertBalanced();
    return { written: [...first, ...taps[1].take()], counters: [rig.uplink(0), rig.device(0), rig.device(1)] };
  };
  let delivered = 0;
  for (let round = 0; round < 200_000 / 64; round++) {
    const packets = Array.from({ length: 64 }, damaged);
    const [one, other] = [arrive(0x00, packets), arrive(0xff, packets)];
    const message = `seed ${seed}, round ${round}`;
    assert.deepEqual(one.counters, other.counters, message);
    assertFrames(one.written, other.written, message);
    delivered += one.written.length;
  }
  assert.ok(delivered > 20_000, 'many are still good');
  assert.ok(receiving.isIntact, 'memory around is as it was');
});
