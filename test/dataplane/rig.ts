/** What the tests of the dataplane put around it: a port to look into, and shared state as the control plane sets it up. */
import assert from 'node:assert/strict';
import { optionWords } from '../../control/device-options.ts';
import type { DeviceConfig } from '../../control/fields.ts';
import { completeDevice } from '../../control/words.ts';
import { Batch } from '../../dataplane/batch.ts';
import { loadSum } from '../../dataplane/checksum.ts';
import { Coalescer } from '../../dataplane/coalesce.ts';
import {
  allocateCounters,
  block,
  COUNTER,
  COUNTERS,
  type CounterName,
  FIRST_UPLINK_SCOPE,
} from '../../dataplane/counters.ts';
import { Decap } from '../../dataplane/decap.ts';
import {
  DEVICE_BRIDGED,
  DEVICE_FLAGS,
  DEVICE_MAC_HIGH,
  DEVICE_MAC_LOW,
  DEVICE_RECORD,
  Device,
  MAX_DEVICES,
} from '../../dataplane/device.ts';
import { DROPS } from '../../dataplane/drops.ts';
import { IOVEC, PacketMemory, sharePacketMemory } from '../../dataplane/memory.ts';
import type { Port } from '../../dataplane/port.ts';
import { allocateReports, ReportWriter } from '../../dataplane/reports.ts';
import { SourceCheck } from '../../dataplane/source.ts';
import type { Shared, UplinkSpec } from '../../dataplane/task.ts';
import { FrameUplink, takeUplinkArena } from '../../dataplane/uplink/frame.ts';
import type { UplinkOffloads } from '../../dataplane/uplink/uplink.ts';
import { Worker } from '../../dataplane/worker.ts';
import { Lists } from '../../fdb/lists.ts';
import { Mdb } from '../../fdb/mdb.ts';
import { NeighborTable } from '../../fdb/neighbors.ts';
import { NextHops } from '../../fdb/nexthops.ts';
import { PeerReader } from '../../fdb/peers.ts';
import { STATE_BITS } from '../../fdb/state.ts';
import { FdbReader, FdbTable } from '../../fdb/table.ts';
import { buildTemplate } from '../../fdb/template.ts';
import * as libc from '../../system/libc.ts';
import { mac } from './packet.ts';

export const PORT = 8472;
export const VNI = 0xabcdef;
/** The host's default. */
export const TTL = 64;
/** Source ports of uplinks under test: from the first to before the second. */
export const SOURCE_PORTS = [32768, 61000] as const;

/** A port whose test sees what is written, says what is read, and makes calls fail. */
export class TestPort implements Port {
  readonly fd = -1;
  readonly written: Uint8Array[] = [];
  readonly waiting: Uint8Array[] = [];
  /** What the next writes fail with: an errno, an exception, or (0) not at all. */
  failure: number | Error = 0;
  /** How many writes still work before that. */
  good = 0;
  /** What the bytes behind a packet that is read hold. */
  guard = 0xa5;
  readonly #memory: PacketMemory;
  #errno = 0;

  constructor(memory: PacketMemory) {
    this.#memory = memory;
  }

  read(at: number, capacity: number): number {
    const packet = this.waiting.shift();
    if (!packet) return this.#fail(libc.EAGAIN);
    const { u8 } = this.#memory;
    u8.fill(this.guard, at, at + Math.min(capacity, packet.length + 512));
    u8.set(packet, at);
    return packet.length;
  }

