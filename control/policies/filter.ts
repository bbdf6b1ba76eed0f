/**
 * Follows the tunnel's packets through chains of rules, as netfilter would: from one base chain to the next, through jumps, until a
 * verdict. What changes a packet or ends its way is a hit. netfilter's rules are read by nftables.ts and iptables.ts, IPsec
 * policies by xfrm.ts.
 */
import { both, type Condition, type Direction, HOOKS, type Holds, type Hook, type Packets } from './conditions.ts';

export const EFFECTS = {
  drop: ['drops', 'may drop'],
  reject: ['rejects', 'may reject'],
  queue: ['queues', 'may queue'],
  nat: ['translates', 'may translate'],
  mark: ['reroutes', 'may reroute'],
  dscp: ['changes the DSCP of', 'may change the DSCP of'],
  priority: ['sets the priority of', 'may set the priority of'],
  rewrite: ['rewrites', 'may rewrite'],
  tee: ['copies', 'may copy'],
  forward: ['forwards', 'may forward'],
  tproxy: ['intercepts', 'may intercept'],
  ipsec: ['encrypts', 'may encrypt'],
  unknown: ['handles', 'may handle'],
} as const;

/** What a rule does to a packet; the words of a sentence for it: for sure, and perhaps. */
export type Effect = keyof typeof EFFECTS;

export type Verdict =
  | { readonly kind: 'accept' | 'return' }
  /** The packet's end. */
  | { readonly kind: 'drop'; readonly effect: Effect }
  /** The chain's end for the packet, which goes on changed, unless `unless` says that it does not change. */
  | { readonly kind: 'change'; readonly effect: Effect; readonly unless?: Condition }
  | { readonly kind: 'jump' | 'goto'; readonly chain: Chain };

export type Step =
  | { readonly kind: 'match'; readonly condition: Condition }
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  /** The verdict of the first case that holds. */
  | { readonly kind: 'cases'; readonly cases: readonly (readonly [Condition, Verdict])[] }
  /** Changes the packet, and goes on. */
  | { readonly kind: 'effect'; readonly effect: Effect }
  | {
      readonly kind: 'mark';
      readonly which: 'mark' | 'connectionMark';
      readonly value: (packets: Packets) => number | undefined;
    }
  | { readonly kind: 'untrack' };

export interface Rule {
  /** As a log shows it. */
  readonly text: string;
  readonly steps: readonly Step[];
}

export interface Base {
  readonly hook: Hook;
  readonly priority: number;
  /** Address translation, which packets that conntrack does not know are spared. */
  readonly nat: boolean;
  readonly policy: 'accept' | 'drop';
  /** Whether the chain sees these packets at all: its family and, of an ingress chain, its devices. */
  readonly sees: Condition;
}

export class Chain {
  /** As a log names it: `nftables inet filter input`. */
  readonly where: string;
  readonly base: Base | undefined;
  readonly #compile: () => Rule[];
  #rules: Rule[] | undefined;

  /** `compile` is called when the chain is looked into: of the thousands that kube-proxy makes, few are. */
  constructor(where: string, base: Base | undefined, compile: () => Rule[]) {
    this.where = where;
    this.base = base;
    this.#compile = compile;
  }

  get rules(): readonly Rule[] {
    this.#rules ??= this.#compile();
    return this.#rules;
  }
}

export interface Hit {
  readonly chain: Chain;
  /** Undefined for a base chain's policy. */
  readonly rule: Rule | undefined;
  readonly effect: Effect;
  /** All of a tunnel's packets, or all to and from some VTEP, for sure. */
  certain: boolean;
}

/** Whether packets with a mark are routed in another way than packets without one. */
export type Reroutes = (mark: number | undefined) => Holds;

/** Where packets are after a rule or a chain. */
interface Outcome {
  next: Packets[];
  accepted: Packets[];
  returned: Packets[];
}

const MANY = 32;

/** All hits of the packets of one direction, in the order in which they meet them. */
export function follow(chains: readonly Chain[], start: Packets, reroutes: Reroutes): Hit[] {
  const journey = new Journey(reroutes);
  let packets = [start];
  for (const { chain, base } of baseChains(chains, start.direction)) {
    packets = packets.flatMap((some) => journey.enter(chain, base, { ...some, hook: base.hook, certain: true }));
  }
  return journey.hits;
}

function baseChains(chains: readonly Chain[], direction: Direction): { chain: Chain; base: Base }[] {
  const hooks: readonly Hook[] = HOOKS[direction];
  return chains
    .flatMap((chain) => (chain.base && hooks.includes(chain.base.hook) ? [{ chain, base: chain.base }] : []))
    .sort((a, b) => hooks.indexOf(a.base.hook) - hooks.indexOf(b.base.hook) || a.base.priority - b.base.priority);
}

