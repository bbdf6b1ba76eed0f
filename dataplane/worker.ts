/**
 * A worker: reads from its devices' TAPs and its uplinks and moves packets between them. The only file that sees both directions.
 *
 *     tap.receive -> encap -> uplink.send         uplink.receive -> decap -> tap.write
 *
 * It runs as one task of a thread pool, never awaits, and blocks in poll only. Tables, counters and MAC addresses are shared
 * memory; devices and uplinks come and go by messages, which it takes when its eventfd wakes it.
 */
import { receiveMessageOnPort } from 'node:worker_threads';
import { MdbReader } from '../fdb/mdb-table.ts';
import { NeighborReader } from '../fdb/neighbors.ts';
import { PeerReader } from '../fdb/peers.ts';
import { FdbReader } from '../fdb/table.ts';
import * as libc from '../system/libc.ts';
import { Batch } from './batch.ts';
import { BusyPoll } from './busy-poll.ts';
import { loadSum, type Sum } from './checksum.ts';
import { Coalescer } from './coalesce.ts';
import { block, COUNTER, FIRST_UPLINK_SCOPE, settle } from './counters.ts';
import { Decap } from './decap.ts';
import { Device } from './device.ts';
import { Encap } from './encap.ts';
import { PacketMemory } from './memory.ts';
import { FdPort, type Port } from './port.ts';
import { attach, detach } from './record/attach.ts';
import { Recorder } from './record/recorder.ts';
import type { RecordingDecap } from './record/recording-decap.ts';
import { RecordingEncap } from './record/recording-encap.ts';
import type { TapSpec } from './record/tap.ts';
import { Reply } from './reply.ts';
import { ReportWriter } from './reports.ts';
import { SourceCheck } from './source.ts';
import { Suppressor } from './suppress.ts';
import { receiveFrames, takeTapArena } from './tap.ts';
import {
  CONTROL_FAIL,
  CONTROL_STOP,
  type DeviceSpec,
  type Shared,
  type UplinkSpec,
  type WorkerCommand,
  type WorkerReport,
  type WorkerTask,
} from './task.ts';
import { TooBig } from './too-big.ts';
import { FrameUplink, type FrameUplinkOptions, takeUplinkArena } from './uplink/frame.ts';
import { RawUplink } from './uplink/raw.ts';
import type { RawPort } from './uplink/raw-port.ts';
import { ReceiveBuffers, UdpReceiver } from './uplink/receiver.ts';
import type { Sender } from './uplink/sender.ts';
import { UdpUplink } from './uplink/udp.ts';
import type { Uplink } from './uplink/uplink.ts';

const POLLIN = 1;
const POLLFD = 8;
/** Byte offsets in a struct pollfd. */
const POLL_EVENTS = 4;
const POLL_REVENTS = 6;
/** POLLERR, POLLHUP, POLLNVAL: nothing will ever be read from it again. */
const POLL_DEAD = 0x38;
const MAX_POLLED = 2048;
const BATCH = 64;
/**
 * Packets delivered in one round after which whoever shares the CPU goes first: those may be their receivers, whose sockets hold some
 * 160 of them. At overload a worker that goes on would only fill sockets that overflow already: with this 1.5 to 1.9 times as many packets
 * of a flood reach the receiving program (two CPUs, iperf3, 64 and 1400 bytes), and TCP is as fast as without.
 */
const MANY = 32;
/** Rounds for what an uplink still has when it is taken away. */
const ROUNDS = 64;

interface UplinkState {
  readonly index: number;
  readonly port: number;
  readonly family: 4 | 6;
  readonly uplink: Uplink;
  /** Of all uplinks of its port and family: a packet's device is found by its VNI, whatever NIC it came in on, as in the kernel. */
  readonly devices: Device[];
  decap: Decap | RecordingDecap;
  /** The slow path of a redirect uplink, fragments and all else that its filter leaves to the host's stack; and a group's packets. */
  readonly slow: readonly SlowPath[];
}

interface SlowPath {
  readonly receiver: UdpReceiver;
  decap: Decap | RecordingDecap;
}

export class Worker {
  readonly memory: PacketMemory;
  readonly sum: Sum;
  readonly #counters: Float64Array;
  readonly #nextHops: Int32Array;
  readonly #records: Int32Array;
  readonly reports: ReportWriter;
  #encap: Encap | RecordingEncap;
  readonly #sources: SourceCheck;
  readonly #index: number;
  readonly #tapArena: number;
  readonly #uplinkArena: number;
  readonly #receiveBuffers: ReceiveBuffers;
  readonly #batch = new Batch(BATCH);
  readonly #devices: Device[] = [];
  readonly #uplinks: UplinkState[] = [];
  readonly #devicesOfPort = new Map<string, Device[]>();
  /** While somebody listens. */
  #recorder: Recorder | undefined;

