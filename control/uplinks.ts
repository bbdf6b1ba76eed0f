/** Opens and closes uplinks, and chooses their kind: what `uplink auto` takes, and why. */
import { readFileSync } from 'node:fs';
import type { UplinkSpec } from '../dataplane/worker.ts';
import { type Capabilities, uplinkOffloads } from '../system/capabilities.ts';
import * as libc from '../system/libc.ts';
import { openUdpSocket } from '../system/socket.ts';
import { closeTap, createTap, type TapDevice } from '../system/tun.ts';
import { VNET_TUNNEL } from '../system/vnet.ts';
import { ETHER_HEADER, VLAN_TAG } from '../wire/ethernet.ts';
import type { UplinkChoice } from './fields.ts';
import type { Host, Link } from './host.ts';
import { probeRedirect } from './probe.ts';
import { attachRedirect, detachRedirect, type Redirect } from './traffic-control.ts';

export type UplinkKind = 'redirect' | 'udp';

export interface UplinkRequest {
  readonly index: number;
  readonly choice: UplinkChoice;
  readonly nic: Link;
  /** Our VTEP address. */
  readonly local: string;
  readonly port: number;
  /** [0, 0]: the host's ip_local_port_range. */
  readonly sourcePorts: readonly [number, number];
  readonly ttl: number;
  readonly udpChecksum: boolean;
  readonly workers: number;
}

export interface Uplink {
  readonly kind: UplinkKind;
  readonly reason: string;
  /** Name of the uplink's TAP; undefined for udp. */
  readonly tap: string | undefined;
  /** What each worker gets. */
  readonly specs: readonly UplinkSpec[];
  close(): Promise<void>;
}

/** Sending sockets of a udp uplink: as many source ports tell flows apart on the network. */
const SENDERS = 16;
const PORT_TRIES = 200;
/** A frame of the NIC's MTU with two tags. */
const FRAMING = ETHER_HEADER + 2 * VLAN_TAG;

/** The source ports that a request stands for, the second exclusive.. */
export function sourcePortRange([low, high]: readonly [number, number]): [number, number] {
  if (low < high) return [low, high];
  const [first, last] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'latin1')
    .trim()
    .split(/\s+/)
    .map(Number);
  return [first, last];
}

/**
 * Opens an uplink of the kind asked for; for `auto` the first that works here. Throws, and leaves nothing behind, when the port
 * is taken, or when the kind asked for does not work.
 */
export async function openUplink(host: Host, capabilities: Capabilities, request: UplinkRequest): Promise<Uplink> {
  const receivers: number[] = [];
  try {
    openReceivers(receivers, capabilities, request);
    const { kind, reason } = await choose(host, capabilities, request);
    if (kind === 'udp') return openUdp(receivers, capabilities, request, reason);
    try {
      return await openRedirect(host, receivers, capabilities, request, reason);
    } catch (error) {
      if (request.choice !== 'auto') throw error;
      return openUdp(receivers, capabilities, request, `redirect does not work here: ${(error as Error).message}`);
    }
  } catch (error) {
    for (const fd of receivers) libc.close(fd);
    throw error;
  }
}

/** Sockets on the VXLAN port: udp's receiving half; redirect's slow path, which also keeps the port ours. */
function openReceivers(receivers: number[], capabilities: Capabilities, { local, port, workers }: UplinkRequest): void {
  // Once without SO_REUSEPORT, so that a process that shares its own port does not share it with us.
  libc.close(openUdpSocket({ address: local, port }));
  for (let i = 0; i < workers; i++) {
    receivers.push(openUdpSocket({ address: local, port, reusePort: true, gro: capabilities.gro }));
  }
}

async function choose(
  host: Host,
  capabilities: Capabilities,
  { choice, nic }: UplinkRequest,
): Promise<{ kind: UplinkKind; reason: string }> {
  if (choice === 'udp') return { kind: 'udp', reason: 'asked for' };
  const obstacle =
    nic.type === 'ether' ? await probeRedirect(host, capabilities) : `${nic.name} is not an Ethernet device`;
  if (obstacle === undefined) {
    const offload = capabilities.tunnelGso ? 'with tunnel GSO' : 'without tunnel GSO';
    return { kind: 'redirect', reason: choice === 'auto' ? `its probe passed, ${offload}` : `asked for, ${offload}` };
  }
  if (choice === 'redirect')
    throw new Error(`uplink redirect does not work here: ${obstacle}; use 'uplink udp' or 'auto'`);
  return { kind: 'udp', reason: `redirect does not work here: ${obstacle}` };
}

function openUdp(receivers: number[], capabilities: Capabilities, request: UplinkRequest, reason: string): Uplink {
  const senders = openSenders(request);
  const offloads = { tunnelGso: false, udpGso: capabilities.udpGso };
  const specs = receivers.map((receiver) => ({
    ...common(request),
    kind: 'udp' as const,
    offloads,
    receiver,
    senders,
  }));
  return {
    kind: 'udp',
    reason,
    tap: undefined,
    specs,
    async close() {
      for (const fd of [...receivers, ...senders]) libc.close(fd);
    },
  };
}

function openSenders({ local, sourcePorts, ttl, udpChecksum }: UplinkRequest): number[] {
  const [first, end] = sourcePortRange(sourcePorts);
  const senders: number[] = [];
  const tried = new Set<number>();
  let failure: unknown;
  for (let tries = 0; senders.length < SENDERS && tried.size < end - first && tries < PORT_TRIES; tries++) {
    const port = first + Math.floor(Math.random() * (end - first));
    if (tried.has(port)) continue;
    tried.add(port);
    try {
      senders.push(openUdpSocket({ address: local, port, ttl, noChecksum: !udpChecksum }));
    } catch (error) {
      failure = error; // taken by another process: the next one will do
    }
  }
  if (senders.length === 0) throw failure;
  return senders;
}

async function openRedirect(
  host: Host,
  receivers: number[],
  capabilities: Capabilities,
  request: UplinkRequest,
  reason: string,
): Promise<Uplink> {
  const { nic, local, port, workers } = request;
  const tap: TapDevice = createTap('uvxup%d', workers, VNET_TUNNEL, uplinkOffloads(capabilities));
  let redirect: Redirect;
  try {
    redirect = await attachRedirect(host, { nic: nic.name, uplink: tap.name, local, port });
  } catch (error) {
    closeTap(tap);
    throw error;
  }
  const offloads = { tunnelGso: capabilities.tunnelGso, udpGso: capabilities.uso };
  const specs = receivers.map((receiver, worker) => ({
    ...common(request),
    kind: 'redirect' as const,
    offloads,
    receiver,
    senders: [],
    tap: tap.queues[worker],
  }));
  return {
    kind: 'redirect',
    reason,
    tap: tap.name,
    specs,
    async close() {
      try {
        await detachRedirect(host, redirect);
      } finally {
        closeTap(tap);
        for (const fd of receivers) libc.close(fd);
      }
    },
  };
}

function common({ index, port, sourcePorts, nic }: UplinkRequest) {
  return { index, port, sourcePorts: sourcePortRange(sourcePorts), largestFrame: nic.mtu + FRAMING };
}