class Journey {
  readonly #reroutes: Reroutes;
  readonly #hits = new Map<Rule | Chain, Map<Effect, Hit>>();
  /** What came of packets in a chain: many rules may jump to the same one. */
  readonly #passed = new Map<Chain, Map<string, Outcome>>();
  readonly #ids = new Map<unknown, number>();

  constructor(reroutes: Reroutes) {
    this.#reroutes = reroutes;
  }

  get hits(): Hit[] {
    return [...this.#hits.values()].flatMap((hits) => [...hits.values()]);
  }

  /** The packets that get through a base chain. */
  enter(chain: Chain, base: Base, packets: Packets): Packets[] {
    const seen = base.sees(packets);
    if (seen === 'never' || (base.nat && !packets.tracked)) return [packets];
    const { next, accepted } = this.#pass(chain, seen === 'always' ? packets : uncertain(packets));
    if (base.policy === 'drop') for (const some of next) this.#hit(chain, undefined, 'drop', some, 'always');
    return merged([...accepted, ...(base.policy === 'accept' ? next : []), ...(seen === 'always' ? [] : [packets])]);
  }

  /** `next` are the packets that reach the end of the chain or return from it. */
  #pass(chain: Chain, packets: Packets): Outcome {
    const { mark, connectionMark, tracked, certain, hook } = packets;
    const key = [mark, connectionMark, tracked, certain, hook, this.#id(packets.remotes)].join();
    let outcomes = this.#passed.get(chain);
    if (!outcomes) this.#passed.set(chain, (outcomes = new Map()));
    const known = outcomes.get(key);
    if (known) return known;
    // Stands while the chain is walked: a loop, which the kernel does not allow, would end there.
    outcomes.set(key, { next: [packets], accepted: [], returned: [] });
    const end: Outcome = { next: [packets], accepted: [], returned: [] };
    for (const rule of chain.rules) {
      if (end.next.length === 0) break;
      const outcome = together(end.next.map((some) => this.#apply(chain, rule, some)));
      end.next = merged(outcome.next);
      end.accepted.push(...outcome.accepted);
      end.returned.push(...outcome.returned);
    }
    const outcome = { next: merged([...end.returned, ...end.next]), accepted: merged(end.accepted), returned: [] };
    outcomes.set(key, outcome);
    return outcome;
  }

  #apply(chain: Chain, rule: Rule, packets: Packets): Outcome {
    return together(split(rule, packets).map((some) => this.#run(chain, rule, some)));
  }

  #run(chain: Chain, rule: Rule, start: Packets): Outcome {
    let packets = start;
    let holds: Holds = 'always';
    for (const step of rule.steps) {
      if (step.kind === 'match') holds = both(holds, step.condition(packets));
      else if (step.kind === 'effect') this.#hit(chain, rule, step.effect, packets, holds);
      else if (step.kind === 'untrack') packets = { ...packets, tracked: packets.tracked && holds !== 'always' };
      else if (step.kind === 'mark') {
        const value = step.value(packets);
        if (step.which === 'mark') this.#hit(chain, rule, 'mark', packets, both(holds, this.#reroutes(value)));
        if (value !== packets[step.which]) {
          packets = { ...packets, [step.which]: holds === 'always' ? value : undefined };
        }
      } else if (step.kind === 'verdict') return this.#conclude(chain, rule, step.verdict, packets, holds);
      else return this.#choose(chain, rule, step.cases, packets, holds);
      if (holds === 'never') break;
    }
    return { next: [packets], accepted: [], returned: [] };
  }

  #choose(
    chain: Chain,
    rule: Rule,
    cases: readonly (readonly [Condition, Verdict])[],
    packets: Packets,
    holds: Holds,
  ): Outcome {
    const outcomes: Outcome[] = [];
    let rest = packets;
    for (const [condition, verdict] of cases) {
      const chosen = condition(rest);
      if (chosen === 'never') continue;
      outcomes.push(this.#conclude(chain, rule, verdict, rest, both(holds, chosen)));
      if (chosen === 'always') return together(outcomes);
      rest = uncertain(rest);
    }
    outcomes.push({ next: [rest], accepted: [], returned: [] });
    return together(outcomes);
  }

  #conclude(chain: Chain, rule: Rule, verdict: Verdict, packets: Packets, holds: Holds): Outcome {
    const touched = holds === 'always' ? packets : uncertain(packets);
    const next = holds === 'always' ? [] : [touched];
    const outcome: Outcome = { next, accepted: [], returned: [] };
    switch (verdict.kind) {
      case 'accept':
        outcome.accepted.push(touched);
        return outcome;
      case 'return':
        outcome.returned.push(touched);
        return outcome;
      case 'drop':
        this.#hit(chain, rule, verdict.effect, packets, holds);
        return outcome;
      case 'change': {
        const unchanged = verdict.unless?.(packets) ?? 'never';
        if (unchanged !== 'always') {
          this.#hit(chain, rule, verdict.effect, packets, unchanged === 'never' ? holds : 'perhaps');
        }
        outcome.accepted.push(touched);
        return outcome;
      }
      case 'jump':
      case 'goto': {
        const inner = this.#pass(verdict.chain, touched);
        outcome.accepted.push(...inner.accepted);
        outcome[verdict.kind === 'jump' ? 'next' : 'returned'].push(...inner.next);
        return outcome;
      }
    }
  }

  #hit(chain: Chain, rule: Rule | undefined, effect: Effect, packets: Packets, holds: Holds): void {
    if (holds === 'never') return;
    const source = rule ?? chain;
    let hits = this.#hits.get(source);
    if (!hits) this.#hits.set(source, (hits = new Map()));
    const certain = packets.certain && holds === 'always';
    const known = hits.get(effect);
    if (known) known.certain ||= certain;
    else hits.set(effect, { chain, rule, effect, certain });
  }

  #id(thing: unknown): number {
    let id = this.#ids.get(thing);
    if (id === undefined) this.#ids.set(thing, (id = this.#ids.size));
    return id;
  }
}

