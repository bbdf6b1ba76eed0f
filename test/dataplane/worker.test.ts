/** Whole workers in memory: two machines, each with devices, linked by a network that loses, repeats, reorders and segments. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { type Deliver, MemoryPort } from '../../dataplane/uplink/memory.ts';
import { headers, superFrames } from './arbitrary.ts';
import {
  assertFrames,
  decapsulate,
  frame,
  onWire,
  otherFrame,
  outerFrame,
  packet,
  payload,
  readVnet,
  superFrame,
  unfinished,
  vxlan,
} from './packet.ts';
import { Node, type NodeOptions, OWN, PORT, random, TestPort, uplinkSpec, VNI } from './rig.ts';

const DEVICES = 3;
const ADDRESSES = ['192.0.2.2', '192.0.2.3'];

/** Two machines and the network between them. */
class Pair {
  readonly nodes: readonly [Node, Node];
  /** What each machine sent, and what was delivered to it, as the uplinks' ports saw it. */
  readonly sent: Uint8Array[][] = [[], []];
  readonly delivered: Uint8Array[][] = [[], []];
  readonly #network: Deliver;

  constructor(options: NodeOptions, network: Deliver = (bytes) => [bytes]) {
    this.#network = network;
    const port = (memory: Node['rig']['memory']) => new MemoryPort(memory, Number.MAX_SAFE_INTEGER);
    this.nodes = [new Node({ ...options, devices: DEVICES }, port), new Node({ ...options, devices: DEVICES }, port)];
    for (const [side, { rig }] of this.nodes.entries()) {
      for (let device = 0; device < DEVICES; device++) {
        const vtep = { device, vni: VNI + device, mtu: 9000 };
        const [peer, gone] = [rig.vtep(ADDRESSES[1 - side], vtep), rig.vtep('192.0.2.9', { ...vtep, resolved: false })];
        rig.entry(device, -1, peer);
        rig.entry(device, 12, peer, gone); // replicated, and one copy has nowhere to go
        rig.setMac(device, OWN);
      }
    }
    MemoryPort.link(this.nodes[0].uplink as MemoryPort, this.nodes[1].uplink as MemoryPort, (bytes) =>
      this.#deliver(bytes),
    );
  }

  #deliver(bytes: Uint8Array): readonly Uint8Array[] {
    const side = bytes[24 + 33] === 3 ? 0 : 1; // by the destination address
    this.sent[side].push(bytes);
    const through = this.#network(bytes);
    this.delivered[1 - side].push(...through);
    return through;
  }

  /** Sends packets from the TAPs of both sides, and moves them until nothing is left. */
  exchange(packets: readonly (readonly Uint8Array[][])[]): void {
    for (const [side, node] of this.nodes.entries()) {
      for (const [device, list] of packets[side].entries()) node.taps[device].waiting.push(...list);
    }
    for (let moved = 1; moved > 0; ) moved = this.nodes[0].worker.turn() + this.nodes[1].worker.turn();
  }

  /** Asserts that what a side's devices sent left it to the byte, and that what arrived at the other was delivered to the byte. */
  check(packets: readonly (readonly Uint8Array[][])[], name: string): void {
    for (const [side, node] of this.nodes.entries()) {
      const { tx, rx } = node.balance();
      assert.equal(count(this.sent[side]), tx, `${name}: packets sent`);
      assert.equal(count(this.delivered[side]), rx, `${name}: packets delivered`);
      const left = this.sent[side].flatMap((bytes) => onWire(bytes, true)).map((bytes) => decapsulate(bytes, PORT));
      const arrived = this.delivered[side]
        .flatMap((bytes) => onWire(bytes, true))
        .map((bytes) => decapsulate(bytes, PORT));
      for (const [device, list] of packets[side].entries()) {
        const fits = list
          .map((bytes) => onWire(bytes))
          .filter((frames) => frames.every(({ length }) => length + 36 <= 9000));
        const out = left.filter(({ vni }) => vni === VNI + device);
        assertFrames(
          out.map(({ inner }) => inner),
          fits.flat(),
          `${name}: side ${side}, device ${device}, out`,
        );
        const written = node.taps[device].take().flatMap((bytes) => onWire(bytes));
        const expected = arrived.filter(({ vni, inner }) => vni === VNI + device && inner[11] !== OWN);
        assertFrames(
          written.map(anyId),
          expected.map(({ inner }) => anyId(inner)),
          `${name}: device ${device}, in`,
        );
      }
    }
  }
}

