/**
 * The rules of iptables, from the text of iptables-save: of legacy iptables, and of iptables-nft where nft cannot spell out an
 * extension. iptables-save prints an option in one form only, whatever was typed.
 */
import {
  all,
  always,
  type Family,
  familyIs,
  type Hook,
  isLocal,
  masqueradesAsItIs,
  never,
  type Packets,
} from './conditions.ts';
import { type Base, Chain, type Effect, type Rule, type Step, type Verdict } from './filter.ts';
import { conditionsOf, type IpsetLookup, type Option, valueAndMask } from './iptables-options.ts';

export interface SavedTables {
  /** `filter`, `nat` and so on. */
  readonly tables: ReadonlySet<string>;
  /** All base chains. */
  readonly chains: Chain[];
}

/** The saved rules ask for ipsets. */
export function asksForIpsets(text: string): boolean {
  return text.includes('--match-set');
}

/** `tool` is what a log calls it: `iptables` or `ip6tables`. Only the tables named are read; undefined: all. */
export function readIptables(
  text: string,
  tool: string,
  family: Family,
  only: ReadonlySet<string> | undefined,
  ipset: IpsetLookup,
): SavedTables {
  const tables = new Set<string>();
  const base: Chain[] = [];
  let table = '';
  let chains = new Map<string, Chain>();
  let rules = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      table = line.slice(1);
      chains = new Map();
      rules = new Map();
      if (only === undefined || only.has(table)) tables.add(table);
    } else if (!tables.has(table)) {
      // a table that is not asked for
    } else if (line.startsWith(':')) {
      const [name, policy] = line.slice(1).split(' ');
      const [lines, siblings] = [[] as string[], chains];
      const compile = () => lines.map((rule) => compileRule(rule, siblings, ipset));
      const chain = new Chain(`${tool} ${table} ${name}`, baseOf(table, name, policy, family), compile);
      chains.set(name, chain);
      rules.set(name, lines);
      if (chain.base) base.push(chain);
    } else if (line.startsWith('-A ')) rules.get(line.split(' ', 2)[1])?.push(line);
  }
  return { tables, chains: base };
}

/** Priorities of the tables (linux/netfilter_ipv4.h: NF_IP_PRI_*). */
const PRIORITIES: Record<string, number> = { raw: -300, mangle: -150, filter: 0, security: 50 };
const DNAT_PRIORITY = -100;
const SNAT_PRIORITY = 100;
const CHAIN_HOOKS: Record<string, Hook> = {
  PREROUTING: 'prerouting',
  INPUT: 'input',
  OUTPUT: 'output',
  POSTROUTING: 'postrouting',
};

function baseOf(table: string, name: string, policy: string, family: Family): Base | undefined {
  const hook = CHAIN_HOOKS[name];
  if (policy === '-' || hook === undefined) return undefined;
  const nat = table === 'nat';
  const natPriority = hook === 'prerouting' || hook === 'output' ? DNAT_PRIORITY : SNAT_PRIORITY;
  return {
    hook,
    priority: nat ? natPriority : (PRIORITIES[table] ?? 0),
    nat,
    policy: policy === 'DROP' ? 'drop' : 'accept',
    sees: familyIs(family),
  };
}

interface Parsed {
  readonly matches: Option[];
  readonly target: string | undefined;
  readonly jump: 'jump' | 'goto';
  /** Of the target, by name. */
  readonly arguments: Map<string, string>;
}

function compileRule(line: string, chains: ReadonlyMap<string, Chain>, ipset: IpsetLookup): Rule {
  const parsed = parseRule(line);
  const condition = all(conditionsOf(parsed.matches, ipset));
  const action = condition === never ? [] : actionOf(parsed, chains);
  return {
    text: line,
    steps: action.length === 0 || condition === always ? action : [{ kind: 'match', condition }, ...action],
  };
}

function parseRule(line: string): Parsed {
  const words = (line.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? []).slice(2);
  const parsed = { matches: [] as Option[], target: undefined as string | undefined, jump: 'jump' as 'jump' | 'goto' };
  const targetArguments = new Map<string, string>();
  let module = '';
  let negated = false;
  for (let i = 0; i < words.length; ) {
    const name = words[i++];
    if (name === '!') {
      negated = true;
      continue;
    }
    const values: string[] = [];
    while (i < words.length && words[i] !== '!' && !/^-[-a-zA-Z]/.test(words[i])) values.push(words[i++]);
    if (parsed.target !== undefined) targetArguments.set(name, values.join(' '));
    else if (name === '-j' || name === '-g') {
      parsed.target = values[0];
      parsed.jump = name === '-g' ? 'goto' : 'jump';
    } else {
      if (name === '-m') module = values[0];
      parsed.matches.push({ module, name, negated, values });
    }
    negated = false;
  }
  return { ...parsed, arguments: targetArguments };
}

