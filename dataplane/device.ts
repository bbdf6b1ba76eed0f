/** One VXLAN device as a worker sees it. */
import type { Coalescer } from './coalesce.ts';
import type { Port } from './port.ts';
import type { Uplink } from './uplink/uplink.ts';

/** Words of a device's record in the array that the main thread writes: what changes while the device runs. */
export const DEVICE_RECORD = 16;
export const DEVICE_MAC_HIGH = 0;
export const DEVICE_MAC_LOW = 1;
export const MAX_DEVICES = 256;

export class Device {
  /** The device's number: its FDB entries' key and its record's place. */
  readonly index: number;
  readonly vni: number;
  /** First word of its block of counters. */
  readonly scope: number;
  /** The worker's queue of its TAP. */
  readonly tap: Port;
  readonly coalescer: Coalescer;
  readonly uplink: Uplink;
  readonly #records: Int32Array;

  constructor(
    index: number,
    vni: number,
    scope: number,
    tap: Port,
    coalescer: Coalescer,
    uplink: Uplink,
    records: Int32Array,
  ) {
    this.index = index;
    this.vni = vni;
    this.scope = scope;
    this.tap = tap;
    this.coalescer = coalescer;
    this.uplink = uplink;
    this.#records = records;
  }

  /** Whether the MAC, as two big-endian parts, is the device's own. */
  isOwnMac(high: number, low: number): boolean {
    const at = this.index * DEVICE_RECORD;
    return this.#records[at + DEVICE_MAC_LOW] === low && this.#records[at + DEVICE_MAC_HIGH] === high;
  }
}