/** VXLAN packets as the counters count them: a train is several, a super-frame one. */
function count(packets: readonly Uint8Array[]): number {
  return packets.reduce((sum, bytes) => sum + (readVnet(bytes, true).type === 5 ? onWire(bytes, true).length : 1), 0);
}

/** The frame without its IPv4 id if that means nothing (DF is set): merging may change it. */
function anyId(bytes: Uint8Array): Uint8Array {
  let network = 14;
  while ([0x81, 0x88].includes(bytes[network - 2])) network += 4;
  if (bytes[network - 2] !== 8 || bytes[network - 1] !== 0 || (bytes[network + 6] & 0x40) === 0) return bytes;
  const result = bytes.slice();
  result.fill(0, network + 4, network + 6).fill(0, network + 10, network + 12);
  return result;
}

// The traffic: streams of segments, which merge on the far side, among frames of every kind.
const shapes = fc.oneof(
  fc.tuple(headers(), fc.constantFrom(0, 10, 100, 1400), fc.boolean()).map(([spec, length, finished]) => {
    const bytes = frame({ ...spec, payload: payload(length) });
    return [finished ? packet(bytes) : unfinished(bytes)];
  }),
  superFrames(20).map((whole) => [whole.packet]),
  superFrames(20, { plain: true }).map((whole) => onWire(whole.packet).map((bytes) => packet(bytes))),
  fc
    .tuple(fc.constantFrom(0x0806, 0x88cc, 0x05dc), fc.nat(1500), fc.constantFrom(1, OWN))
    .map(([type, length, from]) => [packet(otherFrame(type, Math.max(length, 10), from))]),
);
const traffic = (seed: number): Uint8Array[][] =>
  Array.from({ length: DEVICES }, (_, device) => fc.sample(shapes, { seed: seed + device, numRuns: 40 }).flat());

const networks: Record<string, (seed: number) => Deliver> = {
  'as it is': () => (bytes) => [bytes],
  'that segments': () => (bytes) => onWire(bytes, true).map((wire) => packet(wire, {}, true)),
  'that loses, repeats and reorders': (seed) => {
    const next = random(seed);
    const held: Uint8Array[][] = [[], []];
    return (bytes) => {
      const waiting = held[bytes[24 + 33] & 1];
      switch (next(10)) {
        case 0:
          return [];
        case 1:
          waiting.push(bytes);
          return [];
        case 2:
          return [bytes, bytes];
        case 3:
          return [bytes, ...waiting.splice(0)];
        default:
          return [bytes];
      }
    };
  },
};

for (const [name, network] of Object.entries(networks)) {
  test(`carries all traffic over a network ${name}, on every tier`, () => {
    for (let tier = 0; tier < 8; tier++) {
      const options = { tunnelGso: (tier & 1) !== 0, udpGso: (tier & 2) !== 0, mergeUdp: (tier & 4) !== 0 };
      const seed = (Math.random() * 2 ** 30) | 0;
      const packets = [traffic(seed), traffic(seed + DEVICES)];
      const pair = new Pair(options, network(seed));
      pair.exchange(packets);
      pair.check(packets, `${JSON.stringify(options)}, seed ${seed}`);
      const types = new Set(pair.sent.flat().map((bytes) => bytes[1] & 0x7f));
      assert.ok(
        types.has(5) === options.udpGso && types.has(0x21) === options.tunnelGso,
        'super-packets leave where they may',
      );
    }
  });
}

