import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { familyOf } from '../wire/address.ts';
import type { Host, Link, NicLink } from './host.ts';
import { CommandFailed } from './iproute.ts';

/**
 * The redirect uplink's tc filters (u32 with mirred), for kernels without TCX links. They carry a cookie by which they are
 * recognised after kill -9. What cannot carry one is a clsact qdisc: that we have added it to a NIC is written to a file, before
 * it is done.
 */

/** Filters that are in place. */
export interface Filters {
  readonly uplink: string;
  /** The NIC keeps its index when it is renamed. */
  readonly nicIndex: number;
  /** When the filters were added. */
  readonly nicMac: string | undefined;
  readonly nicCookie: string;
  readonly uplinkCookie: string;
}

/** "uvxlan", then 01 for filters on the NIC or 02 for those on the uplink TAP, then 9 random bytes: tc takes 16 in all. */
const OURS = Buffer.from('uvxlan').toString('hex');
const ON_NIC = `${OURS}01`;
const ON_UPLINK = `${OURS}02`;
/** Lowest priority (tc: pref) of our filters: after those that others order by hand, before those that tc numbers (from 49152). */
const PREFERENCE = 8472;

interface Filter {
  protocol: string;
  pref: number;
  kind: string;
  options?: { fh?: string; actions?: { cookie?: string; to_dev?: string }[] };
}

/** A NIC that we have given a clsact qdisc. */
interface ClsactRecord {
  ifindex: number;
  /** Namespaces' inodes and device indices are used again: with the MAC address, it is the same NIC. */
  mac: string;
}

/**
 * Redirects what the uplink TAP receives to the NIC's egress, and VXLAN packets to our address and port from the NIC's ingress
 * to the uplink TAP. When a step fails, what was done is undone and the error says which step it was, with tc's own words.
 */
export async function addFilters(
  host: Host,
  nic: NicLink,
  uplink: string,
  local: string,
  port: number,
): Promise<Filters> {
  const filters: Filters = {
    uplink,
    nicIndex: nic.ifindex,
    nicMac: nic.mac,
    nicCookie: ON_NIC + randomBytes(9).toString('hex'),
    uplinkCookie: ON_UPLINK + randomBytes(9).toString('hex'),
  };
  const [protocol, match] =
    familyOf(local) === 6 ? ['ipv6', vxlanMatch6(local, port)] : ['ip', vxlanMatch4(local, port)];
  try {
    await addClsact(host, uplink);
    await addFilter(host, uplink, 'all', 'match u32 0 0', nic.name, filters.uplinkCookie);
    await addRecordedClsact(host, nic);
    await addFilter(host, nic.name, protocol, match, uplink, filters.nicCookie);
  } catch (error) {
    await deleteFilters(host, filters).catch(() => {});
    throw new Error(`${(error as Error).message}${advice(error)}`, { cause: error });
  }
  return filters;
}

/** Removes exactly these filters, whatever of them is left, and the NIC's clsact if it is ours and has no other filter. */
export async function deleteFilters(host: Host, { uplink, nicIndex, nicMac, ...cookies }: Filters): Promise<void> {
  const links = await host.links();
  const nic = links.find((link) => link.ifindex === nicIndex);
  if (nic) {
    await removeFilters(host, nic.name, (filter) => cookieOf(filter) === cookies.nicCookie);
    await removeRecordedClsact(host, [{ ...nic, mac: nicMac }]);
  }
  if (links.some((link) => link.name === uplink)) {
    await removeFilters(host, uplink, (filter) => cookieOf(filter) === cookies.uplinkCookie);
  }
}

