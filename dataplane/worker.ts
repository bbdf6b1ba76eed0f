/**
 * A worker: reads from its devices' TAPs and its uplinks and moves packets between them. The only file that sees both directions.
 *
 *     tap.receive -> encap -> uplink.send         uplink.receive -> decap -> tap.write
 *
 * It runs as one task of a thread pool, never awaits, and blocks in poll only. What can change while it runs comes through shared
 * memory; its eventfd wakes it.
 */
import { FdbReader } from '../fdb/table.ts';
import * as libc from '../system/libc.ts';
import { Batch } from './batch.ts';
import { loadSum, type Sum } from './checksum.ts';
import { Coalescer } from './coalesce.ts';
import { CONTROL_FAIL, CONTROL_STOP } from './control.ts';
import { block, COUNTER, FIRST_UPLINK_SCOPE, settle } from './counters.ts';
import { Decap } from './decap.ts';
import { Device } from './device.ts';
import { Encap } from './encap.ts';
import { type MemoryShare, PacketMemory } from './memory.ts';
import { FdPort, type Port } from './port.ts';
import { receiveFrames, takeTapArena } from './tap.ts';
import { FrameUplink } from './uplink/frame.ts';
import { UdpReceiver } from './uplink/receiver.ts';
import { UdpUplink } from './uplink/udp.ts';
import type { Uplink, UplinkOffloads } from './uplink/uplink.ts';

/** What all workers share. */
export interface Shared {
  readonly packets: MemoryShare;
  readonly counters: SharedArrayBuffer;
  readonly fdb: SharedArrayBuffer;
  readonly nextHops: SharedArrayBuffer;
  readonly lists: SharedArrayBuffer;
  /** DEVICE_RECORD words a device, see device.ts. */
  readonly devices: SharedArrayBuffer;
  /** CONTROL_* words. */
  readonly control: SharedArrayBuffer;
}

/** An uplink, as posted to a worker. */
export interface UplinkSpec {
  readonly index: number;
  readonly kind: 'redirect' | 'udp';
  readonly offloads: UplinkOffloads;
  /** UDP port that peers send to. */
  readonly port: number;
  readonly sourcePorts: readonly [number, number];
  /** Frames longer than this are super-frames. */
  readonly largestFrame: number;
  /** The worker's own descriptors: the uplink TAP's queue (redirect), the receiving socket, sockets to send from (udp). */
  readonly tap?: number;
  readonly receiver: number;
  readonly senders: readonly number[];
}

/** A device, as posted to a worker. */
export interface DeviceSpec {
  readonly index: number;
  readonly vni: number;
  readonly uplink: number;
  /** The worker's queue of the TAP. */
  readonly tap: number;
  readonly mergeUdp: boolean;
}

export interface WorkerTask {
  readonly worker: number;
  readonly shared: Shared;
  readonly eventfd: number;
  readonly uplinks: readonly UplinkSpec[];
  readonly devices: readonly DeviceSpec[];
}

const POLLIN = 1;
const POLLFD = 8;
const POLL_MILLISECONDS = 1000;
const MAX_POLLED = 64;
const BATCH = 64;
/** Rounds without blocking before the stop flag and the slow paths are looked at again. */
const ROUNDS = 64;

interface UplinkState {
  readonly index: number;
  readonly uplink: Uplink;
  readonly devices: Device[];
  readonly decap: Decap;
  /** The slow path of a redirect uplink: fragments and all else that its filter leaves to the host's stack. */
  readonly slow?: { readonly receiver: UdpReceiver; readonly decap: Decap };
}

export class Worker {
  readonly #memory: PacketMemory;
  readonly #sum: Sum;
  readonly #counters: Float64Array;
  readonly #nextHops: Int32Array;
  readonly #records: Int32Array;
  readonly #encap: Encap;
  readonly #index: number;
  readonly #arena: number;
  readonly #batch = new Batch(BATCH);
  readonly #devices: Device[] = [];
  readonly #uplinks: UplinkState[] = [];

  constructor(index: number, shared: Shared) {
    this.#index = index;
    this.#memory = new PacketMemory(shared.packets, index);
    this.#sum = loadSum(this.#memory);
    this.#counters = new Float64Array(shared.counters);
    this.#nextHops = new Int32Array(shared.nextHops);
    this.#records = new Int32Array(shared.devices);
    this.#encap = new Encap(this.#memory, this.#counters, new FdbReader(shared.fdb), new Int32Array(shared.lists));
    this.#arena = takeTapArena(this.#memory);
  }

  get memory(): PacketMemory {
    return this.#memory;
  }

