/**
 * subnet.env: where the CNI plugin, and this node's next start, read what flannel gave the node. The keys are flannel's (its
 * pkg/subnet: WriteSubnetFile); the order is that in which it writes them.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { formatIp, parseIp } from '../../wire/address.ts';
import { formatPrefix, parsePrefix } from '../../wire/prefix.ts';
import { FAMILIES, type PerFamily } from './lease.ts';

export interface SubnetEnv {
  /** The cluster's networks: `10.244.0.0/16`. */
  readonly network: PerFamily<string>;
  /** This node's share of them: `10.244.1.0/24`. The file has the first address of it instead, which the pods' bridge gets. */
  readonly subnet: PerFamily<string>;
  /** Bytes that fit on every path to a pod. */
  readonly mtu: number;
  /** Whether the agent masquerades what leaves the cluster; where it does not, the CNI plugin does. */
  readonly ipMasq: boolean;
}

const PREFIX = { ipv4: 'FLANNEL_', ipv6: 'FLANNEL_IPV6_' } as const;

export function formatSubnetEnv({ network, subnet, mtu, ipMasq }: SubnetEnv): string {
  const lines: string[] = [];
  for (const family of FAMILIES) {
    const [cluster, own] = [network[family], subnet[family]];
    if (cluster === null || own === null) continue;
    lines.push(`${PREFIX[family]}NETWORK=${cluster}`, `${PREFIX[family]}SUBNET=${firstAddress(own)}`);
  }
  return [...lines, `FLANNEL_MTU=${mtu}`, `FLANNEL_IPMASQ=${ipMasq}`, ''].join('\n');
}

/** Throws an Error that names the key when one is missing or wrong. */
export function parseSubnetEnv(text: string): SubnetEnv {
  const values = new Map(
    text
      .split('\n')
      .filter((line) => line.includes('='))
      .map((line) => [line.slice(0, line.indexOf('=')).trim(), line.slice(line.indexOf('=') + 1).trim()]),
  );
  const cidr = (key: string): string | null => {
    const value = values.get(key);
    if (value === undefined || value === '') return null;
    if (!parsePrefix(value)) throw new Error(`${key}=${value} is not an address with a prefix length`);
    return value;
  };
  const subnet = (key: string): string | null => {
    const value = cidr(key);
    return value === null ? null : networkOf(value);
  };
  const mtu = Number(values.get('FLANNEL_MTU'));
  if (!Number.isInteger(mtu) || mtu < 68)
    throw new Error(`FLANNEL_MTU=${values.get('FLANNEL_MTU') ?? ''} is not an MTU`);
  const env = {
    network: { ipv4: cidr('FLANNEL_NETWORK'), ipv6: cidr('FLANNEL_IPV6_NETWORK') },
    subnet: { ipv4: subnet('FLANNEL_SUBNET'), ipv6: subnet('FLANNEL_IPV6_SUBNET') },
    mtu,
    ipMasq: values.get('FLANNEL_IPMASQ') === 'true',
  };
  if (env.subnet.ipv4 === null && env.subnet.ipv6 === null) throw new Error('FLANNEL_SUBNET is missing');
  return env;
}

/** Throws an Error that names the file: ENOENT while no agent has been ready on this node. */
export function readSubnetEnv(path: string): SubnetEnv {
  try {
    return parseSubnetEnv(readFileSync(path, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'is not there: is uvxlan flannel running on this node, and ready?' : message;
    throw Object.assign(new Error(`${path}: ${reason}`), { code });
  }
}

/** Replaces a file with all of its new text at once, also for whoever reads it in this moment. */
export function replaceFile(path: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const next = join(dirname(path), `.${basename(path)}.${process.pid}`);
  try {
    writeFileSync(next, text, { mode });
    renameSync(next, path);
  } catch (error) {
    rmSync(next, { force: true });
    throw error;
  }
}

/** `10.244.1.0/24` to `10.244.1.1/24`. */
export function firstAddress(subnet: string): string {
  const [address, length] = subnet.split('/');
  const bytes = parseIp(address)!;
  bytes[bytes.length - 1]++;
  return `${formatIp(bytes)}/${length}`;
}

/** `10.244.1.1/24` to `10.244.1.0/24`. */
export function networkOf(cidr: string): string {
  return formatPrefix(parsePrefix(cidr)!);
}
