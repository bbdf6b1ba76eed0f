/** The offload's maps, written by the main thread: what the FDB knows, as far as programs in the kernel can forward by it. */
import { readFileSync } from 'node:fs';
import { TEMPLATE_HEADROOM, type Template } from '../../fdb/nexthops.ts';
import { BpfMap, MAP_HASH, MAP_NO_PREALLOC, MAP_PERCPU_ARRAY } from '../../system/bpf/map.ts';
import { parseIp } from '../../wire/address.ts';
import { put16, put32 } from '../../wire/bytes.ts';
import {
  COUNT_RX_BYTES,
  COUNT_RX_LOST,
  COUNT_RX_PACKETS,
  COUNT_TX_BYTES,
  COUNT_TX_LOST,
  COUNT_TX_PACKETS,
  COUNTERS_VALUE,
  FDB_KEY,
  FDB_KEY_DEVICE,
  FDB_NEXT_HOP,
  FDB_SEEN,
  FDB_USED,
  FDB_VALUE,
  HOP_HEADERS,
  HOP_IP_SUM,
  HOP_MTU,
  HOP_NIC,
  HOP_VALUE,
  type OffloadMaps,
  STAMP_SHIFT,
  VTEP_KEY,
  VTEP_VALUE,
} from './tables.ts';

/** What the kernel has carried for a device. */
export interface OffloadCounters {
  readonly tx_packets: number;
  /** Of the inner frames. */
  readonly tx_bytes: number;
  readonly rx_packets: number;
  readonly rx_bytes: number;
  readonly tx_lost: number;
  readonly rx_lost: number;
}

export interface MirrorLimits {
  readonly entries: number;
  readonly nextHops: number;
  readonly devices: number;
}

export class OffloadMirror {
  readonly #fdb: BpfMap;
  readonly #nextHops: BpfMap;
  readonly #vteps: BpfMap;
  readonly #counters: BpfMap;
  /** Views of the maps' keys and values, made once: a large FDB is told entry by entry. */
  readonly #fdbKey: DataView;
  readonly #fdbValue: DataView;
  readonly #counterBytes: DataView;
  readonly #processors: number;

