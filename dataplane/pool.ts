/** The workers, seen from the main thread: starts them on a thread pool, starts a failed one again, ends them. */
import { Piscina } from 'piscina';
import * as libc from '../system/libc.ts';
import { CONTROL_FAIL, CONTROL_STOP } from './control.ts';
import { allocateCounters } from './counters.ts';
import { DEVICE_MAC_HIGH, DEVICE_MAC_LOW, DEVICE_RECORD, MAX_DEVICES } from './device.ts';
import { sharePacketMemory } from './memory.ts';
import type { DeviceSpec, Shared, UplinkSpec, WorkerTask } from './worker.ts';

export interface PoolOptions {
  readonly workers: number;
  readonly fdb: SharedArrayBuffer;
  readonly nextHops: SharedArrayBuffer;
  readonly lists: SharedArrayBuffer;
  /** Called when a worker's loop threw and is started again. */
  readonly onFailure: (worker: number, error: Error) => void;
}

const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
/** A worker that fails at once every time would otherwise keep the machine busy with starting it. */
const RESTART_MILLISECONDS = 100;

export class WorkerPool {
  readonly shared: Shared;
  readonly counters: Float64Array;
  readonly #options: PoolOptions;
  readonly #pool: Piscina;
  readonly #eventfd: number;
  readonly #records: Int32Array;
  readonly #control: Int32Array;
  readonly #running: Promise<void>[] = [];
  #stopping = false;
  /** How often a worker was started again. */
  restarts = 0;

  constructor(options: PoolOptions) {
    const { workers, fdb, nextHops, lists } = options;
    this.#options = options;
    this.shared = {
      packets: sharePacketMemory(workers),
      counters: allocateCounters(workers),
      fdb,
      nextHops,
      lists,
      devices: new SharedArrayBuffer(MAX_DEVICES * DEVICE_RECORD * 4),
      control: new SharedArrayBuffer(64),
    };
    this.counters = new Float64Array(this.shared.counters);
    this.#control = new Int32Array(this.shared.control);
    this.#records = new Int32Array(this.shared.devices);
    this.#eventfd = libc.check(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'workers', 'eventfd');
    this.#pool = new Piscina({
      filename: new URL('./worker.js', import.meta.url).href,
      minThreads: workers,
      maxThreads: workers,
      concurrentTasksPerWorker: 1,
    });
  }

  /** Tells the workers a device's MAC, as two big-endian parts. */
  setMac(device: number, high: number, low: number): void {
    this.#records[device * DEVICE_RECORD + DEVICE_MAC_HIGH] = high;
    this.#records[device * DEVICE_RECORD + DEVICE_MAC_LOW] = low;
  }

  /** Starts worker `worker` on its queues of the uplinks and devices. */
  start(worker: number, uplinks: readonly UplinkSpec[], devices: readonly DeviceSpec[]): void {
    const task = { worker, shared: this.shared, eventfd: this.#eventfd, uplinks, devices };
    this.#running.push(this.#keepRunning(task));
  }

  async #keepRunning(task: WorkerTask): Promise<void> {
    while (!this.#stopping) {
      try {
        await this.#pool.run(task);
      } catch (error) {
        if (this.#stopping) return;
        this.restarts++;
        this.#options.onFailure(task.worker, error as Error);
        await new Promise((resolve) => setTimeout(resolve, RESTART_MILLISECONDS));
      }
    }
  }

  /** Makes a worker fail once, for tests of recovery. */
  fail(worker: number): void {
    Atomics.store(this.#control, CONTROL_FAIL + worker, 1);
  }

  /** Ends all workers; their descriptors may be closed afterwards. */
  async stop(): Promise<void> {
    this.#stopping = true;
    Atomics.store(this.#control, CONTROL_STOP, 1);
    const one = Buffer.alloc(8);
    one.writeUInt8(1);
    libc.write(this.#eventfd, libc.addressOf(one), one.length);
    await Promise.all(this.#running);
    await this.#pool.destroy();
    libc.close(this.#eventfd);
  }
}
