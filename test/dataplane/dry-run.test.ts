import assert from 'node:assert/strict';
import test from 'node:test';
import { DryRuns } from '../../dataplane/dry-run.ts';
import { decapsulate, frame, hex, onWire, packet, payload } from './packet.ts';
import { Node, PORT, type TestPort, uplinkSpec, VNI } from './rig.ts';

const UPLINK = uplinkSpec({ tunnelGso: true, udpGso: true });
const DEVICE = { index: 0, vni: VNI, uplink: 0, tap: -1, mergeUdp: true };

/** But for the identification, which is each worker's own, and the checksums that follow from it. */
const known = (bytes: Uint8Array): unknown => ({ ...decapsulate(bytes, PORT), id: 0 });

test('a dry run builds the packets that a worker sends, and leaves no trace', () => {
  const node = new Node();
  const { rig } = node;
  const peer = rig.vtep('192.0.2.2');
  rig.entry(0, 2, peer);
  rig.entry(0, 4, peer, rig.vtep('192.0.2.3'));
  const before = { tables: hex(new Uint8Array(rig.fdb.buffer)), counters: rig.counters.slice() };
  for (const to of [2, 4]) {
    const sent = frame({ to, protocol: 'udp', payload: payload(100), tos: 1 });
    const run = new DryRuns(rig.shared).run(UPLINK, DEVICE, sent);
    assert.deepEqual(
      { nextHop: run.nextHop, copies: run.copies, drop: run.drop },
      { nextHop: peer, copies: to === 2 ? 1 : 2, drop: '' },
    );
    node.taps[0].waiting.push(packet(sent));
    const wrote = node.uplink as TestPort;
    node.run();
    const real = wrote.written
      .splice(0)
      .flatMap((bytes) => onWire(bytes, true))
      .map(known);
    const finished = run.sent.map((bytes) => onWire(packet(bytes, { flags: 1, start: 34, offset: 6 }, true), true)[0]);
    assert.deepEqual(finished.map(known), real);
    rig.clear();
  }
  assert.equal(hex(new Uint8Array(rig.fdb.buffer)), before.tables);
  assert.deepEqual(rig.counters, before.counters);
});

test('a dry run tells why a frame would be dropped', () => {
  const { rig } = new Node();
  rig.entry(0, 3, rig.vtep('192.0.2.9', { resolved: false }));
  const dry = new DryRuns(rig.shared);
  const drop = (to: number): string => dry.run(UPLINK, DEVICE, frame({ to })).drop;
  assert.deepEqual([drop(9), drop(3)], ['tx_no_remote', 'tx_unresolved']);
});

test('a dry run shows what it would leave to the host, whole', () => {
  const { rig } = new Node();
  rig.entry(0, 5, rig.vtep('192.0.2.5', { mtu: 1400 }));
  const sent = frame({ to: 5, protocol: 'udp', payload: payload(1400), dontFragment: false });
  const run = new DryRuns(rig.shared).run(UPLINK, DEVICE, sent);
  assert.deepEqual([run.sent.length, run.drop, run.viaHost.length], [0, '', 1]);
  // The stack finishes the outer checksum.
  const [finished] = onWire(packet(run.viaHost[0], { flags: 1, start: 34, offset: 6 }, true), true);
  const { destination, inner } = decapsulate(finished, PORT);
  assert.deepEqual([destination, hex(inner)], ['192.0.2.5', hex(sent)]);
});

test('question after question, by the tables and the device as they are then', () => {
  const { rig } = new Node();
  const dry = new DryRuns(rig.shared);
  const ask = (device = DEVICE): string => {
    const { sent, drop } = dry.run(UPLINK, device, frame({ to: 5 }));
    return drop || sent.map((bytes) => bytes.subarray(30, 34).join('.')).join();
  };
  assert.equal(ask(), 'tx_no_remote');
  rig.entry(0, 5, rig.vtep('192.0.2.5'));
  // More than wait in any queue.
  for (let i = 0; i < 3000; i++) assert.equal(ask(), '192.0.2.5');
  assert.equal(ask({ ...DEVICE, index: 1 }), 'tx_no_remote');
  rig.entry(1, 5, rig.vtep('192.0.2.6', { device: 1 }));
  assert.equal(ask({ ...DEVICE, index: 1 }), '192.0.2.6');
  assert.equal(ask(), '192.0.2.5');
});
