/** `uvxlan doctor`: looks at the machine, at the NICs and ports that tunnels use, and at the daemon's devices. Changes nothing. */
import type { Capabilities } from '../system/capabilities.ts';
import { familyOf } from '../wire/address.ts';
import { outerOptions } from './device-options.ts';
import { lookAtDevice } from './doctor/device.ts';
import { type Finding, Findings } from './doctor/finding.ts';
import { lookAtMachine } from './doctor/machine.ts';
import { lookAtNic } from './doctor/nic.ts';
import { lookAtPort } from './doctor/port.ts';
import type { Host, Link } from './host.ts';
import { findPolicies, policySentence } from './policies.ts';
import type { FdbRecord, LinkRecord, StatsRecord } from './protocol.ts';
import { choose, tunnelOf, type UplinkWish } from './uplinks.ts';
import { completeDevice } from './words.ts';

/** What the daemon of this namespace says of itself. */
export interface DaemonView {
  readonly links: readonly LinkRecord[];
  readonly stats: readonly StatsRecord[];
  readonly fdb: readonly FdbRecord[];
}

export interface Question {
  /** undefined: no daemon answers here. */
  readonly daemon: DaemonView | undefined;
  /** A tunnel that there might be. Undefined: the daemon's own, or where there is none, one on the NIC of the default route. */
  readonly tunnel?:
    | { readonly dev?: string | undefined; readonly local?: string | undefined; readonly port: number }
    | undefined;
}

/** A tunnel, and the device that it belongs to if there is one. */
interface Tunnel {
  readonly nic: Link | undefined;
  readonly local: string;
  readonly port: number;
  readonly vteps: readonly string[];
  readonly link?: LinkRecord;
}

/** All that was found, in the order in which it is best read. Nothing on the machine is changed. */
export async function examine(host: Host, question: Question): Promise<Finding[]> {
  const { findings, capabilities } = lookAtMachine();
  const list = [...findings.list];
  const { daemon, tunnel } = question;
  const ports = new Set(daemon?.links.map(({ linkinfo }) => linkinfo.info_data.port));
  let tunnels: Tunnel[];
  try {
    tunnels =
      daemon && daemon.links.length > 0 && !tunnel ? await ownTunnels(host, daemon) : [await imagined(host, tunnel)];
  } catch (error) {
    const lost = new Findings();
    lost.fail('nic', (error as Error).message, "see 'ip addr', and name one: uvxlan doctor dev NIC local ADDRESS");
    return [...list, ...lost.list];
  }
  const nics = new Map(tunnels.flatMap(({ nic }) => (nic ? [[nic.name, nic] as const] : [])));
  for (const nic of nics.values()) {
    const vteps = tunnels.filter((each) => each.nic?.name === nic.name).flatMap((each) => each.vteps);
    list.push(...(await lookAtNic(host, nic, [...new Set(vteps)])).list);
  }
  for (const each of tunnels) {
    const { link, local, port, nic } = each;
    const found = new Findings(link?.ifname ?? nic?.name ?? null);
    await lookAtPort(found, host, local, port, ports.has(port));
    await lookAtPolicies(found, host, each);
    if (!link && capabilities) await lookAtChoice(found, host, capabilities, each);
    list.push(...found.list);
    if (!link) continue;
    const stats = daemon?.stats.find(({ ifname }) => ifname === link.ifname);
    list.push(...(await lookAtDevice(host, { ...each, link, stats })).list);
  }
  return list;
}

async function ownTunnels(host: Host, { links, fdb }: DaemonView): Promise<Tunnel[]> {
  return Promise.all(
    links.map(async (link) => {
      const { local6, local = local6, link: dev, port } = link.linkinfo.info_data;
      const remotes = fdb.flatMap(({ ifname, dst }) => (ifname === link.ifname && dst ? [dst] : []));
      return {
        ...{ link, port, local: local!, vteps: [...new Set(remotes)] },
        nic: dev === undefined ? undefined : await host.link(dev),
      };
    }),
  );
}

/** Throws a sentence when there is no NIC or address for it. */
async function imagined(
  host: Host,
  { dev, local, port }: NonNullable<Question['tunnel']> = { port: 8472 },
): Promise<Tunnel> {
  const addresses = await host.addresses();
  const holder = local === undefined ? undefined : addresses.find(({ address }) => address === local);
  if (local !== undefined && !holder) throw new Error(`local ${local} is not an address of this host`);
  const name = dev ?? holder?.dev ?? (await defaultNic(host)) ?? addresses.find(({ scope }) => scope === 'global')?.dev;
  const nic = name === undefined ? undefined : await host.link(name);
  if (!nic) throw new Error(name === undefined ? 'no NIC here has an address' : `there is no device ${name}`);
  const address = local ?? addresses.find((each) => each.dev === name && each.scope === 'global')?.address;
  if (address === undefined) throw new Error(`${name} has no address that a VTEP could take`);
  return { nic, local: address, port, vteps: [] };
}

async function defaultNic(host: Host): Promise<string | undefined> {
  for (const family of ['-4', '-6']) {
    const [route] = await host.iproute.json<{ dev?: string }[]>('ip', [family, '-j', 'route', 'show', 'default']);
    if (route?.dev !== undefined) return route.dev;
  }
  return undefined;
}

function wishOf({ nic, local, port, vteps }: Tunnel): UplinkWish {
  const outer = outerOptions(completeDevice({}), familyOf(local));
  return { choice: 'auto', nic, local, port, sourcePorts: [0, 0], group: null, ...outer, remotes: vteps };
}

async function lookAtPolicies(findings: Findings, host: Host, tunnel: Tunnel): Promise<void> {
  const { nic, port, vteps } = tunnel;
  if (!nic) return; // it is the host's stack that sends, and keeps to them
  const { policies, notes } = await findPolicies(host, tunnelOf(wishOf(tunnel), vteps));
  const isPast = tunnel.link?.uvxlan.uplink === 'redirect';
  for (const policy of policies) {
    const sentence = policySentence(policy, port);
    const ends = policy.certain && (policy.effect === 'drop' || policy.effect === 'reject');
    if (isPast) findings.warn('policy', `${sentence}; redirect gets past it`, 'uplink auto or udp keeps to it');
    else if (ends)
      findings.fail('policy', `${sentence}: nothing gets through`, `allow UDP port ${port}, ${policy.direction}`);
    else findings.warn('policy', `${sentence}; auto takes udp, to keep to it`);
  }
  for (const note of notes) findings.warn('policy', note);
  if (policies.length + notes.length === 0)
    findings.ok('policy', `no firewall rule or IPsec policy is in the way of UDP ${port}`);
}

async function lookAtChoice(findings: Findings, host: Host, capabilities: Capabilities, tunnel: Tunnel): Promise<void> {
  const { kind, reason } = await choose(host, capabilities, wishOf(tunnel));
  const family = familyOf(tunnel.local);
  findings.ok('uplink', `auto takes ${kind} on ${tunnel.nic!.name} over IPv${family} (${reason})`);
}
