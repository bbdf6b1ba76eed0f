/**
 * What shows packets of a running daemon: captures, samples for the page and for `uvxlan top`, and questions; and how busy its threads are.
 * What a start can do without is loaded when somebody asks.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { FIRST_UPLINK_SCOPE, total } from '../dataplane/counters.ts';
import { DROPS } from '../dataplane/drops.ts';
import type { WorkerPool } from '../dataplane/pool.ts';
import type { TapSpec } from '../dataplane/record/tap.ts';
import type { Capabilities } from '../system/capabilities.ts';
import { threadTimes } from '../system/thread.ts';
import { familyOf } from '../wire/address.ts';
import { Capture, type CaptureRequest } from './capture/capture.ts';
import { Sampler } from './capture/sampler.ts';
import type { SampleNames } from './capture/samples.ts';
import type { VxlanDevice } from './device.ts';
import type { Forwarding } from './forwarding.ts';
import type { Offload } from './offload/offload.ts';
import {
  CommandError,
  type ExplainRequest,
  type Explanation,
  type RunningCapture,
  type SampleRecord,
  type ThreadRecord,
  VERSION,
} from './protocol.ts';
import type { TrafficRequest, TrafficSample } from './traffic/sample.ts';

/** What it looks at. */
export interface ObservationOptions {
  readonly devices: ReadonlyMap<number, VxlanDevice>;
  readonly workers: number;
  readonly capabilities: Capabilities;
  readonly pool: WorkerPool;
  readonly forwarding: Forwarding;
  readonly offload: Offload;
}

/** Between two looks at the rings of a sample of traffic. */
const DRAIN_MILLISECONDS = 5;

export class Observation {
  readonly #options: ObservationOptions;
  #listeners = 0;
  #sampler: Sampler | undefined;

  constructor(options: ObservationOptions) {
    this.#options = options;
  }

  async close(): Promise<void> {
    await this.#sampler?.close();
  }

  async explain(device: VxlanDevice, request: ExplainRequest): Promise<Explanation> {
    const { pool, forwarding, capabilities } = this.#options;
    const { pose } = await import('./explain/question.ts');
    const { explanation } = await import('./explain/explain.ts');
    const posed =
      'frame' in request
        ? { frame: request.frame, lookups: [] }
        : await device.atHome((host) => pose(request, device.name, device.mac()!, host));
    const { frame, lookups } = posed;
    const [spec] = device.specs(capabilities);
    const run = await pool.dryRun(device.uplink.specs[0], spec, frame);
    return explanation(device, frame, run, forwarding.find(device, frame), lookups, performance.now() / 1000);
  }

  /** Offload of the devices rests meanwhile, so that all of their packets come by. */
  async capture(devices: readonly VxlanDevice[], request: CaptureRequest): Promise<RunningCapture> {
    const { pool, offload, workers } = this.#options;
    const capture = new Capture(
      ++this.#listeners,
      workers + 1,
      request,
      request.dev === null ? undefined : { index: devices[0].index, vni: devices[0].config.id },
      this.#names(),
      VERSION,
    );
    const { specs } = capture;
    const watch = (isWatched: boolean): void => {
      // Another device may have the index by now.
      for (const device of devices) {
        if (this.#options.devices.get(device.index) === device) offload.watch(device, isWatched);
      }
    };
    await this.#listen(specs);
    watch(true);
    return {
      start: (sink) =>
        capture.start(
          sink,
          devices.map(({ index }) => index),
          [...new Set(devices.map(({ uplink }) => uplink.index))],
        ),
      finish: async () => {
        await pool.unlisten(specs[0].id);
        watch(false);
        capture.finish();
      },
      abandon: async () => {
        capture.abandon();
        await pool.unlisten(specs[0].id);
        watch(false);
      },
    };
  }

  samples(): SampleRecord {
    const { pool, workers, devices } = this.#options;
    this.#sampler ??= new Sampler({
      workers: workers + 1,
      names: this.#names(),
      passed: () =>
        [...devices.values()].map(({ index, name, uplink }) => {
          const sums = total(pool.counters, index);
          const arrived = total(pool.counters, FIRST_UPLINK_SCOPE + uplink.index);
          const dropped = DROPS.reduce((sum, drop) => sum + sums[drop.name] + arrived[drop.name], 0);
          return { name, tx: sums.tx_packets, rx: sums.rx_packets, drops: dropped };
        }),
      nextId: () => ++this.#listeners,
      listen: (specs) => pool.listen(specs),
      unlisten: (id) => pool.unlisten(id),
    });
    return this.#sampler.ask();
  }

  /** Of one device, or of all. Offload goes on: what the kernel carries is not seen. */
  async traffic(device: VxlanDevice | undefined, { milliseconds, limit }: TrafficRequest): Promise<TrafficSample> {
    const { pool, forwarding, workers } = this.#options;
    const names = this.#names();
    const { TrafficSampler } = await import('./traffic/sample.ts');
    const sampler = new TrafficSampler(
      ++this.#listeners,
      workers + 1,
      device && { index: device.index, vni: device.config.id },
      {
        device: names.device,
        deviceOf: (uplink, vni) => names.deviceOf(uplink, vni)?.name,
        peer: (nextHop) => forwarding.remote(nextHop),
      },
    );
    await this.#listen(sampler.specs);
    sampler.begin();
    // A daemon that is to end does not wait for it.
    const drain = setInterval(() => sampler.drain(), DRAIN_MILLISECONDS).unref();
    try {
      await sleep(milliseconds, undefined, { ref: false });
    } finally {
      clearInterval(drain);
      sampler.end();
      await pool.unlisten(sampler.specs[0].id);
    }
    sampler.drain();
    return sampler.result(limit);
  }

  threads(): ThreadRecord[] {
    const threads: [string, number | undefined][] = [
      ['main', process.pid],
      ...this.#options.pool.threads.map((thread, worker): [string, number | undefined] => [`worker ${worker}`, thread]),
    ];
    return threads.flatMap(([name, thread]) => {
      const times = thread === undefined ? undefined : threadTimes(thread);
      return times ? [{ name, ...times }] : [];
    });
  }

  async #listen(specs: readonly TapSpec[]): Promise<void> {
    await this.#options.pool.listen(specs).catch((error) => {
      throw error instanceof RangeError ? new CommandError(error.message, 'EBUSY') : error;
    });
  }

  #names(): SampleNames {
    const { devices: all, forwarding } = this.#options;
    return {
      device: (index) => all.get(index)?.name,
      uplink: (index) => {
        const device = [...all.values()].find(({ uplink }) => uplink.index === index);
        if (!device) return undefined;
        const { place, uplink } = device;
        return { name: place.nic?.name ?? 'any', kind: uplink.kind, local: place.local };
      },
      nextHop: (index, device, frame) => forwarding.describe(index, device, frame),
      deviceOf: (uplink, vni) => {
        // As the workers find it: of all devices of the packet's port and family.
        const devices = [...all.values()];
        const behind = devices.find((device) => device.uplink.index === uplink);
        return devices.find(
          ({ config, place }) =>
            config.id === vni &&
            config.dstport === behind?.config.dstport &&
            familyOf(place.local) === familyOf(behind.place.local),
        );
      },
    };
  }
}
