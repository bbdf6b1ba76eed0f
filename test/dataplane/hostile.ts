/**
 * Hostile packets: mutations of valid ones, from a seed, through everything that a worker does with packets. Two workers get the same bytes,
 * with other ones around them: were one to read beyond a packet's end, they would come to differ. Ports refuse to touch memory that is not
 * the worker's.
 */
import assert from 'node:assert/strict';
import type { DeviceConfig } from '../../control/fields.ts';
import { IOVEC, type PacketMemory, WORKER_BYTES } from '../../dataplane/memory.ts';
import type { Port } from '../../dataplane/port.ts';
import { Worker } from '../../dataplane/worker.ts';
import { NUD_PERMANENT } from '../../fdb/neighbors.ts';
import * as libc from '../../system/libc.ts';
import { ASKER, arp, ip4, ip6, nd } from './discovery.ts';
import {
  frame,
  mac,
  otherFrame,
  outerFrame,
  packet,
  payload,
  referenceSum,
  setPseudo,
  superFrame,
  unfinished,
  vxlan,
} from './packet.ts';
import { drops, PORT, Rig, random, uplinkSpec, VNI } from './rig.ts';

type Below = (below: number) => number;

/** What lies around packets: so many bytes are as they were when the worker is done with a packet that came alone. */
const GUARD = 256;
const KNOWN = 0x11;

/** A device for each, of VNI and its successors. */
const OPTIONS: readonly Partial<DeviceConfig>[] = [
  {},
  { proxy: true, l2miss: true, l3miss: true },
  { neigh_suppress: true, rsc: true, l2miss: true, l3miss: true, 'vtep-filter': 'strict', learning: true },
  { ttl: 'inherit', tos: 'inherit', df: 'inherit', ecn: 'rfc6040', profile: 'rfc7348', learning: true },
];

/** Gives out packets with guard bytes around them; of what is written it keeps a hash. */
class HostilePort implements Port {
  readonly fd = -1;
  readonly waiting: Uint8Array[] = [];
  hash = 0;
  /** Where the last packet that was read ends. */
  end = 0;
  readonly #memory: PacketMemory;
  readonly #guard: number;

  constructor(memory: PacketMemory, guard: number) {
    this.#memory = memory;
    this.#guard = guard;
  }

  read(at: number, capacity: number): number {
    const bytes = this.waiting.shift();
    if (!bytes) return -1;
    assert.ok(at >= 0 && at + capacity <= WORKER_BYTES, 'read into the memory of others');
    const { u8 } = this.#memory;
    u8.set(bytes, at);
    this.end = at + bytes.length;
    u8.fill(this.#guard, this.end, Math.min(this.end + GUARD, at + capacity));
    return bytes.length;
  }

  write(at: number, length: number): number {
    assert.ok(length >= 0 && at >= 0 && at + length <= WORKER_BYTES, 'write of memory of others');
    const { u8 } = this.#memory;
    let hash = this.hash;
    for (let i = at; i < at + length; i++) hash = Math.imul(hash ^ u8[i], 0x01000193);
    this.hash = hash;
    return length;
  }

  writev(iovecs: number, count: number): number {
    const { u32, address } = this.#memory;
    let length = 0;
    for (let i = 0; i < count; i++) {
      const word = (iovecs + i * IOVEC) >> 2;
      length += this.write(u32[word] + u32[word + 1] * 2 ** 32 - address, u32[word + 2]);
    }
    assert.ok(length <= 65536 + 128, `a packet of ${length} bytes`);
    return length;
  }

  errno(): number {
    return libc.EAGAIN;
  }

  /** Whether nobody has written behind the last packet. */
  get isIntact(): boolean {
    return this.#memory.u8.subarray(this.end, this.end + GUARD).every((byte) => byte === this.#guard);
  }
}

/** A worker with all kinds of devices; identifications begin at 0, so that two are alike. */
class Machine {
  readonly rig = new Rig();
  readonly uplink: HostilePort;
  readonly taps: readonly HostilePort[];
  readonly worker: Worker;

