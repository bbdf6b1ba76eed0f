/**
 * From a TAP to the uplink: finds where each frame goes (RFC 7348 section 4.1; the kernel's order: the multicast
 * database, the MAC's own entry, the default entry, else drop) and gives it to the uplink, which writes the headers.
 */
import type { MdbReader } from '../fdb/mdb-table.ts';
import type { FdbReader } from '../fdb/table.ts';
import { get16, get32 } from '../wire/bytes.ts';
import { ETHER_HEADER } from '../wire/ethernet.ts';
import { flowHash } from '../wire/flow.ts';
import type { Batch } from './batch.ts';
import { COUNTER } from './counters.ts';
import { DEVICE_BRIDGED, DEVICE_MDB, type Device, L2MISS, NEIGH_SUPPRESS, PROXY, RSC } from './device.ts';
import { inheritedMarks, MARKING, plainMarks } from './marks.ts';
import type { PacketMemory } from './memory.ts';
import { REPORT_L2MISS, type ReportWriter } from './reports.ts';
import type { Suppressor } from './suppress.ts';
import type { TooBig } from './too-big.ts';

/** Options for which each frame's own headers matter before it is known where it goes. */
const LOOKS_INSIDE = PROXY | NEIGH_SUPPRESS | RSC;

export class Encap {
  readonly #memory: PacketMemory;
  readonly #counters: Float64Array;
  readonly #fdb: FdbReader;
  readonly #mdb: MdbReader;
  /** Lists of next hops: [count, next hop, ...] at the word that an FDB destination names. */
  readonly #lists: Int32Array;
  readonly #suppressor: Suppressor;
  readonly #reports: ReportWriter;
  readonly #teller: TooBig;

  constructor(
    memory: PacketMemory,
    counters: Float64Array,
    fdb: FdbReader,
    mdb: MdbReader,
    lists: Int32Array,
    suppressor: Suppressor,
    reports: ReportWriter,
    teller: TooBig,
  ) {
    this.#memory = memory;
    this.#counters = counters;
    this.#fdb = fdb;
    this.#mdb = mdb;
    this.#lists = lists;
    this.#suppressor = suppressor;
    this.#reports = reports;
    this.#teller = teller;
  }

  /** Sends a batch of frames of `device`; all of its memory is free afterwards. */
  run(batch: Batch, device: Device): void {
    this.forward(batch, device, 0, batch.count);
    device.uplink.flush();
  }

  /** The same with frames `first` to before `end`; the uplink may hold them until it is flushed. */
  forward(batch: Batch, device: Device, first: number, end: number): void {
    const { u8 } = this.#memory;
    const { scope, uplink, index } = device;
    const counters = this.#counters;
    const { flags } = device;
    const mayFragment = device.word(DEVICE_BRIDGED) === 0;
    const hasMdb = device.word(DEVICE_MDB) !== 0;
    const inherits = (flags & MARKING) !== 0;
    for (let i = first; i < end; i++) {
      const at = batch.at[i];
      const length = batch.length[i];
      if (length < ETHER_HEADER) {
        counters[scope + COUNTER.tx_runt]++;
        continue;
      }
      if ((flags & LOOKS_INSIDE) !== 0 && this.#isTaken(at, length, device, flags)) continue;
      const group = hasMdb && (u8[at] & 1) !== 0 ? this.#mdb.find(index, u8, at, length) : 0;
      const destination =
        group || this.#fdb.lookup(index, get16(u8, at), get32(u8, at + 2)) || this.#fdb.lookup(index, 0, 0);
      if (destination === 0) {
        counters[scope + COUNTER.tx_no_remote]++;
        if ((flags & L2MISS) !== 0 && (u8[at] & 1) === 0) this.#reportMiss(at, index);
        continue;
      }
      batch.marks[i] = inherits ? inheritedMarks(u8, at, length, device) : plainMarks(u8, at, length);
      const hash = flowHash(u8, at, length);
      const entropy = uplink.entropy(hash);
      const to = destination >> 1;
      if ((destination & 1) === 0) this.#send(batch, i, to, entropy, device, mayFragment);
      else if (this.#lists[to] >= 0) this.#replicate(batch, i, to, entropy, device, mayFragment);
      else this.#send(batch, i, this.#member(to, hash), entropy, device, mayFragment);
    }
  }

  /** Whether a frame goes no further; one that is for a router may get another destination. */
  #isTaken(at: number, length: number, device: Device, flags: number): boolean {
    if ((flags & (PROXY | NEIGH_SUPPRESS)) !== 0 && this.#suppressor.takes(at, length, device, flags)) return true;
    if ((flags & RSC) !== 0) this.#suppressor.shortCircuit(at, length, device, flags);
    return false;
  }

  #send(batch: Batch, i: number, nextHop: number, entropy: number, device: Device, mayFragment: boolean): void {
    const mtu = device.uplink.send(batch, i, nextHop, entropy, device.scope, mayFragment);
    if (mtu !== 0) this.#tooBig(batch, i, nextHop, entropy, device, mtu, mayFragment);
  }

  /**
   * A frame that does not fit the path, and whose sender is told. Behind a bridge, where nobody knows the path, that goes before DF: only
   * what may not be told of is left to be fragmented (Linux: skb_tunnel_check_pmtu). Otherwise the outer DF has refused it.
   */
  #tooBig(
    batch: Batch,
    i: number,
    nextHop: number,
    entropy: number,
    device: Device,
    mtu: number,
    mayFragment: boolean,
  ): void {
    const { scope, uplink } = device;
    const isBridged = !mayFragment;
    const isTold = this.#teller.tell(batch.at[i], batch.length[i], device, mtu, isBridged);
    if (!isTold && isBridged && uplink.send(batch, i, nextHop, entropy, scope, true) === 0) return;
    this.#counters[scope + COUNTER.tx_too_big]++;
  }

  #reportMiss(at: number, device: number): void {
    const { u8 } = this.#memory;
    this.#reports.report(REPORT_L2MISS, device, get16(u8, at), get32(u8, at + 2), 0, 0, 0, 0);
  }

  /** The one of a group that a flow goes to. Mixed once more: the underlay spreads flows by the same hash, as their source port. */
  #member(group: number, hash: number): number {
    const members = -this.#lists[group];
    return this.#lists[group + 1 + ((Math.imul(hash, 0x9e3779b1) >>> 16) % members)];
  }

  /** Head-end replication: one copy after the other, since each has its headers in the same place. */
  #replicate(batch: Batch, i: number, list: number, entropy: number, device: Device, mayFragment: boolean): void {
    const { uplink, scope } = device;
    const count = this.#lists[list];
    if (count === 0) this.#counters[scope + COUNTER.tx_no_remote]++;
    else this.#counters[scope + COUNTER.tx_replicas] += count - 1;
    for (let k = 1; k <= count; k++) {
      if (k > 1) uplink.flush();
      this.#send(batch, i, this.#lists[list + k], entropy, device, mayFragment);
    }
  }
}