test('delivers nothing twice, and drops nothing without a name, on a good network', () => {
  const pair = new Pair({});
  const whole = superFrame(frame({ payload: payload(60_000) }), 1348);
  const packets = Array.from({ length: 30 }, () => whole);
  pair.exchange([
    [packets, [], []],
    [[], [], []],
  ]);
  assertFrames(pair.nodes[1].taps[0].take(), packets);
  assert.equal(pair.nodes[0].rig.device(0).tx_writes, 30, 'one write each');
  assert.equal(pair.nodes[1].rig.device(0).rx_writes, 30);
});

test('drops at a full uplink, under its name', () => {
  const nodes = [0, 1].map(() => new Node({}, (memory) => new MemoryPort(memory, 10)));
  MemoryPort.link(nodes[0].uplink as MemoryPort, nodes[1].uplink as MemoryPort);
  nodes[0].rig.entry(0, -1, nodes[0].rig.vtep('192.0.2.2'));
  // Sizes go up, so that each is a run of its own.
  nodes[0].taps[0].waiting.push(...Array.from({ length: 50 }, (_, i) => packet(otherFrame(0x88cc, 50 + i))));
  nodes[0].run();
  nodes[1].run();
  assert.equal(nodes[0].rig.device(0).tx_uplink_full, 40);
  assert.equal(nodes[0].balance().tx, 10);
  assert.equal(nodes[1].balance().rx, 10);
  assert.equal(nodes[1].taps[0].take().length, 10);
});

// Failure of a worker.

const outer = (vni: number, bytes: Uint8Array) => packet(outerFrame(vxlan(vni, bytes), PORT), {}, true);
const arp = otherFrame(0x0806, 28);

/** A machine whose uplink is looked into, with some traffic waiting on both sides. */
function busyNode(): { node: Node; uplink: TestPort } {
  const node = new Node({ tunnelGso: false, devices: 2 });
  const uplink = node.uplink as TestPort;
  for (const [device, tap] of node.taps.entries()) {
    const vtep = { device, vni: VNI + device };
    node.rig.entry(device, -1, node.rig.vtep('192.0.2.2', vtep));
    node.rig.entry(device, 12, node.rig.vtep('192.0.2.2', vtep), node.rig.vtep('192.0.2.3', vtep));
    const kinds = [
      packet(arp),
      superFrame(frame({ payload: payload(20_000) }), 300),
      packet(otherFrame(0x88cc, 30, 1, 12)),
    ];
    for (let i = 0; i < 12; i++) tap.waiting.push(...kinds);
    const stream = onWire(superFrame(frame({ payload: payload(5000) }), 1000)).map((bytes) =>
      outer(VNI + device, bytes),
    );
    for (let i = 0; i < 5; i++) uplink.waiting.push(outer(VNI + device, arp), ...stream, outer(VNI + 9, arp));
  }
  return { node, uplink };
}

test('counts what a failing worker held as lost, and goes on in its place', () => {
  for (const where of ['uplink', 'tap'] as const) {
    for (let good = 0; good < (where === 'uplink' ? 40 : 10); good++) {
      const { node, uplink } = busyNode();
      const port = where === 'uplink' ? uplink : node.taps[1];
      port.good = good;
      port.failure = new Error('the port is broken');
      assert.throws(() => node.run(), /the port is broken/);
      node.worker.settle();
      const { tx } = node.balance();
      const written = uplink.take();
      assert.equal(count(written), tx, 'what was written is not lost');
      const lost = [0, 1].map(
        (device) => node.rig.device(device)[where === 'uplink' ? 'tx_worker_lost' : 'rx_worker_lost'] ?? 0,
      );
      assert.ok(lost[0] + lost[1] + (node.rig.uplink(0).rx_worker_lost ?? 0) > 0, `${where} after ${good} writes`);
      node.worker.settle();
      assert.deepEqual(node.balance().tx, tx, 'settled once');

      port.failure = 0;
      node.startWorker();
      node.run();
      node.balance();
      for (const tap of node.taps) assert.equal(tap.waiting.length, 0);
      assert.equal(uplink.waiting.length, 0);
      const before = uplink.take().length;
      node.taps[0].waiting.push(packet(arp));
      node.run();
      assert.equal(uplink.take().length, 1, `after ${before} others`);
    }
  }
});

