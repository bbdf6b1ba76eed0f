/** The daemon's uplinks: which there are, who shares one, and what the host's policies make of them while they are in use. */

import { clear, FIRST_UPLINK_SCOPE } from '../dataplane/counters.ts';
import type { WorkerPool } from '../dataplane/pool.ts';
import type { Capabilities } from '../system/capabilities.ts';
import type { VxlanDevice } from './device.ts';
import { FilterWatch } from './filter-watch.ts';
import type { Host, Link } from './host.ts';
import type { Log } from './log.ts';
import { lowestFree } from './lowest-free.ts';
import { type PolicyChange, PolicyWatch } from './policy-watch.ts';
import { CommandError } from './protocol.ts';
import { openUplink, policyWarning, tunnelOf, type Uplink, type UplinkWish, uplinkKey } from './uplinks.ts';

export interface UplinkSetOptions {
  readonly host: Host;
  readonly capabilities: Capabilities;
  readonly workers: number;
  readonly pool: WorkerPool;
  readonly log: Log;
  readonly devices: () => readonly VxlanDevice[];
  /** Addresses of the VTEPs that a device sends to. */
  readonly remotes: (device: VxlanDevice) => readonly string[];
  /** Gives a device another uplink. */
  readonly replace: (device: VxlanDevice, uplink: Uplink) => Promise<void>;
  /** Runs a change when those before it are done. */
  readonly inTurn: (change: () => Promise<void>) => Promise<void>;
}

const MAX_UPLINKS = 64;
/** From a change of the FDB to another look at the host's policies. */
const REMOTES_MILLISECONDS = 50;

export class UplinkSet {
  readonly #options: UplinkSetOptions;
  /** By what makes devices share one. */
  readonly #uplinks = new Map<string, Uplink>();
  readonly #policies: PolicyWatch;
  readonly #filters: FilterWatch;
  /** Uplinks whose NIC is not there. */
  readonly #stranded = new WeakSet<Uplink>();
  #remotesTimer: NodeJS.Timeout | undefined;

