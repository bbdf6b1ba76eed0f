/**
 * What a worker would do with a frame: a worker of its own, over the tables of the running ones, between two ports that lead nowhere. Only the
 * tables are shared, so nothing is sent, counted, learned or reported.
 */
import { VNET_PLAIN } from '../system/vnet.ts';
import { allocateCounters, COUNTERS } from './counters.ts';
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
import { MemoryPort } from './uplink/memory.ts';
import { Worker } from './worker.ts';

export interface DryRun {
  /** Outer frames that it would send, as they are given to the uplink. */
  readonly sent: readonly Uint8Array[];
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

export function dryRun(tables: Shared, uplink: UplinkSpec, device: DeviceSpec, frame: Uint8Array): DryRun {
  const worker = new Worker(0, {
    ...tables,
    packets: sharePacketMemory(1),
    counters: allocateCounters(1),
    reports: allocateReports(1),
    control: new SharedArrayBuffer(64),
  });
  const network = new MemoryPort(worker.memory);
  const tap = new MemoryPort(worker.memory);
  MemoryPort.link(network, new MemoryPort(worker.memory));
  MemoryPort.link(tap, new MemoryPort(worker.memory));
  worker.addFrameUplink(uplink, network);
  worker.addDevice(device, tap);
  const ring = allocateRing(RING);
  const spec = { id: 0, ring, device: -1, vni: -1, filter: '', outerFilter: '', snapLength: RING };
  worker.listen(spec);
  tap.push(Buffer.concat([new Uint8Array(VNET_PLAIN), frame]));
  worker.turn();
  return resultOf(new RingReader(ring));
}

function resultOf(reader: RingReader): DryRun {
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