/** Whether somebody has removed one of them; devices that are gone are others' to notice. */
export async function lackFilters(host: Host, { uplink, nicIndex, ...cookies }: Filters): Promise<boolean> {
  const links = await host.links();
  const nic = links.find((link) => link.ifindex === nicIndex);
  if (!nic || !links.some((link) => link.name === uplink)) return false;
  const has = async (dev: string, cookie: string) =>
    (await filters(host, dev, 'ingress')).some((filter) => cookieOf(filter) === cookie);
  return !((await has(nic.name, cookies.nicCookie)) && (await has(uplink, cookies.uplinkCookie)));
}

/**
 * Removes what uvxlan processes that were killed have left in this namespace: filters of ours whose uplink TAP is gone (it
 * goes with its process), and clsact qdiscs of ours without filters. Returns a line for each thing removed.
 */
export async function cleanupRedirects(host: Host): Promise<string[]> {
  const removed: string[] = [];
  for (const dev of await clsactDevices(host)) {
    const dead = await removeFilters(host, dev, (filter) => {
      return (cookieOf(filter)?.startsWith(ON_NIC) ?? false) && filter.options!.actions![0].to_dev === '*';
    });
    removed.push(...dead.map((filter) => `tc filter ${filter.pref} on ${dev}, whose uplink is gone`));
  }
  if (readRecords(await recordPath(host)).length === 0) return removed;
  const qdiscs = await removeRecordedClsact(host, await host.links());
  removed.push(...qdiscs.map((dev) => `clsact qdisc on ${dev}`));
  return removed;
}

/**
 * What the uplink can take as it is: UDP to our address and port, an IPv4 header without options (so that the port is at 22),
 * not a fragment. Everything else goes up the host's stack. Offsets count from the IP header (RFC 791, 3.1).
 */
function vxlanMatch4(local: string, port: number): string {
  return [
    'match u8 0x45 0xff at 0',
    'match u16 0 0x3fff at 6',
    'match u8 17 0xff at 9',
    `match ip dst ${local}/32`,
    `match u16 ${port} 0xffff at 22`,
  ].join(' ');
}

/** The same with UDP right behind the IPv6 header: no extension headers, a fragment's among them (RFC 8200, 3). */
function vxlanMatch6(local: string, port: number): string {
  return ['match u8 17 0xff at 6', `match ip6 dst ${local}/128`, `match u16 ${port} 0xffff at 42`].join(' ');
}

async function addFilter(
  host: Host,
  dev: string,
  protocol: string,
  match: string,
  target: string,
  cookie: string,
): Promise<void> {
  const taken = new Set((await filters(host, dev, 'ingress')).map((filter) => filter.pref));
  let pref = PREFERENCE;
  while (taken.has(pref)) pref++;
  const action = `action mirred egress redirect dev ${target} cookie ${cookie}`;
  await tc(host, `filter add dev ${dev} ingress pref ${pref} protocol ${protocol} u32 ${match} ${action}`);
}

async function removeFilters(host: Host, dev: string, unwanted: (filter: Filter) => boolean): Promise<Filter[]> {
  const found = (await filters(host, dev, 'ingress')).filter(unwanted);
  for (const { pref, protocol, kind, options } of found) {
    await tc(host, `filter del dev ${dev} ingress pref ${pref} protocol ${protocol} handle ${options!.fh} ${kind}`);
  }
  if (found.length === 0) return found;
  // The kernel keeps an empty hash table while there are other u32 filters on the device (u32_delete, net/sched/cls_u32.c).
  const left = await filters(host, dev, 'ingress');
  for (const { pref, protocol, kind } of found) {
    const rows = left.filter((filter) => filter.pref === pref && filter.protocol === protocol);
    if (rows.length === 0 || rows.some(isRule)) continue;
    await tc(host, `filter del dev ${dev} ingress pref ${pref} protocol ${protocol} ${kind}`);
  }
  return found;
}

/** u32 lists its hash tables (`800:`) beside the rules in them (`800::800`). */
function isRule({ kind, options }: Filter): boolean {
  return kind !== 'u32' || (options?.fh !== undefined && !options.fh.endsWith(':'));
}

