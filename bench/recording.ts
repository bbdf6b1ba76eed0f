/**
 * What it costs that somebody looks: one worker whose ports are memory, with and without listeners, interleaved. CPU time of the process,
 * so that others on the machine count for less.
 *   node dist/bench/recording.js [ROUNDS]
 */

import { allocateRing } from '../dataplane/record/ring.ts';
import { Worker } from '../dataplane/worker.ts';
import { frame, outerFrame, packet, payload, superFrame, unfinished, vxlan } from '../test/dataplane/packet.ts';
import { PORT, Rig, uplinkSpec, VNI } from '../test/dataplane/rig.ts';
import { BenchPort } from './micro/port.ts';
import { percentile } from './statistics.ts';

const WHOLE = { tunnelGso: true, udpGso: true };
const ALL = 262_144;
const RING = 1 << 22;
const BATCH = 64;
/** Milliseconds of one measurement, and of the windows of the sampler (control/capture/sampler.ts). */
const TIME = 254;
const WINDOW = 4;

const MODES = {
  off: undefined,
  'a filter that nothing matches': { filter: 'host 198.51.100.99', snapLength: ALL },
  'sampled, as for a page': { filter: '', snapLength: 192 },
  'all, 128 bytes each': { filter: '', snapLength: 128 },
  'all, whole packets': { filter: '', snapLength: ALL },
  'off again': undefined,
} as const;
type Mode = keyof typeof MODES;

interface Setting {
  readonly name: string;
  readonly batch: number;
  readonly worker: Worker;
  turn(): void;
}

function setting(name: string, from: 'tap' | 'uplink', packets: readonly Uint8Array[], batch = BATCH): Setting {
  const rig = new Rig();
  const worker = new Worker(0, rig.shared);
  const source = new BenchPort(worker.memory, packets);
  const sink = new BenchPort(worker.memory);
  worker.addFrameUplink(uplinkSpec(WHOLE), from === 'uplink' ? source : sink);
  worker.addDevice({ index: 0, vni: VNI, uplink: 0, tap: -1, mergeUdp: true }, from === 'tap' ? source : sink);
  rig.entry(0, -1, rig.vtep('192.0.2.2'));
  const turn = () => {
    source.refill(batch);
    worker.turn();
  };
  turn();
  source.copyHeadersOnly();
  return { name, batch, worker, turn };
}

const udp = frame({ protocol: 'udp', payload: payload(64) });
const flows = Array.from({ length: BATCH }, (_, i) =>
  frame({ protocol: 'udp', sourcePort: 1000 + i, payload: payload(64) }),
);
const large = frame({ protocol: 'udp', payload: payload(1400) });
const outer = (inner: Uint8Array) => packet(outerFrame(vxlan(VNI, inner), PORT), { flags: 2 }, true);
const SETTINGS: readonly (() => Setting)[] = [
  () => setting('send 64 B', 'tap', [unfinished(udp)]),
  () => setting('send 64 B, 64 flows', 'tap', flows.map(unfinished)),
  () => setting('send 60 kB TCP', 'tap', [superFrame(frame({ payload: payload(60_000) }), 1410)], 16),
  () => setting('receive 64 B', 'uplink', [outer(udp)]),
  () => setting('receive 64 B, 64 flows', 'uplink', flows.map(outer)),
  () => setting('receive 1400 B', 'uplink', [outer(large)]),
];

/** Microseconds of CPU that a turn takes. */
function measure({ worker, turn }: Setting, mode: Mode): number {
  const wish = MODES[mode];
  const ring = allocateRing(RING);
  const words = new Int32Array(ring);
  const listen = () => {
    if (wish) worker.listen({ id: 1, ring, device: -1, vni: -1, outerFilter: '', ...wish });
  };
  let turns = 0;
  const run = (milliseconds: number): void => {
    const end = performance.now() + milliseconds;
    while (performance.now() < end) {
      for (let i = 0; i < 16; i++, turns++) turn();
      words[16] = words[0]; // the main thread has read it all
    }
  };
  const before = process.cpuUsage();
  listen();
  if (mode === 'sampled, as for a page') {
    run(WINDOW);
    worker.unlisten(1);
    run(TIME - WINDOW);
  } else {
    run(TIME);
    if (wish) worker.unlisten(1);
  }
  const { user, system } = process.cpuUsage(before);
  return (user + system) / turns;
}

const rounds = Number(process.argv[2] ?? 7);
for (const make of SETTINGS) {
  const each = make();
  const costs = new Map<Mode, number[]>();
  for (let round = 0; round <= rounds; round++) {
    for (const mode of Object.keys(MODES) as Mode[]) {
      const cost = measure(each, mode);
      if (round > 0) costs.set(mode, [...(costs.get(mode) ?? []), cost]); // the first is to warm up
    }
  }
  console.log(each.name);
  for (const [mode, those] of costs) {
    const ratio = median(those.map((cost, i) => cost / costs.get('off')![i]));
    const nanoseconds = (median(those) * 1e3) / each.batch;
    console.log(`    ${mode.padEnd(32)} ${nanoseconds.toFixed(0).padStart(6)} ns a packet   ${ratio.toFixed(2)} x`);
  }
}

function median(values: readonly number[]): number {
  return percentile(Float64Array.from(values).sort(), 0.5);
}
