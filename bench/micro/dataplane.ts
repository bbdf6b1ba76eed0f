/**
 * What the dataplane costs without the kernel: one worker whose ports are memory, by size and by what the uplink takes. What the port
 * costs that stands for the system calls is part of all of them, and of full rounds from the uplink one sched_yield.
 */
import assert from 'node:assert/strict';
import { DEVICE_FLAGS, LEARNING, VTEP_KNOWN, VTEP_STRICT } from '../../dataplane/device.ts';
import type { UplinkOffloads } from '../../dataplane/uplink/uplink.ts';
import { Worker } from '../../dataplane/worker.ts';
import {
  frame,
  onWire,
  outerFrame,
  packet,
  payload,
  setPseudo,
  superFrame,
  unfinished,
  vxlan,
} from '../../test/dataplane/packet.ts';
import { drops, PORT, Rig, uplinkSpec, VNI } from '../../test/dataplane/rig.ts';
import type { Case } from './case.ts';
import { BenchPort } from './port.ts';

/** Packets a turn: the worker's batch, or as many of the largest as its memory holds. */
const BATCH = 64;
const LARGE_BATCH = 16;
const MTU = 1500;
const MSS = MTU - 50 - 40; // inner TCP over IPv4, IPv4 outside

/** Moves packets from the TAP to the uplink, or from the uplink to the TAP. */
function makeCase(
  name: string,
  offloads: UplinkOffloads,
  from: 'tap' | 'uplink',
  packets: readonly Uint8Array[],
  copies = 1,
  flags = 0,
): Case {
  const rig = new Rig();
  const worker = new Worker(0, rig.shared);
  const source = new BenchPort(worker.memory, packets);
  const sink = new BenchPort(worker.memory);
  worker.addFrameUplink(uplinkSpec(offloads), from === 'uplink' ? source : sink);
  worker.addDevice({ index: 0, vni: VNI, uplink: 0, tap: -1, mergeUdp: true }, from === 'tap' ? source : sink);
  rig.entry(0, -1, ...Array.from({ length: copies }, (_, i) => rig.vtep(`192.0.2.${2 + i}`)));
  // The sender of the packets, and the MAC in them.
  rig.entry(0, 1, rig.vtep('10.0.0.11'));
  rig.records[DEVICE_FLAGS] = flags;
  const batch = packets[0].length > 10_000 ? LARGE_BATCH : BATCH;
  const turn = () => {
    source.refill(batch);
    worker.turn();
  };
  // Once, to see that it does what its name says.
  turn();
  source.copyHeadersOnly();
  const counters = rig.device(0);
  assert.equal(drops(counters, 'tx') + drops(counters, 'rx') + drops(rig.uplink(0), 'rx'), 0, name);
  const { tx_packets = 0, rx_packets = 0, tx_bytes = 0, rx_bytes = 0 } = counters;
  assert.ok(tx_packets + rx_packets >= batch, name);
  return { name, operations: tx_packets + rx_packets, bytes: tx_bytes + rx_bytes, turn };
}

/** The port by itself. */
function makePortCase(): Case {
  const rig = new Rig();
  const port = new BenchPort(rig.memory, [unfinished(udp(64))]);
  const at = rig.memory.take(65_536);
  const turn = () => {
    port.refill(BATCH);
    while (port.read(at, 65_536) >= 0);
  };
  return { name: 'the port alone', operations: BATCH, bytes: BATCH * (42 + 64), turn };
}

const WHOLE = { tunnelGso: true, udpGso: true };
const RUNS = { tunnelGso: false, udpGso: true };
const SINGLE = { tunnelGso: false, udpGso: false };

const udp = (bytes: number) => frame({ protocol: 'udp', payload: payload(bytes) });
const tcp = superFrame(frame({ payload: payload(60_000) }), MSS);
/** A packet from the network; flags 2: the NIC or the kernel has verified the outer checksum. */
const outer = (inner: Uint8Array, flags = 0) => packet(outerFrame(vxlan(VNI, inner), PORT), { flags }, true);

/** What GRO makes of packets of one size. */
function train(frames: readonly Uint8Array[]): Uint8Array {
  const packets = frames.map((bytes) => vxlan(VNI, bytes));
  const vnet = { flags: 1, type: 5, headerLength: 42, size: packets[0].length, start: 34, offset: 6 };
  return packet(setPseudo(outerFrame(Buffer.concat(packets), PORT)), vnet, true);
}

function wholeFromNetwork(): Uint8Array {
  const vnet = {
    flags: 9,
    type: 0x21,
    headerLength: 104,
    size: MSS,
    start: 84,
    offset: 16,
    outerTransport: 34,
    innerNetwork: 64,
  };
  return packet(outerFrame(vxlan(VNI, tcp.subarray(12)), PORT), vnet, true);
}

const trainOf64 = train(Array.from({ length: 64 }, () => udp(64)));
/** MACs that are reported again and again: in the benchmark nobody learns them. */
const strangers = Array.from({ length: 64 }, (_, i) =>
  outer(frame({ protocol: 'udp', payload: payload(64), from: 10 + i })),
);

export const dataplaneCases: readonly (() => Case)[] = [
  makePortCase,
  () => makeCase('encap 64 B, one by one', SINGLE, 'tap', [unfinished(udp(64))]),
  () => makeCase('encap 64 B, in runs', RUNS, 'tap', [unfinished(udp(64))]),
  () => makeCase('encap 64 B, three copies', RUNS, 'tap', [unfinished(udp(64))], 3),
  () => makeCase('encap 1400 B, one by one', SINGLE, 'tap', [unfinished(udp(1400))]),
  () => makeCase('encap 1400 B, in runs', RUNS, 'tap', [unfinished(udp(1400))]),
  () => makeCase('encap 60 kB TCP, whole', WHOLE, 'tap', [tcp]),
  () => makeCase('encap 60 kB TCP, cut, in runs', RUNS, 'tap', [tcp]),
  () => makeCase('encap 60 kB TCP, cut, one by one', SINGLE, 'tap', [tcp]),
  () => makeCase('decap 64 B, checksum verified', WHOLE, 'uplink', [outer(udp(64), 2)]),
  () => makeCase('decap 64 B', WHOLE, 'uplink', [outer(udp(64))]),
  () => makeCase('decap 64 B, in trains', WHOLE, 'uplink', [trainOf64]),
  () => makeCase('decap 64 B, learning', WHOLE, 'uplink', [outer(udp(64))], 1, LEARNING),
  () => makeCase('decap 64 B, verified, learning', WHOLE, 'uplink', [outer(udp(64), 2)], 1, LEARNING),
  () => makeCase('decap 64 B, in trains, learning', WHOLE, 'uplink', [trainOf64], 1, LEARNING),
  () => makeCase('decap 64 B, learning, 64 MACs', WHOLE, 'uplink', strangers, 1, LEARNING),
  () => makeCase('decap 64 B, vtep-filter strict', WHOLE, 'uplink', [outer(udp(64))], 1, VTEP_KNOWN | VTEP_STRICT),
  () => makeCase('decap 1400 B, checksum verified', WHOLE, 'uplink', [outer(udp(1400), 2)]),
  () => makeCase('decap 1400 B', WHOLE, 'uplink', [outer(udp(1400))]),
  () => makeCase('decap TCP in trains, merged', WHOLE, 'uplink', [train(onWire(tcp))]),
  () => makeCase('decap 60 kB TCP, whole', WHOLE, 'uplink', [wholeFromNetwork()]),
];
