/** The rules of nftables, from the JSON that `nft -j list ruleset` prints (libnftables-json(5)). */
import {
  all,
  always,
  type Condition,
  deviceIn,
  familyIs,
  type Hook,
  isLocal,
  masqueradesAsItIs,
  never,
  not,
  type Packets,
  perhaps,
} from './conditions.ts';
import { type Base, Chain, type Effect, type Rule, type Step, type Verdict } from './filter.ts';
import { fieldOf } from './nftables-fields.ts';
import { type Expression, keyOf, ruleText } from './nftables-text.ts';

/** One object of the ruleset: `{chain: {...}}`, `{rule: {...}}` and so on. */
export type NftObject = Readonly<Record<string, NftRecord>>;

interface NftRecord {
  family: string;
  table: string;
  name: string;
  /** Of a chain; type, hook and so on only of a base chain. dev is missing in nft 1.0.6 and older. */
  type?: unknown;
  hook?: string;
  prio?: number;
  policy?: string;
  dev?: string | string[];
  /** Of a rule. */
  chain?: string;
  expr?: Expression[];
  comment?: string;
  /** Of a set or a map. */
  elem?: Expression[];
}

/** Chains and sets of a table. */
interface Table {
  readonly chains: Map<string, Chain>;
  readonly sets: Map<string, Expression[]>;
}

/** A table as `nft` names it: `ip filter`. */
export type TableName = string;

/** Tables with rules of iptables that nft cannot spell out: it prints no more than the name of an extension. */
export function tablesWithExtensions(ruleset: readonly NftObject[]): Set<TableName> {
  const tables = new Set<TableName>();
  for (const { rule } of ruleset) {
    if (rule?.expr?.some((expression) => keyOf(expression) === 'xt')) tables.add(`${rule.family} ${rule.table}`);
  }
  return tables;
}

/** True when nft did not say which devices an ingress chain belongs to; `nft list chains` does (`chainDevices`). */
export function lacksDevices(ruleset: readonly NftObject[]): boolean {
  return ruleset.some(({ chain }) => chain?.hook === 'ingress' && chain.dev === undefined);
}

