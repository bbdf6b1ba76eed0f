import { familyOf } from '../wire/address.ts';
import { type Host, neighbourKey, type Route, type Snapshot } from './host.ts';
import type { CommandFailed } from './iproute.ts';
import { meaning, readEvent } from './neighbour-event.ts';
import { NeighbourKeeper, releaseNeighbours } from './neighbours.ts';
import { explain, findPath, type Lookup, type Path, type PathNeighbour, routeQuery, type Target } from './path.ts';
import { CHANGES, type Change, Watch } from './watch.ts';

/** All is read again so often, in milliseconds, should an event have been missed. */
const RESYNC = 30_000;
/** But after so many times as long as a reading takes, at most LONGEST_RESYNC: thousands of next hops must not cost a quiet host anything. */
const RESYNC_REST = 2_000;
const LONGEST_RESYNC = 600_000;
/** Milliseconds between probes where the kernel does not manage neighbours: its own default, interval_probe_time_ms. */
const PROBE = 5_000;
const RETRY = 1_000;
/** Milliseconds for which a path's MTU that a router has told holds, as in the kernel (net.ipv6.route.mtu_expires). */
const MTU_EXPIRES = 600_000;
/** No path is taken for narrower, whatever a router says (net.ipv4.route.min_pmtu; RFC 8200 section 5). */
const MIN_MTU = { 4: 552, 6: 1280 } as const;
/** After a pass the resolver rests so many times as long as it took, at most LONGEST_REST milliseconds. */
const REST = 4;
const LONGEST_REST = 400;

/** Takes what the resolver finds, by next-hop index; called only for what has changed. */
export interface Publisher {
  /** `path` undefined: the host's stack finds it (Target.viaHost); `mtu` is the path's as far as it is known, else 0. */
  publish(index: number, path: Path | undefined, mtu: number): void;
  /** `isDropped`: nothing may be sent there; otherwise the host's stack may find a way meanwhile. */
  unresolve(index: number, reason: string, isDropped: boolean): void;
}

export interface ResolverOptions {
  /** false: probe neighbours, as on kernels before 5.16. */
  managed?: boolean;
  /** Called when reading the host fails; once for each message. */
  warn?: (message: string) => void;
}

interface NextHop {
  target: Target;
  /** The same for equal targets: these are looked up once. */
  key: string;
  /** What was handed on last. */
  path: Path | undefined;
  reason: string | undefined;
  /** Handed on where the host's stack finds the path. */
  mtu: number;
  /** The reason is a neighbour that did not answer. */
  isSilent: boolean;
  /** It is this machine, to which the host's stack delivers. */
  isLocal: boolean;
}

/**
 * Finds the path of each next hop ahead of traffic, and follows the host when it changes. Events only say that something
 * has changed; then all routes and neighbours are read again by one process, and the differences are handed on.
 */
export class Resolver {
  readonly #host: Host;
  readonly #publisher: Publisher;
  readonly #warn: (message: string) => void;
  readonly #nextHops = new Map<number, NextHop>();
  readonly #keeper: NeighbourKeeper;
  readonly #watch: Watch;
  #changes = new Set<Change>();
  /** What routers have told, by remote. */
  readonly #limits = new Map<string, { mtu: number; until: number }>();
  /** By key of the target. */
  #routes = new Map<string, Route | CommandFailed>();
  /** What the neighbours that paths need were found to be, by neighbourKey; undefined while they are read: then any event counts. */
  #found: Map<string, string> | undefined;
  #running: Promise<void> | undefined;
  /** How many wait for it to have settled. */
  #awaited = 0;
  #endRest = (): void => {};
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #warning = '';

