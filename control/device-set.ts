/** The daemon's devices: how one is made, changed, moved to another place or uplink, and taken away, so that all who know of it hear. */
import { clear } from '../dataplane/counters.ts';
import { MAX_DEVICES } from '../dataplane/device.ts';
import type { WorkerPool } from '../dataplane/pool.ts';
import type { Capabilities } from '../system/capabilities.ts';
import { familyOf, macHigh, macLow } from '../wire/address.ts';
import { findPlace, type Place, VxlanDevice } from './device.ts';
import { defaultDestination, optionWords, outerOptions } from './device-options.ts';
import type { DeviceConfig } from './fields.ts';
import type { Forwarding } from './forwarding.ts';
import type { Host } from './host.ts';
import type { Log } from './log.ts';
import { lowestFree } from './lowest-free.ts';
import type { Offload } from './offload/offload.ts';
import type { OverlayNeighbours } from './overlay-neighbours.ts';
import { CommandError } from './protocol.ts';
import type { UplinkSet } from './uplink-set.ts';
import type { Uplink, UplinkWish } from './uplinks.ts';
import { deviceProblems } from './words.ts';

export interface DeviceSetOptions {
  /** By their numbers. */
  readonly devices: Map<number, VxlanDevice>;
  readonly host: Host;
  readonly capabilities: Capabilities;
  readonly pool: WorkerPool;
  readonly forwarding: Forwarding;
  readonly neighbours: OverlayNeighbours;
  readonly offload: Offload;
  readonly uplinks: UplinkSet;
  readonly log: Log;
  /** A device has come, or has other options. */
  readonly onOptions: () => void;
}

/** Its changes run one after the other: that is the caller's to see to. */
export class DeviceSet {
  readonly #options: DeviceSetOptions;

  constructor(options: DeviceSetOptions) {
    this.#options = options;
  }

  async create(config: DeviceConfig): Promise<VxlanDevice> {
    const { devices, host, capabilities, pool, forwarding, neighbours, uplinks } = this.#options;
    this.#refuseTwin(config);
    const place = await findPlace(host, config);
    const index = lowestFree(MAX_DEVICES, (candidate) => devices.has(candidate), 'devices');
    const uplink = await uplinks.acquire(requestOf(config, place));
    try {
      const device = await VxlanDevice.create(host, capabilities, index, config, place, uplink);
      devices.set(index, device);
      clear(pool.counters, index);
      pool.setBridged(index, false);
      pool.setMdb(index, false);
      this.tellMac(device);
      this.tellOptions(device);
      forwarding.addDevice(device);
      neighbours.addDevice(device);
      await pool.addDevice(device.specs(capabilities));
      this.updateOffload(device);
      uplinks.remotesChanged();
      return device;
    } catch (error) {
      const device = devices.get(index);
      if (device) await this.remove(device);
      else await uplinks.release();
      throw error;
    }
  }

