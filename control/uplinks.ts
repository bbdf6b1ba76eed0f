/** Opens and closes uplinks, and chooses their kind: what `uplink auto` takes, and why. */
import { readFileSync } from 'node:fs';
import type { UplinkSpec } from '../dataplane/task.ts';
import { loadPackage } from '../dataplane/uplink/raw-port.ts';
import { type Capabilities, uplinkOffloads } from '../system/capabilities.ts';
import * as libc from '../system/libc.ts';
import { openUdpSocket } from '../system/socket.ts';
import { closeTap, createTap, type TapDevice, tapName } from '../system/tun.ts';
import { VNET_TUNNEL } from '../system/vnet.ts';
import { familyOf, parseIp } from '../wire/address.ts';
import { ETHER_HEADER, VLAN_TAG } from '../wire/ethernet.ts';
import type { OuterOptions } from './device-options.ts';
import type { UplinkChoice } from './fields.ts';
import type { Host, Link } from './host.ts';
import { type HostRules, judged, type Policy, policySentence, readRules, type Tunnel } from './policies.ts';
import { probeRedirect } from './probe.ts';
import { attachRedirect, detachRedirect, mendRedirect, type Redirect } from './redirect.ts';
import { steering } from './steering.ts';

export type UplinkKind = 'redirect' | 'udp' | 'raw';

export interface UplinkRequest extends OuterOptions {
  readonly choice: UplinkChoice;
  /** undefined: the route to each VTEP decides. */
  readonly nic: Link | undefined;
  /** Our VTEP address. */
  readonly local: string;
  readonly port: number;
  /** [0, 0]: the host's ip_local_port_range. */
  readonly sourcePorts: readonly [number, number];
  /** A multicast group to listen to on `nic`. */
  readonly group: string | null;
  /** Another uplink of ours has the address and port already, and both receive. */
  readonly shared: boolean;
  /** Addresses of the remote VTEPs, by which the host's policies are judged; none are known yet when not given. */
  readonly remotes?: readonly string[];
}

/** A request before it is known who else has the port. */
export type UplinkWish = Omit<UplinkRequest, 'shared'>;

export interface Uplink {
  readonly index: number;
  readonly kind: UplinkKind;
  readonly reason: string;
  readonly request: UplinkRequest;
  /** Rules of this host that would apply to the packets, had redirect not been asked for; none for other uplinks. */
  policies: readonly Policy[];
  /** What could not be inspected when the uplink was chosen: a sentence each. */
  readonly notes: readonly string[];
  /** Name of the uplink's TAP as it is now; undefined for udp, and when somebody has deleted it. */
  readonly tap: string | undefined;
  /** Number of the uplink's TAP; undefined for udp. */
  readonly tapIndex: number | undefined;
  /** The TCX link of redirect's program on the NIC's ingress; undefined where it has none. */
  readonly receiveLink?: number | undefined;
  /** What each worker gets. */
  readonly specs: readonly UplinkSpec[];
  /** Puts back what somebody has removed of the redirection's tc filters, and tells whether anything was; undefined without filters. */
  readonly mend?: (() => Promise<boolean>) | undefined;
  /** Leaves what arrives from now on to the host's stack; undefined where it has it anyway. */
  readonly detach?: (() => Promise<void>) | undefined;
  close(): Promise<void>;
}

/** Sending sockets of a udp uplink: as many source ports tell flows apart on the network. */
const SENDERS = 16;
/** The same for the few packets of a redirect uplink that have to go through the host's stack. */
const SENDERS_VIA_HOST = 1;
/** The raw uplink is one packet a call, each finished by us. */
const NO_OFFLOADS = { tunnelGso: false, uso: false, udpGso: false };
const PORT_TRIES = 200;
/** A frame of the NIC's MTU with two tags. */
const FRAMING = ETHER_HEADER + 2 * VLAN_TAG;
const ETHERNET_MTU = 1500;

/** What makes devices share an uplink. */
export function uplinkKey({ nic, remotes: _, ...wish }: UplinkWish): string {
  return JSON.stringify(Object.entries({ ...wish, nic: nic?.ifindex }).sort());
}