  constructor(host: Host, publisher: Publisher, { managed = true, warn = () => {} }: ResolverOptions = {}) {
    this.#host = host;
    this.#publisher = publisher;
    this.#warn = warn;
    this.#keeper = new NeighbourKeeper(host, managed);
    this.#watch = new Watch(
      host.iproute.prefix,
      (changes) => this.#trigger(changes),
      (line) => this.#concerns(line),
    );
  }

  /** Takes a next hop, or gives one another target; many in one turn of the event loop are looked up together. */
  add(index: number, target: Target): void {
    const { remote, local = '', dev = '', viaHost = false, ifLocal } = target;
    const key = `${remote} ${local} ${dev} ${viaHost} ${ifLocal?.reason}`;
    const unknown = { path: undefined, reason: undefined, mtu: 0, isSilent: false, isLocal: false };
    this.#nextHops.set(index, { target, key, ...unknown });
    // Routes of targets that are known already are kept.
    this.#trigger(['neigh']);
  }

  release(index: number): void {
    if (this.#nextHops.delete(index)) this.#trigger(['neigh']);
  }

  /** A router has said that larger packets than `mtu` bytes do not get to `remote`. Others than next hops are ignored. */
  limitMtu(remote: string, mtu: number): void {
    if (![...this.#nextHops.values()].some(({ target }) => target.remote === remote)) return;
    const known = this.#limits.get(remote);
    const limit = Math.max(
      MIN_MTU[familyOf(remote)],
      known && known.until > performance.now() ? Math.min(mtu, known.mtu) : mtu,
    );
    this.#limits.set(remote, { mtu: limit, until: performance.now() + MTU_EXPIRES });
    if (limit !== known?.mtu) this.#trigger(['neigh']);
  }

  /** Reads all again now, and resolves when it is done. */
  refresh(): Promise<void> {
    this.#trigger(CHANGES);
    return this.settled();
  }

  /** Resolves when everything that is known to have changed has been looked up; without rests, since somebody waits. */
  async settled(): Promise<void> {
    this.#awaited++;
    this.#endRest();
    while (this.#running) await this.#running;
    this.#awaited--;
  }

  path(index: number): Path | undefined {
    return this.#nextHops.get(index)?.path;
  }

  /** Why next hops are unresolved, by index. */
  reasons(): Map<number, string> {
    const reasons = new Map<number, string>();
    for (const [index, { path, reason, target, isLocal }] of this.#nextHops) {
      if (reason !== undefined) reasons.set(index, reason);
      else if (!path && !target.viaHost && !isLocal) reasons.set(index, 'not looked up yet');
    }
    return reasons;
  }

  /** Stops following the host and releases the neighbours that it kept. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#watch.stop();
    clearTimeout(this.#timer);
    await this.settled();
    await releaseNeighbours(this.#host).catch((error) => this.#warn(error.message));
  }

  #trigger(changes: Iterable<Change>): void {
    if (this.#stopped) return;
    for (const change of changes) this.#changes.add(change);
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Whether an event is about what paths depend on. Where we probe ourselves, what the probes do is followed as well. */
  #concerns(line: string): boolean {
    if (!this.#found || !this.#keeper.managed) return true;
    const event = readEvent(line);
    if (!event) return true;
    const found = this.#found.get(event.key);
    return found !== undefined && found !== event.meaning;
  }

  /** Looks up until nothing has changed meanwhile. The rests keep a host with many changes from costing a core. */
  async #run(): Promise<void> {
    await new Promise(setImmediate);
    while (this.#changes.size > 0 && !this.#stopped) {
      const changes = this.#changes;
      this.#changes = new Set();
      const start = performance.now();
      let next = PROBE;
      try {
        const isWhole = await this.#pass(changes);
        this.#warning = '';
        if (this.#keeper.managed) next = isWhole ? resyncAfter(performance.now() - start) : RESYNC;
      } catch (error) {
        this.#fail(error as Error);
        next = RETRY;
      }
      clearTimeout(this.#timer);
      if (!this.#stopped) this.#timer = setTimeout(() => this.#trigger(CHANGES), next).unref();
      await this.#rest(Math.min(LONGEST_REST, REST * (performance.now() - start)));
    }
  }

  #rest(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#awaited > 0 ? 0 : milliseconds);
      this.#endRest = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** False: some neighbours could not be asked for. */
  async #pass(changes: ReadonlySet<Change>): Promise<boolean> {
    this.#found = undefined;
    const targets = new Map<string, Target>();
    for (const { key, target } of this.#nextHops.values()) targets.set(key, target);
    // Neighbours change all the time, and do not change routes.
    if (changes.size > 1 || !changes.has('neigh')) this.#routes.clear();
    for (const key of this.#routes.keys()) if (!targets.has(key)) this.#routes.delete(key);
    const asked = [...targets.keys()].filter((key) => !this.#routes.has(key));
    const snapshot = await this.#host.snapshot(asked.map((key) => routeQuery(targets.get(key)!)));
    for (const [index, key] of asked.entries()) this.#routes.set(key, snapshot.routes[index]);

    const lookups = new Map<string, Lookup>();
    for (const [key, target] of targets) lookups.set(key, findPath(target, this.#routes.get(key)!, snapshot));
    await this.#explain(targets, lookups);
    this.#found = new Map();
    for (const { neighbour, missing } of lookups.values()) {
      const needed = neighbour ?? missing;
      if (!needed) continue;
      const key = neighbourKey(needed.dev, needed.address);
      this.#found.set(key, meaning(snapshot.neighbours.get(key)));
    }
    const isWhole = await this.#keepNeighbours(targets, lookups, snapshot);
    for (const [index, nextHop] of this.#nextHops) {
      // One that came during the pass has its turn in the next.
      const lookup = lookups.get(nextHop.key);
      if (lookup) this.#handOn(index, nextHop, lookup);
    }
    return isWhole;
  }

  async #explain(targets: ReadonlyMap<string, Target>, lookups: Map<string, Lookup>): Promise<void> {
    const unexplained = [...lookups].flatMap(([key, lookup]) =>
      lookup.reason === undefined || !lookup.unexplained ? [] : [{ key, lookup }],
    );
    if (unexplained.length === 0) return;
    const queries = unexplained.map(({ key }) => ({ destination: targets.get(key)!.remote }));
    const plain = await this.#host.routes(queries);
    const addresses = await this.#host.addresses();
    for (const [index, { key, lookup }] of unexplained.entries()) {
      const reason = explain(targets.get(key)!, lookup.reason, plain[index], addresses);
      lookups.set(key, { ...lookup, reason });
    }
  }

  /** False: some could not be asked for. */
  async #keepNeighbours(
    targets: ReadonlyMap<string, Target>,
    lookups: Map<string, Lookup>,
    snapshot: Snapshot,
  ): Promise<boolean> {
    const needed = new Map<string, PathNeighbour>();
    for (const [key, { neighbour }] of lookups) {
      if (neighbour && !targets.get(key)!.viaHost)
        needed.set(neighbourKey(neighbour.dev, neighbour.address), neighbour);
    }
    const errors = await this.#keeper.keep(needed, snapshot.neighbours);
    for (const [key, lookup] of lookups) {
      const { path, neighbour } = lookup;
      const error = neighbour && errors.get(neighbourKey(neighbour.dev, neighbour.address));
      if (error && !path) lookups.set(key, { reason: error.message });
    }
    return errors.size === 0;
  }

  #handOn(index: number, nextHop: NextHop, lookup: Lookup): void {
    const wasLocal = nextHop.isLocal;
    nextHop.isLocal = lookup.viaHost === true;
    if (nextHop.target.viaHost) {
      this.#handOnViaHost(index, nextHop, lookup);
      return;
    }
    if (nextHop.isLocal) {
      if (wasLocal) return;
      nextHop.path = nextHop.reason = undefined;
      this.#publisher.publish(index, undefined, 0);
      return;
    }
    const path = this.#limited(lookup.path ?? carryOn(nextHop.path, lookup));
    if (path) {
      if (nextHop.path && samePath(nextHop.path, path)) return;
      nextHop.path = path;
      nextHop.reason = undefined;
      this.#publisher.publish(index, path, path.mtu);
    } else if (lookup.reason !== nextHop.reason) {
      nextHop.path = undefined;
      nextHop.reason = lookup.reason;
      this.#publisher.unresolve(index, lookup.reason!, lookup.isDropped ?? false);
    }
  }

  /** A neighbour that is asked again has not answered yet: that it did not goes on being said. */
  #handOnViaHost(index: number, nextHop: NextHop, lookup: Lookup): void {
    const stillAsked = lookup.waiting !== undefined && nextHop.isSilent;
    const now = stillAsked ? nextHop.reason : lookup.waiting ? undefined : lookup.reason;
    nextHop.isSilent = now !== undefined && lookup.neighbour !== undefined;
    const known = lookup.path ?? lookup.waiting;
    const mtu = known ? this.#limitOf(known) : nextHop.mtu;
    if (now === nextHop.reason && mtu === nextHop.mtu) return;
    nextHop.reason = now;
    nextHop.mtu = mtu;
    if (now === undefined) this.#publisher.publish(index, undefined, mtu);
    else this.#publisher.unresolve(index, now, lookup.isDropped ?? false);
  }

  #limited(path: Path | undefined): Path | undefined {
    return path && { ...path, mtu: this.#limitOf(path) };
  }

  /** The MTU of a path, or what a router has said. */
  #limitOf({ destination, mtu }: Pick<Path, 'destination' | 'mtu'>): number {
    const limit = this.#limits.get(destination);
    if (!limit) return mtu;
    if (limit.until > performance.now()) return Math.min(mtu, limit.mtu);
    this.#limits.delete(destination);
    return mtu;
  }

  /** Reading the host failed: what was published goes on, and what was not says why. */
  #fail({ message }: Error): void {
    if (message !== this.#warning) this.#warn(message);
    this.#warning = message;
    for (const nextHop of this.#nextHops.values()) {
      if (!nextHop.path && !nextHop.target.viaHost) nextHop.reason = message;
    }
  }
}

/** Milliseconds from a reading that took so many to the next. */
function resyncAfter(took: number): number {
  return Math.min(Math.max(RESYNC, RESYNC_REST * took), LONGEST_RESYNC);
}

/**
 * While a neighbour that was known is asked for again (entry flushed, NIC's MAC changed), its last MAC address goes on being
 * used: the kernel would queue the packets, which a prebuilt header cannot do.
 */
function carryOn(last: Path | undefined, lookup: Lookup): Path | undefined {
  if (!last || lookup.path || !lookup.waiting) return undefined;
  const { waiting } = lookup;
  const same = last.ifindex === waiting.ifindex && last.gateway === waiting.gateway;
  return same ? { ...waiting, destinationMac: last.destinationMac } : undefined;
}

function samePath(a: Path, b: Path): boolean {
  return (Object.keys(a) as (keyof Path)[]).every((key) => a[key] === b[key]);
}
