/** The rules of nftables, from the JSON that `nft -j list ruleset` prints (libnftables-json(5)). */
import {
  type AddressRange,
  addressIn,
  addressRange,
  addressTypeIn,
  all,
  always,
  any,
  type Condition,
  constant,
  deviceIn,
  type Family,
  familyIs,
  formatAddressKey,
  type Hook,
  markIn,
  never,
  not,
  packetTypeIn,
  perhaps,
  portIn,
  prefixRange,
  stateIn,
} from './conditions.ts';
import { type Base, Chain, type Effect, type Rule, type Step, type Verdict } from './filter.ts';
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

/** What a rule compares: `compare` is given the values that it may have. */
interface Field {
  /** Where it is not there at all, a comparison fails, whether it is for equality or not. */
  readonly present: Condition;
  readonly compare: (values: readonly Expression[]) => Condition;
}

const UNKNOWN: Field = { present: always, compare: () => perhaps };
/** Compared to `exists` and `missing`: it is missing. */
const ABSENT: Field = { present: always, compare: (values) => presence(values, false) };
const NO_CONTENT: Field = { present: never, compare: () => never };
/** Nobody's socket but ours, which is not transparent and has an address; packets that IPsec is not to change. */
const ABSENT_FLAGS = new Set(['ipsec', 'transparent', 'wildcard']);

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
        return { kind: 'change', effect: 'nat', unless: MASQUERADES_AS_IT_IS };
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

/** The kernel would take the NIC's address for the source: the one that is there. Only the source port may become another. */
export const MASQUERADES_AS_IT_IS: Condition = ({ direction, onlyAddress }) => {
  return direction === 'out' && onlyAddress ? 'always' : 'never';
};

/** The source address that a packet is given is the one that it has. */
export function isLocal(address: unknown): Condition {
  return ({ direction, local }) => {
    return direction === 'out' && address === formatAddressKey(local) ? 'always' : 'never';
  };
}

const EXTENSION_EFFECTS: Record<string, Effect | null> = {
  ...{
    REJECT: 'reject',
    NFQUEUE: 'queue',
    MASQUERADE: 'nat',
    SNAT: 'nat',
    DNAT: 'nat',
    REDIRECT: 'nat',
    NETMAP: 'nat',
  },
  ...{ MARK: 'mark', CONNMARK: 'mark', DSCP: 'dscp', TOS: 'dscp', CLASSIFY: 'priority', TTL: 'rewrite', HL: 'rewrite' },
  ...{ TEE: 'tee', TPROXY: 'tproxy', LOG: null, NFLOG: null, TRACE: null, CHECKSUM: null, TCPMSS: null, CT: null },
};