  /** `host`: a worker of the same thread that does nothing meanwhile, whose packet memory it shares. */
  constructor(index: number, shared: Shared, host?: Worker) {
    this.#index = index;
    this.memory = host?.memory ?? new PacketMemory(shared.packets, index);
    this.sum = host?.sum ?? loadSum(this.memory);
    this.#counters = new Float64Array(shared.counters);
    this.#nextHops = new Int32Array(shared.nextHops);
    this.#records = new Int32Array(shared.devices);
    this.reports = new ReportWriter(shared.reports, index, this.memory);
    const fdb = new FdbReader(shared.fdb);
    const neighbors = new NeighborReader(shared.neighbors);
    const reply = new Reply(this.memory);
    const suppressor = new Suppressor(this.memory, this.#counters, fdb, neighbors, reply, this.reports);
    const lists = new Int32Array(shared.lists);
    const teller = new TooBig(this.memory, reply);
    const mdb = new MdbReader(shared.mdb);
    this.#encap = new Encap(this.memory, this.#counters, fdb, mdb, lists, suppressor, this.reports, teller);
    const peers = new PeerReader(shared.peers);
    this.#sources = new SourceCheck(this.memory, this.#counters, fdb, this.#nextHops, lists, peers, this.reports);
    this.#tapArena = host ? host.#tapArena : takeTapArena(this.memory);
    this.#uplinkArena = host ? host.#uplinkArena : takeUplinkArena(this.memory);
    this.#receiveBuffers = host ? host.#receiveBuffers : new ReceiveBuffers(this.memory);
  }

  addUplink(spec: UplinkSpec): void {
    const scope = block(this.#index, FIRST_UPLINK_SCOPE + spec.index);
    const receiver = new UdpReceiver(spec.receiver, this.#receiveBuffers, this.#counters, scope, spec.largestFrame);
    const udp = (receiving?: UdpReceiver): UdpUplink => {
      const offloads = { tunnelGso: false, udpGso: spec.socketGso };
      const { memory, sum } = this;
      return new UdpUplink(spec, receiving, memory, sum, this.#counters, this.#nextHops, offloads);
    };
    if (spec.kind === 'udp') this.#register(spec, udp(receiver), true);
    else this.addFrameUplink(spec, new FdPort(spec.tap, this.memory), udp(), receiver);
  }

  /** The raw uplink: sends through the port, receives on the socket. */
  addRawUplink(spec: UplinkSpec, port: RawPort): void {
    const options = this.#frameOptions(spec, true);
    const { memory, sum } = this;
    const receiver = new UdpReceiver(
      spec.receiver,
      this.#receiveBuffers,
      this.#counters,
      options.scope,
      spec.largestFrame,
    );
    const uplink = new RawUplink(port, memory, sum, this.#counters, this.#nextHops, options);
    this.#register(spec, uplink, false, receiver);
  }

  /** Adds an uplink of whole frames over any port: the redirect uplink's TAP, or an in-memory link. */
  addFrameUplink(spec: UplinkSpec, port: Port, viaHost?: Sender, slow?: UdpReceiver): void {
    const options = this.#frameOptions(spec, spec.kind !== 'redirect');
    const uplink = new FrameUplink(port, this.memory, this.sum, this.#counters, this.#nextHops, options, viaHost);
    this.#register(spec, uplink, false, slow);
  }

  #frameOptions(spec: UplinkSpec, isHostPath: boolean): FrameUplinkOptions {
    const { offloads, port, sourcePorts, zeroChecksum6, index } = spec;
    const scope = block(this.#index, FIRST_UPLINK_SCOPE + index);
    return { isHostPath, offloads, port, sourcePorts, zeroChecksum6, scope, arena: this.#uplinkArena };
  }

  #register(spec: UplinkSpec, uplink: Uplink, maybeUnfinished: boolean, slow?: UdpReceiver): void {
    const { index, port, family } = spec;
    const devices = this.#devicesOfPort.get(`${family} ${port}`) ?? [];
    this.#devicesOfPort.set(`${family} ${port}`, devices);
    const scope = block(this.#index, FIRST_UPLINK_SCOPE + index);
    const groups = spec.groupReceivers.map(
      (fd) => new UdpReceiver(fd, this.#receiveBuffers, this.#counters, scope, spec.largestFrame),
    );
    const decap = (unfinished: boolean) =>
      new Decap(this.memory, this.#counters, scope, devices, family, this.#sources, unfinished);
    this.#uplinks.push({
      index,
      port,
      family,
      uplink,
      devices,
      decap: decap(maybeUnfinished),
      slow: [...(slow ? [slow] : []), ...groups].map((receiver) => ({ receiver, decap: decap(true) })),
    });
    this.#attach();
  }

  /** What has arrived on it is handed on first. */
  removeUplink(index: number): void {
    const at = this.#uplinks.findIndex((state) => state.index === index);
    if (at < 0) return;
    const [state] = this.#uplinks.splice(at, 1);
    for (let i = 0; i < ROUNDS && this.#turnUplink(state) > 0; i++);
    for (const path of state.slow) for (let i = 0; i < ROUNDS && this.#turnSlowPath(path) > 0; i++);
    state.uplink.close();
  }

  /** One that is there already moves to another uplink, in one step: no packet finds it missing. */
  addDevice(spec: DeviceSpec, tap: Port = new FdPort(spec.tap, this.memory)): void {
    const scope = block(this.#index, spec.index);
    const state = this.#uplinks.find(({ index }) => index === spec.uplink);
    if (!state) throw new Error(`device ${spec.index} names uplink ${spec.uplink}, which is not there`);
    this.removeDevice(spec.index);
    const coalescer = new Coalescer(this.memory, tap, this.sum, this.#counters, scope, spec.mergeUdp);
    const device = new Device(spec.index, spec.vni, scope, tap, coalescer, state.uplink, this.#records);
    state.devices.push(device);
    this.#devices.push(device);
    this.#attach();
  }

  removeDevice(index: number): void {
    for (const devices of [this.#devices, ...this.#devicesOfPort.values()]) {
      const at = devices.findIndex((device) => device.index === index);
      if (at < 0) continue;
      const [device] = devices.splice(at, 1);
      if (devices === this.#devices) device.coalescer.close();
    }
  }

  /** Somebody wants to see packets from now on. Throws FilterError. */
  listen(spec: TapSpec): void {
    const recorder = this.#recorder ?? new Recorder(this.memory);
    recorder.add(spec);
    this.#recorder = recorder;
    this.#attach();
  }

  /** When nobody listens any more all is as it was before. */
  unlisten(id: number): void {
    if (this.#recorder === undefined || this.#recorder.remove(id) > 0) return;
    this.#recorder = undefined;
    if (this.#encap instanceof RecordingEncap) this.#encap = this.#encap.detach(this.memory);
    detach(this.#devices, this.#uplinks);
  }

  #attach(): void {
    const recorder = this.#recorder;
    if (recorder === undefined) return;
    const encap =
      this.#encap instanceof RecordingEncap
        ? this.#encap
        : new RecordingEncap(this.#encap, recorder, this.#counters, this.#nextHops);
    this.#encap = encap;
    attach(recorder, encap, this.#counters, this.#index, this.#devices, this.#uplinks);
  }

  /** One round over everything that can be read; returns the packets that it moved. */
  turn(): number {
    const devices = this.#devices;
    const uplinks = this.#uplinks;
    let moved = 0;
    for (let i = 0; i < devices.length; i++) moved += this.#turnDevice(devices[i]);
    for (let i = 0; i < uplinks.length; i++) moved += this.#turnUplink(uplinks[i]);
    return moved;
  }

  #turnDevice(device: Device): number {
    const batch = this.#batch;
    receiveFrames(device.tap, this.memory, this.#tapArena, batch);
    if (batch.count === 0) return 0;
    this.#countFrames(device.scope);
    this.#encap.run(batch, device);
    return batch.count;
  }

  #turnUplink({ uplink, decap }: UplinkState): number {
    const packets = uplink.receive(this.#batch);
    if (packets > 0) decap.run(this.#batch);
    if (packets >= MANY) libc.schedYield();
    return packets;
  }

  /** One round over what the host's stack hands to the slow paths' sockets; returns the packets. */
  turnSlowPaths(): number {
    let moved = 0;
    for (const { slow } of this.#uplinks) for (const path of slow) moved += this.#turnSlowPath(path);
    return moved;
  }

  #turnSlowPath({ receiver, decap }: SlowPath): number {
    const packets = receiver.receive(this.#batch);
    if (packets > 0) decap.run(this.#batch);
    return packets;
  }

  #countFrames(scope: number): void {
    const { count, length } = this.#batch;
    let bytes = 0;
    for (let i = 0; i < count; i++) bytes += length[i];
    this.#counters[scope + COUNTER.tx_frames] += count;
    this.#counters[scope + COUNTER.tx_bytes] += bytes;
  }

  /** Moves packets until the control word says stop. `practice` is called while there are devices and nothing to do, until it returns false. */
  run({ shared, eventfd, messages, busyPoll }: WorkerTask, practice: () => boolean): void {
    const control = new Int32Array(shared.control);
    const { u32, u16, address } = this.memory;
    const pollfds = this.memory.take(MAX_POLLED * POLLFD);
    const failure = CONTROL_FAIL + this.#index;
    const busy = new BusyPoll(busyPoll);
    const devices = this.#devices;
    const uplinks = this.#uplinks;
    let slowPaths: SlowPath[] = [];
    let polled = 0;
    let isPracticed = false;

    /** eventfd, TAPs, slow paths, uplinks: in this order. */
    const layOut = (): void => {
      slowPaths = uplinks.flatMap(({ slow }) => slow);
      const fds = [
        eventfd,
        ...devices.map((device) => device.tap.fd),
        ...slowPaths.map(({ receiver }) => receiver.fd),
        ...uplinks.flatMap(({ uplink }) => uplink.fds),
      ];
      polled = Math.min(fds.length, MAX_POLLED);
      for (let i = 0; i < polled; i++) {
        u32[(pollfds + i * POLLFD) >> 2] = fds[i];
        u16[(pollfds + i * POLLFD + POLL_EVENTS) >> 1] = POLLIN;
      }
    };
    const events = (i: number): number => u16[(pollfds + i * POLLFD + POLL_REVENTS) >> 1];

    layOut();
    while (Atomics.load(control, CONTROL_STOP) === 0) {
      if (Atomics.exchange(control, failure, 0) !== 0) throw new Error('told to fail');
      // Without a device there is nothing to be quick for, and a program that is still starting has work for the CPUs.
      const practises = !isPracticed && devices.length > 0;
      const ready = practises ? libc.poll(address + pollfds, polled, 0) : busy.wait(address + pollfds, polled);
      if (ready <= 0) {
        if (practises) isPracticed = !practice();
        continue;
      }
      if (events(0) !== 0) {
        this.#takeMessages(eventfd, messages);
        layOut();
        continue;
      }
      // Only what poll has named is read: a read in vain costs as much as half a packet.
      let next = 1;
      for (let i = 0; i < devices.length; i++, next++) {
        const seen = events(next);
        if (seen === 0) continue;
        this.#turnDevice(devices[i]);
        if ((seen & POLL_DEAD) === 0) continue;
        // Its TAP was deleted. The main thread is told once, and takes the device away.
        u32[(pollfds + next * POLLFD) >> 2] = IGNORED;
        messages.postMessage({ gone: devices[i].index } satisfies WorkerReport);
      }
      for (let i = 0; i < slowPaths.length; i++, next++) {
        if (events(next) !== 0) this.#turnSlowPath(slowPaths[i]);
      }
      for (let i = 0; i < uplinks.length; i++) {
        const { uplink } = uplinks[i];
        let seen = 0;
        for (const end = next + uplink.fds.length; next < end && next < polled; next++) {
          seen |= events(next);
          // An uplink's TAP was deleted: the main thread sees it as well, and opens another.
          if ((events(next) & POLL_DEAD) !== 0 && slowPaths.length > 0) u32[(pollfds + next * POLLFD) >> 2] = IGNORED;
        }
        if (seen !== 0) this.#turnUplink(uplinks[i]);
      }
    }
  }

  /** Carries out what the main thread asks for, and answers. */
  #takeMessages(eventfd: number, messages: WorkerTask['messages']): void {
    libc.read(eventfd, this.memory.address + this.#uplinkArena, 8);
    for (;;) {
      const received = receiveMessageOnPort(messages) as { message: WorkerCommand } | undefined;
      if (!received) return;
      const { id, command } = received.message;
      let error: string | undefined;
      try {
        this.#carryOut(command);
      } catch (reason) {
        error = (reason as Error).message;
      }
      messages.postMessage({ id, error } satisfies WorkerReport);
    }
  }

  #carryOut(command: WorkerCommand['command']): void {
    if ('addUplink' in command) this.addUplink(command.addUplink);
    else if ('addDevice' in command) this.addDevice(command.addDevice);
    else if ('removeDevice' in command) this.removeDevice(command.removeDevice);
    else if ('listen' in command) this.listen(command.listen);
    else if ('unlisten' in command) this.unlisten(command.unlisten);
    else this.removeUplink(command.removeUplink);
  }

  /** After a failure: counts what this worker held as lost. */
  settle(): void {
    const uplinks = this.#uplinks.map(({ index }) => block(this.#index, FIRST_UPLINK_SCOPE + index));
    const devices = this.#devices.map(({ scope }) => scope);
    settle(this.#counters, uplinks, devices);
  }
}

/** poll ignores negative descriptors. */
const IGNORED = 0xffffffff;