test('leaves counters alone that a worker without losses settles', () => {
  const { node } = busyNode();
  node.run();
  const before = [node.rig.device(0), node.rig.device(1), node.rig.uplink(0)];
  node.worker.settle();
  assert.deepEqual([node.rig.device(0), node.rig.device(1), node.rig.uplink(0)], before);
});

test('takes devices away and adds them again while it runs', () => {
  const { node, uplink } = busyNode();
  node.run();
  node.worker.removeDevice(1);
  uplink.waiting.push(outer(VNI, arp), outer(VNI + 1, arp));
  node.taps[1].take();
  const unknown = node.rig.uplink(0).rx_unknown_vni ?? 0;
  node.run();
  assert.equal(node.rig.uplink(0).rx_unknown_vni, unknown + 1);
  assert.equal(node.taps[1].take().length, 0);
  for (let i = 0; i < 2000; i++) {
    node.worker.addDevice({ index: 1, vni: VNI + 5, uplink: 0, tap: -1, mergeUdp: true }, node.taps[1]);
    if (i < 1999) node.worker.removeDevice(1);
  }
  uplink.waiting.push(outer(VNI + 5, arp), outer(VNI + 1, arp));
  node.run();
  assertFrames(node.taps[1].take(), [packet(arp)]);
  node.balance();
});

test('moves a device to another uplink without losing what comes in by either', () => {
  const { node, uplink } = busyNode();
  node.run();
  const other = new TestPort(node.rig.memory);
  node.worker.addFrameUplink({ ...uplinkSpec({ tunnelGso: false, udpGso: true }), index: 1 }, other);
  const unknown = node.rig.uplink(0).rx_unknown_vni;
  for (const port of [uplink, other]) port.waiting.push(outer(VNI, arp));
  for (const tap of node.taps) tap.take();
  uplink.take();
  for (let i = 0; i < 2000; i++) {
    node.worker.addDevice({ index: 0, vni: VNI, uplink: (i + 1) % 2, tap: -1, mergeUdp: true }, node.taps[0]);
  }
  node.worker.addDevice({ index: 0, vni: VNI, uplink: 1, tap: -1, mergeUdp: true }, node.taps[0]);
  node.taps[0].waiting.push(packet(arp));
  node.run();
  assert.equal(node.taps[0].take().length, 2);
  assert.deepEqual([uplink.take().length, other.take().length], [0, 1]);
  assert.equal(node.rig.uplink(0).rx_unknown_vni, unknown);
  assert.equal(node.rig.uplink(1).rx_unknown_vni ?? 0, 0);
  node.balance(false);
});

test('hands on what has arrived on an uplink that is taken away', () => {
  const { node, uplink } = busyNode();
  node.run();
  node.taps[0].take();
  for (let i = 0; i < 200; i++) uplink.waiting.push(outer(VNI, arp));
  node.worker.removeUplink(0);
  assert.equal(node.taps[0].take().length, 200);
  node.balance();
});

test('settles what it lost, and no more, when a device was taken away before', () => {
  const { node, uplink } = busyNode();
  node.run();
  node.worker.removeDevice(1);
  uplink.waiting.push(outer(VNI, arp), outer(VNI, arp));
  node.taps[0].failure = new Error('the port is broken');
  assert.throws(() => node.run());
  node.worker.settle();
  assert.deepEqual([node.rig.device(0).rx_worker_lost, node.rig.uplink(0).rx_worker_lost], [1, 1]);
});
