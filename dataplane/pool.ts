/** The workers, seen from the main thread: starts them on a thread pool, tells them what comes and goes, starts a failed one again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { Piscina } from 'piscina';
import * as libc from '../system/libc.ts';
import { allocateCounters } from './counters.ts';
import {
  DEVICE_BRIDGED,
  DEVICE_FLAGS,
  DEVICE_MAC_HIGH,
  DEVICE_MAC_LOW,
  DEVICE_MDB,
  DEVICE_RECORD,
  MAX_DEVICES,
} from './device.ts';
import type { DryRun, DryRuns } from './dry-run.ts';
import type { MainThreadWorker } from './main-thread.ts';
import { sharePacketMemory } from './memory.ts';
import { MOST_TAPS } from './record/recorder.ts';
import type { TapSpec } from './record/tap.ts';
import { allocateReports, ReportReader } from './reports.ts';
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

export interface PoolOptions {
  readonly workers: number;
  /** Microseconds, see BusyPoll. */
  readonly busyPoll: number;
  readonly fdb: SharedArrayBuffer;
  readonly nextHops: SharedArrayBuffer;
  readonly peers: SharedArrayBuffer;
  readonly lists: SharedArrayBuffer;
  readonly neighbors: SharedArrayBuffer;
  readonly mdb: SharedArrayBuffer;
  /** Called when a worker's loop threw and is started again. */
  readonly onFailure: (worker: number, error: Error) => void;
  /** Called with each report of a worker: the words, and the first word of its record (see reports.ts). */
  readonly onReport: (words: Int32Array, record: number) => void;
  /** Called when a device's TAP is gone, once or more often. */
  readonly onGone: (device: number) => void;
}

export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;
/** A worker that fails at once every time would otherwise keep the machine busy with starting it. */
const RESTART_MILLISECONDS = 100;

interface WorkerState {
  readonly eventfd: number;
  port: MessagePort | undefined;
  /** The thread that it runs on; undefined while it is not known. */
  thread: number | undefined;
  /** Commands that wait for an answer, by id. */
  readonly waiting: Map<number, { resolve(): void; reject(error: Error): void }>;
  running: Promise<void>;
}

export class WorkerPool {
  readonly counters: Float64Array;
  /** How often a worker was started again. */
  restarts = 0;
  readonly #shared: Shared;
  readonly #options: PoolOptions;
  readonly #pool: Piscina;
  readonly #control: Int32Array;
  readonly #records: Int32Array;
  // The two that run a worker on this thread are loaded when they are needed: a start has enough to load.
  #dryRuns: Promise<DryRuns> | undefined;
  readonly #reports: ReportReader;
  readonly #workers: WorkerState[] = [];
  /** What there is, by index, one spec a worker: what a worker that is started again begins with. */
  readonly #uplinks = new Map<number, readonly UplinkSpec[]>();
  readonly #devices = new Map<number, readonly DeviceSpec[]>();
  readonly #taps = new Map<number, readonly TapSpec[]>();
  /** Raw uplinks and their devices are the main thread's own. */
  #mainThread: MainThreadWorker | undefined;
  readonly #raw = new Set<number>();
  #stopping = false;
  #commands = 0;

