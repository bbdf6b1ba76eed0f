import type { Host } from './host.ts';
import { MonitorProcess } from './monitor-process.ts';
import { type HostRules, judged, type Policy, policyKey, readRules, type Tunnel } from './policies.ts';

/** Milliseconds from the first event to reading the rules: tools change many at once. */
const DEBOUNCE = 100;
/** Milliseconds between readings without an event: nothing tells of changes to legacy iptables and ipsets. */
const PERIOD = 30_000;
/** But after so many times as long as a reading takes, at most LONGEST: each is ten processes, which cost most where this one is large. */
const REST = 500;
const LONGEST = 120_000;
/** Of the time, no more than one part in so many goes into reading rules, however often they change. */
const SHARE = 5;

const MONITORS = [
  ['nft', 'monitor', 'ruleset'],
  ['ip', 'xfrm', 'monitor', 'policy'],
];

/** A tunnel's policies are others than before. */
export interface PolicyChange {
  /** What `follow` was given. */
  readonly key: string;
  readonly policies: readonly Policy[];
  /** Those that this tunnel never had since it is followed: what a log has not told yet. */
  readonly fresh: readonly Policy[];
}

export interface PolicyWatchOptions {
  readonly onChange: (change: PolicyChange) => void;
  /** A sentence about rules that could not be inspected: each is told once. */
  readonly onNote?: (note: string) => void;
  /** Milliseconds; PERIOD when not given. */
  readonly period?: number;
}

/** Keeps the policies of a number of tunnels current: reads the host's rules again when they change, and every now and then. */
export class PolicyWatch {
  readonly #host: Host;
  readonly #options: PolicyWatchOptions;
  readonly #tunnels = new Map<string, { tunnel: Tunnel; policies: readonly Policy[]; told: Set<string> }>();
  readonly #notes = new Set<string>();
  readonly #monitors: MonitorProcess[];
  /** As they were read last, and when. Another remote is judged by them: to read them takes many processes. */
  #rules: HostRules | undefined;
  #readAt = 0;
  #timer: NodeJS.Timeout | undefined;
  /** When the timer fires, as performance.now() counts. */
  #due = Number.POSITIVE_INFINITY;
  /** Not before this time: the reading before took a while. */
  #notBefore = 0;
  #reading = false;
  #stopped = false;

  constructor(host: Host, options: PolicyWatchOptions) {
    this.#host = host;
    this.#options = options;
    const changed = () => {
      this.#readAt = Number.NEGATIVE_INFINITY;
      this.#readIn(DEBOUNCE);
    };
    this.#monitors = MONITORS.map(
      (command) =>
        new MonitorProcess(host.iproute.prefix, command, {
          onListening: changed,
          onLine: changed,
          onComplaint: () => {}, // of a program that is missing, say; what is missed is found after PERIOD
        }),
    );
    this.#readIn(options.period ?? PERIOD);
  }

  /** The host's rules as they are now: what was found by them, follow() has not to find again. Does not fail. */
  async rules(): Promise<HostRules> {
    // Whatever changes while they are read makes them old again.
    await Promise.all(this.#monitors.map(({ started }) => started));
    this.#readAt = performance.now();
    this.#rules = await readRules(this.#host);
    return this.#rules;
  }

  /**
   * Follows a tunnel, or takes note of what has changed about one (its remotes, say). `known` are the policies that were found
   * already, by rules(): of these no change is told.
   */
  follow(key: string, tunnel: Tunnel, known?: readonly Policy[]): void {
    const followed = this.#tunnels.get(key);
    // With another NIC or address there may be others.
    const isOther = !followed || !isSameButRemotes(followed.tunnel, tunnel);
    if (isOther && known === undefined) this.#readAt = Number.NEGATIVE_INFINITY;
    const policies = known ?? followed?.policies ?? [];
    const told = followed?.told ?? new Set();
    for (const policy of policies) told.add(policyKey(policy));
    this.#tunnels.set(key, { tunnel, policies, told });
    this.#readIn(DEBOUNCE);
  }

  unfollow(key: string): void {
    this.#tunnels.delete(key);
  }

  /** The policies of a tunnel as they were found last. */
  policies(key: string): readonly Policy[] {
    return this.#tunnels.get(key)?.policies ?? [];
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    for (const monitor of this.#monitors) monitor.stop();
  }

  #readIn(delay: number): void {
    const due = Math.max(performance.now() + delay, this.#notBefore);
    if (this.#stopped || due >= this.#due) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => this.#read(), due - performance.now());
  }

  async #read(): Promise<void> {
    this.#due = Number.POSITIVE_INFINITY;
    const start = performance.now();
    if (this.#reading || start < this.#notBefore) return this.#readIn(DEBOUNCE);
    this.#reading = true;
    try {
      if (this.#tunnels.size > 0) await this.#judgeAll();
    } finally {
      this.#reading = false;
      const end = performance.now();
      this.#notBefore = end + (end - start) * (SHARE - 1);
      const rest = Math.min(REST * (end - start), LONGEST);
      this.#readIn(this.#options.period ?? Math.max(PERIOD, rest));
    }
  }

  async #judgeAll(): Promise<void> {
    const now = performance.now();
    if (this.#rules === undefined || now - this.#readAt >= (this.#options.period ?? PERIOD)) {
      // An event while they are read makes it old again.
      this.#readAt = now;
      this.#rules = await readRules(this.#host);
    }
    if (this.#stopped) return;
    const rules = this.#rules;
    for (const [key, followed] of this.#tunnels) {
      const { policies, notes } = judged(rules, followed.tunnel);
      this.#tell(notes);
      const before = followed.policies.map(describe).join('\n\n');
      followed.policies = policies;
      if (policies.map(describe).join('\n\n') === before) continue;
      const fresh = policies.filter((policy) => !followed.told.has(policyKey(policy)));
      for (const policy of fresh) followed.told.add(policyKey(policy));
      this.#options.onChange({ key, policies, fresh });
    }
  }

  #tell(notes: readonly string[]): void {
    for (const note of notes) {
      if (!this.#notes.has(note)) this.#options.onNote?.(note);
      this.#notes.add(note);
    }
  }
}

function isSameButRemotes(one: Tunnel, other: Tunnel): boolean {
  return JSON.stringify({ ...one, remotes: null }) === JSON.stringify({ ...other, remotes: null });
}

function describe(policy: Policy): string {
  return `${policyKey(policy)}\n${policy.certain}`;
}
