/** The NIC that carries the cluster's packets, and the addresses that other nodes reach this one at: chosen as flannel chooses (its pkg/ipmatch). */
import type { Address, Host, Link } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import { FAMILIES, type Family, type PerFamily } from './lease.ts';

export interface InterfaceWish {
  /** Names or addresses of NICs: the first that is there. */
  readonly iface: readonly string[];
  /** Well-formed regular expressions of an address, or else of a name: the first that a NIC matches. After `iface`. */
  readonly ifaceRegex: readonly string[];
  /** The NIC that the route to this address leads through; '' for the default route's. */
  readonly ifaceCanReach: string;
  /** Devices of the agent's own, which also have addresses. */
  readonly except: readonly string[];
}

export interface ExternalInterface {
  readonly nic: Link;
  /** The NIC's own address of each family that is asked for: the VTEP's. */
  readonly address: PerFamily<string>;
}

const INET = { ipv4: 'inet', ipv6: 'inet6' } as const;

/** Throws an Error that says what was looked for and what there is. */
export async function chooseInterface(
  host: Host,
  wish: InterfaceWish,
  families: readonly Family[],
): Promise<ExternalInterface> {
  const links = (await host.links()).filter(({ name }) => !wish.except.includes(name));
  const names = new Set(links.map(({ name }) => name));
  const addresses = (await host.addresses()).filter(({ dev, scope }) => names.has(dev) && scope === 'global');
  const chosen = await choose(host, wish, families, links, addresses);
  const nic = links.find(({ name }) => name === chosen.dev)!;
  const own = (family: Family): string | null => {
    if (!families.includes(family)) return null;
    const candidates = addresses.filter((each) => each.dev === nic.name && each.family === INET[family]);
    const found = candidates.find(({ address }) => chosen.addresses.has(address)) ?? candidates[0];
    if (found) return found.address;
    throw new Error(`${nic.name} has no ${family === 'ipv4' ? 'IPv4' : 'IPv6'} address of global scope: see 'ip addr'`);
  };
  return { nic, address: { ipv4: own('ipv4'), ipv6: own('ipv6') } };
}

/** A NIC, and the addresses of it that were meant. */
interface Choice {
  readonly dev: string;
  readonly addresses: ReadonlySet<string>;
}

async function choose(
  host: Host,
  { iface, ifaceRegex, ifaceCanReach }: InterfaceWish,
  families: readonly Family[],
  links: readonly Link[],
  addresses: readonly Address[],
): Promise<Choice> {
  for (const wanted of iface) {
    if (links.some(({ name }) => name === wanted)) return { dev: wanted, addresses: new Set() };
    const found = addresses.find(({ address }) => address === wanted);
    if (found) return { dev: found.dev, addresses: new Set([wanted]) };
  }
  for (const pattern of ifaceRegex) {
    const found = byPattern(pattern, families, links, addresses);
    if (found) return found;
  }
  if (iface.length + ifaceRegex.length > 0) {
    const asked = [...iface.map((word) => `--iface ${word}`), ...ifaceRegex.map((word) => `--iface-regex ${word}`)];
    const there = links.map(({ name }) =>
      [name, ...addresses.filter(({ dev }) => dev === name).map(({ address }) => address)].join(' '),
    );
    throw new Error(`no interface for ${asked.join(', ')}; there are: ${there.join(', ')}`);
  }
  if (ifaceCanReach !== '') {
    const route = await host.route({ destination: ifaceCanReach });
    if (route instanceof CommandFailed) throw new Error(`--iface-can-reach ${ifaceCanReach}: ${route.reason}`);
    return { dev: route.dev, addresses: new Set(route.source === undefined ? [] : [route.source]) };
  }
  return { dev: await defaultDevice(host, families), addresses: new Set() };
}

/** One address of each family has to match; where none does, the name. */
function byPattern(
  pattern: string,
  families: readonly Family[],
  links: readonly Link[],
  addresses: readonly Address[],
): Choice | undefined {
  const regex = new RegExp(pattern);
  for (const { name } of links) {
    const matching = families.map((family) =>
      addresses.find(({ dev, address, family: its }) => dev === name && its === INET[family] && regex.test(address)),
    );
    if (matching.every((each) => each !== undefined))
      return { dev: name, addresses: new Set(matching.map(({ address }) => address)) };
  }
  const named = links.find(({ name }) => regex.test(name));
  return named && { dev: named.name, addresses: new Set() };
}

async function defaultDevice(host: Host, families: readonly Family[]): Promise<string> {
  const devices = await Promise.all(
    families.map(async (family) => {
      const option = family === 'ipv4' ? '-4' : '-6';
      const routes = await host.iproute.json<{ dev?: string }[]>('ip', ['-j', option, 'route', 'show', 'default']);
      const dev = routes.find((route) => route.dev !== undefined)?.dev;
      if (dev === undefined) throw new Error(`there is no default route (ip ${option} route): give --iface NIC`);
      return dev;
    }),
  );
  if (new Set(devices).size > 1)
    throw new Error(`the default routes lead through different NICs, ${devices.join(' and ')}: give --iface NIC`);
  return devices[0];
}

/** The families that pods of the cluster use. */
export function familiesOf(networks: PerFamily<unknown>): Family[] {
  return FAMILIES.filter((family) => networks[family] !== null);
}