/** Filters of one direction; none where there is no clsact qdisc. */
async function filters(host: Host, dev: string, direction: 'ingress' | 'egress'): Promise<Filter[]> {
  return host.iproute.json('tc', ['-j', 'filter', 'show', 'dev', dev, direction]);
}

function cookieOf(filter: Filter): string | undefined {
  return filter.options?.actions?.[0]?.cookie;
}

/** Devices that can have filters on their ingress; an `ingress` qdisc does as well as clsact. */
async function clsactDevices(host: Host): Promise<string[]> {
  const rows = await host.iproute.json<{ kind: string; dev: string }[]>('tc', ['-j', 'qdisc', 'show']);
  return rows.filter(({ kind }) => kind === 'clsact' || kind === 'ingress').map(({ dev }) => dev);
}

/** False when there was one. */
async function addClsact(host: Host, dev: string): Promise<boolean> {
  if ((await clsactDevices(host)).includes(dev)) return false;
  try {
    await tc(host, `qdisc add dev ${dev} clsact`);
    return true;
  } catch (error) {
    // Somebody else was faster.
    if (error instanceof CommandFailed && /Exclusivity flag|File exists/.test(error.reason)) return false;
    throw error;
  }
}

async function addRecordedClsact(host: Host, link: NicLink): Promise<void> {
  if ((await clsactDevices(host)).includes(link.name)) return;
  const path = await recordPath(host);
  const records = readRecords(path).filter((record) => record.ifindex !== link.ifindex);
  writeRecords(path, [...records, { ifindex: link.ifindex, mac: link.mac ?? '' }]);
  const added = await addClsact(host, link.name);
  if (!added) writeRecords(path, records);
}

/** Removes the clsact qdiscs of ours on these links that have no filter, and their records. Returns the links' names. */
async function removeRecordedClsact(host: Host, links: readonly Link[]): Promise<string[]> {
  const path = await recordPath(host);
  const records = readRecords(path);
  const removed: string[] = [];
  let kept = records;
  for (const { name, ifindex, mac } of links) {
    const record = records.find((each) => each.ifindex === ifindex);
    if (!record) continue;
    if (record.mac === mac && (await clsactDevices(host)).includes(name)) {
      const used = [...(await filters(host, name, 'ingress')), ...(await filters(host, name, 'egress'))];
      if (used.length > 0) continue;
      await tc(host, `qdisc del dev ${name} clsact`);
      removed.push(name);
    }
    kept = kept.filter((each) => each !== record);
  }
  if (kept.length < records.length) writeRecords(path, kept);
  return removed;
}

/** Namespaces may share /run: the inode of ours is in the name. */
async function recordPath(host: Host): Promise<string> {
  const directory = process.env.UVXLAN_RUNTIME_DIR || '/run/uvxlan';
  return join(directory, `${await host.namespaceInode()}.clsact.json`);
}

function readRecords(path: string): ClsactRecord[] {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ClsactRecord[];
  } catch {
    return []; // there is none, or it is damaged: then a qdisc without effect may be left behind
  }
}

function writeRecords(path: string, records: readonly ClsactRecord[]): void {
  if (records.length === 0) {
    rmSync(path, { force: true });
    return;
  }
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeFileSync(`${path}.new`, `${JSON.stringify(records)}\n`);
  renameSync(`${path}.new`, path);
}

/** What to do about a failed step. tc's words for a missing module: "Specified qdisc kind is unknown", "No such file or directory". */
function advice(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'EACCES' || code === 'EROFS') return '; name a directory of yours in UVXLAN_RUNTIME_DIR';
  const missing = error instanceof CommandFailed && /unknown|not found|No such file/.test(error.reason);
  return missing ? '; the kernel may lack sch_ingress, cls_u32 or act_mirred: take the udp uplink' : '';
}

function tc(host: Host, command: string): Promise<string> {
  return host.iproute.run('tc', command.split(' '));
}