  write(at: number, length: number): number {
    if (this.#isBroken()) return this.#fail(this.failure as number);
    this.written.push(this.#memory.u8.slice(at, at + length));
    return length;
  }

  writev(iovecs: number, count: number): number {
    if (this.#isBroken()) return this.#fail(this.failure as number);
    const { u8, u32, address } = this.#memory;
    const parts: Uint8Array[] = [];
    for (let i = 0; i < count; i++) {
      const word = (iovecs + i * IOVEC) >> 2;
      const at = u32[word] + u32[word + 1] * 2 ** 32 - address;
      parts.push(u8.subarray(at, at + u32[word + 2]));
    }
    const packet = Uint8Array.from(Buffer.concat(parts));
    this.written.push(packet);
    return packet.length;
  }

  #isBroken(): boolean {
    if (this.failure === 0 || this.good-- > 0) return false;
    if (this.failure instanceof Error) throw this.failure;
    return true;
  }

  /** Takes what has been written so far. */
  take(): Uint8Array[] {
    return this.written.splice(0);
  }

  errno(): number {
    return this.#errno;
  }

  #fail(errno: number): number {
    this.#errno = errno;
    return -1;
  }
}

export interface VtepOptions {
  readonly vni?: number;
  readonly mtu?: number;
  readonly udpChecksum?: boolean;
  readonly ttl?: number;
  readonly tos?: number;
  readonly df?: boolean;
  readonly resolved?: boolean;
  readonly device?: number;
  readonly port?: number;
}

/** The state that workers share, and the packet memory of one worker. */
export class Rig {
  readonly nextHops = new NextHops({ onNextHop() {}, onRelease() {} }, 64);
  readonly fdb = new FdbTable(64);
  readonly lists = new Lists(1024);
  readonly neighbors = new NeighborTable(64);
  readonly mdb = new Mdb(this.nextHops, this.lists, 0, 64);
  readonly shared: Shared;
  readonly counters: Float64Array;
  readonly records: Int32Array;
  /** For tests of a part; a Worker makes its own over the same bytes. */
  readonly memory: PacketMemory;

  constructor() {
    this.shared = {
      packets: sharePacketMemory(1),
      counters: allocateCounters(1),
      fdb: this.fdb.buffer,
      nextHops: this.nextHops.buffer,
      peers: this.nextHops.peers.buffer,
      lists: this.lists.buffer,
      reports: allocateReports(1),
      neighbors: this.neighbors.buffer,
      mdb: this.mdb.buffer,
      devices: new SharedArrayBuffer(MAX_DEVICES * DEVICE_RECORD * 4),
      control: new SharedArrayBuffer(64),
    };
    this.counters = new Float64Array(this.shared.counters);
    this.records = new Int32Array(this.shared.devices);
    this.memory = new PacketMemory(this.shared.packets, 0);
    this.memory.u8.fill(0xa5);
    for (let device = 0; device < MAX_DEVICES; device++) this.setOptions(device, {});
  }

  /** A device's options, as the control plane tells them. */
  setOptions(device: number, options: Partial<DeviceConfig>): void {
    this.records.set(optionWords(completeDevice(options), TTL), device * DEVICE_RECORD + DEVICE_FLAGS);
  }

  /** The next hop to a VTEP; resolved, unless told otherwise. */
  vtep(ip: string, options: VtepOptions = {}): number {
    const { vni = VNI, mtu = 1500, udpChecksum = true, resolved = true, device = 0, port = PORT } = options;
    const { ttl = TTL, tos = 0, df = false } = options;
    const index = this.nextHops.acquire({ device, ip, port, vni, via: '' }, 0);
    if (resolved) {
      this.nextHops.publish(
        index,
        buildTemplate({
          sourceMac: '02:00:00:00:00:0b',
          destinationMac: '02:00:00:00:00:0a',
          source: ip.includes(':') ? '2001:db8::1' : '192.0.2.1',
          destination: ip,
          port,
          vni,
          ttl,
          tos,
          df,
          udpChecksum,
          uplink: 0,
          mtu,
        }),
      );
    }
    return index;
  }

  /** What a worker's decap asks about senders. */
  sources(): SourceCheck {
    const { memory, counters, shared, nextHops, lists } = this;
    const hops = new Int32Array(nextHops.buffer);
    const reports = new ReportWriter(shared.reports, 0, memory);
    const peers = new PeerReader(shared.peers);
    return new SourceCheck(
      memory,
      counters,
      new FdbReader(shared.fdb),
      hops,
      new Int32Array(lists.buffer),
      peers,
      reports,
    );
  }

  /** Sends a device's frames to a MAC (its last byte; -1: all the rest) to a next hop, or to copies for several. */
  entry(device: number, last: number, ...nextHops: number[]): void {
    const [high, low] = last < 0 ? [0, 0] : macParts(last);
    const destination = nextHops.length === 1 ? nextHops[0] << 1 : (this.lists.create(nextHops, 0) << 1) | 1;
    this.fdb.insert(device, high, low, destination, STATE_BITS.static, 0);
  }

