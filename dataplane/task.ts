/** What passes between the main thread and a worker. */
import type { MessagePort } from 'node:worker_threads';
import type { MemoryShare } from './memory.ts';
import type { TapSpec } from './record/tap.ts';
import type { UplinkOffloads } from './uplink/uplink.ts';

/** Control word: not 0 when workers are to end. */
export const CONTROL_STOP = 0;
/** Control words from here on, one a worker: not 0 makes it fail once, so that recovery can be tested under load. */
export const CONTROL_FAIL = 1;

/** What all workers share. */
export interface Shared {
  readonly packets: MemoryShare;
  readonly counters: SharedArrayBuffer;
  readonly fdb: SharedArrayBuffer;
  readonly nextHops: SharedArrayBuffer;
  readonly peers: SharedArrayBuffer;
  readonly lists: SharedArrayBuffer;
  /** See reports.ts. */
  readonly reports: SharedArrayBuffer;
  readonly neighbors: SharedArrayBuffer;
  readonly mdb: SharedArrayBuffer;
  /** DEVICE_RECORD words a device, see device.ts. */
  readonly devices: SharedArrayBuffer;
  /** CONTROL_* words. */
  readonly control: SharedArrayBuffer;
}

/** An uplink, as a worker gets it. */
export interface UplinkSpec {
  readonly index: number;
  readonly kind: 'redirect' | 'udp' | 'raw';
  /** What whole frames may look like (redirect). */
  readonly offloads: UplinkOffloads;
  /** Whether sockets take UDP_SEGMENT. */
  readonly socketGso: boolean;
  /** UDP port that peers send to, and the family of their packets. Devices of the same port and family have VNIs of their own. */
  readonly port: number;
  readonly family: 4 | 6;
  readonly sourcePorts: readonly [number, number];
  /** Frames longer than this are super-frames. */
  readonly largestFrame: number;
  /** The worker's queue of the uplink's TAP; -1 for the others. */
  readonly tap: number;
  /** The worker's socket on the VXLAN port. */
  readonly receiver: number;
  /** Sockets to send from: all of it for udp, for redirect what has to go through the host's stack. */
  readonly senders: readonly number[];
  /** A twin of each sender for packets with DF, where packets decide about it; empty elsewhere. */
  readonly dfSenders: readonly number[];
  /** The socket that has joined a multicast group, of one worker; none elsewhere. */
  readonly groupReceivers: readonly number[];
  /** Whether packets over IPv6 may do without a UDP checksum. */
  readonly zeroChecksum6: boolean;
}

/** A device, as a worker gets it. */
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
  /** Microseconds, see BusyPoll. */
  readonly busyPoll: number;
  /** The worker's own: written to when a message waits, or when the stop word is set. */
  readonly eventfd: number;
  readonly messages: MessagePort;
  readonly uplinks: readonly UplinkSpec[];
  readonly devices: readonly DeviceSpec[];
  readonly taps: readonly TapSpec[];
}

/** Main thread to worker; answered by a report with the same id. */
export interface WorkerCommand {
  readonly id: number;
  readonly command:
    | { readonly addUplink: UplinkSpec }
    | { readonly removeUplink: number }
    | { readonly addDevice: DeviceSpec }
    | { readonly removeDevice: number }
    | { readonly listen: TapSpec }
    | { readonly unlisten: number };
}

/** Worker to main thread: a command was carried out, a device's TAP is gone, or the thread that it runs on. */
export type WorkerReport =
  | { readonly id: number; readonly error?: string | undefined }
  | { readonly gone: number }
  | { readonly thread: number };
