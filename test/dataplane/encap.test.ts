import assert from 'node:assert/strict';
import test from 'node:test';
import * as libc from '../../system/libc.ts';
import {
  assertFrames,
  decapsulate,
  type Encapsulated,
  frame,
  mac,
  onWire,
  otherFrame,
  packet,
  payload,
  superFrame,
  unfinished,
} from './packet.ts';
import { Node, PORT, SOURCE_PORTS, type TestPort } from './rig.ts';

const TIERS = {
  'tunnel GSO': new Node({ tunnelGso: true }),
  'UDP GSO': new Node({ tunnelGso: false }),
  'no GSO': new Node({ tunnelGso: false, udpGso: false }),
};
const OTHERS = ['192.0.2.2', '192.0.2.3', '192.0.2.4'];
/** Last bytes of MACs: known, on every VTEP, of a list without members, of a list with one that is not resolved. */
const [KNOWN, ALL, NOBODY, HALF] = [0x11, 0x12, 0x13, 0x14];

for (const { rig } of Object.values(TIERS)) {
  const vteps = OTHERS.map((ip) => rig.vtep(ip));
  const unresolved = rig.vtep('192.0.2.9', { resolved: false });
  rig.entry(0, KNOWN, vteps[1]);
  rig.entry(0, ALL, ...vteps);
  const [first, second] = [rig.lists.create([], 0), rig.lists.create([vteps[0], unresolved, vteps[2]], 0)];
  rig.fdb.insert(0, 0x0200, NOBODY, (first << 1) | 1, 0, 0);
  rig.fdb.insert(0, 0x0200, HALF, (second << 1) | 1, 0, 0);
}

/** What goes out on the wire for packets of the TAP. */
function sent(node: Node, packets: readonly Uint8Array[]): Encapsulated[] {
  node.rig.clear();
  node.taps[0].waiting.push(...packets);
  node.run();
  node.balance();
  const written = (node.uplink as TestPort).take();
  return written.flatMap((bytes) => onWire(bytes, true)).map((bytes) => decapsulate(bytes, PORT));
}

const destinations = (packets: readonly Encapsulated[]) => packets.map(({ destination }) => destination);

test("sends a frame to its MAC's VTEP, and what is unknown to the default", () => {
  for (const node of Object.values(TIERS)) {
    const unknown = packet(otherFrame(0x88cc, 50, 1, 0x55));
    assert.deepEqual(destinations(sent(node, [packet(otherFrame(0x88cc, 50, 1, KNOWN))])), ['192.0.2.3']);
    assertFrames(
      sent(node, [unknown]).map(({ inner }) => inner),
      [],
    );
    assert.deepEqual([node.rig.device(0).tx_frames, node.rig.device(0).tx_no_remote], [1, 1]);
    node.rig.entry(0, -1, node.rig.vtep('192.0.2.7'));
    assert.deepEqual(destinations(sent(node, [unknown])), ['192.0.2.7']);
    const broadcast = otherFrame(0x0806, 28);
    broadcast.fill(0xff, 0, 6);
    assert.deepEqual(destinations(sent(node, [packet(broadcast)])), ['192.0.2.7']);
    node.rig.fdb.remove(node.rig.fdb.find(0, 0, 0));
  }
});

test('drops what is no Ethernet frame', () => {
  const [node] = Object.values(TIERS);
  for (let length = 0; length < 14; length++) {
    assert.equal(sent(node, [packet(otherFrame(0x0806, 28).subarray(0, length))]).length, 0);
    assert.equal(node.rig.device(0).tx_runt, 1);
  }
  assert.equal(sent(node, [packet(otherFrame(0x88cc, 0, 1, KNOWN))]).length, 1, 'a header alone is one');
});

test('takes the source port from the flow, the same for all its packets, within the range', () => {
  const [node] = Object.values(TIERS);
  const ports = new Set<number>();
  for (let sourcePort = 1000; sourcePort < 1200; sourcePort++) {
    const flow = [1, 100, 1000].map((length) => frame({ to: KNOWN, sourcePort, payload: payload(length) }));
    const seen = new Set(
      sent(node, [...flow.map((bytes) => packet(bytes)), superFrame(flow[2], 100)]).map((p) => p.sourcePort),
    );
    assert.equal(seen.size, 1);
    for (const port of seen) ports.add(port);
  }
  assert.ok(ports.size > 190);
  for (const port of ports) assert.ok(port >= SOURCE_PORTS[0] && port < SOURCE_PORTS[1]);
});

