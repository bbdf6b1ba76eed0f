/** A node for the curves: the FDB as the daemon writes it, and one worker whose ports are memory. */
import type { PacketMemory } from '../../dataplane/memory.ts';
import { Worker } from '../../dataplane/worker.ts';
import { buildTemplate } from '../../fdb/template.ts';
import { FdbWriter } from '../../fdb/writer.ts';
import { frame, outerFrame, packet, payload, unfinished, vxlan } from '../../test/dataplane/packet.ts';
import { PORT, Rig, uplinkSpec, VNI } from '../../test/dataplane/rig.ts';
import { BenchPort } from '../micro/port.ts';

const SEED = 12345;
/** Keys that a port goes through: more than fit a cache, so that each is as cold as it would be. */
const KEYS = 1 << 16;
/** Where in a packet of a TAP the last four bytes of the destination MAC are, behind the virtio header. */
const MAC_LOW = 12 + 2;
/** Where in a packet of an uplink's TAP the VNI is: virtio header, Ethernet, IPv4, UDP, flags. */
const OUTER_VNI = 24 + 14 + 20 + 8 + 4;

/** Hands out one packet over and over, four bytes of it different each time. */
class VariedPort extends BenchPort {
  readonly #bytes: Uint8Array;
  readonly #offset: number;
  readonly #values: Int32Array;
  #next = 0;

  constructor(memory: PacketMemory, bytes: Uint8Array, offset: number, values: Int32Array) {
    super(memory, [bytes]);
    this.#bytes = memory.u8;
    this.#offset = offset;
    this.#values = values;
  }

  override read(at: number, capacity: number): number {
    const length = super.read(at, capacity);
    if (length < 0) return length;
    const value = this.#values[this.#next++ & (KEYS - 1)]!;
    const to = at + this.#offset;
    this.#bytes[to] = value >> 24;
    this.#bytes[to + 1] = value >> 16;
    this.#bytes[to + 2] = value >> 8;
    this.#bytes[to + 3] = value;
    return length;
  }
}

export class ScaleNode {
  readonly writer: FdbWriter;
  readonly worker: Worker;
  readonly taps: readonly VariedPort[];
  readonly uplink: VariedPort;

  /** `destinations`: the last four bytes of the MACs that frames go to, each as likely; `devices` have VNIs from VNI on. */
  constructor(destinations: Int32Array, devices = 1) {
    this.writer = new FdbWriter(
      {
        onNextHop: (index, { ip, port, vni }) => this.writer.nextHops.publish(index, template(ip, port, vni)),
        onRelease() {},
      },
      { seed: SEED },
    );
    this.worker = new Worker(0, {
      ...new Rig().shared,
      fdb: this.writer.table.buffer,
      nextHops: this.writer.nextHops.buffer,
      lists: this.writer.lists.buffer,
    });
    const { memory } = this.worker;
    const inner = frame({ protocol: 'udp', payload: payload(64) });
    const vnis = drawn(Int32Array.from({ length: devices }, (_, i) => (VNI + i) << 8));
    this.uplink = new VariedPort(
      memory,
      packet(outerFrame(vxlan(VNI, inner), PORT), { flags: 2 }, true),
      OUTER_VNI,
      vnis,
    );
    this.worker.addFrameUplink(uplinkSpec({ tunnelGso: true, udpGso: true }), this.uplink);
    const macs = drawn(destinations);
    this.taps = Array.from({ length: devices }, (_, index) => {
      const tap = new VariedPort(memory, unfinished(inner), MAC_LOW, macs);
      this.writer.addDevice({ index, name: `vx${index}`, vni: VNI + index, port: PORT, family: 4 });
      this.worker.addDevice({ index, vni: VNI + index, uplink: 0, tap: -1, mergeUdp: true }, tap);
      return tap;
    });
  }

  /** Adds an entry: frames of `device` to the MAC with these last four bytes go to VTEP number `vtep`. */
  add(device: number, low: number, vtep: number): void {
    this.writer.add(device, { mac: macText(low), dst: vtepText(vtep) }, 0);
  }
}

/** Last four bytes of `count` MACs, spread as those of real devices are. */
export function macs(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => Math.imul(i + 1, 0x9e3779b1));
}

/** KEYS of the values, at random. */
export function drawn(values: Int32Array): Int32Array {
  return Int32Array.from({ length: KEYS }, () => values[Math.floor(Math.random() * values.length)]!);
}

/** 02:00:... */
export function macText(low: number): string {
  return `02:00:${[24, 16, 8, 0].map((shift) => ((low >>> shift) & 0xff).toString(16).padStart(2, '0')).join(':')}`;
}

/** An address of 10.0.0.0/8. */
export function vtepText(number: number): string {
  return `10.${(number >> 16) & 0xff}.${(number >> 8) & 0xff}.${number & 0xff}`;
}

function template(destination: string, port: number, vni: number) {
  return buildTemplate({
    ...{ sourceMac: '02:00:00:00:00:0b', destinationMac: '02:00:00:00:00:0a', source: '192.0.2.1', destination },
    ...{ port, vni, ttl: 64, tos: 0, df: true, udpChecksum: true, uplink: 0, mtu: 1500 },
  });
}