const PLAIN: Record<string, Verdict> = {
  ACCEPT: { kind: 'accept' },
  RETURN: { kind: 'return' },
  DROP: { kind: 'drop', effect: 'drop' },
  REJECT: { kind: 'drop', effect: 'reject' },
  QUEUE: { kind: 'change', effect: 'queue' },
  NFQUEUE: { kind: 'change', effect: 'queue' },
  DNAT: { kind: 'change', effect: 'nat' },
  REDIRECT: { kind: 'change', effect: 'nat' },
  NETMAP: { kind: 'change', effect: 'nat' },
  MASQUERADE: { kind: 'change', effect: 'nat', unless: masqueradesAsItIs },
  TPROXY: { kind: 'change', effect: 'tproxy' },
};
const EFFECTS: Record<string, Effect> = {
  TEE: 'tee',
  DSCP: 'dscp',
  TOS: 'dscp',
  CLASSIFY: 'priority',
  TTL: 'rewrite',
  HL: 'rewrite',
};
/** They change nothing about a packet of ours. */
const NEUTRAL = new Set([
  ...['LOG', 'NFLOG', 'ULOG', 'TRACE', 'AUDIT', 'CHECKSUM', 'SET', 'IDLETIMER', 'LED', 'RATEEST', 'SECMARK'],
  ...['CONNSECMARK', 'TCPMSS', 'TCPOPTSTRIP', 'SYNPROXY', 'ECN'],
]);

function actionOf({ target, jump, arguments: options }: Parsed, chains: ReadonlyMap<string, Chain>): Step[] {
  if (target === undefined || NEUTRAL.has(target)) return [];
  const chain = chains.get(target);
  if (chain) return [{ kind: 'verdict', verdict: { kind: jump, chain } }];
  if (target in PLAIN) return [{ kind: 'verdict', verdict: PLAIN[target] }];
  if (target in EFFECTS) return [{ kind: 'effect', effect: EFFECTS[target] }];
  switch (target) {
    case 'SNAT': {
      const unless = isLocal(addressOf(options.get('--to-source') ?? ''));
      return [{ kind: 'verdict', verdict: { kind: 'change', effect: 'nat', unless } }];
    }
    case 'MARK':
    case 'CONNMARK':
      return [markStep(target === 'MARK' ? 'mark' : 'connectionMark', options)];
    case 'NOTRACK':
      return [{ kind: 'untrack' }];
    case 'CT':
      return options.has('--notrack') ? [{ kind: 'untrack' }] : [];
    default:
      return [{ kind: 'effect', effect: 'unknown' }];
  }
}

/** The address of `192.0.2.1:1024-65535`, `[2001:db8::1]:1024` or an address alone. */
function addressOf(text: string): string {
  if (text.startsWith('[')) return text.slice(1, text.indexOf(']'));
  const [address, ...ports] = text.split(':');
  return ports.length === 1 ? address : text;
}

/** The arithmetic of iptables-extensions(8), MARK and CONNMARK. */
function markStep(own: 'mark' | 'connectionMark', options: ReadonlyMap<string, string>): Step {
  const set = (value: (packets: Packets) => number | undefined, which = own): Step => ({ kind: 'mark', which, value });
  const masked = (keep: number, flip: number) =>
    set((packets) => {
      const mark = packets[own];
      if (keep === 0) return flip >>> 0;
      return mark === undefined ? undefined : ((mark & keep) ^ flip) >>> 0;
    });
  for (const [name, text] of options) {
    const [value, mask] = valueAndMask(text);
    if (name === '--set-xmark') return masked(~mask, value);
    if (name === '--set-mark') return masked(~(mask | value), value);
    if (name === '--and-mark') return masked(value, 0);
    if (name === '--or-mark') return masked(~value, value);
    if (name === '--xor-mark') return masked(-1, value);
  }
  const packetMask = Number(options.get('--nfmask') ?? 0xffffffff);
  const connectionMask = Number(options.get('--ctmask') ?? 0xffffffff);
  const mix = (to: number | undefined, toMask: number, from: number | undefined, fromMask: number) =>
    to === undefined || from === undefined ? undefined : ((to & ~toMask) ^ (from & fromMask)) >>> 0;
  if (options.has('--restore-mark')) {
    return set(({ mark, connectionMark }) => mix(mark, packetMask, connectionMark, connectionMask), 'mark');
  }
  if (options.has('--save-mark')) {
    return set(({ mark, connectionMark }) => mix(connectionMark, connectionMask, mark, packetMask));
  }
  return set(() => undefined);
}
