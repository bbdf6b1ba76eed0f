/** From the uplink to the TAPs: checks VXLAN headers, finds the device by its VNI, and hands the inner frames on (RFC 7348 section 4.1). */
import { NEEDS_CSUM } from '../system/vnet.ts';
import { get16, get32 } from '../wire/bytes.ts';
import { ECN, takeOuterEcn } from '../wire/ecn.ts';
import { ETHER_HEADER, ETHER_SOURCE } from '../wire/ethernet.ts';
import { VXLAN_HEADER, VXLAN_VNI } from '../wire/vxlan.ts';
import type { Batch } from './batch.ts';
import { COUNTER } from './counters.ts';
import { DEVICE_RESERVED_HIGH, DEVICE_RESERVED_LOW, type Device } from './device.ts';
import type { PacketMemory } from './memory.ts';
import { SOURCE_CHECKS, type SourceCheck } from './source.ts';

/** Says that there is a VNI: without it there is nothing to go by. */
const I_FLAG = 0x08000000;

export class Decap {
  readonly #memory: PacketMemory;
  readonly #counters: Float64Array;
  readonly #scope: number;
  readonly #devices: readonly Device[];
  readonly #family: 4 | 6;
  readonly #sources: SourceCheck;
  readonly #maybeUnfinished: boolean;

  /**
   * `scope`: the uplink's counters. `devices`: those that the uplink serves; it may grow and shrink between calls. `family`: of the
   * uplink's packets.
   * `maybeUnfinished`: the uplink hands packets of virtual links over without saying that their checksums are unfinished.
   */
  constructor(
    memory: PacketMemory,
    counters: Float64Array,
    scope: number,
    devices: readonly Device[],
    family: 4 | 6,
    sources: SourceCheck,
    maybeUnfinished: boolean,
  ) {
    this.#memory = memory;
    this.#counters = counters;
    this.#scope = scope;
    this.#devices = devices;
    this.#family = family;
    this.#sources = sources;
    this.#maybeUnfinished = maybeUnfinished;
  }

  /** Delivers a batch; all of its memory is free afterwards. */
  run(batch: Batch): void {
    this.begin();
    this.deliver(batch, 0, batch.count);
    for (const device of this.#devices) device.coalescer.flush();
  }

  /** A batch begins whose packets deliver() is given. */
  begin(): void {
    this.#sources.begin();
  }

  /** Packets `first` to before `end` of a batch; the devices' coalescers may hold them until they are flushed. */
  deliver(batch: Batch, first: number, end: number): void {
    for (let i = first; i < end; i++) {
      const at = batch.at[i];
      const length = batch.length[i];
      const train = batch.train[i];
      const tos = batch.tos[i];
      const source = batch.source[i];
      if (train > 0) {
        for (let offset = 0; offset < length; offset += train) {
          const size = Math.min(train, length - offset);
          const device = this.#accept(at + offset, size, tos, source);
          if (device) device.coalescer.add(at + offset + VXLAN_HEADER, size - VXLAN_HEADER, this.#maybeUnfinished);
        }
        continue;
      }
      const device = this.#accept(at, length, tos, source);
      if (!device) continue;
      const frame = at + VXLAN_HEADER;
      const frameLength = length - VXLAN_HEADER;
      if (batch.flags[i] & NEEDS_CSUM) {
        device.coalescer.pass(
          frame,
          frameLength,
          batch.gsoType[i],
          batch.gsoSize[i],
          batch.headerLength[i],
          batch.checksumStart[i],
          batch.checksumOffset[i],
        );
      } else {
        device.coalescer.add(frame, frameLength, this.#maybeUnfinished);
      }
    }
  }

  /**
   * The device that the packet is for; undefined, and a drop counted, when it is for none. Congestion that the outer TOS tells of is
   * marked in the frame. `from`: where its outer source address lies.
   */
  #accept(at: number, length: number, tos: number, from: number): Device | undefined {
    const { u8 } = this.#memory;
    const counters = this.#counters;
    const flags = length < VXLAN_HEADER ? 0 : get32(u8, at);
    if ((flags & I_FLAG) === 0) {
      counters[this.#scope + COUNTER.rx_invalid_header]++;
      return undefined;
    }
    const vni = get32(u8, at + VXLAN_VNI);
    const device = this.#find(vni >>> 8);
    if (!device) {
      counters[this.#scope + COUNTER.rx_unknown_vni]++;
      return undefined;
    }
    counters[this.#scope + COUNTER.rx_passed]++;
    counters[device.scope + COUNTER.rx_packets]++;
    if (((flags & device.word(DEVICE_RESERVED_HIGH)) | (vni & device.word(DEVICE_RESERVED_LOW))) !== 0) {
      counters[device.scope + COUNTER.rx_reserved_bits]++;
      return undefined;
    }
    if (length < VXLAN_HEADER + ETHER_HEADER) {
      counters[device.scope + COUNTER.rx_inner_truncated]++;
      return undefined;
    }
    const source = at + VXLAN_HEADER + ETHER_SOURCE;
    const high = get16(u8, source);
    const low = get32(u8, source + 2);
    if ((high & 0x0100) !== 0 || (high | low) === 0) {
      counters[device.scope + COUNTER.rx_invalid_source_mac]++;
      return undefined;
    }
    if (device.isOwnMac(high, low)) {
      counters[device.scope + COUNTER.rx_own_mac]++;
      return undefined;
    }
    const checks = device.flags & SOURCE_CHECKS;
    if (checks !== 0 && !this.#sources.passes(device, checks, this.#family, from, high, low, at, length))
      return undefined;
    if ((tos & ECN) !== 0 && !takeOuterEcn(u8, at + VXLAN_HEADER, length - VXLAN_HEADER, tos)) {
      counters[device.scope + COUNTER.rx_congestion]++;
      return undefined;
    }
    return device;
  }

  #find(vni: number): Device | undefined {
    const devices = this.#devices;
    for (let i = 0; i < devices.length; i++) if (devices[i].vni === vni) return devices[i];
    return undefined;
  }
}
