/** How a device of the daemon fares: what it cannot reach, what does not fit, what it has dropped. */
import { DROPS } from '../../dataplane/drops.ts';
import { familyOf } from '../../wire/address.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6 } from '../../wire/vxlan.ts';
import type { Host, Link } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import type { LinkRecord, StatsRecord } from '../protocol.ts';
import { Findings } from './finding.ts';
import { more } from './nic.ts';

const MOST_UNREACHABLE = 5;

export interface DeviceState {
  readonly link: LinkRecord;
  /** Its VTEP address. */
  readonly local: string;
  readonly stats: StatsRecord | undefined;
  /** VTEPs that it sends to. */
  readonly vteps: readonly string[];
  readonly nic: Link | undefined;
}

export async function lookAtDevice(host: Host, state: DeviceState): Promise<Findings> {
  const { link, stats } = state;
  const { ifname, flags, uvxlan } = link;
  const findings = new Findings(ifname);
  if (flags.includes('UP'))
    findings.ok('device', `${ifname} is up, VNI ${link.linkinfo.info_data.id}, MTU ${link.mtu}`);
  else findings.fail('device', `${ifname} is down`, `ip link set ${ifname} up`);
  findings.ok('uplink', `${uvxlan.uplink} (${uvxlan.reason})`);
  lookAtOffload(findings, uvxlan.offload);
  if (uvxlan.policies) {
    findings.warn(
      'uplink',
      `redirect gets past ${uvxlan.policies} rules of this host`,
      `uvxlan link set ${ifname} type vxlan uplink auto`,
    );
  }
  if (uvxlan.worker_restarts) {
    findings.warn(
      'workers',
      `failed and were started again: ${uvxlan.worker_restarts} times`,
      "report the error in the daemon's log",
    );
  }
  lookAtReach(findings, link);
  await lookAtMtu(findings, host, state);
  if (stats) lookAtDrops(findings, stats);
  return findings;
}

function lookAtOffload(findings: Findings, offload: LinkRecord['uvxlan']['offload']): void {
  if (!offload) return;
  for (const direction of ['send', 'receive'] as const) {
    const state = offload[direction];
    if (state === true) findings.ok('offload', `${direction}: known flows are carried in the kernel`);
    else
      findings.warn(
        'offload',
        `${direction}: nothing is carried in the kernel: ${state}`,
        'docs/offload.md says what it needs',
      );
  }
}

function lookAtReach(findings: Findings, { uvxlan: { nexthops, unresolved = [] } }: LinkRecord): void {
  const reasons = new Map(unresolved.map(({ dst, reason }) => [dst, reason]));
  for (const [dst, reason] of [...reasons].slice(0, MOST_UNREACHABLE)) {
    findings.fail('reach', `VTEP ${dst} cannot be reached: ${reason}`, `ip route get ${dst}; ip neigh show ${dst}`);
  }
  const rest = reasons.size - MOST_UNREACHABLE;
  if (rest > 0) findings.fail('reach', `and ${rest} more VTEPs`, 'uvxlan link show -j has them all');
  if (nexthops === 0)
    findings.warn('reach', 'no VTEP is known', 'uvxlan fdb append 00:00:00:00:00:00 dev DEV dst VTEP');
  else if (reasons.size === 0) findings.ok('reach', `nothing keeps packets from any of ${nexthops} next hops`);
}

/** What is larger than the NIC or the path takes is fragmented, which is slow, and lost where fragments are. */
async function lookAtMtu(findings: Findings, host: Host, { link, local, nic, vteps }: DeviceState): Promise<void> {
  const dev = link.linkinfo.info_data.link;
  // The outer Ethernet header is not counted, the inner one is.
  const overhead = familyOf(local) === 6 ? OUTER_LENGTH_IPV6 : OUTER_LENGTH_IPV4;
  const needed = link.mtu + overhead;
  const lower = (mtu: number) => `ip link set ${link.ifname} mtu ${mtu - overhead}`;
  if (nic && needed > nic.mtu) {
    findings.warn(
      'mtu',
      `${link.mtu} bytes and ${overhead} of headers do not fit the MTU of ${nic.name}, ${nic.mtu}: packets are fragmented`,
      `${lower(nic.mtu)}, or ip link set ${nic.name} mtu ${needed}`,
    );
    return;
  }
  const routes = await host.routes(vteps.map((destination) => ({ destination, source: local, dev })));
  const narrow = routes.flatMap((route, i) =>
    !(route instanceof CommandFailed) && route.mtu !== undefined && route.mtu < needed
      ? [{ vtep: vteps[i], mtu: route.mtu }]
      : [],
  );
  if (narrow.length === 0) {
    findings.ok(
      'mtu',
      `${link.mtu} bytes and ${overhead} of headers fit${nic ? ` the MTU of ${nic.name}, ${nic.mtu}` : ''}`,
    );
    return;
  }
  const least = Math.min(...narrow.map(({ mtu }) => mtu));
  findings.warn(
    'mtu',
    `the path to ${narrow[0].vtep}${more(narrow)} takes ${least} bytes: packets are fragmented`,
    lower(least),
  );
}

function lookAtDrops(findings: Findings, { tx, rx }: StatsRecord): void {
  const counts: Readonly<Record<string, number>> = { ...tx.drops, ...rx.drops };
  const dropped = DROPS.filter(({ name }) => counts[name] > 0);
  for (const { name, meaning, advice } of dropped)
    findings.warn('drops', `${name} ${counts[name]}: ${meaning}`, advice);
  if (dropped.length === 0) findings.ok('drops', `none, of ${tx.in} frames out and ${rx.in} packets in`);
}
