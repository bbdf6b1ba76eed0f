/** Makes the host what it is to be: compares all that is the agent's with what is there, and puts right what differs. */
import { readFileSync, writeFileSync } from 'node:fs';
import { RulesetGeneration } from '../../system/nftables.ts';
import type { Host } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import type { Backend, Wish } from './backend.ts';
import { isNfTables, keepIptables, keepNftables } from './firewall.ts';
import { changes, desiredTable, differs, type HostTable, peersOffLink, readTable } from './host-table.ts';
import { FAMILIES, type Family } from './lease.ts';
import type { MasqueradeWish } from './masquerade.ts';

export interface ReconcilerOptions {
  readonly ipMasq: boolean;
  readonly randomFully: boolean;
  readonly forwardRules: boolean;
}

/** What a reconciliation did. */
export interface Outcome {
  /** What was not as it had been left, and is again. */
  readonly repaired: readonly string[];
  /** What could not be done, in the tools' own words. */
  readonly failed: readonly string[];
}

const FORWARDING = { ipv4: '/proc/sys/net/ipv4/ip_forward', ipv6: '/proc/sys/net/ipv6/conf/all/forwarding' } as const;

/** How much is compared: only what was asked for since, also what costs little to read, or all. */
export type Depth = 'changes' | 'cheap' | 'all';

export class Reconciler {
  readonly #host: Host;
  readonly #backend: Backend;
  readonly #options: ReconcilerOptions;
  /** The tables as they were read or written last; undefined when they have to be read. */
  #known: HostTable | undefined;
  /** As it was last: the same object asks for the same. */
  #wish: Wish | undefined;
  /** By public IP: whether it is on the NIC's link, so that it needs no gateway. */
  readonly #onLink = new Map<string, boolean>();
  #offLink: readonly string[] = [];
  readonly #ruleset = new RulesetGeneration();
  /** Whether the ruleset's generation tells of the rules that are kept here: not with legacy iptables. */
  #isTold: boolean | undefined;
  /** The generation at which they were right, and which they were. */
  #rules: string | undefined;
  /** What was put on the host last: what differs from it without having been asked for is drift. */
  #asked: HostTable = new Map();
  /** What is on the host, or is being put there. */
  #wanted: HostTable = new Map();

  constructor(host: Host, backend: Backend, options: ReconcilerOptions) {
    this.#host = host;
    this.#backend = backend;
    this.#options = options;
  }

