/** Keeps flannel's rules in the host's firewall: reads those of our own chains, and writes them again when they differ. */
import type { Host } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import type { Family } from './lease.ts';
import { type Chain, iptablesChains, type MasqueradeWish, NFT_TABLES, nftTable } from './masquerade.ts';

const TOOLS = { ipv4: 'iptables', ipv6: 'ip6tables' } as const;
/** Seconds to wait for another program that changes the rules. */
const WAIT = '5';

/** Whether the host's iptables writes to nf_tables, as Debian's does unless somebody has chosen the legacy one. */
export async function isNfTables(host: Host): Promise<boolean> {
  const version = await host.iproute.run(TOOLS.ipv4, ['-V']).catch(() => '');
  return version.includes('(nf_tables)');
}

/** What is wrong with the rules is put right; returns a line for what that was, none when nothing was. */
export async function keepIptables(host: Host, family: Family, wish: MasqueradeWish | null): Promise<string[]> {
  const tool = TOOLS[family];
  const chains = iptablesChains(family, wish);
  const rules = await readRules(host, tool, chains);
  const repaired: string[] = [];
  for (const chain of chains) {
    const { table, name, parent } = chain;
    const lines = repair(chain, rules.get(`${table} ${name}`), rules.get(`${table} ${parent}`));
    if (lines.length === 0) continue;
    const text = [`*${table}`, ...lines, 'COMMIT', ''].join('\n');
    await host.iproute.run(`${tool}-restore`, ['--noflush', '-w', WAIT], text);
    repaired.push(`${tool} -t ${table}: ${chain.rules.length > 0 ? 'wrote' : 'removed'} ${name}`);
  }
  return repaired;
}

/** Rules of the chains and their parents, by `TABLE CHAIN`; undefined where there is no such chain. */
async function readRules(
  host: Host,
  tool: string,
  chains: readonly Chain[],
): Promise<Map<string, string[] | undefined>> {
  const wanted = chains.flatMap(({ table, name, parent }) => [`${table} ${name}`, `${table} ${parent}`]);
  const commands = wanted.map((each) => {
    const [table, chain] = each.split(' ');
    return [tool, '-w', WAIT, '-t', table, '-S', chain];
  });
  const answers = await host.iproute.runEach(commands);
  return new Map(wanted.map((each, i) => [each, rulesIn(each.split(' ')[1], answers[i])]));
}

/** What `iptables -S CHAIN` answered. */
function rulesIn(chain: string, answer: string | CommandFailed): string[] | undefined {
  if (answer instanceof CommandFailed) {
    // iptables 1.8.9 calls a chain that is not there incompatible. One that is so will not be written either, and that is said.
    if (/No chain|does not exist|incompatible/.test(answer.reason)) return undefined;
    throw answer;
  }
  const start = `-A ${chain} `;
  return answer
    .split('\n')
    .filter((line) => line.startsWith(start))
    .map((line) => line.slice(start.length));
}

/** Lines for iptables-restore --noflush. `own` and `parent` are what the two chains hold; undefined where there is no such chain. */
export function repair(
  chain: Chain,
  own: readonly string[] | undefined,
  parent: readonly string[] | undefined,
): string[] {
  const { name, rules, jump } = chain;
  const jumps = (parent ?? []).filter((rule) => rule.endsWith(`-j ${name}`));
  const isWanted = rules.length > 0;
  const lines: string[] = [];
  const isRight = isWanted && own !== undefined && own.join('\n') === rules.join('\n');
  const isLinked = isWanted && jumps.length === 1 && jumps[0] === jump;
  // To name a chain empties it, or makes it.
  if (isWanted && !isRight) lines.push(`:${name} - [0:0]`, ...rules.map((rule) => `-A ${name} ${rule}`));
  if (!isLinked) lines.push(...jumps.map((rule) => `-D ${chain.parent} ${rule}`));
  if (isWanted && !isLinked) lines.push(`-A ${chain.parent} ${jump}`);
  if (!isWanted && own !== undefined) lines.push(`:${name} - [0:0]`, `-X ${name}`);
  return lines;
}

/** The same with nftables: our own tables, which nobody else writes to. */
export async function keepNftables(host: Host, family: Family, wish: MasqueradeWish | null): Promise<string[]> {
  const name = NFT_TABLES[family];
  const wanted = nftTable(family, wish);
  const found = await listTable(host, name);
  if (found === wanted) return [];
  // To add a table before it is deleted makes both work whether it was there or not.
  await host.iproute.run('nft', ['-f', '-'], `add table ${name}\ndelete table ${name}\n${wanted}`);
  return [`nft: ${wanted === '' ? 'removed' : 'wrote'} table ${name}`];
}

async function listTable(host: Host, name: string): Promise<string> {
  try {
    return await host.iproute.run('nft', ['-s', 'list', 'table', ...name.split(' ')]);
  } catch (error) {
    if (error instanceof CommandFailed && /No such file/.test(error.reason)) return '';
    throw error;
  }
}
