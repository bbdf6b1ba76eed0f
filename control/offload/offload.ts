/**
 * Flow offload: userspace decides, the kernel forwards. Two eBPF programs carry what needs no decision, on the egress of a device's TAP
 * and on the ingress of its uplink's NIC; everything else goes on to the workers, which stay the reference. What is attached
 * goes with this process.
 *
 *     TAP egress ---- known unicast flow ---> headers on  ---> NIC egress          all else ---> the TAP, a worker
 *     NIC ingress --- for one of our devices -> headers off ---> TAP ingress       all else ---> the uplink's TAP, a worker
 */

import { rmSync } from 'node:fs';
import type { FdbMirror, MirrorStamps } from '../../fdb/mirror.ts';
import { isDynamic } from '../../fdb/state.ts';
import type { FdbWriter } from '../../fdb/writer.ts';
import { TCX_EGRESS, TCX_INGRESS } from '../../system/bpf/abi.ts';
import { attachTcx } from '../../system/bpf/link.ts';
import { BpfMap, MAP_HASH } from '../../system/bpf/map.ts';
import * as libc from '../../system/libc.ts';
import { familyOf } from '../../wire/address.ts';
import { put32 } from '../../wire/bytes.ts';
import type { VxlanDevice } from '../device.ts';
import type { DeviceConfig } from '../fields.ts';
import type { Log } from '../log.ts';
import type { Uplink } from '../uplinks.ts';
import { decapProgram } from './decap-program.ts';
import { encapProgram } from './encap-program.ts';
import { type OffloadCounters, OffloadMirror } from './mirror.ts';
import { pinLink } from './pins.ts';
import { offloadObstacle } from './probe.ts';
import {
  ALLOW_ZERO_CHECKSUM,
  CHECK_SOURCE,
  CHECK_VTEP,
  DEVICE_CHECKS,
  DEVICE_INDEX,
  DEVICE_MAC_HIGH,
  DEVICE_MAC_LOW,
  DEVICE_TAP,
  DEVICE_VALUE,
} from './tables.ts';

/** Whether each direction is offloaded: undefined, or why not. */
export interface OffloadState {
  readonly send: string | undefined;
  readonly receive: string | undefined;
}

interface Attached {
  readonly device: VxlanDevice;
  /** The NIC that its next hops were told to leave through. */
  nic: number;
  /** Entries that are dynamic, as learned ones, let nobody in (vtep-filter strict). */
  isStrict: boolean;
  /** What its program was assembled for, and the link that holds it. */
  program?: { readonly key: string; readonly link: Link } | undefined;
  /** Where its VNI is registered, and under which number. */
  receiving?: { readonly uplink: Uplink; readonly vni: number } | undefined;
}

interface Vtep {
  readonly device: number;
  readonly ip: string;
}

/** What holds a program; `pin` is its name in a BPF file system. */
interface Link {
  readonly fd: number;
  readonly pin: string | undefined;
}

interface Receiving {
  readonly link: Link;
  readonly devices: BpfMap;
  readonly vnis: Set<number>;
}

const LIMITS = { entries: 1 << 20, nextHops: 1 << 18, devices: 256 };
/** Options that decide about each frame by what is in it. */
const PER_FRAME = ['ttl', 'tos', 'df'] as const;

export class Offload implements FdbMirror {
  readonly #fdb: FdbWriter;
  readonly #log: Log;
  /** undefined: not tried yet. A string: why there is none. */
  #mirror: OffloadMirror | string | undefined;
  readonly #attached = new Map<number, Attached>();
  readonly #uplinks = new Map<Uplink, Receiving>();
  readonly #states = new Map<number, OffloadState>();
  /** How many watch a device. */
  readonly #watchers = new Map<number, number>();
  /** Next hops in use, by index, with the VTEP of each; and how many each VTEP has. */
  readonly #vteps = new Map<number, Vtep>();
  readonly #references = new Map<string, number>();
  /** What went wrong when a device's programs were attached last. */
  readonly #failures = new Map<number, string>();
  #full = false;

  constructor(fdb: FdbWriter, log: Log) {
    this.#fdb = fdb;
    this.#log = log;
  }

  /** Attaches, changes or takes away what a device needs as it is now; says in a line what has become of it. */
  update(device: VxlanDevice): OffloadState {
    const state = this.#apply(device);
    const last = this.#states.get(device.index) ?? OFF;
    this.#states.set(device.index, state);
    if (last.send !== state.send || last.receive !== state.receive)
      this.#log(`${device.name}: ${sentence(state)}`, { device: device.name });
    return state;
  }