/**
 * Opens an uplink of the kind asked for; for `auto` the first that works here. Throws, and leaves nothing behind, when the port
 * is taken, or when the kind asked for does not work.
 */
export async function openUplink(
  host: Host,
  capabilities: Capabilities,
  index: number,
  workers: number,
  request: UplinkRequest,
  rules: () => Promise<HostRules>,
): Promise<Uplink> {
  const sockets: Sockets = { receivers: [], senders: [], dfSenders: [], groupReceivers: [] };
  try {
    const raw = request.choice === 'raw'; // it runs on the main thread alone
    openReceivers(sockets.receivers, capabilities, raw ? 1 : workers, request, await vrfOf(host, request.nic));
    openGroupReceiver(sockets.groupReceivers, capabilities, request);
    const { kind, reason, policies = [], notes = [] } = await choose(host, capabilities, request, rules);
    if (kind !== 'raw') openSenders(sockets, kind === 'udp' ? SENDERS : SENDERS_VIA_HOST, request);
    const common = { index, reason, policies, notes, request, sockets, capabilities };
    if (kind === 'udp') steering()?.sockets(sockets.receivers, familyOf(request.local));
    if (kind !== 'redirect') return socketUplink(kind, common);
    try {
      return await redirectUplink(host, common);
    } catch (error) {
      if (request.choice !== 'auto') throw error;
      openSenders(sockets, SENDERS - SENDERS_VIA_HOST, request);
      steering()?.sockets(sockets.receivers, familyOf(request.local));
      return socketUplink('udp', { ...common, reason: `redirect does not work here: ${(error as Error).message}` });
    }
  } catch (error) {
    closeSockets(sockets);
    throw error;
  }
}

interface Sockets {
  /** On the VXLAN port, one a worker: udp's receiving half; redirect's slow path, which also keeps the port ours. */
  readonly receivers: number[];
  readonly senders: number[];
  /** Where packets decide about DF: a twin of each sender, on the same port, for those that have it. */
  readonly dfSenders: number[];
  /** One that has joined the group, or none: of several on one address each would get a copy of every packet. */
  readonly groupReceivers: number[];
}

interface Common {
  readonly index: number;
  readonly reason: string;
  readonly policies: readonly Policy[];
  readonly notes: readonly string[];
  readonly request: UplinkRequest;
  readonly sockets: Sockets;
  readonly capabilities: Capabilities;
}

function openReceivers(
  receivers: number[],
  { gro }: Capabilities,
  workers: number,
  request: UplinkRequest,
  device: string | undefined,
): void {
  const { port, shared, zeroChecksum6 } = request;
  const address = parseIp(request.local)!;
  // Once without SO_REUSEPORT, so that a process that shares its own port does not share it with us.
  const common = { address, port, device, takesNoChecksum: zeroChecksum6 };
  if (!shared) libc.close(openUdpSocket(common));
  for (let i = 0; i < workers; i++) receivers.push(openUdpSocket({ ...common, reusePort: true, gro, tellsTos: true }));
}

function openGroupReceiver(receivers: number[], { gro }: Capabilities, request: UplinkRequest): void {
  const { group, port, nic, zeroChecksum6 } = request;
  if (group === null || nic === undefined) return;
  const common = { port, reusePort: true, gro, tellsTos: true, takesNoChecksum: zeroChecksum6, device: nic.name };
  receivers.push(openUdpSocket({ ...common, address: parseIp(group)!, joinOn: nic.ifindex }));
}

/** The VRF that a NIC belongs to: outside of it, its addresses are nobody's (Linux: vxlan_sock_add binds to it as well). */
async function vrfOf(host: Host, nic: Link | undefined): Promise<string | undefined> {
  const master = nic?.master === undefined ? undefined : await host.link(nic.master);
  return master?.kind === 'vrf' ? master.name : undefined;
}

