/** What becomes of a frame that is sent on a device: lookups in order, packets, origins of their fields, and the verdict. */
import { DROPS } from '../../dataplane/drops.ts';
import type { DryRun } from '../../dataplane/dry-run.ts';
import type { FdbAnswer } from '../../fdb/records.ts';
import { formatMac } from '../../wire/address.ts';
import type { VxlanDevice } from '../device.ts';
import type { Path } from '../path.ts';
import type { ExplainLookup, Explanation } from '../protocol.ts';
import { originsOf } from './origins.ts';

/** What the daemon's tables say of it. */
export interface Found {
  /** The multicast database's entry, in words. */
  readonly group: string | undefined;
  /** The FDB's, where the former has none. */
  readonly entry: FdbAnswer | undefined;
  /** Of the entry's next hops, in their order. */
  readonly hops: readonly {
    readonly ip: string;
    readonly port: number;
    readonly vni: number;
    readonly path: Path | undefined;
    readonly reason: string | undefined;
  }[];
}

/** `now`: in seconds of the same clock as FdbAnswer.updated. */
export function explanation(
  device: VxlanDevice,
  frame: Uint8Array,
  run: DryRun,
  { group, entry, hops }: Found,
  before: readonly ExplainLookup[],
  now: number,
): Explanation {
  const { name } = device;
  const mac = formatMac(frame);
  const lookups = [...before];
  const ask = (question: string, answer: string): void => void lookups.push({ question, answer });
  if (run.answered.length === 0) {
    if (group) ask(`MDB of ${name}: ${group}`, remotesText(hops) || 'no remote that gets it');
    else if (!entry?.isOwn) ask(`FDB of ${name}: ${mac}`, 'no entry');
    if (entry)
      ask(`FDB of ${name}: ${entry.isOwn ? mac : 'the default entry, 00:00:00:00:00:00'}`, entryText(entry, hops, now));
    else if (!group) ask(`FDB of ${name}: the default entry, 00:00:00:00:00:00`, 'no entry');
    for (const hop of hops) ask(`way to ${hop.ip}`, wayText(device, hop.path, hop.reason));
  }
  const [first] = hops;
  const text = group
    ? `the MDB entry ${group}`
    : entry
      ? `the FDB entry ${entry.mac}, ${entry.isLearned ? 'learned' : entry.state}`
      : '';
  const hasOwnPorts = device.config.srcport[0] !== device.config.srcport[1];
  return {
    dev: name,
    frame: hex(frame),
    lookups,
    packets: [...run.sent, ...run.viaHost].map(hex),
    answers: run.answered.map(hex),
    origins: first ? originsOf({ device, entry: text, remote: first, path: first.path, hasOwnPorts }) : {},
    verdict: verdictOf(device, run, hops),
  };
}

function entryText(entry: FdbAnswer, hops: Found['hops'], now: number): string {
  const how = entry.isLearned ? 'learned from that VTEP' : entry.state;
  return `${remotesText(hops)} (${how}, unchanged for ${Math.max(0, Math.round(now - entry.updated))} s)`;
}

function remotesText(hops: Found['hops']): string {
  const to = hops.map(({ ip, port, vni }) => `dst ${ip} port ${port} vni ${vni}`).join('; ');
  return hops.length > 1 ? `${hops.length} remotes, a copy to each: ${to}` : to;
}

function wayText({ uplink, place }: VxlanDevice, path: Path | undefined, reason: string | undefined): string {
  if (path) {
    const by = path.gateway === undefined ? '' : ` by the gateway ${path.gateway}`;
    return `on ${path.dev}${by}, to the MAC ${path.destinationMac}, packets of up to ${path.mtu} bytes`;
  }
  if (uplink.kind !== 'redirect')
    return `the host's stack finds it (uplink ${uplink.kind})${reason ? `: ${reason}` : ''}`;
  return `none on ${place.nic?.name}: ${reason ?? 'not looked up yet'}; the host's stack is asked to send it`;
}

function verdictOf(device: VxlanDevice, run: DryRun, hops: Found['hops']): string {
  if (run.answered.length > 0) return `not sent: ${device.name} answers it itself (proxy or neigh_suppress)`;
  if (run.viaHost.length > 0) {
    const unknown = hops.filter(({ path }) => path === undefined);
    const why =
      unknown.length > 0
        ? `the MAC for ${unknown.map(({ ip }) => ip).join(', ')} is not known, and stands as zeros here`
        : 'it does not fit the path, and is fragmented';
    return `left to the host's stack, which writes outer headers with a source port, identification and MACs of its own: ${why}; as a packet of the redirect uplink to ${run.sent.length} of ${hops.length}`;
  }
  if (run.drop === '')
    return `sent as ${run.sent.length} packet${run.sent.length === 1 ? '' : 's'} to ${hops.map(({ ip }) => ip).join(', ')}`;
  const drop = DROPS.find(({ name }) => name === run.drop);
  return `dropped, ${run.drop}: ${drop?.meaning} ${drop?.advice}`;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
