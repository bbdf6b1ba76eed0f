/**
 * The maps that the offload's programs read, as control/offload/mirror.ts fills them. Numbers are in the host's order unless they are
 * bytes of a packet.
 *
 *     fdb         { mac 6, device u16 }        -> { next hop u32, used u32, seen u32 }
 *     next hops   { index u32 }                -> { nic u32, mtu u32, ip sum u32, - | outer headers: 50 or 70 bytes, zeros }
 *     devices     { vni u32, as the wire has it } -> { tap u32, device u32, checks u32, own mac: low u32, high u32 }; a map an uplink
 *     vteps       { device u32, address 16 }   -> { 1 }: who may send to a device whose vtep-filter is on
 *     counters    { device u32 }               -> { tx packets, tx bytes, rx packets, rx bytes, tx lost, rx lost }, u64 each, a processor
 *
 * `used` and `seen` are when the entry last sent a frame somewhere, and when its MAC was last heard, in units of 2^30 ns of
 * CLOCK_MONOTONIC: a shift is cheaper than a division.
 */

export const FDB_KEY = 8;
export const FDB_KEY_DEVICE = 6;
export const FDB_VALUE = 12;
export const FDB_NEXT_HOP = 0;
export const FDB_USED = 4;
export const FDB_SEEN = 8;
/** log2 of the nanoseconds of a stamp's unit. */
export const STAMP_SHIFT = 30;

export const HOP_VALUE = 88;
/** The device that its packets leave through; 0 when they are the workers' (its MAC address is not known, say). */
export const HOP_NIC = 0;
/** Largest outer IP packet, in bytes. */
export const HOP_MTU = 4;
/** As IP_SUM of fdb/nexthops.ts. */
export const HOP_IP_SUM = 8;
export const HOP_HEADERS = 16;

export const DEVICE_VALUE = 20;
export const DEVICE_TAP = 0;
export const DEVICE_INDEX = 4;
export const DEVICE_CHECKS = 8;
/** Own MAC as a program reads it from a packet: its first four bytes, its last two. */
export const DEVICE_MAC_LOW = 12;
export const DEVICE_MAC_HIGH = 16;

// Bits of DEVICE_CHECKS.
/** Only VTEPs in `vteps` may send. */
export const CHECK_VTEP = 1;
/** The source MAC's entry must point to the VTEP that sent the packet: everything else is for the workers to learn, or to refuse. */
export const CHECK_SOURCE = 2;
/** Take IPv6 packets without UDP checksum (RFC 6935). */
export const ALLOW_ZERO_CHECKSUM = 4;

export const VTEP_KEY = 20;
export const VTEP_VALUE = 4;

export const COUNTERS_VALUE = 48;
export const COUNT_TX_PACKETS = 0;
export const COUNT_TX_BYTES = 8;
export const COUNT_RX_PACKETS = 16;
export const COUNT_RX_BYTES = 24;
/** Packets that were changed and could then not be finished: the kernel had no memory. */
export const COUNT_TX_LOST = 32;
export const COUNT_RX_LOST = 40;

/** Descriptors of the maps. */
export interface OffloadMaps {
  readonly fdb: number;
  readonly nextHops: number;
  readonly vteps: number;
  readonly counters: number;
}