/** Devices of the ingress chains by `FAMILY TABLE CHAIN`, from the text that `nft list chains` prints. */
export function chainDevices(text: string): Map<string, string[]> {
  const devices = new Map<string, string[]>();
  let table = '';
  let chain = '';
  for (const line of text.split('\n')) {
    table = line.match(/^table (\S+ \S+) \{/)?.[1] ?? table;
    chain = line.match(/^\tchain (\S+) \{/)?.[1] ?? chain;
    const names = line.match(/hook ingress devices? (?:= )?(\{[^}]*\}|\S+)/)?.[1];
    if (names) devices.set(`${table} ${chain}`, names.match(/[^{}",\s]+/g) ?? []);
  }
  return devices;
}

/** All base chains of the tables that are not left out. */
export function readNftables(
  ruleset: readonly NftObject[],
  leftOut: ReadonlySet<TableName> = new Set(),
  devices: ReadonlyMap<string, string[]> = new Map(),
): Chain[] {
  const tables = new Map<TableName, Table>();
  const rules = new Map<string, NftRecord[]>();
  const tableOf = ({ family, table }: NftRecord): Table => {
    const name = `${family} ${table}`;
    let found = tables.get(name);
    if (!found) tables.set(name, (found = { chains: new Map(), sets: new Map() }));
    return found;
  };
  for (const object of ruleset) {
    const [kind] = Object.keys(object);
    const record = object[kind];
    if (kind === 'set' || kind === 'map') tableOf(record).sets.set(record.name, record.elem ?? []);
    else if (kind === 'rule') {
      const key = `${record.family} ${record.table} ${record.chain}`;
      const list = rules.get(key);
      if (list) list.push(record);
      else rules.set(key, [record]);
    } else if (kind === 'chain') {
      const key = `${record.family} ${record.table} ${record.name}`;
      const table = tableOf(record);
      const compiler = new Compiler(table);
      const compile = () => (rules.get(key) ?? []).map((rule) => compiler.rule(rule));
      const chain = new Chain(`nftables ${key}`, baseOf(record, record.dev ?? devices.get(key)), compile);
      table.chains.set(record.name, chain);
    }
  }
  return [...tables]
    .filter(([name]) => !leftOut.has(name))
    .flatMap(([, { chains }]) => [...chains.values()].filter(({ base }) => base));
}

/** Hooks that the redirect uplink does not get past (egress is one) are no concern, as are the families arp and bridge. */
const SEEN_BY: Record<string, Condition> = {
  ip: familyIs('ip'),
  ip6: familyIs('ip6'),
  inet: always,
  netdev: always,
};

function baseOf({ family, type, hook, prio, policy }: NftRecord, dev: string | string[] | undefined): Base | undefined {
  const seenByFamily = SEEN_BY[family];
  if (hook === undefined || seenByFamily === undefined) return undefined;
  const seenByDevice = hook !== 'ingress' ? always : dev === undefined ? perhaps : deviceIn('in', [dev].flat(), '*');
  return {
    hook: hook as Hook,
    priority: prio ?? 0,
    nat: type === 'nat',
    policy: policy === 'drop' ? 'drop' : 'accept',
    sees: all([seenByFamily, seenByDevice]),
  };
}

class Compiler {
  readonly #table: Table;

  constructor(table: Table) {
    this.#table = table;
  }

  rule({ expr = [], comment }: NftRecord): Rule {
    const steps = this.#steps(expr);
    return {
      get text() {
        return ruleText(expr, comment);
      },
      steps: steps.some(({ kind }) => kind !== 'match') ? steps : [],
    };
  }

  #steps(expressions: readonly Expression[]): Step[] {
    const steps: Step[] = [];
    for (const [i, expression] of expressions.entries()) {
      const step = this.#step(expression, i === expressions.length - 1);
      if (step === undefined || (step.kind === 'match' && step.condition === always)) continue;
      steps.push(step);
      if (step.kind === 'match' && step.condition === never) break;
    }
    return steps;
  }

  #step(expression: Expression, last: boolean): Step | undefined {
    const key = keyOf(expression);
    const value = (expression as Record<string, Expression>)[key];
    const verdict = this.#verdict(expression);
    if (verdict) return { kind: 'verdict', verdict };
    switch (key) {
      case 'match':
        return { kind: 'match', condition: this.#match(value as { op: string; left: Expression; right: Expression }) };
      case 'vmap':
        return this.#cases(value as { key: Expression; data: Expression });
      case 'mangle':
        return mangle(value as { key: Expression; value: Expression });
      case 'xt':
        return extension(value as { type: string; name: string } | null, last);
      case 'notrack':
        return { kind: 'untrack' };
      case 'tproxy':
        return { kind: 'effect', effect: 'tproxy' };
      case 'dup':
        return { kind: 'effect', effect: 'tee' };
      case 'set':
      case 'map':
        return (value as { stmt?: unknown[] }).stmt ? { kind: 'match', condition: perhaps } : undefined;
      default:
        if (NEUTRAL.has(key)) return undefined;
        // What comes last and is no condition does something.
        return last && !CONDITIONS.has(key)
          ? { kind: 'effect', effect: 'unknown' }
          : { kind: 'match', condition: perhaps };
    }
  }

  #verdict(expression: Expression): Verdict | undefined {
    const key = keyOf(expression);
    const value = (expression as Record<string, Expression>)[key];
    switch (key) {
      case 'accept':
      case 'return':
        return { kind: key };
      case 'drop':
      case 'reject':
        return { kind: 'drop', effect: key };
      case 'fwd':
        return { kind: 'drop', effect: 'forward' };
      case 'queue':
        return { kind: 'change', effect: 'queue' };
      case 'dnat':
      case 'redirect':
        return { kind: 'change', effect: 'nat' };
      case 'snat':
        return { kind: 'change', effect: 'nat', unless: isLocal((value as { addr?: Expression } | null)?.addr) };
      case 'masquerade':
        return { kind: 'change', effect: 'nat', unless: masqueradesAsItIs };
      case 'jump':
      case 'goto': {
        const chain = this.#table.chains.get((value as { target: string }).target);
        return chain && { kind: key, chain };
      }
      default:
        return undefined;
    }
  }

  #cases({ key, data }: { key: Expression; data: Expression }): Step {
    const field = fieldOf(key);
    const cases = this.#values(data).flatMap((pair) => {
      const [value, expression] = pair as [Expression, Expression];
      const condition = value === '*' ? always : field.compare([plain(value)]);
      const verdict = this.#verdict(expression) ?? ({ kind: 'return' } as const);
      // `continue`: as if there were no such case
      return condition === never || keyOf(expression) === 'continue' ? [] : ([[condition, verdict]] as const);
    });
    return { kind: 'cases', cases: cases.map(([condition, verdict]) => [all([field.present, condition]), verdict]) };
  }

  #match({ op, left, right }: { op: string; left: Expression; right: Expression }): Condition {
    const field = fieldOf(left);
    const values = this.#values(right);
    switch (op) {
      case '==':
      case 'in':
        return all([field.present, field.compare(values)]);
      case '!=':
      case '!':
        return all([field.present, not(field.compare(values))]);
      default:
        return all([field.present, typeof right === 'number' ? field.compare([ordered(op, right)]) : perhaps]);
    }
  }

  /** The values on the right: one, those of a set in the rule, or those of a named one. */
  #values(right: Expression): Expression[] {
    if (typeof right === 'string' && right.startsWith('@')) {
      return (this.#table.sets.get(right.slice(1)) ?? []).map(plain);
    }
    if (Array.isArray(right)) return right.map(plain);
    if (keyOf(right) === 'set') return [(right as { set: Expression }).set].flat().map(plain);
    return [plain(right)];
  }
}