  constructor(options: PoolOptions) {
    const { workers, fdb, nextHops, peers, lists, neighbors, mdb } = options;
    this.#options = options;
    this.#shared = {
      packets: sharePacketMemory(workers + 1), // and the main thread's, should there be one
      counters: allocateCounters(workers + 1),
      fdb,
      nextHops,
      peers,
      lists,
      reports: allocateReports(workers + 1),
      neighbors,
      mdb,
      devices: new SharedArrayBuffer(MAX_DEVICES * DEVICE_RECORD * 4),
      control: new SharedArrayBuffer((CONTROL_FAIL + workers) * 4),
    };
    this.counters = new Float64Array(this.#shared.counters);
    this.#control = new Int32Array(this.#shared.control);
    this.#records = new Int32Array(this.#shared.devices);
    this.#reports = new ReportReader(this.#shared.reports, options.onReport);
    void this.#reports.run();
    this.#pool = new Piscina({
      filename: new URL('./run-worker.js', import.meta.url).href,
      minThreads: workers,
      maxThreads: workers,
      concurrentTasksPerWorker: 1,
      resourceLimits: { maxYoungGenerationSizeMb: 4 }, // a worker allocates nothing per packet
    });
    for (let worker = 0; worker < workers; worker++) {
      const eventfd = libc.check(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'workers', 'eventfd');
      const state: WorkerState = {
        ...{ eventfd, port: undefined, thread: undefined },
        waiting: new Map(),
        running: Promise.resolve(),
      };
      this.#workers.push(state);
      state.running = this.#keepRunning(worker, state);
    }
  }

  /** The threads that the workers run on; undefined where that is not known. */
  get threads(): (number | undefined)[] {
    return this.#workers.map(({ thread }) => thread);
  }

  /** Tells the workers a device's MAC, as two big-endian parts. */
  setMac(device: number, high: number, low: number): void {
    this.#records[device * DEVICE_RECORD + DEVICE_MAC_HIGH] = high;
    this.#records[device * DEVICE_RECORD + DEVICE_MAC_LOW] = low;
  }

  /** Tells the workers whether a device is a port of a bridge. */
  setBridged(device: number, isBridged: boolean): void {
    this.#records[device * DEVICE_RECORD + DEVICE_BRIDGED] = isBridged ? 1 : 0;
  }

  /** Tells the workers whether a device has multicast database entries. */
  setMdb(device: number, hasEntries: boolean): void {
    this.#records[device * DEVICE_RECORD + DEVICE_MDB] = hasEntries ? 1 : 0;
  }

  /** Tells the workers a device's options: words of its record from DEVICE_FLAGS on. They hold from the next batch. */
  setOptions(device: number, words: readonly number[]): void {
    this.#records.set(words, device * DEVICE_RECORD + DEVICE_FLAGS);
  }

  /** One spec a worker. Resolves when all workers have it; so do the others. */
  async addUplink(specs: readonly UplinkSpec[]): Promise<void> {
    if (specs[0].kind === 'raw') {
      if (!this.#mainThread) {
        const { workers, onFailure } = this.#options;
        const { MainThreadWorker } = await import('./main-thread.ts');
        this.#mainThread = new MainThreadWorker(workers, this.#shared, onFailure);
        for (const taps of this.#taps.values()) this.#mainThread.listen(taps[workers]);
      }
      this.#mainThread.addUplink(specs[0]);
      this.#raw.add(specs[0].index);
      return;
    }
    this.#uplinks.set(specs[0].index, specs);
    await this.#tellAll((worker) => ({ addUplink: specs[worker] }));
  }

  /** Its descriptors may be closed when this resolves. */
  async removeUplink(index: number): Promise<void> {
    if (this.#raw.delete(index)) {
      this.#mainThread?.removeUplink(index);
      return;
    }
    this.#uplinks.delete(index);
    await this.#tellAll(() => ({ removeUplink: index }));
  }

  async addDevice(specs: readonly DeviceSpec[]): Promise<void> {
    if (this.#raw.has(specs[0].uplink)) {
      this.#mainThread?.addDevice(specs[0]);
      return;
    }
    this.#devices.set(specs[0].index, specs);
    await this.#tellAll((worker) => ({ addDevice: specs[worker] }));
  }

  /** Its descriptors may be closed when this resolves. */
  async removeDevice(index: number): Promise<void> {
    if (!this.#devices.delete(index)) {
      this.#mainThread?.removeDevice(index);
      return;
    }
    await this.#tellAll(() => ({ removeDevice: index }));
  }

  /** Shows packets to a listener: one spec, with a ring of its own, for each worker and for the main thread. Throws FilterError. */
  async listen(specs: readonly TapSpec[]): Promise<void> {
    const { id } = specs[0];
    if (this.#taps.size >= MOST_TAPS) throw new RangeError(`more than ${MOST_TAPS} captures at a time`);
    this.#taps.set(id, specs);
    this.#mainThread?.listen(specs[this.#workers.length]);
    try {
      await this.#tellAll((worker) => ({ listen: specs[worker] }));
    } catch (error) {
      await this.unlisten(id);
      throw error;
    }
  }

  async unlisten(id: number): Promise<void> {
    if (!this.#taps.delete(id)) return;
    this.#mainThread?.unlisten(id);
    await this.#tellAll(() => ({ unlisten: id }));
  }

  /** What a worker would do with a frame now. */
  async dryRun(uplink: UplinkSpec, device: DeviceSpec, frame: Uint8Array): Promise<DryRun> {
    this.#dryRuns ??= import('./dry-run.ts').then(({ DryRuns }) => new DryRuns(this.#shared));
    return (await this.#dryRuns).run(uplink, device, frame);
  }

  /** Makes a worker fail once, for tests of recovery. */
  fail(worker: number): void {
    Atomics.store(this.#control, CONTROL_FAIL + worker, 1);
    this.#wake(this.#workers[worker]);
  }

  /** Ends all workers; their descriptors may be closed afterwards. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#reports.stop();
    this.#mainThread?.stop();
    Atomics.store(this.#control, CONTROL_STOP, 1);
    for (const state of this.#workers) this.#wake(state);
    await Promise.all(this.#workers.map(({ running }) => running));
    await this.#pool.destroy();
    for (const { eventfd } of this.#workers) libc.close(eventfd);
  }

  async #keepRunning(worker: number, state: WorkerState): Promise<void> {
    while (!this.#stopping) {
      const { port1, port2 } = new MessageChannel();
      state.port = port1;
      port1.on('message', (report: WorkerReport) => this.#receive(state, report));
      const specs = <T>(all: ReadonlyMap<number, readonly T[]>): T[] => [...all.values()].map((each) => each[worker]);
      const task: WorkerTask = {
        worker,
        shared: this.#shared,
        busyPoll: this.#options.busyPoll,
        eventfd: state.eventfd,
        messages: port2,
        uplinks: specs(this.#uplinks),
        devices: specs(this.#devices),
        taps: specs(this.#taps),
      };
      // It begins with all that there is, so what was asked of its predecessor is done.
      for (const { resolve } of state.waiting.values()) resolve();
      state.waiting.clear();
      try {
        await this.#pool.run(task, { transferList: [port2] });
      } catch (error) {
        if (!this.#stopping) {
          this.restarts++;
          this.#options.onFailure(worker, error as Error);
          await sleep(RESTART_MILLISECONDS);
        }
      } finally {
        port1.close();
      }
    }
    for (const { resolve } of state.waiting.values()) resolve();
  }

  #receive(state: WorkerState, report: WorkerReport): void {
    if ('thread' in report) {
      state.thread = report.thread;
      return;
    }
    if ('gone' in report) {
      this.#options.onGone(report.gone);
      return;
    }
    const waiting = state.waiting.get(report.id);
    state.waiting.delete(report.id);
    if (report.error === undefined) waiting?.resolve();
    else waiting?.reject(new Error(report.error));
  }

  async #tellAll(command: (worker: number) => WorkerCommand['command']): Promise<void> {
    await Promise.all(
      this.#workers.map((state, worker) => {
        const id = this.#commands++;
        const answer = new Promise<void>((resolve, reject) => state.waiting.set(id, { resolve, reject }));
        state.port?.postMessage({ id, command: command(worker) } satisfies WorkerCommand);
        this.#wake(state);
        return answer;
      }),
    );
  }

  #wake({ eventfd }: WorkerState): void {
    const one = new BigUint64Array([1n]);
    libc.write(eventfd, libc.addressOf(new Uint8Array(one.buffer)), 8);
  }
}