  /** While somebody watches a device, all of its packets go through the workers, where they are seen. */
  watch(device: VxlanDevice, watched: boolean): void {
    this.#watchers.set(device.index, (this.#watchers.get(device.index) ?? 0) + (watched ? 1 : -1));
    this.update(device);
  }

  /** Whether something of it is left to the workers for the time being, which is no obstacle. */
  isResting(device: VxlanDevice): boolean {
    return this.#isWatched(device) || !device.isUp;
  }

  remove(device: VxlanDevice): void {
    this.#detach(device.index);
    if (typeof this.#mirror === 'object') this.#mirror.clearCounters(device.index);
    this.#states.delete(device.index);
    this.#failures.delete(device.index);
    this.#watchers.delete(device.index);
  }

  /** Why nothing of a device can be offloaded, whatever its checksums and whoever watches it; undefined: it can. */
  obstacle(device: VxlanDevice): string | undefined {
    return this.#obstacle(device) ?? this.#failures.get(device.index);
  }

  state(device: VxlanDevice): OffloadState {
    return this.#states.get(device.index) ?? OFF;
  }

  /** What the kernel has carried for a device; undefined when nothing was ever offloaded. */
  counters(device: VxlanDevice): OffloadCounters | undefined {
    return typeof this.#mirror === 'object' ? this.#mirror.counters(device.index) : undefined;
  }

  stamps(device: number, macHigh: number, macLow: number): MirrorStamps {
    const attached = this.#attached.get(device);
    if (typeof this.#mirror !== 'object' || !attached) return NEVER;
    const { used, seen } = this.#mirror.stamps(device, macHigh, macLow);
    // Without learning the workers do not note it either.
    const heard = attached.device.config.learning ? seen : 0;
    return { used: fromKernel(used), heard: fromKernel(heard) };
  }

  setEntry(device: number, macHigh: number, macLow: number, destination: number, state: number): void {
    const attached = this.#attached.get(device);
    if (typeof this.#mirror !== 'object' || !attached) return;
    // Lists (head-end replication, groups of next hops) are the workers', and MACs by which nobody may send.
    if (destination === 0 || destination & 1 || (attached.isStrict && isDynamic(state))) {
      this.#mirror.removeEntry(device, macHigh, macLow);
      return;
    }
    try {
      this.#mirror.setEntry(device, macHigh, macLow, destination >> 1);
    } catch (error) {
      // Without its entry a MAC is the workers'; with its old one it would go to another VTEP.
      this.#mirror.removeEntry(device, macHigh, macLow);
      this.#tellFull(error);
    }
  }

  setNextHop(index: number): void {
    const { nextHops } = this.#fdb;
    const key = nextHops.key(index);
    const attached = this.#attached.get(key.device);
    if (typeof this.#mirror !== 'object' || !attached) return;
    const template = nextHops.resolved(index);
    try {
      if (template) this.#mirror.setNextHop(index, template, attached.nic);
      else this.#mirror.removeNextHop(index);
      if (nextHops.find(key) === index) this.#know(index, key);
      else this.#forgetVtep(index);
    } catch (error) {
      this.#mirror.removeNextHop(index);
      this.#tellFull(error);
    }
  }

  /** What is pinned goes on, with what it knows. */
  close(): void {
    const links = [...this.#attached.values()].flatMap(({ program }) => program?.link ?? []);
    for (const { link, devices } of this.#uplinks.values()) {
      links.push(link);
      devices.close();
    }
    for (const { fd } of links) libc.close(fd);
    if (typeof this.#mirror === 'object') this.#mirror.close();
  }

  /** The kernel had no room, or no memory: what it lacks is the workers'. */
  #tellFull(error: unknown): void {
    if (!this.#full) this.#log(`not all of the FDB is offloaded: ${(error as Error).message}`, { level: 'warn' });
    this.#full = true;
  }

  #know(index: number, { device, ip }: Vtep): void {
    if (this.#vteps.has(index)) return;
    this.#vteps.set(index, { device, ip });
    const references = this.#references.get(`${device} ${ip}`) ?? 0;
    this.#references.set(`${device} ${ip}`, references + 1);
    if (references === 0) (this.#mirror as OffloadMirror).setVtep(device, ip, true);
  }

  #forgetVtep(index: number): void {
    const vtep = this.#vteps.get(index);
    if (!vtep) return;
    this.#vteps.delete(index);
    const name = `${vtep.device} ${vtep.ip}`;
    const references = this.#references.get(name)! - 1;
    if (references > 0) this.#references.set(name, references);
    else {
      this.#references.delete(name);
      (this.#mirror as OffloadMirror).setVtep(vtep.device, vtep.ip, false);
    }
  }

  #isWatched({ index }: VxlanDevice): boolean {
    return (this.#watchers.get(index) ?? 0) > 0;
  }

  #apply(device: VxlanDevice): OffloadState {
    const obstacle = device.config.offload === 'off' ? 'offload is off' : this.#obstacle(device);
    if (obstacle !== undefined) {
      this.#detach(device.index);
      return { send: obstacle, receive: obstacle };
    }
    // The maps stay filled meanwhile: with a large FDB that takes seconds.
    const watched = this.#isWatched(device) ? 'somebody watches its packets' : undefined;
    const send = watched ?? sendObstacle(device.config, familyOf(device.place.local));
    const receive = watched ?? this.#receiveObstacle(device);
    try {
      const attached = this.#attach(device);
      if (send === undefined) this.#attachSend(attached);
      else this.#detachSend(attached);
      if (receive === undefined) this.#attachReceive(attached);
      else this.#detachReceive(attached);
      this.#failures.delete(device.index);
      return { send, receive };
    } catch (error) {
      this.#detach(device.index);
      const { message } = error as Error;
      this.#failures.set(device.index, message);
      return { send: message, receive: message };
    }
  }

  /** Why nothing of a device can be offloaded. */
  #obstacle(device: VxlanDevice): string | undefined {
    if (device.uplink.kind !== 'redirect') {
      return `the uplink is ${device.uplink.kind}: the host's own stack, its firewall and routes decide about each packet`;
    }
    if (device.uplink.receiveLink === undefined) return 'it needs TCX links: Linux 6.6 and CAP_BPF';
    if (device.ifindex === 0) return 'the device is in another network namespace';
    this.#mirror ??= offloadObstacle() ?? this.#makeMirror();
    return typeof this.#mirror === 'string' ? this.#mirror : undefined;
  }

  /** Why packets cannot be received by a program. */
  #receiveObstacle({ index, config, isUp }: VxlanDevice): string | undefined {
    if (!isUp) return 'the device is down'; // where the kernel drops, and tells nobody
    const isBound = config['vtep-filter'] === 'strict' && this.#fdb.nextHops.peers.isBound(index);
    return isBound ? 'workers check that inner source addresses are of the sending node' : undefined;
  }

  #makeMirror(): OffloadMirror {
    this.#fdb.mirror = this;
    return new OffloadMirror(LIMITS);
  }

  #attach(device: VxlanDevice): Attached {
    const nic = device.place.nic!.ifindex;
    const isStrict = device.config['vtep-filter'] === 'strict';
    const known = this.#attached.get(device.index);
    if (known?.nic === nic && known.isStrict === isStrict) return known;
    if (known) this.#fdb.catchUp(device.index);
    const attached = known ?? { device, nic, isStrict };
    attached.nic = nic;
    attached.isStrict = isStrict;
    this.#attached.set(device.index, attached);
    this.#fdb.replay(device.index, this);
    return attached;
  }

  #attachSend(attached: Attached): void {
    const { device } = attached;
    const { sourcePorts } = device.uplink.specs[0];
    const options = { device: device.index, family: familyOf(device.place.local), sourcePorts };
    const key = JSON.stringify([device.ifindex, options]);
    if (attached.program?.key === key) return;
    const program = encapProgram((this.#mirror as OffloadMirror).maps, options);
    const link = linked(attachTcx(program, device.ifindex, TCX_EGRESS), device);
    this.#detachSend(attached);
    attached.program = { key, link };
  }

  #detachSend(attached: Attached): void {
    if (attached.program) unlink(attached.program.link);
    attached.program = undefined;
  }

  #attachReceive(attached: Attached): void {
    const { device } = attached;
    const { uplink, config } = device;
    const last = attached.receiving;
    if (last && (last.uplink !== uplink || last.vni !== config.id)) this.#detachReceive(attached);
    const { devices, vnis } = this.#receiving(device);
    put32(devices.key, 0, config.id << 8);
    const value = new DataView(devices.value.buffer);
    value.setUint32(DEVICE_TAP, device.ifindex, true);
    value.setUint32(DEVICE_INDEX, device.index, true);
    value.setUint32(DEVICE_CHECKS, checksOf(config), true);
    const mac = device.mac() ?? new Uint8Array(6);
    const bytes = new DataView(mac.buffer, mac.byteOffset, 6);
    value.setUint32(DEVICE_MAC_LOW, bytes.getUint32(0, true), true);
    value.setUint32(DEVICE_MAC_HIGH, bytes.getUint16(4, true), true);
    devices.update();
    vnis.add(config.id);
    attached.receiving = { uplink, vni: config.id };
  }

  #receiving(device: VxlanDevice): Receiving {
    const { uplink } = device;
    const known = this.#uplinks.get(uplink);
    if (known) return known;
    const { local, port, nic } = uplink.request;
    const devices = new BpfMap({
      ...{ name: 'uvxlan_devices', type: MAP_HASH, keySize: 4, valueSize: DEVICE_VALUE, maxEntries: LIMITS.devices },
    });
    try {
      const program = decapProgram((this.#mirror as OffloadMirror).maps, { local, port, devices: devices.fd });
      const link = linked(attachTcx(program, nic!.ifindex, TCX_INGRESS, uplink.receiveLink), device);
      const receiving = { link, devices, vnis: new Set<number>() };
      this.#uplinks.set(uplink, receiving);
      return receiving;
    } catch (error) {
      devices.close();
      throw error;
    }
  }

  #detachReceive(attached: Attached): void {
    if (!attached.receiving) return;
    const { uplink, vni } = attached.receiving;
    attached.receiving = undefined;
    const { link, devices, vnis } = this.#uplinks.get(uplink)!;
    put32(devices.key, 0, vni << 8);
    devices.delete();
    vnis.delete(vni);
    if (vnis.size > 0) return;
    unlink(link);
    devices.close();
    this.#uplinks.delete(uplink);
  }

  #detach(index: number): void {
    const attached = this.#attached.get(index);
    if (!attached) return;
    this.#detachSend(attached);
    this.#detachReceive(attached);
    this.#forget(index);
    this.#attached.delete(index);
  }

