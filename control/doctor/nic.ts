/** What settings of a NIC, and of the host around it, do to a tunnel that leaves through it. */
import { readFileSync } from 'node:fs';
import type { Host, Link } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import { Findings } from './finding.ts';

/** A table that is this full soon refuses entries. */
const NEARLY_FULL = 0.8;

/** `vteps`: the addresses that the tunnel sends to, those that are known. */
export async function lookAtNic(host: Host, nic: Link, vteps: readonly string[]): Promise<Findings> {
  const findings = new Findings(nic.name);
  if (nic.up) findings.ok('link', `${nic.name} is up, MTU ${nic.mtu}`);
  else findings.fail('link', `${nic.name} is down`, `ip link set ${nic.name} up`);
  await lookAtOffloads(findings, host, nic);
  await lookAtReversePath(findings, host, nic, vteps);
  lookAtNeighbourTable(findings, vteps);
  return findings;
}

async function lookAtOffloads(findings: Findings, host: Host, nic: Link): Promise<void> {
  const features = await readFeatures(host, nic.name);
  if (features instanceof CommandFailed) {
    findings.warn('offload', `the settings of ${nic.name} are not to be seen: ${features.message}`);
    return;
  }
  judgeOffloads(findings, nic, features);
}

/** `features`: of ethtool -k, true where on. */
export function judgeOffloads(findings: Findings, nic: Link, features: ReadonlyMap<string, boolean>): void {
  const set = (feature: string) => `ethtool -K ${nic.name} ${feature}`;
  const off = (name: string) => features.get(name) === false;
  const before = findings.list.length;
  if (off('generic-receive-offload')) {
    findings.warn('offload', 'gro is off: every packet that comes in is handled alone', set('gro on'));
  }
  if (off('generic-segmentation-offload')) {
    findings.warn('offload', 'gso is off: super-frames are cut up early', set('gso on'));
  }
  if (features.get('large-receive-offload')) {
    findings.warn('offload', 'lro is on: it merges packets in a way that cannot be undone exactly', set('lro off'));
  }
  if (off('tx-checksumming')) {
    findings.warn(
      'offload',
      'tx is off: sockets cannot send runs of packets through it, and each checksum is computed here',
      `${set('tx on')}, unless a peer such as Open vSwitch's userspace datapath needs finished checksums`,
    );
  } else if (nic.kind === 'veth') {
    findings.ok(
      'offload',
      `${nic.name} is a veth with tx on: checksums stay unfinished on it, which uvxlan and the kernel's vxlan understand; for ` +
        `Open vSwitch's userspace datapath: ${set('tx off')}`,
    );
  }
  if (findings.list.length === before) findings.ok('offload', 'gro, gso and tx are on');
}

/** The features of ethtool -k by name. */
async function readFeatures(host: Host, name: string): Promise<ReadonlyMap<string, boolean> | CommandFailed> {
  try {
    const text = await host.iproute.run('ethtool', ['-k', name]);
    return new Map(
      [...text.matchAll(/^\s*([\w-]+): (on|off)/gm)].map(([, feature, value]) => [feature, value === 'on']),
    );
  } catch (error) {
    if (error instanceof CommandFailed) return error;
    throw error;
  }
}

/** Strict (RFC 3704): a packet is dropped unless the route back to its source leaves through the NIC that it came in on. */
async function lookAtReversePath(findings: Findings, host: Host, nic: Link, vteps: readonly string[]): Promise<void> {
  const value = Math.max(...['all', nic.name].map((name) => sysctl(`ipv4/conf/${name}/rp_filter`) ?? 0));
  if (value !== 1) {
    findings.ok('rp_filter', value === 0 ? 'off' : 'loose');
    return;
  }
  const ipv4 = vteps.filter((vtep) => !vtep.includes(':'));
  const routes = await host.routes(ipv4.map((destination) => ({ destination })));
  const elsewhere = routes.flatMap((route, i) =>
    route instanceof CommandFailed || route.dev === nic.name ? [] : [`${ipv4[i]} (${route.dev})`],
  );
  if (elsewhere.length === 0) {
    findings.ok('rp_filter', `strict${ipv4.length > 0 ? ', and the route back to each VTEP is this one' : ''}`);
    return;
  }
  findings.warn(
    'rp_filter',
    `strict, and the route back to ${elsewhere[0]}${more(elsewhere)} is another one: with uplink udp its packets are dropped`,
    `sysctl -w net.ipv4.conf.${nic.name}.rp_filter=2`,
  );
}

function lookAtNeighbourTable(findings: Findings, vteps: readonly string[]): void {
  for (const [family, directory] of [
    [4, 'ipv4'],
    [6, 'ipv6'],
  ] as const) {
    const limit = sysctl(`${directory}/neigh/default/gc_thresh3`);
    const wanted = vteps.filter((vtep) => vtep.includes(':') === (family === 6)).length;
    if (limit === undefined || wanted === 0) continue; // not to be seen in a namespace of some kernels
    if (wanted < NEARLY_FULL * limit)
      findings.ok('neighbours', `${wanted} VTEPs over IPv${family}, the table takes ${limit}`);
    else {
      findings.fail(
        'neighbours',
        `${wanted} VTEPs over IPv${family}, and the neighbour table takes ${limit} entries in all`,
        `sysctl -w net.${directory}.neigh.default.gc_thresh3=${4 * wanted}`,
      );
    }
  }
}

export function more(list: readonly unknown[]): string {
  return list.length > 1 ? ` and ${list.length - 1} more` : '';
}

function sysctl(path: string): number | undefined {
  try {
    return Number(readFileSync(`/proc/sys/net/${path}`, 'latin1'));
  } catch {
    return undefined;
  }
}
