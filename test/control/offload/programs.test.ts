// The offload's programs against the workers: the same packet out of both, or the packet is left to the workers. Needs root (CAP_BPF):
// runs the programs on packets. Attaches nothing.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { decapProgram } from '../../../control/offload/decap-program.ts';
import { encapProgram } from '../../../control/offload/encap-program.ts';
import { OffloadMirror } from '../../../control/offload/mirror.ts';
import {
  CHECK_SOURCE,
  CHECK_VTEP,
  DEVICE_CHECKS,
  DEVICE_INDEX,
  DEVICE_MAC_HIGH,
  DEVICE_MAC_LOW,
  DEVICE_TAP,
  DEVICE_VALUE,
} from '../../../control/offload/tables.ts';
import { buildTemplate, type OuterHeaders } from '../../../fdb/template.ts';
import { TC_ACT_REDIRECT, TCX_EGRESS, TCX_INGRESS, TCX_NEXT } from '../../../system/bpf/abi.ts';
import { BpfMap, MAP_HASH } from '../../../system/bpf/map.ts';
import { loadProgram, testRun } from '../../../system/bpf/program.ts';
import { close } from '../../../system/libc.ts';
import { bytes, headers } from '../../dataplane/arbitrary.ts';
import { type FrameSpec, frame, mac, otherFrame, packet, payload, referenceSum } from '../../dataplane/packet.ts';
import { Node, OWN, PORT, SOURCE_PORTS, type TestPort, VNI } from '../../dataplane/rig.ts';
import { lackingBpf } from '../../system/bpf/requirement.ts';

const skip = lackingBpf();
const DEVICE = 0;
const HOP = 1;
const FAMILIES = {
  4: { local: '192.0.2.1', remote: '192.0.2.2', outer: 50 },
  6: { local: '2001:db8::1', remote: '2001:db8::2', outer: 70 },
} as const;
/** Last byte of the MAC that has an entry. */
const KNOWN = 0x11;
const UNKNOWN = 0x12;

const open: { close(): void }[] = [];
after(() => {
  for (const each of open) each.close();
});

function mirror(): OffloadMirror {
  const made = new OffloadMirror({ entries: 100, nextHops: 100, devices: 4 });
  open.push(made);
  return made;
}

function loaded(program: Parameters<typeof loadProgram>[0], attachType: number): number {
  const fd = loadProgram(program, attachType);
  open.push({ close: () => close(fd) });
  return fd;
}

function template(family: 4 | 6, options: Partial<OuterHeaders> = {}): ReturnType<typeof buildTemplate> {
  return buildTemplate({
    sourceMac: '02:00:00:00:00:0b',
    destinationMac: '02:00:00:00:00:0a',
    source: FAMILIES[family].local,
    destination: FAMILIES[family].remote,
    port: PORT,
    vni: VNI,
    ttl: 64,
    tos: 0,
    df: true,
    udpChecksum: false,
    uplink: 0,
    mtu: 1500,
    ...options,
  });
}

/** Both ways of sending, set up alike. */
class Sending {
  readonly mirror = mirror();
  readonly #fd: number;
  readonly #node = new Node({ tunnelGso: true });

  constructor(family: 4 | 6, options: Partial<OuterHeaders> = {}) {
    const headers = template(family, options);
    this.mirror.setNextHop(HOP, headers, 5);
    this.mirror.setEntry(DEVICE, 0x0200, KNOWN, HOP);
    const program = encapProgram(this.mirror.maps, { device: DEVICE, family, sourcePorts: SOURCE_PORTS });
    this.#fd = loaded(program, TCX_EGRESS);
    const { rig } = this.#node;
    const hop = rig.nextHops.acquire(
      { device: DEVICE, ip: headers.outerLength === 50 ? '192.0.2.2' : '2001:db8::2', port: PORT, vni: VNI, via: '' },
      0,
    );
    rig.nextHops.publish(hop, headers);
    rig.fdb.insert(DEVICE, 0x0200, KNOWN, hop << 1, 0, 0);
  }