/** Binds `count` more sockets to source ports of the range. */
function openSenders({ senders, dfSenders }: Sockets, count: number, request: UplinkRequest): void {
  const { local, sourcePorts, ttl, tos, df, flowLabel, udpChecksum, nic } = request;
  const [first, end] = sourcePortRange(sourcePorts);
  const address = parseIp(local)!;
  const tried = new Set<number>();
  let failure: unknown;
  for (let tries = 0; count > 0 && tried.size < end - first && tries < PORT_TRIES; tries++) {
    const port = first + Math.floor(Math.random() * (end - first));
    if (tried.has(port)) continue;
    tried.add(port);
    try {
      const common = {
        ...{ address, port, sendOnly: true, ttl, tos, flowLabel: flowLabel !== 0 },
        ...{ noChecksum: !udpChecksum, device: nic?.name, reusePort: df === 'inherit' },
      };
      senders.push(openUdpSocket({ ...common, dontFragment: df === 'set' }));
      if (df === 'inherit') dfSenders.push(openUdpSocket({ ...common, dontFragment: true }));
      count--;
    } catch (error) {
      failure = error; // taken by another process: the next one will do
    }
  }
  if (senders.length === 0) throw failure;
}

function closeSockets({ receivers, senders, dfSenders, groupReceivers }: Sockets): void {
  for (const fd of [...receivers, ...senders, ...dfSenders, ...groupReceivers]) libc.close(fd);
}

/** The source ports that a request stands for, the second exclusive. */
function sourcePortRange([low, high]: readonly [number, number]): [number, number] {
  if (low < high) return [low, high];
  const [first, last] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'latin1')
    .trim()
    .split(/\s+/)
    .map(Number);
  return [first, last];
}

export interface Choice {
  readonly kind: UplinkKind;
  readonly reason: string;
  readonly policies?: readonly Policy[];
  readonly notes?: readonly string[];
}

/** The kind that a request gets on this host, whose `rules` are read for it, and why. Throws when the kind asked for does not work. */
export async function choose(
  host: Host,
  capabilities: Capabilities,
  request: UplinkWish,
  rules: () => Promise<HostRules> = () => readRules(host),
): Promise<Choice> {
  const { choice, nic, port } = request;
  if (choice === 'udp') return { kind: 'udp', reason: 'asked for' };
  if (choice === 'raw') {
    loadPackage();
    return { kind: 'raw', reason: 'asked for; one packet a call, on the main thread' };
  }
  if (choice === 'auto' && !capabilities.uso && capabilities.udpGso) {
    return { kind: 'udp', reason: 'without USO (Linux 6.2) it is faster than redirect' };
  }
  const useless = nicObstacle(nic);
  // Both wait for the kernel and for processes most of the time.
  const [obstacle, found] = useless ? [useless] : await Promise.all([probeRedirect(host, capabilities), rules()]);
  if (obstacle === undefined) {
    const { policies, notes } = judged(found!, tunnelOf(request, request.remotes ?? []));
    if (choice === 'auto' && policies.length > 0) return { kind: 'udp', reason: policyReason(policies, port), notes };
    const reason = `${choice === 'auto' ? 'its probe passed' : 'asked for'}, ${means(capabilities)}`;
    return { kind: 'redirect', reason, policies, notes };
  }
  if (choice === 'redirect')
    throw new Error(`uplink redirect does not work here: ${obstacle}; use 'uplink udp' or 'auto'`);
  return { kind: 'udp', reason: `redirect does not work here: ${obstacle}` };
}

/** The tunnel that the policies of this host are asked about for an uplink that has a NIC. */
export function tunnelOf(request: UplinkWish, remotes: readonly string[]): Tunnel {
  const { nic, local, port, sourcePorts } = request;
  return { nic: nic!.name, vrf: nic!.master, local, port, sourcePorts: sourcePortRange(sourcePorts), remotes };
}

/** Why `auto` takes udp on a host with these policies. */
function policyReason(policies: readonly Policy[], port: number): string {
  const more = policies.length > 1 ? ` (and ${policies.length - 1} more)` : '';
  return `redirect would get past a policy of this host: ${policySentence(policies[0], port)}${more}`;
}

