/** The multicast database in a worker: which VTEPs get a frame, and what it costs the counters. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { DEVICE_MDB } from '../../dataplane/device.ts';
import type { MdbEntry } from '../../fdb/mdb.ts';
import { decapsulate, frame, onWire, packet, payload } from './packet.ts';
import { Node, PORT, type TestPort, VNI } from './rig.ts';

const DEVICE = { index: 0, name: 'v4', port: PORT, vni: VNI, family: 4 as const };
const [A, B, FLOOD] = ['192.0.2.2', '192.0.2.3', '192.0.2.9'];

function create(...entries: Partial<MdbEntry>[]): Node {
  const node = new Node();
  const { rig } = node;
  for (const vtep of [A, B]) rig.vtep(vtep);
  rig.entry(0, -1, rig.vtep(FLOOD));
  for (const entry of entries) rig.mdb.add(DEVICE, { grp: '0.0.0.0', state: 'permanent', ...entry }, 0);
  rig.records[DEVICE_MDB] = 1;
  return node;
}

/** UDP to a group, by its MAC. */
function datagram(group: readonly number[], size = 100): Uint8Array {
  const bytes = frame({ protocol: 'udp', payload: payload(size) });
  bytes.set([0x01, 0x00, 0x5e, group[1]! & 0x7f, group[2]!, group[3]!], 0);
  bytes.set(group, 30);
  return bytes;
}

function sentTo(node: Node, ...frames: Uint8Array[]): string[] {
  node.rig.clear();
  node.taps[0]!.waiting.push(...frames.map((bytes) => packet(bytes)));
  node.run();
  node.balance();
  const written = (node.uplink as TestPort).take();
  return written.flatMap((bytes) => onWire(bytes, true)).map((bytes) => decapsulate(bytes, PORT).destination);
}

const GROUP = [239, 1, 1, 1];

test('a copy to each remote of the group; other groups are flooded', () => {
  const node = create({ grp: '239.1.1.1', dst: A }, { grp: '239.1.1.1', dst: B });
  assert.deepEqual(sentTo(node, datagram(GROUP)).sort(), [A, B]);
  assert.equal(node.rig.device(0).tx_replicas, 1);
  assert.deepEqual(sentTo(node, datagram([239, 1, 1, 2])), [FLOOD]);
  assert.deepEqual(sentTo(node, frame({ to: 9 })), [FLOOD], 'unicast');
});

test('goes before an entry of the group MAC in the FDB', () => {
  const node = create({ grp: '239.1.1.1', dst: A });
  const hop = node.rig.vtep(B);
  node.rig.fdb.insert(0, 0x0100, 0x5e010101, hop << 1, 0, 0);
  assert.deepEqual(sentTo(node, datagram(GROUP)), [A]);
  assert.deepEqual(sentTo(node, datagram([239, 129, 1, 1])), [B], 'another group of the same MAC');
});

test('an entry whose only remote is blocked drops as tx_no_remote', () => {
  const node = create({ grp: '239.1.1.1', dst: A, filter_mode: 'exclude', source_list: ['10.0.0.1'] });
  assert.deepEqual(sentTo(node, datagram(GROUP)), []);
  assert.equal(node.rig.device(0).tx_no_remote, 1);
});

test('all groups, but for link-local ones', () => {
  const node = create({ grp: '0.0.0.0', dst: A });
  assert.deepEqual(sentTo(node, datagram(GROUP), datagram([224, 0, 0, 251])), [A, FLOOD]);
});

test('nothing is looked up for a device without entries', () => {
  const node = create({ grp: '239.1.1.1', dst: A });
  node.rig.records[DEVICE_MDB] = 0;
  assert.deepEqual(sentTo(node, datagram(GROUP)), [FLOOD]);
});