  setMac(device: number, last: number): void {
    const [high, low] = macParts(last);
    this.records[device * DEVICE_RECORD + DEVICE_MAC_HIGH] = high;
    this.records[device * DEVICE_RECORD + DEVICE_MAC_LOW] = low;
  }

  /** Turns on options of a device: bits of DEVICE_FLAGS. */
  setFlags(device: number, flags: number): void {
    this.records[device * DEVICE_RECORD + DEVICE_FLAGS] = flags;
  }

  setBridged(device: number): void {
    this.records[device * DEVICE_RECORD + DEVICE_BRIDGED] = 1;
  }

  /** The counters of a device that are not zero. */
  device(index: number): Partial<Record<CounterName, number>> {
    return this.#nonZero(block(0, index));
  }

  uplink(index: number): Partial<Record<CounterName, number>> {
    return this.#nonZero(block(0, FIRST_UPLINK_SCOPE + index));
  }

  clear(): void {
    this.counters.fill(0);
  }

  #nonZero(at: number): Partial<Record<CounterName, number>> {
    const entries = COUNTERS.map((name) => [name, this.counters[at + COUNTER[name]]] as const);
    return Object.fromEntries(entries.filter(([, value]) => value !== 0));
  }
}

export interface NodeOptions extends Partial<UplinkOffloads> {
  readonly mergeUdp?: boolean;
  /** How many devices, of VNIs VNI, VNI + 1, ... */
  readonly devices?: number;
}

/** An uplink of whole frames, number 0. */
export function uplinkSpec(offloads: UplinkOffloads): UplinkSpec {
  return {
    index: 0,
    kind: 'redirect',
    offloads,
    socketGso: offloads.udpGso,
    port: PORT,
    family: 4,
    sourcePorts: SOURCE_PORTS,
    largestFrame: 1522,
    tap: -1,
    receiver: -1,
    senders: [],
    dfSenders: [],
    groupReceivers: [],
    zeroChecksum6: false,
  };
}

/** A machine: one worker with its uplink, whose far end `uplink` is until it is linked to another's, and devices. */
export class Node {
  readonly rig = new Rig();
  readonly taps: readonly TestPort[];
  readonly options: NodeOptions;
  /** In the place of a TAP: an in-memory link, or a port to look into. */
  readonly uplink: Port;
  worker: Worker;

  constructor(
    options: NodeOptions = {},
    makeUplink: (memory: PacketMemory) => Port = (memory) => new TestPort(memory),
  ) {
    this.options = options;
    this.uplink = makeUplink(this.rig.memory);
    this.taps = Array.from({ length: options.devices ?? 1 }, () => new TestPort(this.rig.memory));
    this.worker = this.startWorker();
  }

  /** As the pool does it, also after a failure: a new worker over the same memory and counters. */
  startWorker(): Worker {
    const { tunnelGso = true, udpGso = true, mergeUdp = true } = this.options;
    this.worker = new Worker(0, this.rig.shared);
    this.worker.addFrameUplink(uplinkSpec({ tunnelGso, udpGso }), this.uplink);
    this.taps.forEach((tap, index) => {
      this.worker.addDevice({ index, vni: VNI + index, uplink: 0, tap: -1, mergeUdp }, tap);
    });
    return this.worker;
  }

  /** Takes turns until there is nothing more to move. */
  run(): void {
    while (this.worker.turn() > 0);
  }

  /**
   * Asserts the equations of counters.ts, and returns how many VXLAN packets went out and came in.
   * `wholeTime`: no device was taken away.
   */
  balance(wholeTime = true): { tx: number; rx: number } {
    const devices = this.taps.map((_, index) => this.rig.device(index));
    const total = (name: CounterName) => devices.reduce((sum, counters) => sum + (counters[name] ?? 0), 0);
    for (const counters of devices) {
      const {
        tx_frames = 0,
        tx_replicas = 0,
        tx_segments = 0,
        tx_packets = 0,
        tx_answered = 0,
        rx_packets = 0,
        rx_frames = 0,
      } = counters;
      const sent = tx_packets + tx_answered + drops(counters, 'tx');
      assert.equal(tx_frames + tx_replicas + tx_segments, sent, 'sending');
      assert.equal(rx_packets, rx_frames + drops(counters, 'rx'), 'receiving');
    }
    const uplink = this.rig.uplink(0);
    assert.equal(uplink.rx_packets ?? 0, (uplink.rx_passed ?? 0) + drops(uplink, 'rx'), 'the uplink');
    if (wholeTime)
      assert.equal(uplink.rx_passed ?? 0, total('rx_packets'), 'what the uplink passed on is what devices got');
    return { tx: total('tx_packets'), rx: uplink.rx_packets ?? 0 };
  }
}

