/** One VXLAN device as a worker sees it. */
import type { Coalescer } from './coalesce.ts';
import type { Port } from './port.ts';
import type { Uplink } from './uplink/uplink.ts';

/** Words of a device's record in the array that the main thread writes: what changes while the device runs. */
export const DEVICE_RECORD = 16;
export const DEVICE_MAC_HIGH = 0;
export const DEVICE_MAC_LOW = 1;
/** The bits below. */
export const DEVICE_FLAGS = 2;
/** Bits of the VXLAN header that have to be zero in what is received, as the header's two big-endian words. */
export const DEVICE_RESERVED_HIGH = 3;
export const DEVICE_RESERVED_LOW = 4;
/** Outer TTL of frames that are not IP, where IP packets' own is inherited. */
export const DEVICE_TTL = 5;
/** Not 0: the TAP is a port of a bridge. */
export const DEVICE_BRIDGED = 6;
/** Not 0: the device has entries in the multicast database. */
export const DEVICE_MDB = 7;

// Bits of DEVICE_FLAGS: options of the device, which a worker looks at once a batch.
export const TTL_INHERIT = 1 << 0;
export const TOS_INHERIT = 1 << 1;
export const DF_INHERIT = 1 << 2;
/** ECN as RFC 6040 has it, not as the kernel does. */
export const ECN_RFC6040 = 1 << 3;
export const LEARNING = 1 << 4;
export const PROXY = 1 << 5;
export const NEIGH_SUPPRESS = 1 << 6;
export const RSC = 1 << 7;
export const L2MISS = 1 << 8;
export const L3MISS = 1 << 9;
/** Packets of VTEPs that are not in the FDB are dropped; VTEP_STRICT: a configured MAC's also when they are another VTEP's. */
export const VTEP_KNOWN = 1 << 10;
export const VTEP_STRICT = 1 << 11;
export const GBP = 1 << 12;
/** The TAP has `arp off` (IFF_NOARP): `proxy` answers no ARP. */
export const NOARP = 1 << 13;

export const MAX_DEVICES = 256;

export class Device {
  /** The device's number: its FDB entries' key and its record's place. */
  readonly index: number;
  readonly vni: number;
  /** First word of its block of counters. */
  readonly scope: number;
  readonly coalescer: Coalescer;
  // In front of these a recorder may stand.
  /** The worker's queue of its TAP. */
  tap: Port;
  uplink: Uplink;
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

  /** The options that are on, as they are now: bits of DEVICE_FLAGS. */
  get flags(): number {
    return this.#records[this.index * DEVICE_RECORD + DEVICE_FLAGS];
  }

  /** Another word of its record. */
  word(index: number): number {
    return this.#records[this.index * DEVICE_RECORD + index];
  }

  /** Whether the MAC, as two big-endian parts, is the device's own. */
  isOwnMac(high: number, low: number): boolean {
    const at = this.index * DEVICE_RECORD;
    return this.#records[at + DEVICE_MAC_LOW] === low && this.#records[at + DEVICE_MAC_HIGH] === high;
  }
}
