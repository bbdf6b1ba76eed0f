/** Puts the recorder's stand-ins into a worker's places, and takes them out again. */
import { VNET_PLAIN, VNET_TUNNEL } from '../../system/vnet.ts';
import { block, FIRST_UPLINK_SCOPE } from '../counters.ts';
import type { Decap } from '../decap.ts';
import type { Device } from '../device.ts';
import { FrameUplink } from '../uplink/frame.ts';
import type { Uplink } from '../uplink/uplink.ts';
import type { Recorder } from './recorder.ts';
import { Reads, RecordingDecap } from './recording-decap.ts';
import type { RecordingEncap } from './recording-encap.ts';
import { RECORD_OUTER, RECORD_RECEIVED } from './ring.ts';
import { RecordingPort, RecordingUplink } from './stand-ins.ts';

/** An uplink as the worker has it. */
export interface Attachable {
  readonly index: number;
  /** UDP port and family of its packets. */
  readonly port: number;
  readonly family: 4 | 6;
  readonly uplink: Uplink;
  readonly devices: readonly Device[];
  decap: Decap | RecordingDecap;
  readonly slow: readonly { decap: Decap | RecordingDecap }[];
}

/** What is in place already stays. `worker`: its number, for its counters. */
export function attach(
  recorder: Recorder,
  encap: RecordingEncap,
  counters: Float64Array,
  worker: number,
  devices: readonly Device[],
  uplinks: readonly Attachable[],
): void {
  for (const state of uplinks) attachUplink(recorder, counters, worker, state);
  for (const device of devices) {
    if (device.uplink instanceof RecordingUplink) continue;
    const { index } = uplinks.find(({ uplink }) => uplink === device.uplink)!;
    attachDevice(recorder, encap, device, index);
  }
}

function attachUplink(recorder: Recorder, counters: Float64Array, worker: number, state: Attachable): void {
  if (state.decap instanceof RecordingDecap) return;
  const { index, port, family, uplink, devices, slow } = state;
  const scope = block(worker, FIRST_UPLINK_SCOPE + index);
  const place = { devices, index, scope, port, family };
  for (const path of slow) path.decap = new RecordingDecap(path.decap as Decap, recorder, counters, place);
  if (!(uplink instanceof FrameUplink)) {
    state.decap = new RecordingDecap(state.decap, recorder, counters, place);
    return;
  }
  const reads = new Reads(recorder, counters, scope, index);
  const arrived = (at: number, size: number): void => reads.arrived(at, size);
  uplink.port = new RecordingPort(uplink.port, recorder.witness(RECORD_OUTER, VNET_TUNNEL, -1, index, arrived));
  state.decap = new RecordingDecap(state.decap, recorder, counters, { ...place, reads });
}

function attachDevice(recorder: Recorder, encap: RecordingEncap, device: Device, uplink: number): void {
  // What a TAP brings is recorded from the batch, with its metadata.
  const witness = recorder.witness(RECORD_RECEIVED, VNET_PLAIN, device.index, -1, () => {});
  const port = new RecordingPort(device.tap, witness);
  device.tap = device.coalescer.port = port;
  const isWhole = device.uplink instanceof FrameUplink;
  device.uplink = new RecordingUplink(device.uplink, (batch, index, nextHop) => {
    if (isWhole) encap.sent(nextHop);
    else encap.sentViaHost(batch, index, nextHop, uplink);
  });
}

export function detach(devices: readonly Device[], uplinks: readonly Attachable[]): void {
  for (const device of devices) {
    const { tap, coalescer, uplink } = device;
    if (!(uplink instanceof RecordingUplink)) continue;
    device.tap = coalescer.port = (tap as RecordingPort).port;
    device.uplink = uplink.uplink;
  }
  for (const state of uplinks) {
    const { uplink, decap, slow } = state;
    if (decap instanceof RecordingDecap) state.decap = decap.detach();
    for (const path of slow) if (path.decap instanceof RecordingDecap) path.decap = path.decap.detach();
    if (uplink instanceof FrameUplink && uplink.port instanceof RecordingPort) uplink.port = uplink.port.port;
  }
}