function uncertain(packets: Packets): Packets {
  return packets.certain ? { ...packets, certain: false } : packets;
}

function together(outcomes: readonly Outcome[]): Outcome {
  if (outcomes.length === 1) return outcomes[0];
  return {
    next: outcomes.flatMap(({ next }) => next),
    accepted: outcomes.flatMap(({ accepted }) => accepted),
    returned: outcomes.flatMap(({ returned }) => returned),
  };
}

/** Where a rule holds for some of the packets only because it holds for some of the VTEPs, they are taken apart. */
function split(rule: Rule, packets: Packets): Packets[] {
  const { remotes } = packets;
  if (typeof remotes === 'string' || remotes.length < 2) return [packets];
  const conditions = rule.steps.flatMap((step) => {
    if (step.kind === 'match') return [step.condition];
    return step.kind === 'cases' ? step.cases.map(([condition]) => condition) : [];
  });
  const answers = conditions.map((condition) => condition(packets));
  if (!answers.includes('perhaps')) return [packets];
  const groups = new Map<string, string[]>();
  for (const remote of remotes) {
    const alone = { ...packets, remotes: [remote] };
    const key = conditions.map((condition, i) => (answers[i] === 'perhaps' ? condition(alone) : answers[i])).join();
    const group = groups.get(key);
    if (group) group.push(remote);
    else groups.set(key, [remote]);
  }
  if (groups.size === 1) return [packets];
  return [...groups.values()].map((group) => ({ ...packets, remotes: group }));
}

/**
 * Puts together again what does not differ, so that the number of parts stays small: parts that only differ in their VTEPs; and the
 * parts of the same VTEPs, of which one may have been changed on the way.
 */
function merged(parts: readonly Packets[]): Packets[] {
  if (parts.length < 2) return [...parts];
  const byState = new Map<string, Packets>();
  for (const part of parts) {
    const key = [part.mark, part.connectionMark, part.tracked, part.certain].join();
    const same = byState.get(key);
    byState.set(key, same ? { ...same, remotes: union(same, part) } : part);
  }
  const byRemotes = new Map<unknown, Packets>();
  for (const part of byState.values()) {
    const same = byRemotes.get(part.remotes);
    byRemotes.set(part.remotes, same ? joined(same, part) : part);
  }
  const rest = [...byRemotes.values()];
  return rest.length > MANY ? [rest.reduce((a, b) => ({ ...joined(a, b), remotes: union(a, b) }))] : rest;
}

function joined(a: Packets, b: Packets): Packets {
  return {
    ...a,
    mark: a.mark === b.mark ? a.mark : undefined,
    connectionMark: a.connectionMark === b.connectionMark ? a.connectionMark : undefined,
    tracked: a.tracked || b.tracked,
    certain: a.certain && b.certain,
  };
}

function union(a: Packets, b: Packets): Packets['remotes'] {
  if (a.remotes === b.remotes || typeof a.remotes === 'string' || typeof b.remotes === 'string') return a.remotes;
  const all = new Set([...a.remotes, ...b.remotes]);
  if (all.size === a.remotes.length) return a.remotes;
  return all.size === b.remotes.length ? b.remotes : [...all];
}
