// What a real-network test needs of the machine, for the `skip` option of node:test.

import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { addNamespace, removeNamespaces } from '../../cli/lab/namespace.ts';

export type Requirement =
  | 'kernel-vxlan'
  | 'tun'
  | 'iperf3'
  | 'tshark'
  | 'tcpdump'
  | 'ethtool'
  | 'iptables'
  | 'nft'
  | 'chromium'
  | 'cni'
  | 'etcd'
  | 'python3'
  | 'ovs-vswitchd';

/**
 * `{ skip: lacking('kernel-vxlan', 'iperf3') }`: false when the machine has it all, otherwise the reason for the skip.
 * Root and iproute2 are always needed.
 */
export function lacking(...requirements: readonly Requirement[]): string | false {
  if (process.geteuid!() !== 0) return 'needs root, to create network namespaces';
  if (!works('ip', '-V')) return 'needs iproute2';
  for (const requirement of requirements) {
    const reason = reasonWithout(requirement);
    if (reason) return reason;
  }
  return false;
}

function reasonWithout(requirement: Requirement): string | false {
  if (requirement === 'kernel-vxlan') return !kernelHasVxlan() && 'needs a kernel with vxlan devices';
  if (requirement === 'tun') return !writable('/dev/net/tun') && 'needs /dev/net/tun';
  if (requirement === 'cni') return !existsSync(`${CNI_PATH}/bridge`) && `needs CNI plugins in ${CNI_PATH}`;
  return !works(requirement, requirement === 'iptables' ? '-V' : '--version') && `needs ${requirement}`;
}

/** Where Debian's containernetworking-plugins are. */
export const CNI_PATH = '/usr/lib/cni';

let vxlan: boolean | undefined;

function kernelHasVxlan(): boolean {
  if (vxlan === undefined) {
    const name = addNamespace('probe');
    vxlan = works('ip', '-n', name, 'link', 'add', 'vxlan0', 'type', 'vxlan', 'id', '1', 'dstport', '8472');
    removeNamespaces([name]);
  }
  return vxlan;
}

function works(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { timeout: 30_000 }).status === 0;
}

function writable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
