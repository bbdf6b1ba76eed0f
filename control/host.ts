import { statSync } from 'node:fs';
import { CommandFailed, Iproute } from './iproute.ts';

/** This machine's links, routes and neighbours: what iproute2 says of one network namespace. */

export interface Link {
  name: string;
  ifindex: number;
  /** Link-layer type: `ether`, `loopback`, or `none` for a device without link-layer addresses (a TUN, say). */
  type: string;
  /** What kind of virtual device it is (`veth`, `bridge`, `tun`); undefined for a real NIC. Only where details were read. */
  kind: string | undefined;
  mac: string | undefined;
  /** Bytes of the IP packet. */
  mtu: number;
  up: boolean;
  /** Does not resolve neighbours. */
  noarp: boolean;
  /** The bridge, bond or VRF that it belongs to. */
  master: string | undefined;
  /** Largest super-frame in bytes; only where details were read. */
  gsoMaxSize: number | undefined;
  /** `ip link set DEV alias TEXT`. */
  alias: string | undefined;
}

export interface Address {
  address: string;
  family: 'inet' | 'inet6';
  scope: string;
  dev: string;
}

export interface RouteQuery {
  destination: string;
  source?: string | undefined;
  dev?: string | undefined;
}

export interface Route {
  type: 'unicast' | 'local' | 'broadcast' | 'multicast';
  dev: string;
  /** Undefined when the destination is on the link. */
  gateway: string | undefined;
  /** The source address that the kernel would take; undefined when the query named one. */
  source: string | undefined;
  /** Bytes; undefined when the device's own counts. A path MTU that the kernel has learned shows up here. */
  mtu: number | undefined;
}

export interface Neighbour {
  address: string;
  dev: string;
  mac: string | undefined;
  state: 'NONE' | 'INCOMPLETE' | 'REACHABLE' | 'STALE' | 'DELAY' | 'PROBE' | 'FAILED' | 'NOARP' | 'PERMANENT';
  /** The kernel keeps it fresh by itself (NTF_EXT_MANAGED, Linux 5.16). */
  managed: boolean;
  /** NTF_ROUTER. */
  isRouter: boolean;
  /** Another control plane's (NTF_EXT_LEARNED). */
  externallyLearned: boolean;
  /** Who set it, as in /etc/iproute2/rt_protos. */
  protocol: string | undefined;
}

/** What the kernel would do, at one moment. */
export interface Snapshot {
  links: Map<string, Link>;
  /** By `neighbourKey`. */
  neighbours: Map<string, Neighbour>;
  /** In the order of the queries. */
  routes: (Route | CommandFailed)[];
}

/** What has to be known of a NIC that packets are redirected to. */
export type NicLink = Pick<Link, 'name' | 'ifindex' | 'mac' | 'mtu'>;

export interface LinkSettings {
  mtu?: number;
  address?: string;
  gsoMaxSize?: number;
  alias?: string;
  arp?: boolean;
  multicast?: boolean;
  up?: boolean;
  /** false: IPv6 gives the link no address by itself, from before it is set up on. Nothing to do where the kernel has no IPv6. */
  ipv6Address?: false;
}

export class Host {
  readonly iproute: Iproute;

  /** `prefix` as in Iproute: none for the namespace of this process. */
  constructor(prefix: readonly string[] = []) {
    this.iproute = new Iproute(prefix);
  }

  /** One link with its details; undefined when there is none of that name. */
  async link(name: string): Promise<Link | undefined> {
    try {
      return toLink((await this.iproute.json<IpLink[]>('ip', ['-j', '-d', 'link', 'show', 'dev', name]))[0]);
    } catch (error) {
      if (error instanceof CommandFailed && /does not exist|Cannot find device/.test(error.reason)) return undefined;
      throw error;
    }
  }

  /** All links, without details. */
  async links(): Promise<Link[]> {
    return (await this.iproute.json<IpLink[]>('ip', ['-j', 'link', 'show'])).map(toLink);
  }

  async route(query: RouteQuery): Promise<Route | CommandFailed> {
    return (await this.routes([query]))[0];
  }

  /** Where packets go: one answer to a query, an error where the kernel has no route. */
  async routes(queries: readonly RouteQuery[]): Promise<(Route | CommandFailed)[]> {
    return (await this.iproute.query(queries.map(routeGet))).map(toRoute);
  }

  /** All neighbours, the NOARP ones included. */
  async neighbours(): Promise<Neighbour[]> {
    const [answer] = await this.iproute.query<IpNeighbour>(['neigh show nud all']);
    return toNeighbours(answer);
  }

  /** Links, neighbours and routes, read by one process within about a millisecond. */
  async snapshot(queries: readonly RouteQuery[]): Promise<Snapshot> {
    const lines = ['link show', 'neigh show nud all', ...queries.map(routeGet)];
    const [links, neighbours, ...routes] = await this.iproute.query(lines);
    if (links instanceof CommandFailed) throw links;
    return {
      links: new Map((links as unknown as IpLink[]).map(toLink).map((link) => [link.name, link])),
      neighbours: new Map(
        toNeighbours(neighbours as unknown as IpNeighbour[]).map((neighbour) => [
          neighbourKey(neighbour.dev, neighbour.address),
          neighbour,
        ]),
      ),
      routes: routes.map(toRoute),
    };
  }