  /** The kernel's rules: one device for a VNI, port and family, and one answer to zero checksums a port (vxlan_vni_in_use, vxlan_find_sock). */
  #refuseTwin({ name, id, dstport, local, remote, udp6zerocsumrx }: DeviceConfig): void {
    const family = familyOf(local ?? remote ?? '');
    for (const { config, place } of this.#options.devices.values()) {
      if (config.name === name) throw new CommandError(`${name}: a device of that name exists`, 'EEXIST');
      if (config.dstport !== dstport || familyOf(place.local) !== family) continue;
      if (family === 6 && config.udp6zerocsumrx !== udp6zerocsumrx) {
        const other = `${config.name} has ${config.udp6zerocsumrx ? '' : 'no'}udp6zerocsumrx on port ${dstport}`;
        throw new CommandError(`${name}: Address already in use: ${other}, a port has one or the other`, 'EADDRINUSE');
      }
      if (config.id !== id) continue;
      throw new CommandError(`${name}: A VXLAN device with the specified VNI already exists: ${config.name}`, 'EEXIST');
    }
  }

  /** Gives a running device other options: those of `changes`. Throws CommandError where they do not go together, or cannot be changed. */
  async change(device: VxlanDevice, changes: Partial<DeviceConfig>): Promise<void> {
    const { name } = device;
    const config = { ...device.config, ...changes };
    refuseTtlChange(name, device.config, changes);
    for (const { message } of deviceProblems(config)) throw new CommandError(`${name}: ${message}`, 'EINVAL');
    if ((config.uplink === 'raw') !== (device.config.uplink === 'raw')) {
      throw new CommandError(
        `${name}: Cannot change between uplink raw and the others: remove it and add it again`,
        'EOPNOTSUPP',
      );
    }
    const place = await findPlace(this.#options.host, config);
    if (familyOf(place.local) !== familyOf(device.place.local)) {
      throw new CommandError(
        `${name}: New address family does not match old one: remove it and add it again`,
        'EOPNOTSUPP',
      );
    }
    await this.move(device, config, place);
    this.updateOffload(device);
  }

  async remove(device: VxlanDevice): Promise<void> {
    const { devices, offload, pool, forwarding, neighbours, uplinks } = this.#options;
    devices.delete(device.index);
    offload.remove(device);
    await pool.removeDevice(device.index);
    forwarding.removeDevice(device);
    neighbours.removeDevice(device);
    device.remove();
    await uplinks.release();
  }

  /** Gives a device another configuration or place; traffic goes on, over another uplink if these need one. */
  async move(device: VxlanDevice, config: DeviceConfig, place: Place): Promise<void> {
    const { uplinks, forwarding, offload } = this.#options;
    const uplink = await uplinks.acquire(requestOf(config, place));
    const moved = uplink !== device.uplink;
    const remote = defaultDestination(device.config);
    device.config = config;
    device.place = place;
    this.tellOptions(device);
    if (moved) await this.changeUplink(device, uplink, remote);
    else forwarding.moveDevice(device, remote);
    uplinks.remotesChanged();
    await device.followMtu();
    offload.update(device);
    if (moved) await uplinks.release();
  }

  /** Traffic goes over another uplink from now on; the old one is the caller's to close. `remote` is the one until now. */
  async changeUplink(device: VxlanDevice, uplink: Uplink, remote = defaultDestination(device.config)): Promise<void> {
    device.uplink = uplink;
    await this.#options.pool.addDevice(device.specs(this.#options.capabilities));
    this.#options.forwarding.moveDevice(device, remote);
    this.#options.offload.update(device);
  }

  /** Throws a CommandError where the device asks for more than there is. */
  updateOffload(device: VxlanDevice): void {
    const { offload } = this.#options;
    const { send, receive } = offload.update(device);
    const obstacle = send ?? receive;
    if (device.config.offload !== 'require' || obstacle === undefined || offload.isResting(device)) return;
    throw new CommandError(`${device.name}: offload require: ${obstacle}`, 'EOPNOTSUPP');
  }

  /** The workers drop frames that come back with the device's own MAC, which `ip link set` may change. */
  tellMac(device: VxlanDevice): void {
    const mac = device.mac();
    if (mac) this.#options.pool.setMac(device.index, macHigh(mac, 0), macLow(mac, 0));
  }

  tellOptions({ index, config, place, noArp }: VxlanDevice): void {
    this.#options.pool.setOptions(index, optionWords(config, this.#options.forwarding.defaultTtl(place.local), noArp));
    this.#options.onOptions();
  }

  /** Somebody has deleted the TAP, as one deletes a kernel device: `ip link del`. */
  async dropDeleted(index: number): Promise<void> {
    const device = this.#options.devices.get(index);
    if (!device || device.mac()) return;
    await this.remove(device);
    this.#options.log(`${device.name} was deleted by somebody (ip link del): it carries no traffic any more`, {
      level: 'warn',
      device: device.name,
    });
  }
}

/** The kernel's rule (vxlan_nl2conf): a TTL that is inherited stays so. */
function refuseTtlChange(name: string, { ttl }: DeviceConfig, changes: Partial<DeviceConfig>): void {
  if (changes.ttl === undefined || (ttl === 'inherit') === (changes.ttl === 'inherit')) return;
  throw new CommandError(`${name}: cannot change TTL_INHERIT flag: remove the device and add it again`, 'EOPNOTSUPP');
}

function requestOf(config: DeviceConfig, { nic, local }: Place): UplinkWish {
  const { uplink: choice, dstport: port, srcport: sourcePorts, remote, group, fdb } = config;
  // Policies of the host may concern these VTEPs only, and hold from the first packet on.
  const remotes = [remote, ...fdb.map(({ dst }) => dst)].filter((address) => address !== null);
  return { choice, nic, local, port, sourcePorts, group, ...outerOptions(config, familyOf(local)), remotes };
}