/** Statements that change nothing about the packet. */
const NEUTRAL = new Set([
  ...['counter', 'log', 'continue', 'flow', 'last', 'ct helper', 'ct timeout', 'ct expectation', 'secmark'],
  'synproxy', // TCP only
]);

const CONDITIONS = new Set(['limit', 'quota', 'ct count', 'meter']);

/** What targets of iptables do; those that are not here, and do not change a packet of ours, are in NEUTRAL_EXTENSIONS. */
const EXTENSIONS: Record<string, Effect> = {
  ...{ REJECT: 'reject', NFQUEUE: 'queue', MASQUERADE: 'nat', SNAT: 'nat', DNAT: 'nat', REDIRECT: 'nat' },
  ...{ NETMAP: 'nat', DSCP: 'dscp', TOS: 'dscp', CLASSIFY: 'priority', TTL: 'rewrite', HL: 'rewrite' },
  ...{ TEE: 'tee', TPROXY: 'tproxy' },
};
const NEUTRAL_EXTENSIONS = new Set(['LOG', 'NFLOG', 'TRACE', 'CHECKSUM', 'TCPMSS', 'CT', 'SET']);

/** An extension of iptables without its arguments. nft before 1.0.2 does not even tell its name; targets come last. */
function extension(xt: { type: string; name: string } | null, last: boolean): Step | undefined {
  if (xt ? xt.type !== 'target' : !last) {
    return xt?.name === 'comment' ? undefined : { kind: 'match', condition: perhaps };
  }
  if (xt === null) return { kind: 'effect', effect: 'unknown' };
  if (xt.name === 'MARK') return { kind: 'mark', which: 'mark', value: () => undefined };
  if (xt.name === 'CONNMARK') return { kind: 'mark', which: 'connectionMark', value: () => undefined };
  return NEUTRAL_EXTENSIONS.has(xt.name) ? undefined : { kind: 'effect', effect: EXTENSIONS[xt.name] ?? 'unknown' };
}

function mangle({ key, value }: { key: Expression; value: Expression }): Step | undefined {
  const { meta, ct, payload } = key as Record<string, { key?: string; field?: string }>;
  if (meta?.key === 'mark' || ct?.key === 'mark') {
    return { kind: 'mark', which: meta ? 'mark' : 'connectionMark', value: markValue(value) };
  }
  if (meta?.key === 'priority') return { kind: 'effect', effect: 'priority' };
  if (payload) return { kind: 'effect', effect: payload.field === 'dscp' ? 'dscp' : 'rewrite' };
  return undefined; // nftrace, pkttype, "tcp option", conntrack's own
}

function markValue(value: Expression): (packets: Packets) => number | undefined {
  if (typeof value === 'number') return () => value;
  const key = keyOf(value);
  const inner = (value as Record<string, Expression>)[key];
  if ((inner as { key?: string }).key === 'mark' && (key === 'meta' || key === 'ct')) {
    return (packets) => (key === 'meta' ? packets.mark : packets.connectionMark);
  }
  if (!['&', '|', '^'].includes(key)) return () => undefined;
  const [left, right] = (inner as Expression[]).map(markValue);
  return (packets) => {
    const [a, b] = [left(packets), right(packets)];
    if (a === undefined || b === undefined) return undefined;
    return (key === '&' ? a & b : key === '|' ? a | b : a ^ b) >>> 0;
  };
}

/** A set's element without its timeout, counter and comment; of a map's, the key is freed of them. */
function plain(value: Expression): Expression {
  if (Array.isArray(value)) return [plain(value[0]), value[1]];
  return keyOf(value) === 'elem' ? (value as { elem: { val: Expression } }).elem.val : value;
}

/** The numbers that compare so to a value. */
function ordered(op: string, value: number): Expression {
  const ranges: Record<string, [number, number]> = {
    '<': [0, value - 1],
    '<=': [0, value],
    '>': [value + 1, 0xffffffff],
    '>=': [value, 0xffffffff],
  };
  return { range: ranges[op] };
}
