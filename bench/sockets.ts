/**
 * What TCP and UDP sockets of the runs get from the kernel. A new network namespace takes it from the machine's first one, whatever
 * ours has (tcp_sk_init, net/ipv4/tcp_ipv4.c): so it is read in a new one.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Pair } from './peers/peers.ts';

const SYSCTL = '/proc/sys/net/';
const CONGESTION = 'ipv4/tcp_congestion_control';
const NAMES = [CONGESTION, 'ipv4/tcp_rmem', 'ipv4/tcp_wmem', 'core/rmem_default'];
/** Of the machine: namespaces do not show it. */
const QDISC = 'core/default_qdisc';

/** "TCP bbr, buffers up to 33.6 MB (receive) and 4.2 MB (send); ...", with `congestion` in the place of the machine's. Needs root. */
export function socketsText(congestion?: string): string {
  const { stdout } = spawnSync('unshare', ['--net', 'grep', '-H', '', ...NAMES.map((name) => SYSCTL + name)], {
    encoding: 'utf8',
  });
  const found = new Map<string, string>();
  for (const [, name, value] of (stdout ?? '').matchAll(/^\/proc\/sys\/net\/(\S+?):(.*)$/gm)) found.set(name!, value!);
  if (congestion !== undefined) found.set(CONGESTION, congestion);
  return describe((name) => found.get(name) ?? read(name));
}

/** `value` gives a sysctl's by its path below net/; undefined where the kernel does not show it. */
export function describe(value: (name: string) => string | undefined): string {
  const [congestion, receive, send, udp] = NAMES.map((name) => value(name)?.trim());
  const qdisc = value(QDISC);
  return (
    `TCP ${congestion ?? 'unknown'}, buffers up to ${megabytes(receive)} (receive) and ${megabytes(send)} (send); ` +
    `UDP buffer ${megabytes(udp)}${qdisc ? `; default qdisc ${qdisc}` : ''}`
  );
}

/** Of a number of bytes, or of the last of several: the maximum, in tcp_rmem and tcp_wmem. */
function megabytes(value: string | undefined): string {
  return value === undefined ? 'unknown' : `${(Number(value.split(/\s+/).at(-1)) / 1e6).toFixed(1)} MB`;
}

function read(name: string): string | undefined {
  try {
    return readFileSync(SYSCTL + name, 'latin1').trim();
  } catch {
    return undefined;
  }
}

/** What this kernel has loaded. */
export function congestionControls(): string[] {
  return read('ipv4/tcp_available_congestion_control')?.split(' ') ?? [];
}

/** Throws unless `name` is one of `available`. */
export function checkCongestion(name: string, available = congestionControls()): void {
  if (available.includes(name)) return;
  throw new Error(
    `--congestion: this kernel has no "${name}"; it has ${available.join(', ')} (modprobe tcp_NAME loads what there is as a module)`,
  );
}

/**
 * Connections between the two ends take that congestion control, whoever opens them. By a route: in a namespace the kernel refuses
 * the sysctl for whatever is not in the machine's tcp_allowed_congestion_control.
 */
export function setCongestion({ left, right }: Pair, name: string): void {
  const ends = [left, right];
  for (const [i, { host, device }] of ends.entries()) {
    for (const address of ends[1 - i]!.addresses) host.ip(`route replace ${address} dev ${device} congctl ${name}`);
  }
}