  constructor(options: UplinkSetOptions) {
    this.#options = options;
    this.#policies = new PolicyWatch(options.host, {
      // A turn that does not come any more is the daemon's end.
      onChange: (change) => void options.inTurn(() => this.#followPolicies(change)).catch(() => {}),
      onNote: (note) => options.log(note, { level: 'warn' }),
    });
    this.#filters = new FilterWatch(options.host.iproute.prefix, () =>
      options
        .inTurn(() => this.#mendFilters())
        .catch((error: Error) => {
          // A turn that does not come any more is the daemon's end.
          if (!(error instanceof CommandError && error.errno === 'ESHUTDOWN'))
            options.log(error.message, { level: 'error' });
        }),
    );
  }

  /** The uplink that a device needs; opened when there is none. Until a device has it, `release` closes it. */
  async acquire(wish: UplinkWish): Promise<Uplink> {
    const key = uplinkKey(wish);
    return this.#uplinks.get(key) ?? (await this.#open(key, wish));
  }

  /** Closes the uplinks that no device uses any more. */
  async release(): Promise<void> {
    for (const [key, uplink] of this.#uplinks) {
      if (this.#devicesOf(uplink).length > 0) continue;
      this.#uplinks.delete(key);
      this.#policies.unfollow(key);
      await this.#close(uplink);
    }
  }

  /** The FDB has changed: policies may concern some VTEPs only. */
  remotesChanged(): void {
    this.#remotesTimer ??= setTimeout(() => {
      this.#remotesTimer = undefined;
      for (const [key, uplink] of this.#uplinks) {
        const { request } = uplink;
        if (mayRedirect(request)) this.#policies.follow(key, tunnelOf(request, this.#remotes(uplink)));
      }
    }, REMOTES_MILLISECONDS);
  }

  /** What each uplink has to do about changes of the host's links, by the uplink's name. */
  follow(links: readonly Link[]): { name: string; follow: () => Promise<void> }[] {
    return [...this.#uplinks].map(([key, uplink]) => ({
      name: `uplink ${uplink.kind}`,
      follow: () => this.#followUplink(key, uplink, links),
    }));
  }

  stopWatching(): void {
    this.#policies.stop();
    this.#filters.stop();
    clearTimeout(this.#remotesTimer);
  }

  /** Closes all, when no worker uses any; throws what went wrong afterwards. */
  async closeAll(): Promise<void> {
    const failures: unknown[] = [];
    // One after the other: those on one NIC share its clsact qdisc, which the last one removes.
    for (const uplink of this.#uplinks.values()) await uplink.close().catch((error) => failures.push(error));
    this.#uplinks.clear();
    if (failures.length > 0) throw failures[0];
  }

  async #open(key: string, wish: UplinkWish): Promise<Uplink> {
    const { host, capabilities, workers, pool, log } = this.#options;
    const open = [...this.#uplinks.values()];
    const shared = open.some(({ request: { port, local } }) => port === wish.port && local === wish.local);
    const index = lowestFree(MAX_UPLINKS, (candidate) => open.some((uplink) => uplink.index === candidate), 'uplinks');
    const rules = () => this.#policies.rules();
    const uplink = await openUplink(host, capabilities, index, workers, { ...wish, shared }, rules);
    clear(pool.counters, FIRST_UPLINK_SCOPE + index);
    try {
      await pool.addUplink(uplink.specs);
    } catch (error) {
      await this.#close(uplink);
      throw error;
    }
    this.#uplinks.set(key, uplink);
    if (uplink.mend) this.#filters.start();
    for (const note of uplink.notes) log(note);
    this.#warn(uplink, uplink.policies);
    if (mayRedirect(wish)) this.#policies.follow(key, tunnelOf(wish, wish.remotes ?? []), uplink.policies);
    return uplink;
  }

  /** The workers read until nothing comes any more, so that no packet is left in a queue that goes. */
  async #close(uplink: Uplink): Promise<void> {
    await uplink.detach?.();
    await this.#options.pool.removeUplink(uplink.index);
    await uplink.close();
  }

  /** Rules of the host that redirect would get past came or went: `auto` takes another uplink, and what was asked for stays. */
  async #followPolicies({ key, policies, fresh }: PolicyChange): Promise<void> {
    const uplink = this.#uplinks.get(key);
    if (!uplink) return;
    if (uplink.kind === 'redirect') uplink.policies = policies;
    this.#warn(uplink, fresh);
    const kind = policies.length > 0 ? 'udp' : 'redirect';
    if (uplink.request.choice !== 'auto' || uplink.kind === kind) return;
    const { shared: _, ...wish } = uplink.request;
    const devices = this.#devicesOf(uplink);
    const replacement = await this.#open(key, { ...wish, remotes: this.#remotes(uplink) });
    await this.#replace(uplink, replacement);
    for (const { name } of devices) {
      this.#options.log(`${name}: uplink ${replacement.kind} from now on (${replacement.reason})`, { device: name });
    }
  }

  async #replace(uplink: Uplink, replacement: Uplink): Promise<void> {
    for (const device of this.#devicesOf(uplink)) await this.#options.replace(device, replacement);
    await this.#close(uplink);
  }

  /** An uplink whose TAP somebody has taken away, or whose NIC was in another namespace meanwhile, is opened again. */
  async #followUplink(key: string, uplink: Uplink, links: readonly Link[]): Promise<void> {
    const { tapIndex, request } = uplink;
    if (tapIndex === undefined) return;
    const isThere = (index: number) => links.find(({ ifindex }) => ifindex === index);
    if (!isThere(request.nic!.ifindex)) {
      this.#stranded.add(uplink);
      return;
    }
    const tap = isThere(tapIndex);
    if (tap && !this.#stranded.has(uplink)) {
      if (!tap.up) await this.#options.host.setLink(tap.name, { up: true });
      return;
    }
    const { shared: _, ...wish } = request;
    await this.#replace(uplink, await this.#open(key, { ...wish, remotes: this.#remotes(uplink) }));
    this.#stranded.delete(uplink);
    this.#options.log(`uplink ${uplink.kind} on ${request.nic!.name} was taken away by somebody, and is there again`, {
      level: 'warn',
      nic: request.nic!.name,
    });
  }

  async #mendFilters(): Promise<void> {
    for (const { mend, request } of this.#uplinks.values()) {
      if (await mend?.()) {
        this.#options.log(
          `tc filters of uplink redirect on ${request.nic!.name} were removed by somebody, and are there again`,
          { level: 'warn', nic: request.nic!.name },
        );
      }
    }
  }

  /** Only who has asked for redirect gets past a policy, and is told so. */
  #warn({ kind, request }: Uplink, policies: Uplink['policies']): void {
    if (kind !== 'redirect' || request.choice !== 'redirect') return;
    for (const policy of policies) this.#options.log(policyWarning(policy, request.port), { level: 'warn' });
  }

  #remotes(uplink: Uplink): string[] {
    return [...new Set(this.#devicesOf(uplink).flatMap((device) => this.#options.remotes(device)))];
  }

  #devicesOf(uplink: Uplink): VxlanDevice[] {
    return this.#options.devices().filter((device) => device.uplink === uplink);
  }
}

/** Whether the host's policies decide about the uplink, or are worth a warning. */
function mayRedirect({ nic, choice }: UplinkWish): boolean {
  return nic !== undefined && (choice === 'auto' || choice === 'redirect');
}
