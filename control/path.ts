import { isIPv4 } from 'node:net';
import { type Address, type Link, neighbourKey, type Route, type RouteQuery, type Snapshot } from './host.ts';
import { CommandFailed } from './iproute.ts';
import { validMac } from './neighbour-event.ts';

/** How a packet to a VTEP leaves this machine, as the kernel would send it. Pure: the host's state is passed in. */

/** Where packets are to go. */
export interface Target {
  /** The remote VTEP, or a multicast group. */
  remote: string;
  /** Source address; undefined: the one that the route gives. */
  local?: string | undefined;
  /** The NIC that they have to leave through; undefined: the route decides. */
  dev?: string | undefined;
  /** The host's stack sends them, and asks neighbours itself: only what keeps it from doing so is looked for. */
  viaHost?: boolean | undefined;
  /** What is wrong when the remote turns out to be this machine; undefined: nothing, the host's stack brings packets back in. */
  ifLocal?: LocalTrouble | undefined;
}

export interface LocalTrouble {
  reason: string;
  /** Nothing may be sent, whoever may be listening. */
  isDropped: boolean;
}

/** How they get there. */
export interface Path {
  dev: string;
  ifindex: number;
  sourceMac: string;
  destinationMac: string;
  source: string;
  destination: string;
  gateway: string | undefined;
  /** Largest outer IP packet, in bytes. */
  mtu: number;
}

/** The neighbour whose MAC address a path needs. */
export interface PathNeighbour {
  dev: string;
  address: string;
}

/**
 * What was found: a path; or all but the destination MAC, which the neighbour is being asked for (`waiting`); or neither. Then
 * `reason` says why, in words that continue "dropped: ...". Of a target that the host's stack sends to, or delivers to this machine: that
 * it can (`viaHost`), or why not.
 */
export type Lookup =
  | {
      path: Path;
      reason?: undefined;
      waiting?: undefined;
      neighbour?: PathNeighbour;
      viaHost?: undefined;
      isDropped?: undefined;
      missing?: undefined;
    }
  | {
      path?: undefined;
      reason?: undefined;
      waiting?: undefined;
      neighbour?: undefined;
      viaHost: true;
      isDropped?: undefined;
      missing?: undefined;
    }
  | {
      path?: undefined;
      reason: string;
      waiting?: Omit<Path, 'destinationMac'>;
      neighbour?: PathNeighbour;
      viaHost?: undefined;
      /** See LocalTrouble. */
      isDropped?: boolean;
      /** `explain` may know a better reason. */
      unexplained?: boolean;
      /** Nobody asks for this one: somebody has to add it. */
      missing?: PathNeighbour;
    };

/** The question to the routing table, the same that the kernel's vxlan asks. */
export function routeQuery({ remote, local, dev }: Target): RouteQuery {
  return { destination: remote, source: local, dev };
}

/** `route` is the answer to `routeQuery(target)`. */
export function findPath(target: Target, route: Route | CommandFailed, snapshot: Snapshot): Lookup {
  const { remote, local, dev, viaHost = false, ifLocal } = target;
  if (dev !== undefined) {
    const trouble = linkTrouble(dev, snapshot.links.get(dev), viaHost);
    if (trouble) return { reason: trouble };
  }
  if (route instanceof CommandFailed) {
    const unexplained = dev !== undefined || local !== undefined;
    return { reason: noRoute(`no route to ${remote}`, route), unexplained };
  }
  if (route.type === 'local') return ifLocal ?? { viaHost: true };
  if (route.type === 'broadcast') return { reason: `${remote} is a broadcast address on ${route.dev}` };
  if (dev !== undefined && route.dev !== dev) return { reason: otherLink(remote, route.dev, dev) };
  const link = snapshot.links.get(route.dev);
  const trouble = linkTrouble(route.dev, link, viaHost);
  if (trouble) return { reason: trouble };
  if (viaHost && (route.type === 'multicast' || link!.mac === undefined || link!.noarp)) return { viaHost };
  const source = local ?? route.source;
  if (source === undefined)
    return { reason: `no source address for ${remote} on ${route.dev}: give the device a local one` };
  const waiting = {
    dev: route.dev,
    ifindex: link!.ifindex,
    sourceMac: link!.mac!,
    source,
    destination: remote,
    gateway: route.gateway,
    mtu: Math.min(route.mtu ?? link!.mtu, link!.mtu),
  };
  if (route.type === 'multicast' && !isIPv4(remote))
    return { reason: `${remote}: IPv6 multicast is not supported yet` };
  if (route.type === 'multicast') return { path: { ...waiting, destinationMac: multicastMac(remote) } };
  return askNeighbour(waiting, link!, snapshot, dev !== undefined);
}

