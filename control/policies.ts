/**
 * Rules of this host that the kernel would apply to a tunnel's packets, and that the redirect uplink gets past: netfilter's (of
 * nftables and of both kinds of iptables) and IPsec policies. Rules are counted unless they are seen to leave the tunnel alone.
 */
import { familyOf } from '../wire/address.ts';
import type { Host } from './host.ts';
import { CommandFailed } from './iproute.ts';
import { addressKey, type Direction, type Family, HOOKS, type Holds, type Packets } from './policies/conditions.ts';
import { type Chain, EFFECTS, type Effect, follow, type Hit } from './policies/filter.ts';
import { readIpsets } from './policies/ipset.ts';
import { asksForIpsets, readIptables, type SavedTables } from './policies/iptables.ts';
import {
  chainDevices,
  lacksDevices,
  type NftObject,
  readNftables,
  type TableName,
  tablesWithExtensions,
} from './policies/nftables.ts';
import { readXfrm } from './policies/xfrm.ts';

/** What goes out to the remote VTEPs and comes in from them. */
export interface Tunnel {
  readonly nic: string;
  /** The VRF that the NIC belongs to. */
  readonly vrf?: string | undefined;
  /** Our VTEP address: it decides the family. */
  readonly local: string;
  readonly port: number;
  /** Our UDP source ports, the second exclusive. */
  readonly sourcePorts: readonly [number, number];
  /**
   * Addresses of the remote VTEPs. None yet: rules for particular addresses are not counted, since they have to be judged again
   * when there are some. Undefined: they may be any.
   */
  readonly remotes?: readonly string[] | undefined;
}

export interface Policy {
  readonly direction: Direction;
  /** `nftables inet filter input`, `iptables filter INPUT`, `xfrm policy out`. */
  readonly where: string;
  /** The rule as its tool has it, or nearly so. */
  readonly rule: string;
  readonly effect: Effect;
  /** False: it cannot be told whether the rule applies to the tunnel. */
  readonly certain: boolean;
}

/** The rules of the host at one moment. */
export interface HostRules {
  readonly chains: readonly Chain[];
  /** Routing rules that look at a packet's mark, by family. */
  readonly markRules: Readonly<Record<Family, readonly MarkRule[]>>;
  /** Addresses by device. */
  readonly addresses: ReadonlyMap<string, readonly string[]>;
  /** What could not be inspected, and what to do about it: a sentence each. */
  readonly notes: readonly string[];
}

interface MarkRule {
  readonly mark: number;
  readonly mask: number;
}

export interface Findings {
  readonly policies: Policy[];
  readonly notes: readonly string[];
}

/** Source ports that other VTEPs may choose: all but the ones that no implementation takes. */
const REMOTE_PORTS = [1024, 65535] as const;

/** Reads the host's rules and judges them. Does not fail: what cannot be read is a note. */
export async function findPolicies(host: Host, tunnel: Tunnel): Promise<Findings> {
  return judged(await readRules(host), tunnel);
}

/** As `judge`, where rules of a form that is not known here are a note. */
export function judged(rules: HostRules, tunnel: Tunnel): Findings {
  try {
    return { policies: judge(rules, tunnel), notes: rules.notes };
  } catch (error) {
    return { policies: [], notes: [...rules.notes, `the rules of this host are not understood: ${error}`] };
  }
}

/** The policies that would apply to a tunnel, in the order in which packets meet them: outgoing ones first. */
export function judge(rules: HostRules, tunnel: Tunnel): Policy[] {
  return (['out', 'in'] as const).flatMap((direction) => {
    const packets = packetsOf(rules, tunnel, direction);
    const rerouted = (mark: number | undefined) => reroutes(rules.markRules[packets.family], mark);
    return follow(rules.chains, packets, rerouted).map((hit) => toPolicy(hit, direction));
  });
}

/** One sentence for a log: `nftables inet filter input drops incoming UDP 8472: 'policy drop'`. */
export function policySentence({ direction, where, rule, effect, certain }: Policy, port: number): string {
  const verb = EFFECTS[effect][certain ? 0 : 1];
  return `${where} ${verb} ${direction === 'in' ? 'incoming' : 'outgoing'} UDP ${port}: '${rule}'`;
}

/** Two policies of the same key are the same one, read twice. */
export function policyKey({ direction, where, rule, effect }: Policy): string {
  return [direction, where, rule, effect].join('\n');
}