  /** Empties the maps of what they have of a device. */
  #forget(device: number): void {
    const mirror = this.#mirror as OffloadMirror;
    this.#fdb.catchUp(device);
    this.#fdb.replay(device, {
      setEntry: (_, macHigh, macLow) => mirror.removeEntry(device, macHigh, macLow),
      setNextHop: (index) => mirror.removeNextHop(index),
    });
    for (const [index, vtep] of this.#vteps) if (vtep.device === device) this.#forgetVtep(index);
  }
}

function linked(fd: number, { config }: VxlanDevice): Link {
  const directory = config['offload-pin'];
  try {
    return { fd, pin: directory === null ? undefined : pinLink(fd, directory) };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

function unlink({ fd, pin }: Link): void {
  if (pin !== undefined) rmSync(pin, { force: true });
  libc.close(fd);
}

const NEVER: MirrorStamps = { used: 0, heard: 0 };

/** Milliseconds of the kernel's clock as those of this process's; 0 stays 0. */
function fromKernel(milliseconds: number): number {
  return milliseconds === 0 ? 0 : milliseconds - Number(process.hrtime.bigint()) / 1e6 + performance.now();
}

const OFF: OffloadState = { send: 'offload is off', receive: 'offload is off' };

function sentence({ send, receive }: OffloadState): string {
  if (send === undefined && receive === undefined) return 'known flows are offloaded to the kernel';
  if (send === receive) return `nothing is offloaded to the kernel: ${send}`;
  if (send === undefined) return `known flows are offloaded to the kernel on sending; not on receive: ${receive}`;
  if (receive !== undefined) return `nothing is offloaded to the kernel: sending: ${send}; receive: ${receive}`;
  return `known flows are offloaded to the kernel on receive; not on sending: ${send}`;
}

/** Why frames cannot be sent by a program. */
function sendObstacle(config: DeviceConfig, family: 4 | 6): string | undefined {
  // skb_adjust_room() marks a super-frame as tunnelled without an outer checksum, and a program cannot change that.
  if (family === 4 && config.udpcsum) {
    return 'outer UDP checksums are on, which the kernel does not compute for a program: give noudpcsum (RFC 7348, 5: SHOULD be zero)';
  }
  if (family === 6 && !config.udp6zerocsumtx) {
    return 'outer UDP checksums are on, which the kernel does not compute for a program: give udp6zerocsumtx where the peers take that';
  }
  const perFrame = PER_FRAME.find((option) => config[option] === 'inherit');
  if (perFrame) return `${perFrame} inherit needs the workers`;
  if (config.ecn === 'rfc6040') return 'ecn rfc6040 needs the workers';
  for (const option of ['rsc', 'proxy', 'neigh_suppress'] as const)
    if (config[option]) return `${option} needs the workers`;
  return undefined;
}

function checksOf(config: DeviceConfig): number {
  const filter = config['vtep-filter'];
  const source = config.learning || filter === 'strict';
  return (
    (filter === 'off' ? 0 : CHECK_VTEP) |
    (source ? CHECK_SOURCE : 0) |
    (config.udp6zerocsumrx ? ALLOW_ZERO_CHECKSUM : 0)
  );
}