/** The warning for an uplink that was asked for in spite of a policy. */
export function policyWarning(policy: Policy, port: number): string {
  return `uplink redirect gets past a policy of this host: ${policySentence(policy, port)}; 'uplink auto' or 'udp' keeps to it`;
}

/** What of the kernel's makes the redirect uplink fast, and leave no traces. */
function means({ tunnelGso, tcx }: Capabilities): string {
  if (tunnelGso === tcx) return `${tcx ? 'with' : 'without'} tunnel GSO and TCX`;
  return tcx ? 'with TCX, without tunnel GSO' : 'with tunnel GSO, without TCX';
}

/** Why redirect cannot be used with a NIC, whatever the kernel offers. */
function nicObstacle(nic: Link | undefined): string | undefined {
  if (nic === undefined) return 'without dev, the route to each VTEP decides which NIC to use';
  return nic.type === 'ether' ? undefined : `${nic.name} is not an Ethernet device`;
}

/** An uplink whose packets the host's stack routes. */
function socketUplink(kind: 'udp' | 'raw', { index, reason, notes, request, sockets, capabilities }: Common): Uplink {
  const specs = sockets.receivers.map((receiver) => ({
    ...spec(index, request, kind === 'raw' ? NO_OFFLOADS : capabilities, sockets, receiver),
    kind,
    tap: -1,
  }));
  return {
    index,
    kind,
    reason,
    policies: [],
    notes,
    request,
    tap: undefined,
    tapIndex: undefined,
    specs,
    close: async () => closeSockets(sockets),
  };
}

async function redirectUplink(host: Host, common: Common): Promise<Uplink> {
  const { index, reason, policies, notes, request, sockets, capabilities } = common;
  const { local, port } = request;
  const nic = request.nic!;
  const tap: TapDevice = createTap('uvxup%d', sockets.receivers.length, VNET_TUNNEL, uplinkOffloads(capabilities));
  steering()?.uplink(tap, familyOf(local));
  const tapIndex = libc.ifIndex(tap.name);
  const options = { nic: nic.name, uplink: tap.name, local, port, tcx: capabilities.tcx };
  let redirect: Redirect;
  try {
    redirect = await attachRedirect(host, options);
  } catch (error) {
    closeTap(tap);
    throw error;
  }
  const mend = async () => {
    const links = await host.links();
    const nicName = links.find(({ ifindex }) => ifindex === nic.ifindex)?.name; // it may have another one by now
    const mended = nicName && (await mendRedirect(host, redirect, { ...options, nic: nicName }));
    if (mended) redirect = mended;
    return Boolean(mended);
  };
  const specs = sockets.receivers.map((receiver, worker) => ({
    ...spec(index, request, capabilities, sockets, receiver),
    kind: 'redirect' as const,
    tap: tap.queues[worker],
  }));
  return {
    index,
    kind: 'redirect',
    reason,
    policies,
    notes,
    request,
    get tap() {
      return tapName(tap);
    },
    tapIndex,
    receiveLink: 'links' in redirect ? redirect.links[1] : undefined,
    specs,
    mend: capabilities.tcx ? undefined : mend,
    detach: () => detachRedirect(host, redirect),
    async close() {
      try {
        await detachRedirect(host, redirect);
      } finally {
        closeTap(tap);
        closeSockets(sockets);
      }
    },
  };
}

function spec(
  index: number,
  { port, local, sourcePorts, nic, zeroChecksum6 }: UplinkRequest,
  { tunnelGso, uso, udpGso }: Pick<Capabilities, 'tunnelGso' | 'uso' | 'udpGso'>,
  { receivers, senders, dfSenders, groupReceivers }: Sockets,
  receiver: number,
): Omit<UplinkSpec, 'kind' | 'tap'> {
  return {
    index,
    offloads: { tunnelGso, udpGso: uso },
    socketGso: udpGso,
    port,
    family: familyOf(local),
    sourcePorts: sourcePortRange(sourcePorts),
    largestFrame: (nic?.mtu ?? ETHERNET_MTU) + FRAMING,
    receiver,
    senders,
    dfSenders,
    groupReceivers: receiver === receivers[0] ? groupReceivers : [],
    zeroChecksum6,
  };
}
