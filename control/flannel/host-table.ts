/**
 * What the agent keeps on the host, as text that `ip -batch` takes: addresses and permanent neighbours of its devices, and one route a peer.
 *
 *     key                                   value
 *     link flannel.1                        up address 02:42:0a:f4:01:00
 *     address 10.244.1.0/32 dev flannel.1
 *     neigh 10.244.2.0 dev flannel.1        lladdr 02:42:0a:f4:02:00
 *     route 10.244.2.0/24                   via 10.244.2.0 dev flannel.1 onlink
 *
 * Routes and neighbours carry a protocol number of our own, by which they are known also after kill -9: what has it and is not
 * wanted was left by a peer that is gone. What does not have it is somebody else's.
 */
import { contains, type Prefix, parsePrefix } from '../../wire/prefix.ts';
import type { Host } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import type { Overlay } from './backend.ts';
import { FAMILIES, type Lease, type PerFamily } from './lease.ts';

export type HostTable = ReadonlyMap<string, string>;

/** Free in /etc/iproute2/rt_protos. The dataplane's own neighbours have it as well, but are not permanent. */
export const PROTOCOL = '118';

/** What to put on the host for this node's own lease and its peers. `isOnLink` tells of a public IP whether it needs no gateway. */
export function desiredTable(
  overlays: PerFamily<Overlay>,
  nic: string,
  own: Lease,
  peers: Iterable<Lease>,
  isOnLink: (publicIp: string) => boolean,
): HostTable {
  const table = new Map<string, string>();
  for (const family of FAMILIES) {
    const overlay = overlays[family];
    const share = own[family];
    if (!overlay?.device || !share) continue;
    const { device, network, spansNetwork } = overlay;
    table.set(`link ${device}`, share.vtepMac === null ? 'up' : `up address ${share.vtepMac}`);
    // As long as it can be, so that it brings no broadcast address and no route, but where the route is wanted.
    const length = spansNetwork ? network.slice(network.indexOf('/') + 1) : family === 'ipv4' ? 32 : 128;
    table.set(`address ${tunnelAddress(share.subnet)}/${length} dev ${device}`, '');
  }
  for (const peer of peers) {
    for (const family of FAMILIES) {
      const overlay = overlays[family];
      const share = peer[family];
      if (!overlay || overlay.spansNetwork || !share) continue;
      const { device } = overlay;
      const tunnel = tunnelAddress(share.subnet);
      if (device && share.vtepMac) table.set(`neigh ${tunnel} dev ${device}`, `lladdr ${share.vtepMac}`);
      const isDirect = isOnLink(share.publicIp);
      if (device === null && !isDirect) continue;
      table.set(
        `route ${share.subnet}`,
        isDirect ? `via ${share.publicIp} dev ${nic}` : `via ${tunnel} dev ${device} onlink`,
      );
    }
  }
  return table;
}

/** Peers that get no route: packets would go to them as they are, and they are not on the link. */
export function peersOffLink(
  overlays: PerFamily<Overlay>,
  peers: Iterable<Lease>,
  isOnLink: (publicIp: string) => boolean,
): string[] {
  const direct = FAMILIES.filter((family) => overlays[family]?.device === null);
  return [...peers].flatMap((peer) => {
    const off = direct.flatMap((family) => peer[family]?.publicIp ?? []).filter((publicIp) => !isOnLink(publicIp));
    return off.length > 0 ? `${peer.node} (${off.join(', ')})` : [];
  });
}

/** A subnet's first address is its VXLAN device's, and the gateway to its pods. */
export function tunnelAddress(subnet: string): string {
  return subnet.slice(0, subnet.indexOf('/'));
}

/**
 * Whether a line of `ip monitor label` tells of a neighbour or a route with our protocol number that is not as in the table: changed, taken
 * away, or there without being in it. undefined for lines about anything else.
 */
export function differs(line: string, table: HostTable): boolean | undefined {
  if (!line.includes(`proto ${PROTOCOL}`)) return undefined;
  const [, label, deleted, dst, rest] = /^\[(NEIGH|ROUTE)\](Deleted )?(\S+) (.*)$/.exec(line) ?? [];
  if (label === undefined) return undefined;
  const [, via, dev] = /^(via \S+ )?dev (\S+)/.exec(rest) ?? [];
  if (dev === undefined) return true;
  const isNeighbour = label === 'NEIGH';
  const wanted = table.get(isNeighbour ? `neigh ${dst} dev ${dev}` : `route ${dst}`);
  if (deleted !== undefined) return wanted !== undefined;
  if (!isNeighbour) return wanted !== `${via ?? ''}dev ${dev}${/ onlink\b/.test(rest) ? ' onlink' : ''}`;
  // Of those that are not permanent the dataplane has some.
  if (!/ PERMANENT\b/.test(rest)) return wanted !== undefined;
  return wanted !== rest.match(/lladdr \S+/)?.[0];
}