  /**
   * `wish` is another object whenever anything in it is another, its peers included. Throws when what all else depends on, a device, cannot be made.
   */
  async run(wish: Wish, depth: Depth): Promise<Outcome> {
    const repaired: string[] = [];
    const failed: string[] = [];
    const made = await this.#backend.keepDevices(wish);
    repaired.push(...made);
    const isAll = depth === 'all' || made.length > 0 || this.#known === undefined;
    if (isAll || wish !== this.#wish) await this.#keepTables(wish, isAll, repaired, failed);
    this.#wish = wish;
    repaired.push(...this.#backend.keepPeers(wish));
    if (depth !== 'changes' || isAll) await this.#keepRules(wish, isAll, repaired, failed);
    return { repaired, failed };
  }

  /** Whether a line of `ip monitor` tells of something of ours that is not as it was put there; undefined: it is about nothing of ours. */
  differs(line: string): boolean | undefined {
    return differs(line, this.#wanted);
  }

  /** See peersOffLink. */
  get offLink(): readonly string[] {
    return this.#offLink;
  }

  close(): void {
    this.#ruleset.close();
  }

  async #keepTables(wish: Wish, isAll: boolean, repaired: string[], failed: string[]): Promise<void> {
    await this.#findOnLink(wish, isAll);
    const { external, own, peers } = wish;
    const isOnLink = (publicIp: string) => this.#onLink.get(publicIp) === true;
    const { overlays } = this.#backend;
    const desired = desiredTable(overlays, external.nic.name, own, peers.values(), isOnLink);
    this.#offLink = peersOffLink(overlays, peers.values(), isOnLink);
    const actual = isAll ? await readTable(this.#host, overlays) : this.#known!;
    // Until it is known what became of the changes.
    this.#known = undefined;
    this.#wanted = desired;
    const errors = await this.#change(actual, desired);
    for (const error of errors) failed.push(error.message);
    // What was known without reading is as it was left.
    for (const [key, value] of isAll ? this.#asked : []) {
      if (desired.get(key) === value && actual.get(key) !== value) repaired.push(`${key} ${value}`.trimEnd());
    }
    this.#asked = errors.length === 0 ? desired : new Map();
    if (errors.length === 0) this.#known = desired;
  }

  /** All in one process, which ends at the first failure; then once more, one by one, for what is still missing. */
  async #change(actual: HostTable, desired: HostTable): Promise<CommandFailed[]> {
    const lines = changes(actual, desired);
    if (lines.length === 0) return [];
    try {
      await this.#host.iproute.run('ip', ['-batch', '-'], `${lines.join('\n')}\n`);
      return [];
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error;
    }
    const rest = changes(await readTable(this.#host, this.#backend.overlays), desired);
    return [...(await this.#host.iproute.apply(rest)).values()];
  }

  /** Asks the kernel which peers are on the same link, where that makes a difference; `isAll`: again of those that are known. */
  async #findOnLink({ external, peers }: Wish, isAll: boolean): Promise<void> {
    if (!this.#backend.directRouting) return;
    if (isAll) this.#onLink.clear();
    const wanted = new Set<string>();
    for (const peer of peers.values()) {
      for (const family of FAMILIES) {
        const publicIp = peer[family]?.publicIp;
        if (publicIp !== undefined && !this.#onLink.has(publicIp)) wanted.add(publicIp);
      }
    }
    const addresses = [...wanted];
    const routes = await this.#host.routes(addresses.map((destination) => ({ destination })));
    routes.forEach((route, i) => {
      const isDirect = !(route instanceof CommandFailed) && route.gateway === undefined && route.type === 'unicast';
      this.#onLink.set(addresses[i], isDirect && route.dev === external.nic.name);
    });
  }

  async #keepRules({ netConf, own }: Wish, isAll: boolean, repaired: string[], failed: string[]): Promise<void> {
    const { ipMasq, randomFully, forwardRules } = this.#options;
    const wishes: [Family, MasqueradeWish][] = [];
    for (const family of FAMILIES) {
      const [network, subnet] = [netConf[family]?.network, own[family]?.subnet];
      if (network === undefined || subnet === undefined) continue;
      wishes.push([family, { network, subnet, masquerade: ipMasq, randomFully, forward: forwardRules }]);
      await attempt(async () => keepForwarding(family), repaired, failed);
    }
    this.#isTold ??= netConf.enableNFTables || (await isNfTables(this.#host));
    // As of before they are read: what changes meanwhile is seen the next time.
    const generation = this.#isTold ? this.#ruleset.read() : undefined;
    const state = generation === undefined ? undefined : JSON.stringify([generation, wishes]);
    if (!isAll && state !== undefined && state === this.#rules) return;
    const keep = netConf.enableNFTables ? keepNftables : keepIptables;
    const failures = failed.length;
    for (const [family, wish] of wishes) await attempt(() => keep(this.#host, family, wish), repaired, failed);
    this.#rules = failed.length === failures ? state : undefined;
  }
}

async function attempt(keep: () => Promise<string[]>, repaired: string[], failed: string[]): Promise<void> {
  try {
    repaired.push(...(await keep()));
  } catch (error) {
    failed.push((error as Error).message);
  }
}

/** Packets from and to pods are forwarded ones. */
function keepForwarding(family: Family): string[] {
  const file = FORWARDING[family];
  if (readFileSync(file, 'latin1').trim() !== '0') return [];
  try {
    writeFileSync(file, '1');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Error(`${file} is 0, so that this host forwards nothing, and cannot be written (${code}): set it to 1`);
  }
  return [`${file} = 1`];
}