  constructor(guard: number) {
    const { rig } = this;
    this.worker = new Worker(0, rig.shared);
    this.uplink = new HostilePort(this.worker.memory, guard);
    this.taps = OPTIONS.map(() => new HostilePort(this.worker.memory, guard));
    const { random: anything } = Math;
    Math.random = () => 0;
    this.worker.addFrameUplink(uplinkSpec({ tunnelGso: true, udpGso: true }), this.uplink);
    Math.random = anything;
    for (const [device, options] of OPTIONS.entries()) {
      this.worker.addDevice(
        { index: device, vni: VNI + device, uplink: 0, tap: -1, mergeUdp: true },
        this.taps[device],
      );
      rig.setOptions(device, options);
      const ttl = options.ttl === 'inherit' ? 0 : 64;
      const near = rig.vtep('192.0.2.2', { device, ttl });
      rig.entry(device, KNOWN, near);
      rig.entry(
        device,
        -1,
        near,
        rig.vtep('2001:db8::2', { device, ttl }),
        rig.vtep('192.0.2.4', { device, ttl, mtu: 600 }),
      );
      for (const ip of [ip4(KNOWN), ip6(KNOWN)]) {
        rig.neighbors.set(device, Uint8Array.from(ip), 0x0200, KNOWN, NUD_PERMANENT);
      }
    }
  }

  get ports(): readonly HostilePort[] {
    return [this.uplink, ...this.taps];
  }

  /** The equations of counters.ts. */
  assertAddsUp(): void {
    let arrived = 0;
    for (const device of OPTIONS.keys()) {
      const counters = this.rig.device(device);
      const { tx_frames = 0, tx_replicas = 0, tx_segments = 0, tx_packets = 0, tx_answered = 0 } = counters;
      const { rx_packets = 0, rx_frames = 0 } = counters;
      const out = tx_packets + tx_answered + drops(counters, 'tx');
      assert.equal(
        tx_frames + tx_replicas + tx_segments,
        out,
        `sending, device ${device}: ${JSON.stringify(counters)}`,
      );
      assert.equal(rx_packets, rx_frames + drops(counters, 'rx'), `receiving, device ${device}`);
      arrived += rx_packets;
    }
    const uplink = this.rig.uplink(0);
    assert.equal(uplink.rx_packets ?? 0, (uplink.rx_passed ?? 0) + drops(uplink, 'rx'), 'the uplink');
    assert.equal(uplink.rx_passed ?? 0, arrived, 'what the uplink passed on');
  }
}

/** Valid inner frames, of which hostile ones are made. */
function corpus(): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (const version of [4, 6] as const) {
    for (const protocol of ['tcp', 'udp'] as const) {
      for (const tags of [[], [5], [5, 6]]) {
        frames.push(frame({ version, protocol, tags, tos: 2, payload: payload(64) }));
        const ipOptions =
          version === 4 ? Uint8Array.of(7, 7, 4, 1, 2, 3, 4, 0) : Uint8Array.of(60, 0, 1, 4, 0, 0, 0, 0);
        frames.push(frame({ version, protocol, tags, ipOptions, payload: payload(900) }));
      }
    }
  }
  const target = [ip4(KNOWN), ip4(0x55)].map((ip) => arp(ip));
  const solicitations = [ip6(KNOWN), ip6(0x55)].map((ip) => nd(ip));
  return [...frames, ...target, ...solicitations, otherFrame(0x88cc, 40), frame({ to: ASKER, payload: payload(1400) })];
}

function insert(bytes: Uint8Array, at: number, more: ArrayLike<number>): Uint8Array {
  const result = new Uint8Array(bytes.length + more.length);
  const begin = Math.min(at, bytes.length);
  result.set(bytes.subarray(0, begin));
  result.set(more, begin);
  result.set(bytes.subarray(begin), begin + more.length);
  return result;
}

const OUTER = { 4: outerFrame(new Uint8Array(0), PORT), 6: outerFrame(new Uint8Array(0), PORT, { version: 6 }) };

