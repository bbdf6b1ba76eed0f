import { DEFAULT_PORT } from '../fields.ts';
import {
  addressOf,
  boolean,
  DocumentError,
  formatPath,
  integer,
  Keys,
  type Problem,
  prefixOfFamily,
  string,
} from './keys.ts';
import type { PerFamily } from './lease.ts';

/** flannel's network configuration, with defaults where net-conf.json has nothing. A family that is not enabled is null. */
export interface NetConf extends PerFamily<PodNetwork> {
  /** MASQUERADE and forwarding rules through nft instead of iptables. */
  readonly enableNFTables: boolean;
  readonly backend: Backend;
}

export interface PodNetwork {
  /** Network, IPv6Network: all pods' addresses. */
  readonly network: string;
  /** Prefix length of one node's subnet, and the first and last that a node may get, as addresses: only for etcd, see subnet-range.ts. */
  readonly subnetLen: number | null;
  readonly subnetMin: string | null;
  readonly subnetMax: string | null;
}

export type Backend = VxlanBackend | HostGwBackend | UdpBackend;

export interface VxlanBackend {
  readonly type: 'vxlan';
  readonly vni: number;
  /** UDP port, never 0. */
  readonly port: number;
  /** Of the device, bytes; null: the NIC's less the outer headers. */
  readonly mtu: number | null;
  readonly gbp: boolean;
  readonly learning: boolean;
  readonly directRouting: boolean;
}

export interface HostGwBackend {
  readonly type: 'host-gw';
}

export interface UdpBackend {
  readonly type: 'udp';
  /** UDP port, 8285 by default. */
  readonly port: number;
}

const DEFAULT_VNI = 1;
const DEFAULT_UDP_PORT = 8285;

export const NET_CONF_KEYS = [
  ...['Network', 'IPv6Network', 'EnableIPv4', 'EnableIPv6', 'EnableNFTables', 'SubnetLen', 'SubnetMin', 'SubnetMax'],
  ...['IPv6SubnetLen', 'IPv6SubnetMin', 'IPv6SubnetMax', 'Backend'],
];

/**
 * The text of net-conf.json. `where` it was found begins every message. Notes are for the log: keys that neither flannel nor uvxlan
 * knows, and are passed over as flannel does. Throws DocumentError with all mistakes at once.
 */
export function parseNetConf(text: string, where: string): { conf: NetConf; notes: string[] } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DocumentError([`${where}: is not JSON: ${(error as SyntaxError).message}`]);
  }
  const line = ({ path, message }: Problem) => `${where}: ${path.length > 0 ? `${formatPath(path)}: ` : ''}${message}`;
  const problems: Problem[] = [];
  const keys = new Keys(value, [], problems);
  const { conf, notes } = readNetConf(keys, 'udp');
  if (problems.length > 0) throw new DocumentError(problems.map(line));
  return { conf, notes: [...keys.unknown(NET_CONF_KEYS), ...notes].map(line) };
}

/**
 * Reads the keys of net-conf.json out of a map. What is wrong goes to the map's problems, and the configuration is then of no use.
 * `usualBackend` is the one without a key Backend: flannel's documentation says vxlan, its code takes udp (pkg/subnet/config.go).
 */
export function readNetConf(keys: Keys, usualBackend: 'udp' | 'vxlan'): { conf: NetConf; notes: Problem[] } {
  const ipv4 = (keys.take('EnableIPv4', boolean) ?? true) ? readNetwork(keys, '', 4) : null;
  const ipv6 = keys.take('EnableIPv6', boolean) ? readNetwork(keys, 'IPv6', 6) : null;
  if (ipv4 === null && ipv6 === null) keys.problem('EnableIPv4', 'and EnableIPv6 are both off');
  const enableNFTables = keys.take('EnableNFTables', boolean) ?? false;
  const { backend, notes } = keys.has('Backend') ? readBackend(keys.map('Backend')) : usual(keys, usualBackend);
  if (backend.type === 'udp' && ipv6 !== null) keys.problem('EnableIPv6', 'is on, but udp carries IPv4 only');
  return { conf: { ipv4, ipv6, enableNFTables, backend }, notes };
}

function readNetwork(keys: Keys, prefix: '' | 'IPv6', family: 4 | 6): PodNetwork {
  const key = `${prefix}Network`;
  if (!keys.has(key)) keys.problem(key, 'is missing');
  return {
    network: keys.take(key, prefixOfFamily(family)) ?? '',
    // 0, as in Go, is as good as not given.
    subnetLen: keys.take(`${prefix}SubnetLen`, integer(0, family === 4 ? 30 : 126)) || null,
    subnetMin: keys.take(`${prefix}SubnetMin`, addressOf(family)) ?? null,
    subnetMax: keys.take(`${prefix}SubnetMax`, addressOf(family)) ?? null,
  };
}

function usual(keys: Keys, type: 'udp' | 'vxlan'): { backend: Backend; notes: Problem[] } {
  const { backend } = readBackend(new Keys({ Type: type }, [], []));
  const message = 'is missing: taking udp, as flanneld does; give {"Type": "vxlan"}';
  return { backend, notes: type === 'udp' ? [{ path: keys.pathOf('Backend'), message }] : [] };
}

function readBackend(keys: Keys): { backend: Backend; notes: Problem[] } {
  if (!keys.has('Type')) keys.problem('Type', 'is missing: one of vxlan, host-gw, udp');
  const type = keys.take('Type', string);
  switch (type) {
    case 'vxlan': {
      const backend: VxlanBackend = {
        type,
        vni: keys.take('VNI', integer(0, 0xffffff)) ?? DEFAULT_VNI,
        port: keys.take('Port', integer(0, 65535)) || DEFAULT_PORT,
        mtu: keys.take('MTU', integer(0, 65521)) || null,
        gbp: keys.take('GBP', boolean) ?? false,
        learning: keys.take('Learning', boolean) ?? false,
        directRouting: keys.take('DirectRouting', boolean) ?? false,
      };
      return { backend, notes: keys.unknown(['Type', 'VNI', 'Port', 'MTU', 'GBP', 'Learning', 'DirectRouting']) };
    }
    case 'udp': {
      const port = keys.take('Port', integer(0, 65535)) || DEFAULT_UDP_PORT;
      return { backend: { type, port }, notes: keys.unknown(['Type', 'Port']) };
    }
    case 'host-gw':
      return { backend: { type }, notes: keys.unknown(['Type']) };
    default:
      if (type !== undefined) keys.problem('Type', `${JSON.stringify(type)} is not one of vxlan, host-gw, udp`);
      return { backend: { type: 'host-gw' }, notes: [] };
  }
}
