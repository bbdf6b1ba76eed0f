/** A worker on the main thread, between events: for the `raw` uplink, whose package works nowhere else. */
import type { TapSpec } from './record/tap.ts';
import type { DeviceSpec, Shared, UplinkSpec } from './task.ts';
import { RawPort } from './uplink/raw-port.ts';
import { Worker } from './worker.ts';

/** Rounds without a packet before it rests, and for how long: milliseconds. */
const IDLE_ROUNDS = 50;
const REST = 2;

export class MainThreadWorker {
  readonly #worker: Worker;
  readonly #index: number;
  readonly #onFailure: (worker: number, error: Error) => void;
  readonly #ports = new Map<number, RawPort>();
  #idle = 0;
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;

  constructor(index: number, shared: Shared, onFailure: (worker: number, error: Error) => void) {
    this.#worker = new Worker(index, shared);
    this.#index = index;
    this.#onFailure = onFailure;
    this.#turn();
  }

  addUplink(spec: UplinkSpec): void {
    const port = new RawPort(this.#worker.memory, this.#worker.sum, spec.family);
    this.#ports.set(spec.index, port);
    this.#worker.addRawUplink(spec, port);
  }

  removeUplink(index: number): void {
    this.#worker.removeUplink(index);
    this.#ports.get(index)?.close();
    this.#ports.delete(index);
  }

  addDevice(spec: DeviceSpec): void {
    this.#worker.addDevice(spec);
  }

  removeDevice(index: number): void {
    this.#worker.removeDevice(index);
  }

  listen(spec: TapSpec): void {
    this.#worker.listen(spec);
  }

  unlisten(id: number): void {
    this.#worker.unlisten(id);
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    for (const port of this.#ports.values()) port.close();
  }

  #turn(): void {
    try {
      this.#idle = this.#worker.turn() + this.#worker.turnSlowPaths() > 0 ? 0 : this.#idle + 1;
    } catch (error) {
      this.#worker.settle();
      this.#onFailure(this.#index, error as Error);
    }
    // The package sends between two rounds.
    if (this.#idle < IDLE_ROUNDS) this.#immediate = setImmediate(() => this.#turn());
    else this.#timer = setTimeout(() => this.#turn(), REST);
  }
}