/** Frames of every kind, to a MAC. */
function kinds(to: number): Uint8Array[] {
  const tcp = frame({ to, payload: payload(800) });
  const large = frame({ to, version: 6, tags: [4], payload: payload(4000) });
  const udp = frame({ to, protocol: 'udp', payload: payload(4000) });
  return [
    packet(otherFrame(0x0806, 28, 1, to)),
    packet(tcp),
    unfinished(tcp),
    superFrame(large, 1000),
    superFrame(udp, 1000),
  ];
}

test('replicates to every VTEP of a list, each copy right', () => {
  for (const [name, node] of Object.entries(TIERS)) {
    for (const original of kinds(ALL)) {
      const packets = sent(node, [original]);
      const copies = OTHERS.map((ip) => packets.filter(({ destination }) => destination === ip));
      for (const copy of copies)
        assertFrames(
          copy.map(({ inner }) => inner),
          onWire(original),
          name,
        );
      assert.equal(packets.length, 3 * onWire(original).length);
      assert.equal(node.rig.device(0).tx_replicas, 2);
    }
  }
});

test('replicates among other frames without disturbing them', () => {
  const around = [
    unfinished(frame({ to: KNOWN, payload: payload(800) })),
    packet(frame({ to: KNOWN, payload: payload(800) })),
  ];
  for (const [name, node] of Object.entries(TIERS)) {
    const packets = kinds(ALL).flatMap((original) => [...around, original, ...around]);
    const out = sent(node, packets);
    for (const ip of OTHERS) {
      const expected = packets
        .filter((bytes) => bytes[17] === ALL || ip === OTHERS[1])
        .flatMap((bytes) => onWire(bytes));
      assertFrames(
        out.filter(({ destination }) => destination === ip).map(({ inner }) => inner),
        expected,
        `${name} ${ip}`,
      );
    }
  }
});

test('sends the other copies when one fails, and names each', () => {
  for (const node of Object.values(TIERS)) {
    for (const original of kinds(HALF)) {
      const packets = sent(node, [original]);
      assert.deepEqual(new Set(destinations(packets)), new Set(['192.0.2.2', '192.0.2.4']));
      assert.equal(node.rig.device(0).tx_unresolved, 1);
    }
    assert.equal(sent(node, kinds(NOBODY)).length, 0);
    assert.deepEqual([node.rig.device(0).tx_no_remote, node.rig.device(0).tx_replicas], [5, undefined]);
    const uplink = node.uplink as TestPort;
    uplink.failure = libc.ENOBUFS;
    uplink.good = 1;
    sent(node, [packet(otherFrame(0x0806, 28, 1, ALL))]);
    uplink.failure = 0;
    assert.deepEqual([node.rig.device(0).tx_packets, node.rig.device(0).tx_uplink_full], [1, 2]);
  }
});

test('a group spreads flows over its VTEPs, and keeps each on one', () => {
  const GROUP = 0x21;
  for (const [name, node] of Object.entries(TIERS)) {
    const members = OTHERS.map((ip) => node.rig.vtep(ip));
    node.rig.fdb.insert(0, 0x0200, GROUP, (node.rig.lists.create(members, 0, true) << 1) | 1, 0, 0);
    const flow = (sourcePort: number) =>
      packet(frame({ to: GROUP, protocol: 'udp', sourcePort, payload: payload(64) }));
    const ports = Array.from({ length: 600 }, (_, i) => 20_000 + i);
    const first = destinations(sent(node, ports.map(flow)));
    assert.equal(first.length, ports.length);
    for (const ip of OTHERS) {
      const share = first.filter((destination) => destination === ip).length;
      assert.ok(share > 150 && share < 250, `${name}: ${share} of 600 flows to ${ip}`);
    }
    // As many again, in another order. What leaves as a run may be told in another order than it came.
    const again = destinations(sent(node, [...ports].reverse().map(flow)));
    assert.deepEqual(again.reverse(), first, name);
    assert.equal(node.rig.device(0).tx_replicas, undefined);
  }
});

test('knows devices apart that have the same MAC behind them', () => {
  const node = new Node({ devices: 2 });
  const [here, there] = OTHERS.map((ip, device) => node.rig.vtep(ip, { device, vni: 100 + device }));
  node.rig.entry(0, KNOWN, here);
  node.rig.entry(1, KNOWN, there);
  const bytes = packet(otherFrame(0x0806, 28, 1, KNOWN));
  for (const tap of node.taps) tap.waiting.push(bytes, bytes);
  const out = sent(node, []);
  assert.deepEqual(
    out.map(({ destination, vni }) => [destination, vni]),
    [
      ['192.0.2.2', 100],
      ['192.0.2.2', 100],
      ['192.0.2.3', 101],
      ['192.0.2.3', 101],
    ],
  );
  assert.deepEqual(mac(KNOWN), [...bytes.subarray(12, 18)]);
});
