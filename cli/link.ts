import { DEFAULT_RESERVED_BITS } from '../control/device-options.ts';
import { DEVICE_FIELDS, WrongValue } from '../control/fields.ts';
import type { LinkCounters, LinkRecord, VxlanInfo } from '../control/protocol.ts';
import { parseChanges, parseDevice, UsageError, wrongArgument } from '../control/words.ts';
import { type DaemonCommand, runCommand } from './client.ts';
import { matchCommand, type Options, takeOptions } from './options.ts';
import { complain, print, printJson } from './output.ts';

/** Unresolved VTEPs that the text names for each device. */
const MOST_UNRESOLVED = 10;
/** Bytes of an offender's packet that the text shows. */
const SHOWN_SAMPLE = 32;

export const HELP = `Usage: uvxlan link [ show [ [ dev ] NAME ] ]
       uvxlan link add NAME type vxlan id VNI ...      the words of "uvxlan up", see uvxlan up --help
       uvxlan link set NAME type vxlan ...             as in the kernel: local, remote, dev, ttl, tos, df, flowlabel,
                     [no]learning, ageing; and uplink, ecn, neigh_suppress, vtep-filter, offload
       uvxlan link del NAME
The VXLAN devices of the running daemon. show prints them as "ip link show" does. The TAP that a device is can be addressed,
put in a bridge, renamed and set up and down with ip, as any link.
Options:
  -d, -details       with the device's VXLAN settings, its uplink and its next hops
  -s, -statistics    with its counters
  -j, -json          as JSON, with ip's keys, details included; uvxlan's own are under "uvxlan"
  -p, -pretty        JSON indented
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['details', 'statistics', 'json', 'pretty']);
  await runCommand(parseLink(words, options));
  return 0;
}

/** What `link WORDS` asks of the daemon. Throws UsageError. */
export function parseLink(words: readonly string[], options: Options): DaemonCommand {
  const [word = 'show', ...rest] = words;
  switch (matchCommand(word, ['show', 'lst', 'list', 'add', 'set', 'change', 'delete'], 'link')) {
    case 'add':
      for (const note of parseDevice(rest).notes) complain(note);
      return { command: 'link add', arguments: { words: rest } };
    case 'set':
    case 'change':
      parseChanges(withoutDev(rest));
      return { command: 'link set', arguments: { words: withoutDev(rest) } };
    case 'delete': {
      const name = deviceName(rest);
      if (name === null) throw new UsageError('a device is missing: uvxlan link del NAME');
      return { command: 'link del', arguments: { name } };
    }
    default:
      return {
        command: 'link show',
        arguments: { name: deviceName(rest) },
        print: (links: LinkRecord[]) => printLinks(links, options),
      };
  }
}

/** `set dev NAME ...` is `set NAME ...`. */
function withoutDev(words: readonly string[]): readonly string[] {
  return words[0] === 'dev' ? words.slice(1) : words;
}

/** `[dev] NAME`, or null. Throws UsageError. */
export function deviceName(words: readonly string[]): string | null {
  const [name, ...more] = words[0] === 'dev' ? words.slice(1) : words;
  if (more.length > 0) throw new UsageError(`unknown word "${more[0]}" after the device "${name}"`);
  if (name === undefined) {
    if (words.length > 0) throw new UsageError('Command line is not complete: "dev" wants a value');
    return null;
  }
  try {
    return DEVICE_FIELDS.name(name);
  } catch (error) {
    if (error instanceof WrongValue) throw wrongArgument(error, 'device name');
    throw error;
  }
}

function printLinks(links: readonly LinkRecord[], options: Options): void {
  if (!options.json) {
    for (const link of links) print(linkText(link, options));
    return;
  }
  printJson(options.statistics ? links : links.map(({ stats64: _, ...link }) => link), options.pretty);
}

function linkText(link: LinkRecord, options: Options): string {
  const lines = [
    `${link.ifindex}: ${link.ifname}: <${link.flags.join(',')}> mtu ${link.mtu}` +
      `${item('qdisc', link.qdisc)} state ${link.operstate}${item('mode', link.linkmode)}` +
      `${item('group', link.group)}${item('qlen', link.txqlen)}`,
    `    link/${link.link_type} ${link.address} brd ${link.broadcast}`,
  ];
  if (options.details) {
    lines.push(`    ${infoText(link.linkinfo.info_data)}${item('gso_max_size', link.gso_max_size)}`);
    lines.push(...ownText(link.uvxlan));
  }
  if (options.statistics) {
    const { rx, tx } = link.stats64;
    lines.push(...countersText('RX', rx, { missed: rx.over_errors, mcast: rx.multicast }));
    lines.push(...countersText('TX', tx, { carrier: tx.carrier_errors, collsns: tx.collisions }));
  }
  return lines.join('\n');
}

function item(name: string, value: string | number | undefined): string {
  return value === undefined ? '' : ` ${name} ${value}`;
}

/** iproute2 6.1, ip/iplink_vxlan.c: vxlan_print_opt. */
function infoText(info: VxlanInfo): string {
  const flag = (name: string, is: boolean | undefined) => (is ? ` ${name}` : '');
  const switched = (name: string, is: boolean) => ` ${is ? '' : 'no'}${name}`;
  const tos = info.tos === '0x1' ? 'inherit' : info.tos;
  const ttl = info.ttl === undefined ? 'inherit' : info.ttl || 'auto';
  return (
    `vxlan id ${info.id}${item('group', info.group ?? info.group6)}${item('remote', info.remote ?? info.remote6)}` +
    `${item('local', info.local ?? info.local6)}${item('dev', info.link)}` +
    ` srcport ${info.port_range.low} ${info.port_range.high} dstport ${info.port}` +
    `${info.learning ? '' : ' nolearning'}${flag('proxy', info.proxy)}${flag('rsc', info.rsc)}` +
    `${flag('l2miss', info.l2miss)}${flag('l3miss', info.l3miss)}${item('tos', tos)} ttl ${ttl}` +
    `${info.df === 'unset' ? '' : ` df ${info.df}`}${item('flowlabel', info.label)} ageing ${info.ageing || 'none'}` +
    `${item('maxaddr', info.limit)}${switched('udpcsum', info.udp_csum)}` +
    `${switched('udp6zerocsumtx', info.udp_zero_csum6_tx)}${switched('udp6zerocsumrx', info.udp_zero_csum6_rx)}` +
    `${flag('gbp', info.gbp)}${info.localbypass === false ? ' nolocalbypass' : ''}` +
    `${(info.reserved_bits ?? DEFAULT_RESERVED_BITS) === DEFAULT_RESERVED_BITS ? '' : ` reserved_bits ${info.reserved_bits}`}`
  );
}

/** Options of ours that are not at their default. */
function optionsText({ profile, ecn, 'vtep-filter': filter, neigh_suppress }: LinkRecord['uvxlan']['options']): string {
  return (
    `${profile === 'linux' ? '' : ` profile ${profile}`}${ecn === 'linux' ? '' : ` ecn ${ecn}`}` +
    `${filter === 'off' ? '' : ` vtep-filter ${filter}`}${neigh_suppress ? ' neigh_suppress on' : ''}`
  );
}

function ownText(own: LinkRecord['uvxlan']): string[] {
  const lines = [
    `    uvxlan uplink ${own.uplink} (${own.reason}) workers ${own.workers}${own.worker_restarts ? ` restarts ${own.worker_restarts}` : ''} macs ${own.fdb_entries} nexthops ${own.nexthops}` +
      ` unresolved ${own.nexthops_unresolved}${optionsText(own.options)}${own.policies ? ` policies ${own.policies} (rules of this host that redirect gets past)` : ''}`,
  ];
  if (own.offload) {
    const { send, receive } = own.offload;
    const text = (state: true | string): string => (state === true ? 'on' : `off (${state})`);
    lines.push(`    offload send ${text(send)} receive ${text(receive)}`);
  }
  // A VTEP stands once, however many ports or VNIs it is sent to on.
  const unresolved = [...new Set((own.unresolved ?? []).map(({ dst, reason }) => `    unresolved ${dst} (${reason})`))];
  lines.push(...unresolved.slice(0, MOST_UNRESOLVED));
  const more = unresolved.length - MOST_UNRESOLVED;
  if (more > 0) lines.push(`    and ${more} more (uvxlan -j link show has all)`);
  if (own.not_learned) lines.push(`    not learned ${own.not_learned} (maxaddress, or the table is full)`);
  for (const { src, mac, reason, count, time, length, sample } of own.offenders ?? []) {
    const bytes = `${sample.slice(0, SHOWN_SAMPLE * 2)}${length > SHOWN_SAMPLE ? '..' : ''}`;
    lines.push(`    kept out ${src} ${mac} (${reason}) packets ${count} last ${new Date(time).toISOString()} ${bytes}`);
  }
  return lines;
}

/** Two lines as ip prints counters, each column as wide as its widest cell. */
function countersText(title: string, counters: LinkCounters, last: Record<string, number | undefined>): string[] {
  const cells: [string, number][] = [
    ['bytes', counters.bytes],
    ['packets', counters.packets],
    ['errors', counters.errors],
    ['dropped', counters.dropped],
    ...Object.entries(last).map(([name, value]): [string, number] => [name, value ?? 0]),
  ];
  const width = ([name, value]: [string, number]) => Math.max(name.length, String(value).length, 6);
  return [
    `    ${title}: ${cells.map((cell) => cell[0].padStart(width(cell))).join(' ')}`,
    `        ${cells.map((cell) => String(cell[1]).padStart(width(cell))).join(' ')}`,
  ];
}