/** A VXLAN packet, its UDP checksum left to be: where it matters the virtio header says that it was verified. */
function encapsulate(vni: number, inner: Uint8Array, tos: number, version: 4 | 6): Uint8Array {
  const headers = OUTER[version];
  const bytes = new Uint8Array(headers.length + 8 + inner.length);
  const view = new DataView(bytes.buffer);
  bytes.set(headers);
  bytes[headers.length] = 8;
  view.setUint32(headers.length + 4, vni << 8);
  bytes.set(inner, headers.length + 8);
  view.setUint16(headers.length - 4, 16 + inner.length);
  if (version === 4) {
    bytes[15] = tos;
    view.setUint16(16, 36 + inner.length);
    view.setUint16(24, 0);
    view.setUint16(24, 0xffff ^ referenceSum(bytes.subarray(14, 34)));
  } else {
    view.setUint16(14, 0x6000 | (tos << 4));
    view.setUint16(18, 16 + inner.length);
  }
  return bytes;
}

const EXTREMES = [0, 1, 2, 7, 8, 0x0f, 0x40, 0x45, 0x7f, 0x80, 0xfe, 0xff];

/** Changes some bytes of the headers, the length, or puts a tag or an extension header in. */
function mutate(given: Uint8Array, below: Below): Uint8Array {
  let bytes: Uint8Array = Uint8Array.from(given);
  for (let changes = below(4); changes >= 0; changes--) {
    const at = below(Math.min(bytes.length, 110));
    switch (below(9)) {
      case 0:
        bytes[at] ^= 1 << below(8);
        break;
      case 1:
        bytes[at] = EXTREMES[below(EXTREMES.length)];
        break;
      case 2:
        bytes[at] = bytes[at + 1] = EXTREMES[below(EXTREMES.length)];
        break;
      case 3:
        bytes = bytes.slice(0, below(bytes.length + 1));
        break;
      case 4:
        bytes = insert(bytes, bytes.length, payload(below(80), at));
        break;
      case 5: // one more tag
        bytes = insert(bytes, 12, at & 1 ? [0x81, 0, 0, at] : [0x88, 0xa8, 0, at]);
        break;
      case 6: // an extension header, its length a lie or not
        if (bytes.length > 54 && bytes[12] === 0x86) {
          const kind = [0, 43, 44, 60][below(4)];
          const next = bytes[20];
          bytes[20] = kind;
          bytes = insert(bytes, 54, [next, below(3) && below(256), 0, 0, 0, 0, 0, 0]);
        }
        break;
      case 7: // other lengths in IP and what follows
        if (bytes.length > 24) bytes[[16, 17, 18, 19, 38, 39][below(6)]] = below(256);
        break;
      default: // a known destination, or one of ours as the source
        if (bytes.length >= 12) bytes.set(mac(below(2) ? KNOWN : 0x77), below(2) * 6);
    }
    if (bytes.length === 0) break;
  }
  return bytes.length > 6 ? bytes : insert(bytes, bytes.length, [1, 2, 3, 4, 5, 6]);
}

/** What is wrong in a virtio header: any flags, types and offsets. */
function lies(below: Below) {
  const offset = () => (below(4) === 0 ? below(65536) : below(200));
  return {
    flags: below(2) ? 1 : below(16),
    type: [0, 0, 1, 4, 5, 0x21, 0x25, 0x41, 0x81, 0xff][below(10)],
    ...{
      headerLength: offset(),
      size: below(3) ? 1 + below(1500) : offset(),
      start: offset(),
      offset: below(3) ? 6 + below(12) : offset(),
    },
    ...{ outerTransport: offset(), innerNetwork: offset() },
  };
}

export class Hostility {
  /** Packets that were given to a worker. */
  packets = 0;
  readonly #below: Below;
  readonly #machines = [new Machine(0xa5), new Machine(0x5a)];
  readonly #inner = corpus();
  readonly #super = this.#inner
    .filter((bytes) => bytes.length > 800 && bytes[12] !== 0x88)
    .map((bytes) => superFrame(bytes, 200));

  constructor(seed: number) {
    this.#below = random(seed);
  }

