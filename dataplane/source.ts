/**
 * Where packets come from: learning (drivers/net/vxlan/vxlan_core.c: vxlan_snoop), and the VTEPs and MACs that `vtep-filter` lets in.
 * What a worker can tell by itself ends here; an unknown or moved MAC goes to the main thread as a report, and the packet passes.
 */
import { isRemote } from '../fdb/nexthops.ts';
import { type PeerReader, SUBNET_WORDS } from '../fdb/peers.ts';
import { NTF_EXT_LEARNED, NUD_FIXED } from '../fdb/state.ts';
import type { FdbReader } from '../fdb/table.ts';
import { get32 } from '../wire/bytes.ts';
import { VXLAN_HEADER } from '../wire/vxlan.ts';
import { COUNTER } from './counters.ts';
import { type Device, LEARNING, VTEP_KNOWN, VTEP_STRICT } from './device.ts';
import { isFromSubnet } from './inner-source.ts';
import type { PacketMemory } from './memory.ts';
import {
  REPORT_SOURCE,
  REPORT_STATIC_MAC,
  REPORT_UNKNOWN_VTEP,
  REPORT_WRONG_SUBNET,
  REPORT_WRONG_VTEP,
  type ReportWriter,
} from './reports.ts';

/** Options of a device that are decided here. */
export const SOURCE_CHECKS = LEARNING | VTEP_KNOWN | VTEP_STRICT;

export class SourceCheck {
  readonly #memory: PacketMemory;
  readonly #counters: Float64Array;
  readonly #fdb: FdbReader;
  readonly #nextHops: Int32Array;
  readonly #lists: Int32Array;
  readonly #peers: PeerReader;
  readonly #reports: ReportWriter;
  // What passed last in this batch: the packets of a train, and most neighbours in a batch, are alike.
  #device = -1;
  #macHigh = 0;
  #macLow = 0;
  #a = 0;
  #b = 0;
  #c = 0;
  #d = 0;
  /** What the VTEP of that is bound to, if it is. */
  readonly #subnets = new Int32Array(SUBNET_WORDS);
  #isBound = false;

  constructor(
    memory: PacketMemory,
    counters: Float64Array,
    fdb: FdbReader,
    nextHops: Int32Array,
    lists: Int32Array,
    peers: PeerReader,
    reports: ReportWriter,
  ) {
    this.#memory = memory;
    this.#counters = counters;
    this.#fdb = fdb;
    this.#nextHops = nextHops;
    this.#lists = lists;
    this.#peers = peers;
    this.#reports = reports;
  }

  /** At the beginning of a batch: what passed before it may not pass any more. */
  begin(): void {
    this.#device = -1;
  }

  /**
   * Whether a packet passes; if not, the drop is counted. `checks` are those of SOURCE_CHECKS that are on, `source` is the offset of
   * the outer source address, `macHigh` and `macLow` are the inner source MAC, `at` is the VXLAN header.
   */
  passes(
    device: Device,
    checks: number,
    family: 4 | 6,
    source: number,
    macHigh: number,
    macLow: number,
    at: number,
    length: number,
  ): boolean {
    const { u8 } = this.#memory;
    const a = get32(u8, source);
    let b = 0;
    let c = 0;
    let d = 0;
    if (family === 6) {
      b = get32(u8, source + 4);
      c = get32(u8, source + 8);
      d = get32(u8, source + 12);
    }
    const { index } = device;
    if (macLow === this.#macLow && a === this.#a && index === this.#device && macHigh === this.#macHigh) {
      if (b === this.#b && c === this.#c && d === this.#d) {
        return !this.#isBound || this.#isFromSubnet(device, family, source, macHigh, macLow, at, length);
      }
    }
    let drop = 0;
    let report = 0;
    if ((checks & VTEP_KNOWN) !== 0 && !this.#peers.has(index, a, b, c, d)) {
      drop = COUNTER.rx_unknown_vtep;
      report = REPORT_UNKNOWN_VTEP;
    } else if ((checks & (LEARNING | VTEP_STRICT)) !== 0) {
      const cell = this.#fdb.find(index, macHigh, macLow);
      const state = cell < 0 ? 0 : this.#fdb.state(cell);
      const isThere = cell >= 0 && this.#isAt(this.#fdb.destination(cell), source, family);
      if ((checks & LEARNING) !== 0 && cell >= 0) this.#fdb.stamp(cell);
      if ((checks & VTEP_STRICT) !== 0 && !(isThere && (state & (NUD_FIXED | NTF_EXT_LEARNED)) !== 0)) {
        drop = COUNTER.rx_wrong_vtep;
        report = REPORT_WRONG_VTEP;
      } else if ((checks & LEARNING) !== 0 && !isThere) {
        const isFixed = cell >= 0 && ((state & NUD_FIXED) !== 0 || (this.#fdb.destination(cell) & 1) !== 0);
        if (isFixed) drop = COUNTER.rx_static_mac;
        report = isFixed ? REPORT_STATIC_MAC : REPORT_SOURCE;
      }
    }
    if (report !== 0) {
      this.#reports.report(report, index, macHigh, macLow, family, source, at, length);
      if (drop === 0) return true;
      this.#counters[device.scope + drop]++;
      return false;
    }
    this.#device = index;
    this.#macHigh = macHigh;
    this.#macLow = macLow;
    this.#a = a;
    this.#b = b;
    this.#c = c;
    this.#d = d;
    this.#isBound = (checks & VTEP_STRICT) !== 0 && this.#peers.readSubnets(index, a, b, c, d, this.#subnets);
    return !this.#isBound || this.#isFromSubnet(device, family, source, macHigh, macLow, at, length);
  }

  /** Unlike VTEP and MAC, the inner source address is looked at in each packet. */
  #isFromSubnet(
    { index, scope }: Device,
    family: 4 | 6,
    source: number,
    macHigh: number,
    macLow: number,
    at: number,
    length: number,
  ): boolean {
    if (isFromSubnet(this.#memory.u8, at + VXLAN_HEADER, length - VXLAN_HEADER, this.#subnets)) return true;
    this.#reports.report(REPORT_WRONG_SUBNET, index, macHigh, macLow, family, source, at, length);
    this.#counters[scope + COUNTER.rx_wrong_subnet]++;
    return false;
  }

  /** Whether a destination, or one of its list, is the VTEP whose address stands at `source`. */
  #isAt(destination: number, source: number, family: 4 | 6): boolean {
    const { u8 } = this.#memory;
    if (destination === 0) return false;
    if ((destination & 1) === 0) return isRemote(this.#nextHops, destination >> 1, u8, source, family);
    const list = destination >> 1;
    for (let k = Math.abs(this.#lists[list]); k > 0; k--) {
      if (isRemote(this.#nextHops, this.#lists[list + k], u8, source, family)) return true;
    }
    return false;
  }
}
