/**
 * What the dataplane costs without the kernel: one worker whose ports are memory. First nanoseconds a packet by size and by what the
 * uplink takes, then the same again while the garbage collector is watched. It may not run: status 1 when it did. The first line is
 * what the port costs that stands for the system calls: it is part of all others.
 *
 *     npm run build && node dist/bench/dataplane.js [WORD]     only cases whose name has WORD in it
 */
import assert from 'node:assert/strict';
import { PerformanceObserver, performance } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
import { getHeapStatistics } from 'node:v8';
import Benchmark from 'benchmark';
import type { PacketMemory } from '../dataplane/memory.ts';
import type { Port } from '../dataplane/port.ts';
import type { UplinkOffloads } from '../dataplane/uplink/uplink.ts';
import { Worker } from '../dataplane/worker.ts';
import * as libc from '../system/libc.ts';
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
} from '../test/dataplane/packet.ts';
import { drops, PORT, Rig, uplinkSpec, VNI } from '../test/dataplane/rig.ts';

/** Packets a turn: the worker's batch, or as many of the largest as its memory holds. */
const BATCH = 64;
const LARGE_BATCH = 16;
/** At 8 bytes a packet the young generation (16 MB) would be full before the end. */
const WATCHED_PACKETS = 3_000_000;
const WATCHED_SECONDS = 3;
/** What a read puts in place each time. Payload lies there from the first time, since nobody writes to it. */
const HEADERS = 256;
const MTU = 1500;
const MSS = MTU - 50 - 40; // inner TCP over IPv4, IPv4 outside

/** Hands out the same packets again and again; what is written goes nowhere. Allocates nothing. */
class BenchPort implements Port {
  readonly fd = -1;
  readonly #memory: PacketMemory;
  readonly #at: Int32Array;
  readonly #lengths: Int32Array;
  #next = 0;
  #left = 0;
  #copied = Number.MAX_SAFE_INTEGER;

  constructor(memory: PacketMemory, packets: readonly Uint8Array[] = []) {
    this.#memory = memory;
    this.#lengths = Int32Array.from(packets, (bytes) => bytes.length);
    this.#at = Int32Array.from(packets, (bytes) => {
      const at = memory.take(bytes.length);
      memory.u8.set(bytes, at);
      return at;
    });
  }

  /** Lets the next reads find `count` packets, beginning with the first one. */
  refill(count: number): void {
    this.#next = 0;
    this.#left = count;
  }

  /** From now on payload is in place. */
  copyHeadersOnly(): void {
    this.#copied = HEADERS;
  }

  read(at: number, _capacity: number): number {
    if (this.#left === 0) return -1;
    this.#left--;
    const i = this.#next;
    this.#next = i + 1 === this.#at.length ? 0 : i + 1;
    const length = this.#lengths[i];
    this.#memory.u8.copyWithin(at, this.#at[i], this.#at[i] + Math.min(length, this.#copied));
    return length;
  }

  write(_at: number, length: number): number {
    return length;
  }

  writev(_iovecs: number, count: number): number {
    return count;
  }

  errno(): number {
    return libc.EAGAIN;
  }
}

interface Case {
  readonly name: string;
  /** VXLAN packets, and bytes of inner frames, that a turn moves. */
  readonly packets: number;
  readonly bytes: number;
  turn(): void;
}

/** Moves packets from the TAP to the uplink, or from the uplink to the TAP. */
function makeCase(
  name: string,
  offloads: UplinkOffloads,
  from: 'tap' | 'uplink',
  packets: readonly Uint8Array[],
  copies = 1,
): Case {
  const rig = new Rig();
  const worker = new Worker(0, rig.shared);
  const source = new BenchPort(worker.memory, packets);
  const sink = new BenchPort(worker.memory);
  worker.addFrameUplink(uplinkSpec(offloads), from === 'uplink' ? source : sink);
  worker.addDevice({ index: 0, vni: VNI, uplink: 0, tap: -1, mergeUdp: true }, from === 'tap' ? source : sink);
  rig.entry(0, -1, ...Array.from({ length: copies }, (_, i) => rig.vtep(`192.0.2.${2 + i}`)));
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
  return { name, packets: tx_packets + rx_packets, bytes: tx_bytes + rx_bytes, turn };
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
  return { name: 'the port alone', packets: BATCH, bytes: BATCH * (42 + 64), turn };
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

const makers: readonly (() => Case)[] = [
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
  () => makeCase('decap 64 B, in trains', WHOLE, 'uplink', [train(Array.from({ length: 64 }, () => udp(64)))]),
  () => makeCase('decap 1400 B, checksum verified', WHOLE, 'uplink', [outer(udp(1400), 2)]),
  () => makeCase('decap 1400 B', WHOLE, 'uplink', [outer(udp(1400))]),
  () => makeCase('decap TCP in trains, merged', WHOLE, 'uplink', [train(onWire(tcp))]),
  () => makeCase('decap 60 kB TCP, whole', WHOLE, 'uplink', [wholeFromNetwork()]),
];

/** Seconds a turn: the quickest sample, since whatever else runs on the machine only adds to it. */
function measure({ name, turn }: Case): number {
  const { stats, error } = new Benchmark(name, turn, { maxTime: 0.5 }).run();
  if (error) throw error;
  return Math.min(...stats.sample);
}

interface Watched {
  /** How often the collector ran. */
  readonly collections: number;
  /** By which the heap grew, a packet. */
  readonly bytes: number;
}

async function watch({ packets, turn }: Case, seconds: number): Promise<Watched> {
  const runs: number[] = [];
  const observer = new PerformanceObserver((list) => {
    for (const { startTime } of list.getEntries()) runs.push(startTime);
  });
  observer.observe({ entryTypes: ['gc'] });
  await setTimeout(50); // what the measurement before left to be collected
  const turns = Math.ceil(Math.min(WATCHED_PACKETS / packets, WATCHED_SECONDS / seconds));
  const heap = getHeapStatistics().used_heap_size;
  const begin = performance.now();
  for (let i = 0; i < turns; i++) turn();
  const end = performance.now();
  const grown = getHeapStatistics().used_heap_size - heap;
  await setTimeout(50); // the observer hears of it later
  observer.disconnect();
  return { collections: runs.filter((at) => at >= begin && at <= end).length, bytes: grown / (turns * packets) };
}

const word = process.argv[2] ?? '';
let collections = 0;
console.log(`${'Node'.padEnd(34)}${process.version.padStart(12)}\n`);
console.log('case                                  ns/packet    M packets/s   Gbit/s   GC runs  heap bytes/packet');
for (const make of makers) {
  const item = make();
  if (!item.name.includes(word)) continue;
  const seconds = measure(item);
  const watched = await watch(item, seconds);
  collections += watched.collections;
  console.log(
    item.name.padEnd(36),
    ((seconds / item.packets) * 1e9).toFixed(0).padStart(10),
    (item.packets / seconds / 1e6).toFixed(2).padStart(14),
    ((item.bytes * 8) / seconds / 1e9).toFixed(1).padStart(8),
    String(watched.collections).padStart(9),
    watched.bytes.toFixed(3).padStart(18),
  );
}
if (collections > 0) {
  console.error('\nThe garbage collector ran: something is allocated for each packet.');
  process.exitCode = 1;
}