/** The receiving half: an uplink's port, and two devices, of which the second has the next VNI and the MAC `OWN`. */
export class Receiving {
  readonly rig = new Rig();
  readonly port: TestPort;
  readonly taps: readonly TestPort[];
  readonly uplink: FrameUplink;
  readonly #decap: Decap;
  readonly #batch = new Batch(64);
  readonly #fences: readonly number[];

  constructor() {
    const { memory, counters, nextHops, records } = this.rig;
    const sum = loadSum(memory);
    const scope = block(0, FIRST_UPLINK_SCOPE);
    const options = { offloads: { tunnelGso: true, udpGso: true }, port: PORT, sourcePorts: SOURCE_PORTS, scope };
    const before = memory.take(FENCE);
    const arena = takeUplinkArena(memory);
    this.#fences = [before, memory.take(FENCE)];
    for (const at of this.#fences) memory.u8.fill(FENCED, at, at + FENCE);
    this.port = new TestPort(memory);
    this.taps = [new TestPort(memory), new TestPort(memory)];
    this.uplink = new FrameUplink(this.port, memory, sum, counters, new Int32Array(nextHops.buffer), {
      ...options,
      arena,
    });
    const devices = this.taps.map((tap, i) => {
      const coalescer = new Coalescer(memory, tap, sum, counters, block(0, i), true);
      return new Device(i, VNI + i, block(0, i), tap, coalescer, this.uplink, records);
    });
    this.rig.setMac(0, OWN + 1);
    this.rig.setMac(1, OWN);
    this.#decap = new Decap(memory, counters, scope, devices, 4, this.rig.sources(), false);
  }

  /** What the first device's TAP gets when these packets arrive. The other's is in `taps[1].written`. */
  receive(packets: readonly Uint8Array[]): Uint8Array[] {
    this.rig.clear();
    this.port.waiting.push(...packets);
    while (this.port.waiting.length > 0) {
      this.uplink.receive(this.#batch);
      this.#decap.run(this.#batch);
    }
    return this.taps[0].take();
  }

  /** Whether the memory around the arena, where packets lie, is as it was. */
  get isIntact(): boolean {
    const { u8 } = this.rig.memory;
    return this.#fences.every((at) => u8.subarray(at, at + FENCE).every((byte) => byte === FENCED));
  }

  /** The counters of packets and drops, over all blocks. */
  counts(): Partial<Record<string, number>> {
    const { rx_packets, rx_passed: _, ...own } = this.rig.uplink(0);
    return { ...own, ...pick(this.rig.device(0)), ...pick(this.rig.device(1)), arrived: rx_packets };
  }
}

const FENCE = 65536;
const FENCED = 0x5a;

/** Last byte of a MAC that is a device's own. */
export const OWN = 0x77;

function macParts(last: number): [number, number] {
  const bytes = Buffer.from(mac(last));
  return [bytes.readUInt16BE(0), bytes.readInt32BE(2)];
}

/** The sum of some counters' drops in one direction. */
export function drops(counters: Partial<Record<CounterName, number>>, direction: 'tx' | 'rx'): number {
  return DROPS.filter((drop) => drop.direction === direction).reduce((sum, { name }) => sum + (counters[name] ?? 0), 0);
}

/** Packets and drops only: how many bytes and calls there were is another matter. */
function pick(counters: Partial<Record<CounterName, number>>): Partial<Record<string, number>> {
  return Object.fromEntries(Object.entries(counters).filter(([name]) => !/_(bytes|writes)$/.test(name)));
}

/** Random numbers from a seed (xorshift32): the same ones each time. */
export function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.floor(((state >>> 0) / 2 ** 32) * below);
  };
}