  /** Memory is taken when an entry comes: some 100 bytes each. Throws a SystemError where eBPF cannot be used. */
  constructor({ entries, nextHops, devices }: MirrorLimits) {
    const hash = { type: MAP_HASH, flags: MAP_NO_PREALLOC };
    const made: BpfMap[] = [];
    const make = (map: BpfMap): BpfMap => made[made.push(map) - 1];
    try {
      this.#fdb = make(
        new BpfMap({ ...hash, name: 'uvxlan_fdb', keySize: FDB_KEY, valueSize: FDB_VALUE, maxEntries: entries }),
      );
      this.#nextHops = make(
        new BpfMap({ ...hash, name: 'uvxlan_nexthops', keySize: 4, valueSize: HOP_VALUE, maxEntries: nextHops }),
      );
      this.#vteps = make(
        new BpfMap({ ...hash, name: 'uvxlan_vteps', keySize: VTEP_KEY, valueSize: VTEP_VALUE, maxEntries: nextHops }),
      );
      this.#processors = possibleProcessors();
      const counters = { type: MAP_PERCPU_ARRAY, keySize: 4, valueSize: COUNTERS_VALUE, copies: this.#processors };
      this.#counters = make(new BpfMap({ ...counters, name: 'uvxlan_counters', maxEntries: devices }));
    } catch (error) {
      for (const map of made) map.close();
      throw error;
    }
    this.#fdbKey = new DataView(this.#fdb.key.buffer);
    this.#fdbValue = new DataView(this.#fdb.value.buffer);
    this.#counterBytes = new DataView(this.#counters.value.buffer);
  }

  /** Descriptors, for the programs. */
  get maps(): OffloadMaps {
    return {
      fdb: this.#fdb.fd,
      nextHops: this.#nextHops.fd,
      vteps: this.#vteps.fd,
      counters: this.#counters.fd,
    };
  }

  /** Frames to a MAC go to a next hop. `macHigh`: its first two bytes, `macLow`: the others, big-endian. Throws E2BIG when the map is full. */
  setEntry(device: number, macHigh: number, macLow: number, nextHop: number): void {
    this.#setKey(device, macHigh, macLow);
    this.#fdbValue.setUint32(FDB_NEXT_HOP, nextHop, true);
    this.#fdbValue.setUint32(FDB_USED, 0, true);
    this.#fdbValue.setUint32(FDB_SEEN, 0, true);
    this.#fdb.update();
  }

  removeEntry(device: number, macHigh: number, macLow: number): void {
    this.#setKey(device, macHigh, macLow);
    this.#fdb.delete();
  }

  /** When the kernel last sent to a MAC, and last heard it, in milliseconds of CLOCK_MONOTONIC; 0: not yet, or no such entry. */
  stamps(device: number, macHigh: number, macLow: number): { used: number; seen: number } {
    this.#setKey(device, macHigh, macLow);
    if (!this.#fdb.lookup()) return { used: 0, seen: 0 };
    const milliseconds = (field: number): number => (this.#fdbValue.getUint32(field, true) * 2 ** STAMP_SHIFT) / 1e6;
    return { used: milliseconds(FDB_USED), seen: milliseconds(FDB_SEEN) };
  }

  /** The headers that take frames to a next hop, and the number of the device that they leave through; 0: the workers send them. */
  setNextHop(index: number, template: Template, nic: number): void {
    const { key, value } = this.#nextHops;
    new DataView(key.buffer).setUint32(0, index, true);
    const view = new DataView(value.buffer);
    view.setUint32(HOP_NIC, nic, true);
    view.setUint32(HOP_MTU, template.mtu, true);
    view.setUint32(HOP_IP_SUM, template.ipSum, true);
    const headers = new Uint8Array(template.words.buffer).subarray(TEMPLATE_HEADROOM);
    value.set(headers.subarray(0, HOP_VALUE - HOP_HEADERS), HOP_HEADERS);
    this.#nextHops.update();
  }

  removeNextHop(index: number): void {
    new DataView(this.#nextHops.key.buffer).setUint32(0, index, true);
    this.#nextHops.delete();
  }

  /** Lets a VTEP send to a device whose vtep-filter is on, or no longer. */
  setVtep(device: number, address: string, known: boolean): void {
    const { key, value } = this.#vteps;
    key.fill(0);
    new DataView(key.buffer).setUint32(0, device, true);
    key.set(parseIp(address)!, 4);
    new DataView(value.buffer).setUint32(0, 1, true);
    if (known) this.#vteps.update();
    else this.#vteps.delete();
  }

  /** The sums over all processors. */
  counters(device: number): OffloadCounters {
    new DataView(this.#counters.key.buffer).setUint32(0, device, true);
    this.#counters.lookup();
    const sum = (field: number): number => {
      let total = 0;
      for (let i = 0; i < this.#processors; i++) {
        total += Number(this.#counterBytes.getBigUint64(i * COUNTERS_VALUE + field, true));
      }
      return total;
    };
    return {
      tx_packets: sum(COUNT_TX_PACKETS),
      tx_bytes: sum(COUNT_TX_BYTES),
      rx_packets: sum(COUNT_RX_PACKETS),
      rx_bytes: sum(COUNT_RX_BYTES),
      tx_lost: sum(COUNT_TX_LOST),
      rx_lost: sum(COUNT_RX_LOST),
    };
  }

  /** Sets a device's counters to zero, as for one that was just made. */
  clearCounters(device: number): void {
    new DataView(this.#counters.key.buffer).setUint32(0, device, true);
    this.#counters.value.fill(0);
    this.#counters.update();
  }

  /** Programs that are attached keep the maps. */
  close(): void {
    for (const map of [this.#fdb, this.#nextHops, this.#vteps, this.#counters]) map.close();
  }

  #setKey(device: number, macHigh: number, macLow: number): void {
    const { key } = this.#fdb;
    put16(key, 0, macHigh);
    put32(key, 2, macLow);
    this.#fdbKey.setUint16(FDB_KEY_DEVICE, device, true);
  }
}

/** How many copies a per-processor map has: the kernel counts those that may still come. */
function possibleProcessors(): number {
  const ranges = readFileSync('/sys/devices/system/cpu/possible', 'latin1').trim().split(',');
  return Math.max(...ranges.map((range) => Number(range.split('-').at(-1)))) + 1;
}