  /** Gives each machine a batch of packets, from the network or of a TAP; throws when something is wrong. */
  round(): void {
    const below = this.#below;
    const count = below(4) === 0 ? 1 : 1 + below(32);
    const device = below(OPTIONS.length);
    const outwards = below(2) === 0;
    const packets = Array.from({ length: count }, () => (outwards ? this.#fromTap() : this.#fromNetwork(device)));
    for (const machine of this.#machines) {
      const port = outwards ? machine.taps[device] : machine.uplink;
      port.waiting.push(...packets);
      while (machine.worker.turn() > 0);
      assert.equal(port.waiting.length, 0);
      if (count === 1) assert.ok(port.isIntact, `written behind ${Buffer.from(packets[0]).toString('hex')}`);
    }
    const [one, other] = this.#machines;
    for (const [i, { hash }] of one.ports.entries()) {
      if (hash === other.ports[i].hash) continue;
      const shown = packets.map((bytes) => Buffer.from(bytes).toString('hex')).join('\n');
      assert.fail(`read beyond the end: from ${outwards ? `TAP ${device}` : 'the network'}\n${shown}`);
    }
    this.packets += count;
  }

  /** Whether the counters add up, and are those of both. */
  assertAddsUp(): void {
    for (const machine of this.#machines) machine.assertAddsUp();
    for (const device of OPTIONS.keys()) {
      assert.deepEqual(this.#machines[0].rig.device(device), this.#machines[1].rig.device(device));
    }
  }

  /** How many packets came to each end, all devices together: to see that the hostile ones get everywhere. */
  fates(): Map<string, number> {
    const fates = new Map<string, number>();
    const [{ rig }] = this.#machines;
    for (const counters of [rig.uplink(0), ...[...OPTIONS.keys()].map((device) => rig.device(device))]) {
      for (const [name, count] of Object.entries(counters)) fates.set(name, (fates.get(name) ?? 0) + count);
    }
    return fates;
  }

  #fromTap(): Uint8Array {
    const below = this.#below;
    const chosen = this.#inner[below(this.#inner.length)];
    switch (below(5)) {
      case 0:
        return packet(mutate(chosen, below), lies(below));
      case 1:
        return mutateBehind(this.#super[below(this.#super.length)], 12, below);
      case 2:
        return chosen.length > 60 && chosen[12] !== 0x88
          ? mutateBehind(unfinished(this.#inner[0]), 12, below)
          : packet(chosen);
      default:
        return packet(mutate(chosen, below));
    }
  }

  #fromNetwork(device: number): Uint8Array {
    const below = this.#below;
    const inner =
      below(8) === 0 ? this.#inner[below(this.#inner.length)] : mutate(this.#inner[below(this.#inner.length)], below);
    const tos = below(256);
    const version = below(2) ? 4 : 6;
    const outer = encapsulate(VNI + device, inner, tos, version);
    switch (below(16)) {
      case 0: {
        // A train, of any size of segments.
        const encapsulated = vxlan(VNI + device, inner);
        const size = below(3) ? encapsulated.length : below(400);
        const train = setPseudo(outerFrame(Buffer.concat([encapsulated, encapsulated, encapsulated]), PORT, { tos }));
        return packet(train, { flags: 1, type: 5, headerLength: 42, size, start: 34, offset: 6 }, true);
      }
      case 1: // its UDP checksum is looked at
        return packet(outer, {}, true);
      case 2:
      case 3:
        return packet(mutate(outer, below), { flags: 2 }, true);
      case 4:
      case 5:
        return packet(outer, lies(below), true);
      default: // the VXLAN header
        if (below(4) === 0) outer[outer.length - inner.length - 8 + below(8)] = EXTREMES[below(EXTREMES.length)];
        return packet(outer, { flags: 2 }, true);
    }
  }
}

/** A packet whose metadata was right, until its frame was changed. */
function mutateBehind(bytes: Uint8Array, header: number, below: Below): Uint8Array {
  return insert(mutate(bytes.subarray(header), below), 0, bytes.subarray(0, header));
}
