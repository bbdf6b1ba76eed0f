/**
 * What a worker would do with a frame: a worker of its own, over the tables of the running ones, between two ports that lead nowhere. Only the
 * tables are shared, so nothing is sent, counted, learned or reported.
 */
import { VNET_PLAIN, VNET_TUNNEL } from '../system/vnet.ts';
import { allocateCounters, block, COUNTERS, FIRST_UPLINK_SCOPE } from './counters.ts';
import { sharePacketMemory } from './memory.ts';
import {
  allocateRing,
  RECORD_COPIES,
  RECORD_DROP,
  RECORD_DROPPED,
  RECORD_FLAGS,
  RECORD_NEXT_HOP,
  RECORD_OUTER,
  RECORD_RECEIVED,
  RingReader,
} from './record/ring.ts';
import { allocateReports } from './reports.ts';
import type { DeviceSpec, Shared, UplinkSpec } from './task.ts';
import { FrameUplink, takeUplinkArena } from './uplink/frame.ts';
import { MemoryPort } from './uplink/memory.ts';
import { Worker } from './worker.ts';

export interface DryRun {
  /** Outer frames that it would send, as they are given to the uplink. */
  readonly sent: readonly Uint8Array[];
  /** What it would leave to the host's stack, whole and with what is known of the outer headers: the stack writes them anew. */
  readonly viaHost: readonly Uint8Array[];
  /** Frames that it would give back to the device: ARP and ND answers, say. */
  readonly answered: readonly Uint8Array[];
  /** The next hop that it went to, the first of several; 0 when it went nowhere. */
  readonly nextHop: number;
  readonly copies: number;
  /** Name of the drop's counter; '' when it was not dropped. */
  readonly drop: string;
  readonly dropped: number;
}

const RING = 1 << 20;
/** Devices whose workers are kept, and milliseconds for which they are after the last question. */
const MOST = 8;
const KEEP = 10_000;

/** A worker that carries nothing takes milliseconds to make, and then a frame takes microseconds: it is kept while questions come. */
export class DryRuns {
  readonly #tables: Shared;
  readonly #workers = new Map<string, DryWorker>();
  #timer: NodeJS.Timeout | undefined;

  constructor(tables: Shared) {
    this.#tables = tables;
  }

  run(uplink: UplinkSpec, device: DeviceSpec, frame: Uint8Array): DryRun {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#workers.clear(), KEEP).unref();
    // Either may have changed since.
    const key = JSON.stringify([uplink, device]);
    let worker = this.#workers.get(key);
    if (!worker) {
      if (this.#workers.size >= MOST) this.#workers.clear();
      worker = new DryWorker(this.#tables, uplink, device);
      this.#workers.set(key, worker);
    }
    return worker.run(frame);
  }
}

class DryWorker {
  readonly #worker: Worker;
  readonly #tap: MemoryPort;
  readonly #reader: RingReader;
  readonly #viaHost: Uint8Array[] = [];

  constructor(tables: Shared, uplink: UplinkSpec, device: DeviceSpec) {
    const counters = allocateCounters(1);
    const worker = new Worker(0, {
      ...tables,
      packets: sharePacketMemory(1),
      counters,
      reports: allocateReports(1),
      control: new SharedArrayBuffer(64),
    });
    const network = new MemoryPort(worker.memory);
    this.#tap = new MemoryPort(worker.memory);
    for (const port of [network, this.#tap]) MemoryPort.link(port, new MemoryPort(worker.memory), () => []);
    worker.addFrameUplink(uplink, network, hostPath(worker, uplink, tables, counters, this.#viaHost));
    worker.addDevice(device, this.#tap);
    const ring = allocateRing(RING);
    worker.listen({ id: 0, ring, device: -1, vni: -1, filter: '', outerFilter: '', snapLength: RING });
    this.#worker = worker;
    this.#reader = new RingReader(ring);
  }

  run(frame: Uint8Array): DryRun {
    this.#tap.push(Buffer.concat([new Uint8Array(VNET_PLAIN), frame]));
    this.#worker.turn();
    return { ...resultOf(this.#reader), viaHost: this.#viaHost.splice(0) };
  }
}

/** In the place of the sockets of a redirect uplink: what they would be given is put into `taken`. */
function hostPath(
  { memory, sum }: Worker,
  { index, port, sourcePorts, zeroChecksum6, offloads }: UplinkSpec,
  tables: Shared,
  counters: SharedArrayBuffer,
  taken: Uint8Array[],
): FrameUplink {
  const end = new MemoryPort(memory);
  MemoryPort.link(end, new MemoryPort(memory), (packet) => {
    taken.push(packet.subarray(VNET_TUNNEL));
    return [];
  });
  const options = {
    ...{ isHostPath: true, offloads: { ...offloads, tunnelGso: false }, port, sourcePorts, zeroChecksum6 },
    ...{ scope: block(0, FIRST_UPLINK_SCOPE + index), arena: takeUplinkArena(memory) },
  };
  return new FrameUplink(end, memory, sum, new Float64Array(counters), new Int32Array(tables.nextHops), options);
}

function resultOf(reader: RingReader): Omit<DryRun, 'viaHost'> {
  const { words } = reader;
  const sent: Uint8Array[] = [];
  const answered: Uint8Array[] = [];
  let result = { nextHop: 0, copies: 0, drop: '', dropped: 0 };
  for (let record = reader.next(); record >= 0; record = reader.next()) {
    const flags = words[record + RECORD_FLAGS];
    const bytes = Uint8Array.from(reader.packet(record));
    if (flags & RECORD_OUTER) sent.push(bytes);
    else if (flags & RECORD_RECEIVED) answered.push(bytes);
    else {
      result = {
        nextHop: words[record + RECORD_NEXT_HOP],
        copies: words[record + RECORD_COPIES],
        drop: COUNTERS[words[record + RECORD_DROP] - 1] ?? '',
        dropped: words[record + RECORD_DROPPED],
      };
    }
    reader.release(record);
  }
  return { sent, answered, ...result };
}