  /** This machine's own addresses, in the order of `ip address show`. */
  async addresses(): Promise<Address[]> {
    const rows = await this.iproute.json<IpAddresses[]>('ip', ['-j', 'address', 'show']);
    return rows.flatMap(({ ifname, addr_info = [] }) =>
      addr_info.map(({ local, family, scope }) => ({ address: local, family, scope, dev: ifname })),
    );
  }

  /** Changes all of a link's settings in one process. */
  async setLink(name: string, settings: LinkSettings): Promise<void> {
    const { mtu, address, gsoMaxSize, alias, arp, multicast, up, ipv6Address } = settings;
    const args: string[] = [];
    if (mtu !== undefined) args.push('mtu', `${mtu}`);
    if (address !== undefined) args.push('address', address);
    if (gsoMaxSize !== undefined) args.push('gso_max_size', `${gsoMaxSize}`);
    if (alias !== undefined) args.push('alias', alias);
    if (arp !== undefined) args.push('arp', arp ? 'on' : 'off');
    if (multicast !== undefined) args.push('multicast', multicast ? 'on' : 'off');
    if (up !== undefined) args.push(up ? 'up' : 'down');
    const set = ['link', 'set', 'dev', name];
    if (ipv6Address === undefined) {
      if (args.length > 0) await this.iproute.run('ip', [...set, ...args]);
      return;
    }
    // Of one command the kernel would take `up` first (do_setlink, net/core/rtnetlink.c).
    const lines = [[...set, 'addrgenmode', 'none'].join(' '), [...set, ...args].join(' ')];
    const errors = await this.iproute.apply(lines);
    if (/not supported/.test(errors.get(0)?.reason ?? '')) errors.delete(0);
    const [error] = errors.values();
    if (error) throw error;
  }

  /** Inode number of the network namespace: its identity while it exists. */
  async namespaceInode(): Promise<number> {
    if (this.iproute.prefix.length === 0) return statSync('/proc/self/ns/net').ino;
    const text = await this.iproute.run('readlink', ['/proc/self/ns/net']); // net:[4026531840]
    return Number(text.match(/\d+/)![0]);
  }
}

/** Key of a neighbour in a Snapshot. */
export function neighbourKey(dev: string, address: string): string {
  return `${address} ${dev}`;
}

interface IpLink {
  ifname: string;
  ifindex: number;
  flags: string[];
  mtu: number;
  link_type: string;
  address?: string;
  master?: string;
  linkinfo?: { info_kind?: string };
  gso_max_size?: number;
  ifalias?: string;
}

interface IpAddresses {
  ifname: string;
  addr_info?: { local: string; family: Address['family']; scope: string }[];
}

interface IpRoute {
  type?: Route['type'];
  dev: string;
  gateway?: string;
  via?: { host: string };
  prefsrc?: string;
  metrics?: { mtu?: number }[];
}

interface IpNeighbour {
  dst: string;
  dev: string;
  lladdr?: string;
  state?: Neighbour['state'][];
  managed?: null;
  router?: null;
  extern_learn?: null;
  protocol?: string;
}

function routeGet({ destination, source, dev }: RouteQuery): string {
  return `route get ${destination}${source ? ` from ${source}` : ''}${dev ? ` oif ${dev}` : ''}`;
}

function toLink(row: IpLink): Link {
  return {
    name: row.ifname,
    ifindex: row.ifindex,
    type: row.link_type,
    kind: row.linkinfo?.info_kind,
    mac: row.link_type === 'ether' ? row.address : undefined,
    mtu: row.mtu,
    up: row.flags.includes('UP'),
    noarp: row.flags.includes('NOARP'),
    master: row.master,
    gsoMaxSize: row.gso_max_size,
    alias: row.ifalias,
  };
}

function toRoute(answer: unknown[] | CommandFailed): Route | CommandFailed {
  if (answer instanceof CommandFailed) return answer;
  const row = answer[0] as IpRoute;
  return {
    type: row.type ?? 'unicast',
    dev: row.dev,
    gateway: row.gateway ?? row.via?.host,
    source: row.prefsrc,
    mtu: row.metrics?.find((metric) => metric.mtu !== undefined)?.mtu,
  };
}

function toNeighbours(rows: IpNeighbour[] | CommandFailed): Neighbour[] {
  if (rows instanceof CommandFailed) throw rows;
  return rows.map((row) => ({
    address: row.dst,
    dev: row.dev,
    mac: row.lladdr,
    state: row.state?.[0] ?? 'NONE',
    managed: 'managed' in row,
    isRouter: 'router' in row,
    externallyLearned: 'extern_learn' in row,
    protocol: row.protocol,
  }));
}