function packetsOf(rules: HostRules, tunnel: Tunnel, direction: Direction): Packets {
  const { nic, vrf, local, port, remotes } = tunnel;
  const [first, end] = tunnel.sourcePorts;
  const addresses = rules.addresses.get(nic)?.filter((address) => familyOf(address) === familyOf(local)) ?? [];
  const keys = remotes?.map(addressKey).filter((key) => key !== undefined);
  return {
    direction,
    hook: HOOKS[direction][0],
    family: familyOf(local) === 6 ? 'ip6' : 'ip',
    devices: vrf === undefined ? [nic] : [nic, vrf],
    local: addressKey(local)!,
    onlyAddress: addresses.length === 1 && addresses[0] === local,
    remotes: keys === undefined ? 'any' : keys.length === 0 ? 'stranger' : keys,
    sourcePorts: direction === 'in' ? REMOTE_PORTS : [first, end - 1],
    destinationPort: port,
    mark: 0,
    connectionMark: 0,
    tracked: true,
    answers: first <= port && port < end,
    certain: true,
  };
}

function toPolicy({ chain, rule, effect, certain }: Hit, direction: Direction): Policy {
  return { direction, where: chain.where, rule: rule?.text ?? 'policy drop', effect, certain };
}

/** Whether packets with a mark meet other routing rules than those without one. */
function reroutes(rules: readonly MarkRule[], mark: number | undefined): Holds {
  if (mark === 0 || rules.length === 0) return 'never';
  if (mark === undefined) return 'perhaps';
  const meets = (value: number, rule: MarkRule) => (value & rule.mask) >>> 0 === rule.mark;
  return rules.some((rule) => meets(mark, rule) !== meets(0, rule)) ? 'always' : 'never';
}

/** What is asked of every host; what else it takes follows from the answers. */
const QUESTIONS = [
  ['nft', '-j', 'list', 'ruleset'],
  ['cat', '/proc/self/net/ip_tables_names'],
  ['cat', '/proc/self/net/ip6_tables_names'],
  ['ip', 'xfrm', 'policy'],
  ['ip', 'xfrm', 'policy', 'getdefault'],
  ['ip', '-4', '-j', 'rule'],
  ['ip', '-6', '-j', 'rule'],
] as const;

type Answer = string | Error;

/** Reads all rules, in as few processes as it takes. Does not fail. */
export async function readRules(host: Host): Promise<HostRules> {
  const notes: string[] = [];
  const run = (file: string, ...args: string[]) => host.iproute.run(file, args);
  const answers = host.iproute.runEach(QUESTIONS).catch((error: Error): Answer[] => QUESTIONS.map(() => error));
  const asked = host.addresses().catch(() => []);
  const [nft, names, names6, policies, defaults, rules, rules6] = await answers;
  const [nftables, legacy, legacy6, addresses] = await Promise.all([
    readNft(nft, run, notes).catch((error: Error) => unreadable(notes, 'nftables rules', error)),
    readLegacy(names, run, 'ip', notes),
    readLegacy(names6, run, 'ip6', notes),
    asked,
  ]);
  const xfrm = readPolicies(policies, defaults, notes);
  const byDevice = new Map<string, string[]>();
  for (const { dev, address, scope } of addresses) {
    if (scope === 'global') byDevice.set(dev, [...(byDevice.get(dev) ?? []), address]);
  }
  const chains = [...nftables, ...legacy, ...legacy6, ...xfrm];
  const markRules = { ip: readMarkRules(rules), ip6: readMarkRules(rules6) };
  return { chains, markRules, addresses: byDevice, notes };
}

/** What a command printed. Throws what it failed with. */
function printed(answer: Answer): string {
  if (answer instanceof Error) throw answer;
  return answer;
}

function readPolicies(policies: Answer, defaults: Answer, notes: string[]): Chain[] {
  try {
    return readXfrm(printed(policies), defaults instanceof Error ? '' : defaults);
  } catch (error) {
    return unreadable(notes, 'IPsec policies', error as Error);
  }
}

type Run = (file: string, ...args: string[]) => Promise<string>;

const TOOLS = { ip: 'iptables', ip6: 'ip6tables' } as const;