  offloaded(frame: Uint8Array): Uint8Array | undefined {
    const { result, packet } = testRun(this.#fd, frame);
    if (result === TCX_NEXT) {
      assert.deepEqual(packet, frame, 'what is left to the workers is as it was');
      return undefined;
    }
    assert.equal(result, TC_ACT_REDIRECT);
    return packet;
  }

  /** What the workers send, without the virtio header; undefined when they drop it. */
  worked(frame: Uint8Array): Uint8Array | undefined {
    this.#node.taps[0].waiting.push(packet(frame));
    this.#node.run();
    return (this.#node.uplink as TestPort).take()[0]?.subarray(24);
  }
}

/** The id of an outer IPv4 header is anyone's choice, and its checksum follows: checks that it holds, and removes both. */
function withoutId(packet: Uint8Array, family: 4 | 6): Uint8Array {
  if (family === 6) return packet;
  assert.equal(referenceSum(packet.subarray(14, 34)), 0xffff, 'the outer IPv4 checksum');
  const rest = packet.slice();
  rest.fill(0, 18, 20);
  rest.fill(0, 24, 26);
  return rest;
}

const frames = fc
  .tuple(headers(), bytes(fc.integer({ min: 0, max: 1500 })))
  .map(([spec, data]): FrameSpec => ({ ...spec, to: KNOWN, payload: data }));

for (const family of [4, 6] as const) {
  test(`outer IPv${family}: sends what the workers send, byte by byte`, { skip }, () => {
    const sending = new Sending(family);
    let offloaded = 0;
    fc.assert(
      fc.property(frames, (spec) => {
        const sent = frame(spec);
        const out = sending.offloaded(sent);
        const expected = sending.worked(sent);
        const plain = spec.tags.length === 0 && (spec.version === 4 || spec.ipOptions.length === 0);
        assert.equal(out !== undefined, plain && expected !== undefined, 'offloaded or not');
        if (out === undefined) return;
        offloaded++;
        assert.deepEqual(withoutId(out, family), withoutId(expected!, family));
      }),
      { numRuns: 800 },
    );
    const { tx_packets, tx_bytes } = sending.mirror.counters(DEVICE);
    assert.equal(tx_packets, offloaded);
    assert.ok(offloaded > 120 && tx_bytes > offloaded * 14, `${offloaded} packets`);
    assert.ok(sending.mirror.stamps(DEVICE, 0x0200, KNOWN).used > 0);
  });
}

const TAP = 9;
const FROM = 0x21;
const OTHER_VTEP = { 4: '192.0.2.3', 6: '2001:db8::3' } as const;

/** A device's part of receiving: what the program does with VXLAN packets, and what arrives on its TAP. */
class Arriving {
  readonly mirror = mirror();
  readonly #devices = new BpfMap({
    ...{ name: 'uvxlan_devices', type: MAP_HASH, keySize: 4, valueSize: DEVICE_VALUE, maxEntries: 4 },
  });
  readonly #fd: number;