/** An extension of iptables without its arguments. nft before 1.0.2 does not even tell its name; targets come last. */
function extension(xt: { type: string; name: string } | null, last: boolean): Step | undefined {
  if (xt ? xt.type !== 'target' : !last) {
    return xt?.name === 'comment' ? undefined : { kind: 'match', condition: perhaps };
  }
  const effect = xt ? EXTENSION_EFFECTS[xt.name] : undefined;
  return effect === null ? undefined : { kind: 'effect', effect: effect ?? 'unknown' };
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

function markValue(value: Expression): (packets: Parameters<Condition>[0]) => number | undefined {
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

function ordered(op: string, value: number): Expression {
  const ranges: Record<string, [number, number]> = {
    '<': [0, value - 1],
    '<=': [0, value],
    '>': [value + 1, 0xffffffff],
    '>=': [value, 0xffffffff],
  };
  return { range: ranges[op] };
}

function fieldOf(expression: Expression): Field {
  const key = keyOf(expression);
  const value = (expression as Record<string, Expression>)[key];
  switch (key) {
    case 'payload':
      return payloadField(value as { protocol?: string; field?: string });
    case 'meta':
      return metaField((value as { key: string }).key);
    case 'ct':
      return conntrackField((value as { key: string }).key);
    case 'fib':
      return fibField(value as { result: string; flags: string[] });
    case 'concat':
      return concatField((value as Expression[]).map(fieldOf));
    case '&':
      return maskField(value as [Expression, Expression]);
    case 'rt':
    case 'socket':
      return ABSENT_FLAGS.has((value as { key: string }).key) ? ABSENT : UNKNOWN;
    case 'exthdr':
    case 'ip option':
      // Only packets without any pass by the host's stack.
      return (value as { field?: string }).field === undefined ? ABSENT : NO_CONTENT;
    case 'ipsec': // of the state that decrypted the packet
    case 'tcp option':
      return NO_CONTENT;
    default:
      return UNKNOWN;
  }
}

/** Whether a thing that is there, or is not, compares equal to `exists` or `missing`; other comparisons are of its content. */
function presence(values: readonly Expression[], there: boolean): Condition {
  const flags = values.map((value) => (value === 1 ? true : value === 0 || value === '0' ? false : value));
  if (flags.every((flag) => typeof flag === 'boolean')) return constant(flags.includes(there));
  return there ? perhaps : never;
}

const TRANSPORT = new Set(['udp', 'th']);
const LINK = new Set(['ether', 'vlan']);

function payloadField({ protocol, field }: { protocol?: string; field?: string }): Field {
  if (protocol === undefined || field === undefined) return UNKNOWN; // raw bits
  if (protocol === 'ip' || protocol === 'ip6')
    return { present: familyIs(protocol), compare: ipField(protocol, field) };
  if (LINK.has(protocol)) return UNKNOWN;
  if (!TRANSPORT.has(protocol)) return NO_CONTENT;
  if (field === 'sport' || field === 'dport') {
    const side = field === 'sport' ? 'source' : 'destination';
    return { present: always, compare: (values) => numbers(values, (ranges) => portIn(side, ranges)) };
  }
  return UNKNOWN;
}

function ipField(family: Family, field: string): (values: readonly Expression[]) => Condition {
  if (field === 'saddr' || field === 'daddr') {
    return (values) => addresses(family, field === 'saddr' ? 'source' : 'destination', values);
  }
  if (field === 'protocol' || field === 'nexthdr') return protocols;
  if (field === 'version') return (values) => constant(values.includes(family === 'ip' ? 4 : 6));
  return () => perhaps;
}

function protocols(values: readonly Expression[]): Condition {
  if (values.some((value) => keyOf(value) !== '')) return perhaps; // a range
  return constant(values.some((value) => value === 'udp' || value === 17));
}

function addresses(family: Family, side: 'source' | 'destination', values: readonly Expression[]): Condition {
  const ranges: AddressRange[] = [];
  let strange = false;
  for (const value of values) {
    const range = rangeOf(value);
    if (range === undefined) strange = true;
    else if (range[0].length === (family === 'ip' ? 8 : 32)) ranges.push(range);
  }
  const known = addressIn(side, ranges);
  return strange ? any([known, perhaps]) : known;
}

function rangeOf(value: Expression): AddressRange | undefined {
  if (typeof value === 'string') return addressRange(value);
  const { prefix, range } = value as { prefix?: { addr: string; len: number }; range?: [string, string] };
  if (prefix) return prefixRange(prefix.addr, prefix.len);
  return range && addressRange(range.join('-'));
}

function numbers(
  values: readonly Expression[],
  condition: (ranges: readonly (readonly [number, number])[]) => Condition,
): Condition {
  const ranges: [number, number][] = [];
  for (const value of values) {
    const range = (value as { range?: Expression[] })?.range ?? [value, value];
    if (!range.every((end) => typeof end === 'number')) return perhaps;
    ranges.push(range as [number, number]);
  }
  return condition(ranges);
}

function strings(values: readonly Expression[]): string[] {
  return values.map(String);
}

function metaField(key: string): Field {
  switch (key) {
    case 'l4proto':
      return { present: always, compare: protocols };
    case 'nfproto':
    case 'protocol':
      return {
        present: always,
        compare: (values) =>
          any([
            values.includes('ip') || values.includes('ipv4') ? familyIs('ip') : never,
            values.includes('ip6') || values.includes('ipv6') ? familyIs('ip6') : never,
          ]),
      };
    case 'iif':
    case 'iifname':
    case 'oif':
    case 'oifname': {
      const end = key.startsWith('i') ? 'in' : 'out';
      return { present: always, compare: (values) => deviceIn(end, strings(values), '*') };
    }
    case 'mark':
      return { present: always, compare: (values) => numbers(values, (ranges) => markIn('mark', ranges)) };
    case 'pkttype':
      return { present: always, compare: (values) => packetTypeIn(strings(values)) };
    case 'ipsec':
      return ABSENT;
    default:
      return UNKNOWN;
  }
}

function conntrackField(key: string): Field {
  switch (key) {
    case 'state':
      return { present: always, compare: (values) => stateIn(strings(values)) };
    case 'mark':
      return {
        present: ({ tracked }) => (tracked ? 'always' : 'never'),
        compare: (values) => numbers(values, (ranges) => markIn('connectionMark', ranges)),
      };
    case 'status':
      return { present: always, compare: (values) => (values.every(isUnset) ? never : perhaps) };
    case 'direction':
      return { present: always, compare: (values) => constant(values.includes('original')) };
    default:
      return UNKNOWN;
  }
}

/** Bits of conntrack's status that the tunnel's connections do not have. */
function isUnset(status: Expression): boolean {
  return status === 'dnat' || status === 'snat' || status === 'expected';
}

function fibField({ result, flags }: { result: string; flags: string[] }): Field {
  const side = flags.includes('saddr') ? 'source' : 'destination';
  if (result === 'type') return { present: always, compare: (values) => addressTypeIn(side, strings(values)) };
  // There is a route back to a VTEP: packets of our own to it would not leave otherwise.
  return { present: always, compare: (values) => presence(values, true) };
}

function concatField(fields: readonly Field[]): Field {
  return {
    present: all(fields.map(({ present }) => present)),
    compare: (values) =>
      any(
        values.map((value) => {
          const parts = (value as { concat?: Expression[] })?.concat;
          return parts ? all(fields.map((field, i) => field.compare([parts[i]]))) : perhaps;
        }),
      ),
  };
}

function maskField([left, mask]: [Expression, Expression]): Field {
  const field = fieldOf(left);
  const { meta, ct, payload } = left as Record<string, { key?: string; field?: string }>;
  if (typeof mask === 'number' && (meta?.key === 'mark' || ct?.key === 'mark')) {
    const which = meta ? 'mark' : 'connectionMark';
    return { ...field, compare: (values) => numbers(values, (ranges) => markIn(which, ranges, mask)) };
  }
  // Not a fragment: of this field, only the bit "don't fragment" may be set (RFC 791, 3.1).
  if (payload?.field === 'frag-off' && typeof mask === 'number' && (mask & 0x4000) === 0) {
    return { ...field, compare: (values) => constant(values.includes(0)) };
  }
  return { ...field, compare: () => perhaps };
}