/** The lines that make what there is into what is wanted, in an order in which each can be carried out. */
export function changes(actual: HostTable, desired: HostTable): string[] {
  const lines: string[] = [];
  for (const [key, value] of desired) if (actual.get(key) !== value) lines.push(put(key, value));
  // Devices are the backend's to take away.
  const isStale = (key: string) => !desired.has(key) && !key.startsWith('link ');
  const stale = [...actual].filter(([key]) => isStale(key)).map(([key, value]) => take(key, value));
  // Routes need the addresses and neighbours that stand before them; and go before these.
  return [...lines, ...stale.reverse()];
}

function put(key: string, value: string): string {
  const [object, ...rest] = key.split(' ');
  const target = rest.join(' ');
  switch (object) {
    case 'link':
      return `link set dev ${target} ${value}`;
    case 'address':
      return `address replace ${target}`;
    case 'neigh':
      return `neigh replace ${target} ${value} nud permanent protocol ${PROTOCOL}`;
    default:
      return `route replace ${target} ${value} proto ${PROTOCOL}`;
  }
}

function take(key: string, value: string): string {
  const [object, ...rest] = key.split(' ');
  const target = rest.join(' ');
  return object === 'route' ? `route del ${target} ${value} proto ${PROTOCOL}` : `${object} del ${target}`;
}

interface IpRoute {
  dst: string;
  gateway?: string;
  via?: { host: string };
  dev?: string;
  metric?: number;
  flags?: string[];
  /** Absent for the main table. */
  table?: string;
}

interface IpNeighbour {
  dst: string;
  dev: string;
  lladdr?: string;
}

interface IpLink {
  ifname: string;
  flags: string[];
  link_type: string;
  address?: string;
  addr_info?: { local?: string; prefixlen?: number }[];
}

/** IPv6 gives routes without a metric this one (IP6_RT_PRIO_USER). */
const DEFAULT_METRIC_IPV6 = 1024;

/** What is there now and is ours: of the devices in `overlays`, and all that carries our protocol number. One process tells all. */
export async function readTable(host: Host, overlays: PerFamily<Overlay>): Promise<Map<string, string>> {
  const devices = FAMILIES.flatMap((family) => overlays[family]?.device ?? []);
  const [routes, neighbours, ...links] = await host.iproute.query([
    // Of all tables, since else it would be IPv4 only.
    `route show table all proto ${PROTOCOL}`,
    `neigh show nud permanent proto ${PROTOCOL}`,
    ...devices.map((device) => `address show dev ${device}`),
  ]);
  const table = new Map<string, string>();
  for (const link of links) {
    // A device that is not there has no addresses.
    if (!(link instanceof CommandFailed)) addLink(table, link[0] as unknown as IpLink, overlays);
  }
  for (const { dst, dev, lladdr } of rows<IpNeighbour>(neighbours))
    table.set(`neigh ${dst} dev ${dev}`, `lladdr ${lladdr}`);
  for (const route of rows<IpRoute>(routes)) addRoute(table, route);
  return table;
}

function rows<T>(answer: unknown[] | CommandFailed): T[] {
  if (answer instanceof CommandFailed) throw answer;
  return answer as T[];
}

function addLink(table: Map<string, string>, link: IpLink, overlays: PerFamily<Overlay>): void {
  const state = link.flags.includes('UP') ? 'up' : 'down';
  table.set(`link ${link.ifname}`, link.link_type === 'ether' ? `${state} address ${link.address}` : state);
  for (const { local, prefixlen } of link.addr_info ?? []) {
    const isOurs = FAMILIES.some((family) => {
      const overlay = overlays[family];
      // An address that somebody gave the device for another purpose is not.
      return overlay?.device === link.ifname && isIn(overlay.network, `${local}/${prefixlen}`);
    });
    if (isOurs) table.set(`address ${local}/${prefixlen} dev ${link.ifname}`, '');
  }
}

/** Whether the address of `cidr` lies in the network. */
function isIn(network: string, cidr: string): boolean {
  const address = parsePrefix(cidr.replace(/\/.*/, cidr.includes(':') ? '/128' : '/32'));
  return address !== undefined && contains(parsePrefix(network) as Prefix, address);
}

function addRoute(table: Map<string, string>, route: IpRoute): void {
  const { dst, gateway, via, dev, metric = 0, flags = [], table: where } = route;
  const usual = dst.includes(':') ? DEFAULT_METRIC_IPV6 : 0;
  const place = `${metric === usual ? '' : ` metric ${metric}`}${where === undefined ? '' : ` table ${where}`}`;
  const to = gateway ?? via?.host;
  const onlink = flags.includes('onlink') ? ' onlink' : '';
  table.set(`route ${dst}${place}`, `${to ? `via ${to} ` : ''}dev ${dev}${onlink}`);
}