async function readNft(answer: Answer, run: Run, notes: string[]): Promise<Chain[]> {
  let ruleset: NftObject[];
  try {
    ruleset = (JSON.parse(printed(answer)) as { nftables: NftObject[] }).nftables;
  } catch (error) {
    if (isUnsupported(error)) return [];
    unreadable(notes, 'nftables rules (other than those of iptables)', error as Error, 'nftables');
    return [...(await readSaved(run, 'ip', undefined)).chains, ...(await readSaved(run, 'ip6', undefined)).chains];
  }
  const chains: Chain[] = [];
  const spelledOut = new Set<TableName>();
  const extended = tablesWithExtensions(ruleset);
  for (const family of ['ip', 'ip6'] as const) {
    const tables = [...extended].filter((name) => name.startsWith(`${family} `)).map((name) => name.split(' ')[1]);
    if (tables.length === 0) continue;
    const saved = await readSaved(run, family, new Set(tables));
    for (const table of saved.tables) spelledOut.add(`${family} ${table}`);
    chains.push(...saved.chains);
  }
  const devices = lacksDevices(ruleset) ? chainDevices(await run('nft', 'list', 'chains').catch(() => '')) : undefined;
  return [...readNftables(ruleset, spelledOut, devices), ...chains];
}

/**
 * Tables of iptables-nft. Where its tool is missing, or refuses a table that nft has changed, the JSON has to do: then extensions
 * hold perhaps.
 */
async function readSaved(run: Run, family: Family, tables: ReadonlySet<string> | undefined): Promise<SavedTables> {
  const text = await firstOf(run, `${TOOLS[family]}-nft-save`, `${TOOLS[family]}-save`).catch(() => '');
  if (!isOfNft(text)) return { tables: new Set(), chains: [] };
  return readIptables(text, TOOLS[family], family, tables, await ipsetsFor(run, text));
}

/** Legacy iptables: the kernel lists the tables that are in use. Saving others would create them. */
async function readLegacy(names: Answer, run: Run, family: Family, notes: string[]): Promise<Chain[]> {
  const tool = TOOLS[family];
  try {
    if (isAbsent(names) || printed(names).trim() === '') return [];
    const text = await firstOf(run, `${tool}-legacy-save`, `${tool}-save`);
    if (isOfNft(text)) throw new Error(`${tool}-save is that of nftables`);
    return readIptables(text, tool, family, undefined, await ipsetsFor(run, text)).chains;
  } catch (error) {
    return unreadable(notes, `legacy ${tool} rules`, error as Error, 'iptables');
  }
}

/** The file of a kernel without legacy iptables; that it may not be read is another matter. */
function isAbsent(names: Answer): boolean {
  return names instanceof CommandFailed && /No such file/.test(names.reason);
}

function isOfNft(text: string): boolean {
  return /^# Generated by .*\(nf_tables\)/m.test(text);
}

async function ipsetsFor(run: Run, text: string) {
  return readIpsets(asksForIpsets(text) ? await run('ipset', 'save').catch(() => undefined) : '');
}

async function firstOf(run: Run, ...programs: string[]): Promise<string> {
  for (const program of programs.slice(0, -1)) {
    try {
      return await run(program);
    } catch {
      // the next one then
    }
  }
  return run(programs.at(-1)!);
}

function readMarkRules(answer: Answer): MarkRule[] {
  if (answer instanceof Error || answer.trim() === '') return []; // a kernel without policy routing
  const rows = JSON.parse(answer) as { fwmark?: string; fwmask?: string }[];
  return rows.flatMap(({ fwmark, fwmask }) =>
    fwmark === undefined ? [] : [{ mark: Number(fwmark), mask: fwmask === undefined ? 0xffffffff : Number(fwmask) }],
  );
}

function isUnsupported(error: unknown): boolean {
  return error instanceof CommandFailed && /not supported/.test(error.reason);
}

/** Nothing was found, and a note says that and why. */
function unreadable(notes: string[], what: string, error: Error, tool?: string): [] {
  const reason = error instanceof CommandFailed ? error.reason : error.message;
  // Without a prefix it is node that does not find a program; otherwise nsenter, setpriv or the like, in their own words.
  const missing = tool !== undefined && /^not found|failed to execute|No such file/.test(reason);
  notes.push(`${what} cannot be inspected: ${missing ? `install ${tool}` : reason}`);
  return [];
}