  addUplink(spec: UplinkSpec): void {
    const scope = block(this.#index, FIRST_UPLINK_SCOPE + spec.index);
    const receiver = new UdpReceiver(spec.receiver, this.#memory, this.#counters, scope, spec.largestFrame);
    if (spec.kind === 'udp') {
      const { senders, offloads } = spec;
      const uplink = new UdpUplink(
        senders,
        receiver,
        this.#memory,
        this.#sum,
        this.#counters,
        this.#nextHops,
        offloads,
      );
      this.#register(spec.index, uplink, true);
    } else {
      this.addFrameUplink(spec, new FdPort(spec.tap!, this.#memory), receiver);
    }
  }

  /** Adds an uplink of whole frames over any port: the redirect uplink's TAP, or an in-memory link. */
  addFrameUplink(spec: UplinkSpec, port: Port, slow?: UdpReceiver): void {
    const scope = block(this.#index, FIRST_UPLINK_SCOPE + spec.index);
    const options = { offloads: spec.offloads, port: spec.port, sourcePorts: spec.sourcePorts, scope };
    const uplink = new FrameUplink(port, this.#memory, this.#sum, this.#counters, this.#nextHops, options);
    this.#register(spec.index, uplink, false, slow);
  }

  #register(index: number, uplink: Uplink, maybeUnfinished: boolean, slow?: UdpReceiver): void {
    const devices: Device[] = [];
    const scope = block(this.#index, FIRST_UPLINK_SCOPE + index);
    const decap = (unfinished: boolean) => new Decap(this.#memory, this.#counters, scope, devices, unfinished);
    this.#uplinks.push({
      index,
      uplink,
      devices,
      decap: decap(maybeUnfinished),
      slow: slow && { receiver: slow, decap: decap(true) },
    });
  }

  addDevice(spec: DeviceSpec, tap: Port = new FdPort(spec.tap, this.#memory)): void {
    const scope = block(this.#index, spec.index);
    const uplink = this.#uplinks.find(({ index }) => index === spec.uplink);
    if (!uplink) throw new Error(`device ${spec.index} names uplink ${spec.uplink}, which is not there`);
    const coalescer = new Coalescer(this.#memory, tap, this.#sum, this.#counters, scope, spec.mergeUdp);
    const device = new Device(spec.index, spec.vni, scope, tap, coalescer, uplink.uplink, this.#records);
    uplink.devices.push(device);
    this.#devices.push(device);
  }

  /** One round over everything that can be read; returns the packets that it moved. */
  turn(): number {
    const batch = this.#batch;
    let moved = 0;
    for (const device of this.#devices) {
      receiveFrames(device.tap, this.#memory, this.#arena, batch);
      if (batch.count === 0) continue;
      moved += batch.count;
      this.#countFrames(device.scope);
      this.#encap.run(batch, device);
    }
    for (const { uplink, decap } of this.#uplinks) {
      const packets = uplink.receive(batch);
      if (packets === 0) continue;
      moved += packets;
      decap.run(batch);
    }
    return moved;
  }

  #countFrames(scope: number): void {
    const { count, length } = this.#batch;
    let bytes = 0;
    for (let i = 0; i < count; i++) bytes += length[i];
    this.#counters[scope + COUNTER.tx_frames] += count;
    this.#counters[scope + COUNTER.tx_bytes] += bytes;
  }

  /** One round over the slow paths, which are looked at only when poll says so. */
  #turnSlowPaths(): void {
    for (const { slow } of this.#uplinks) {
      if (slow && slow.receiver.receive(this.#batch) > 0) slow.decap.run(this.#batch);
    }
  }

  /** Moves packets until the control word says stop. */
  run(task: WorkerTask): void {
    const control = new Int32Array(task.shared.control);
    const { u32, u16, address } = this.#memory;
    const pollfds = this.#memory.take(MAX_POLLED * POLLFD);
    const fds = [
      task.eventfd,
      ...this.#devices.map((device) => device.tap.fd),
      ...this.#uplinks.flatMap(({ uplink, slow }) => [...uplink.fds, ...(slow ? [slow.receiver.fd] : [])]),
    ];
    fds.forEach((fd, i) => {
      u32[(pollfds + i * POLLFD) >> 2] = fd;
      u16[(pollfds + i * POLLFD + 4) >> 1] = POLLIN;
    });
    const failure = CONTROL_FAIL + this.#index;
    while (Atomics.load(control, CONTROL_STOP) === 0) {
      if (Atomics.exchange(control, failure, 0) !== 0) throw new Error('told to fail');
      libc.poll(address + pollfds, fds.length, POLL_MILLISECONDS);
      for (let i = 0; i < ROUNDS && this.turn() > 0; i++);
      this.#turnSlowPaths();
    }
  }

  /** After a failure: counts what this worker held as lost. */
  settle(): void {
    for (const { index, devices } of this.#uplinks) {
      const scopes = devices.map((device) => device.scope);
      settle(this.#counters, block(this.#index, FIRST_UPLINK_SCOPE + index), scopes);
    }
  }
}

/** The pool's task: returns when the worker is told to stop; throws what went wrong in its loop. */
export default function runWorker(task: WorkerTask): void {
  const worker = new Worker(task.worker, task.shared);
  for (const uplink of task.uplinks) worker.addUplink(uplink);
  for (const device of task.devices) worker.addDevice(device);
  try {
    worker.run(task);
  } catch (error) {
    worker.settle();
    throw error;
  }
}