function askNeighbour(
  waiting: Omit<Path, 'destinationMac'>,
  link: Link,
  snapshot: Snapshot,
  devGiven: boolean,
): Lookup {
  const { dev, gateway } = waiting;
  const neighbour = { dev, address: gateway ?? waiting.destination };
  const entry = snapshot.neighbours.get(neighbourKey(dev, neighbour.address));
  if (link.noarp && entry?.state !== 'PERMANENT') {
    const command = `ip neigh add ${neighbour.address} lladdr MAC dev ${dev} nud permanent`;
    const reason = `${dev} does no ARP and ${neighbour.address} has no permanent neighbour entry (${command})`;
    return { reason, missing: neighbour };
  }
  const destinationMac = validMac(entry);
  if (destinationMac !== undefined) return { path: { ...waiting, destinationMac }, neighbour };
  const who = gateway === undefined ? neighbour.address : `gateway ${gateway}`;
  if (entry?.state === 'FAILED') {
    const unexplained = devGiven && gateway === undefined;
    return { reason: `${who} does not answer ${asked(neighbour.address)} on ${dev}`, neighbour, unexplained };
  }
  return { reason: `waiting for ${who} to answer ${asked(neighbour.address)} on ${dev}`, waiting, neighbour };
}

/** What a neighbour is asked by (RFC 826; RFC 4861, section 7.2). */
function asked(address: string): string {
  return isIPv4(address) ? 'ARP' : 'neighbour solicitations';
}

/**
 * The better reason. Given a source and a NIC, the kernel says "no route" for several causes, and when no route leads there at
 * all takes the destination to be on the NIC's link. `plain` is the route to the remote whatever its source and NIC,
 * `addresses` are the machine's own.
 */
export function explain(
  target: Target,
  reason: string,
  plain: Route | CommandFailed,
  addresses: readonly Address[],
): string {
  const { remote, local, dev } = target;
  if (local !== undefined && !addresses.some(({ address }) => address === local))
    return `local address ${local} is not one of this machine's`;
  if (plain instanceof CommandFailed) return reason;
  if (dev !== undefined && plain.dev !== dev) return otherLink(remote, plain.dev, dev);
  return reason;
}

function linkTrouble(name: string, link: Link | undefined, viaHost: boolean): string | undefined {
  if (!link) return `there is no device ${name}`;
  if (!link.up) return `${name} is down`;
  if (link.mac === undefined && !viaHost)
    return `${name} has no link-layer addresses (type ${link.type}): take the udp uplink`;
  return undefined;
}

function otherLink(remote: string, actual: string, wanted: string): string {
  return `the route to ${remote} goes through ${actual}, not through ${wanted}`;
}

/** The two usual answers say nothing more than "no route"; others do (a blackhole is "Invalid argument"). */
function noRoute(text: string, { reason }: CommandFailed): string {
  return /Network is unreachable|No route to host/.test(reason) ? text : `${text} (${reason})`;
}

/** RFC 1112, 6.4: 01:00:5e and the low 23 bits of the group address. */
function multicastMac(group: string): string {
  const [, b, c, d] = group.split('.').map(Number);
  return ['01', '00', '5e', ...[b & 0x7f, c, d].map((byte) => byte.toString(16).padStart(2, '0'))].join(':');
}