  constructor(family: 4 | 6, checks = 0) {
    open.push(this.#devices);
    const value = new DataView(this.#devices.value.buffer);
    value.setUint32(DEVICE_TAP, TAP, true);
    value.setUint32(DEVICE_INDEX, DEVICE, true);
    value.setUint32(DEVICE_CHECKS, checks, true);
    const own = new DataView(Uint8Array.from([...mac(OWN), 0, 0]).buffer);
    value.setUint32(DEVICE_MAC_LOW, own.getUint32(0, true), true);
    value.setUint32(DEVICE_MAC_HIGH, own.getUint32(4, true), true);
    new DataView(this.#devices.key.buffer).setUint32(0, VNI << 8);
    this.#devices.update();
    const { local } = FAMILIES[family];
    const program = decapProgram(this.mirror.maps, { local, port: PORT, devices: this.#devices.fd });
    this.#fd = loaded(program, TCX_INGRESS);
  }

  /** The inner frame; undefined when the packet is left to the workers, as it was. */
  receive(packet: Uint8Array): Uint8Array | undefined {
    const { result, packet: out } = testRun(this.#fd, packet);
    if (result === TC_ACT_REDIRECT) return out;
    assert.equal(result, TCX_NEXT);
    assert.deepEqual(out, packet, 'what is left to the workers is as it was');
    return undefined;
  }
}

/** A VXLAN packet to us. The kernel runs programs on packets for the loopback device's MAC, which is zero. */
function arriving(family: 4 | 6, inner: Uint8Array, change: (packet: Uint8Array) => void = () => {}): Uint8Array {
  const { local, remote } = FAMILIES[family];
  const headers = template(family, { source: remote, destination: local, destinationMac: '00:00:00:00:00:00' });
  const outer = new Uint8Array(headers.words.buffer).slice(24, 24 + headers.outerLength);
  const view = new DataView(outer.buffer);
  const udp = inner.length + 16;
  if (family === 4) view.setUint16(16, udp + 20);
  else view.setUint16(18, udp);
  view.setUint16(headers.outerLength - 16, 50000);
  view.setUint16(headers.outerLength - 12, udp);
  if (family === 6) view.setUint16(headers.outerLength - 10, 0x1234); // not verified here
  const packet = Uint8Array.from([...outer, ...inner]);
  change(packet);
  if (family === 4) {
    new DataView(packet.buffer).setUint16(24, 0);
    new DataView(packet.buffer).setUint16(24, 0xffff ^ referenceSum(packet.subarray(14, 34)));
  }
  return packet;
}

const INNER = frame({ from: FROM, to: OWN, payload: payload(100) });

for (const family of [4, 6] as const) {
  const { outer } = FAMILIES[family];

  test(`outer IPv${family}: the inner frame arrives as it was sent`, { skip }, () => {
    const device = new Arriving(family);
    let arrived = 0;
    fc.assert(
      fc.property(frames, (spec) => {
        const inner = frame({ ...spec, from: FROM, to: OWN });
        const received = device.receive(arriving(family, inner));
        // The kernel takes no headers off when less than another one's length is left.
        if (family === 6 && inner.length < 14 + 40) assert.equal(received, undefined);
        else assert.deepEqual(received, inner, `${arrived++} arrived`);
      }),
      { numRuns: 500 },
    );
    const { rx_packets } = device.mirror.counters(DEVICE);
    assert.equal(rx_packets, arrived);
    assert.ok(arrived > 400);
  });

  test(`outer IPv${family}: what needs a decision is left to the workers`, { skip }, () => {
    const device = new Arriving(family);
    const cases: Record<string, [inner: Uint8Array, change?: (packet: Uint8Array) => void]> = {
      'another VNI': [INNER, (p) => (p[outer - 2] ^= 1)],
      'no I flag': [INNER, (p) => (p[outer - 8] = 0)],
      'another flag': [INNER, (p) => (p[outer - 8] |= 0x80)],
      'a reserved bit': [INNER, (p) => (p[outer - 5] = 1)],
      'a bit behind the VNI': [INNER, (p) => (p[outer - 1] = 1)],
      'to broadcast': [INNER, (p) => p.fill(0xff, outer, outer + 6)],
      'from a multicast MAC': [INNER, (p) => (p[outer + 6] |= 1)],
      'from the zero MAC': [INNER, (p) => p.fill(0, outer + 6, outer + 12)],
      'from our own MAC': [INNER, (p) => p.set(mac(OWN), outer + 6)],
      'congestion experienced': [INNER, (p) => (p[15] |= family === 4 ? 3 : 0x30)],
      'ECT(1)': [INNER, (p) => (p[15] |= family === 4 ? 1 : 0x10)],
      'a UDP length that is too short': [INNER, (p) => p[outer - 11]--],
      'a packet with a tail': [INNER.subarray(0, 20), (p) => (p[family === 4 ? 17 : 19] -= 2)],
      'cut off within the inner header': [INNER.subarray(0, 13)],
    };
    for (const [what, [inner, change]] of Object.entries(cases)) {
      assert.equal(device.receive(arriving(family, inner, change)), undefined, what);
    }
    if (family === 4) {
      const damaged = arriving(family, INNER);
      damaged[22]++;
      assert.equal(device.receive(damaged), undefined, 'a TTL that the checksum does not know');
    }
    const { rx_packets } = device.mirror.counters(DEVICE);
    assert.equal(rx_packets, 0);
  });

  test(`outer IPv${family}: only known VTEPs, and only with their own MACs`, { skip }, () => {
    const filtered = new Arriving(family, CHECK_VTEP);
    assert.equal(filtered.receive(arriving(family, INNER)), undefined);
    filtered.mirror.setVtep(DEVICE, OTHER_VTEP[family], true);
    filtered.mirror.setVtep(DEVICE + 1, FAMILIES[family].remote, true);
    assert.equal(filtered.receive(arriving(family, INNER)), undefined);
    filtered.mirror.setVtep(DEVICE, FAMILIES[family].remote, true);
    assert.deepEqual(filtered.receive(arriving(family, INNER)), INNER);
    filtered.mirror.setVtep(DEVICE, FAMILIES[family].remote, false);
    assert.equal(filtered.receive(arriving(family, INNER)), undefined);

    const bound = new Arriving(family, CHECK_SOURCE);
    assert.equal(bound.receive(arriving(family, INNER)), undefined, 'to be learned');
    bound.mirror.setNextHop(HOP, template(family, { destination: OTHER_VTEP[family] }), 5);
    bound.mirror.setEntry(DEVICE, 0x0200, FROM, HOP);
    assert.equal(bound.receive(arriving(family, INNER)), undefined, 'has moved');
    bound.mirror.setNextHop(HOP, template(family), 0);
    assert.deepEqual(bound.receive(arriving(family, INNER)), INNER);
    assert.ok(bound.mirror.stamps(DEVICE, 0x0200, FROM).seen > 0);
    bound.mirror.removeEntry(DEVICE, 0x0200, FROM);
    assert.equal(bound.receive(arriving(family, INNER)), undefined, 'is gone');
  });
}

test('leaves to the workers what has no entry, no way, or no room', { skip }, () => {
  const sending = new Sending(4, { mtu: 200 });
  const sent = (payload: Uint8Array, to = KNOWN) => sending.offloaded(frame({ to, payload }));
  assert.ok(sent(payload(110)));
  assert.equal(sent(payload(111)), undefined, 'does not fit the path');
  assert.equal(sent(payload(10), UNKNOWN), undefined);
  assert.equal(sending.offloaded(otherFrame(0x0806, 28, 1, KNOWN)), undefined, 'ARP');
  const broadcast = frame({ payload: payload(10) });
  broadcast.fill(0xff, 0, 6);
  assert.equal(sending.offloaded(broadcast), undefined);
  sending.mirror.setNextHop(HOP, template(4), 0);
  assert.equal(sent(payload(10)), undefined, 'not resolved');
  sending.mirror.setNextHop(HOP, template(4), 5);
  assert.ok(sent(payload(10)));
  sending.mirror.removeEntry(DEVICE, 0x0200, KNOWN);
  assert.equal(sent(payload(10)), undefined);
});
