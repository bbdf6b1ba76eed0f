import { createHash } from 'node:crypto';
import { LineCounter, parseDocument } from 'yaml';
import { formatMac } from '../../wire/address.ts';
import { FaultLog } from './faults.ts';
import {
  DocumentError,
  formatPath,
  hostAddressOf,
  type KeyPath,
  Keys,
  type Problem,
  prefixOfFamily,
  string,
  unicastMac,
} from './keys.ts';
import type { Lease } from './lease.ts';
import { NET_CONF_KEYS, type NetConf, readNetConf } from './net-conf.ts';
import { Peers } from './peers.ts';
import { type Reading, readClaim, type ShareClaim } from './reading.ts';

/** A cluster that is written down: its configuration and all its nodes, this one among them. */
export interface NodeList {
  readonly conf: NetConf;
  readonly leases: readonly Lease[];
}

const NODE_KEYS = ['name', 'subnet', 'public-ip', 'mac', 'ipv6-subnet', 'public-ipv6', 'ipv6-mac'];

/**
 * The text of a cluster's file: the keys of net-conf.json (in upper or lower case, as there), and `nodes`:
 *
 *     network: 10.244.0.0/16
 *     backend: { type: vxlan }
 *     nodes:
 *       - { name: node-1, public-ip: 192.0.2.1, subnet: 10.244.1.0/24 }
 *       - { name: node-2, public-ip: 192.0.2.2, subnet: 10.244.2.0/24, mac: "02:00:00:00:00:02" }
 *
 * A node without a MAC address has one that follows from its name. Throws DocumentError with all mistakes at once, each as
 * `FILE:LINE:COLUMN: KEY: what is wrong`.
 */
export function parseNodeList(text: string, file: string): NodeList {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${Math.max(line, 1)}:${Math.max(col, 1)}`;
  };
  if (document.errors.length > 0) {
    throw new DocumentError(document.errors.map(({ pos, message }) => `${place(pos[0])}: ${message}`));
  }
  const describe = ({ path, message }: Problem) => {
    const key = formatPath(path);
    return `${place(offsetOf(document, path))}: ${key === '' ? '' : `${key}: `}${message}`;
  };
  const problems: Problem[] = [];
  const keys = new Keys(document.toJS(), [], problems);
  const { conf, notes } = readNetConf(keys, 'vxlan');
  if (!keys.has('nodes')) keys.problem('nodes', 'is missing: a list of nodes');
  // Against a configuration that is wrong nothing can be checked.
  const leases = problems.length > 0 ? [] : readNodes(keys, conf, problems);
  problems.push(...keys.unknown([...NET_CONF_KEYS, 'nodes']), ...notes);
  if (problems.length > 0) throw new DocumentError(problems.map(describe));
  return { conf, leases };
}

/** Calico's rule (66 and the SHA-1 of the name, for IPv6 of the name and "-v6"): every node finds the same for each. */
export function macOfName(name: string): string {
  const digest = createHash('sha1').update(name).digest();
  return formatMac(Uint8Array.of(0x66, ...digest.subarray(0, 5)));
}

function readNodes(keys: Keys, conf: NetConf, problems: Problem[]): Lease[] {
  const leases: Lease[] = [];
  const complaints: string[] = [];
  const peers = new Peers(new FaultLog((line) => complaints.push(line)));
  for (const [path, node] of keys.list('nodes')) {
    const before = problems.length;
    const name = readName(node, leases);
    const reading = readNode(node, name, conf);
    problems.push(...node.unknown(NODE_KEYS));
    if (problems.length > before) continue;
    if ('kind' in reading) {
      problems.push({ path, message: reading.message });
      continue;
    }
    leases.push(reading.lease);
    peers.update(name, reading);
    for (const complaint of complaints.splice(0)) problems.push({ path, message: complaint.replace(/:[^:]*$/, '') });
  }
  return leases;
}

function readName(node: Keys, before: readonly Lease[]): string {
  const name = node.take('name', string);
  if (!node.has('name')) node.problem('name', 'is missing');
  if (before.some((lease) => lease.node === name))
    node.problem('name', `"${name}" is the name of another node as well`);
  return name ?? '';
}

function readNode(node: Keys, name: string, conf: NetConf): Reading {
  const share = (subnet: string, publicIp: string, mac: string, family: 4 | 6): ShareClaim | null => {
    if (![subnet, publicIp, mac].some((key) => node.has(key))) return null;
    for (const key of [subnet, publicIp]) if (!node.has(key)) node.problem(key, 'is missing');
    return {
      subnet: node.take(subnet, prefixOfFamily(family)) ?? null,
      publicIp: node.take(publicIp, hostAddressOf(family)),
      data: { VtepMAC: node.take(mac, unicastMac) ?? macOfName(family === 4 ? name : `${name}-v6`) },
    };
  };
  const ipv4 = share('subnet', 'public-ip', 'mac', 4);
  const ipv6 = share('ipv6-subnet', 'public-ipv6', 'ipv6-mac', 6);
  return readClaim(name, { backendType: conf.backend.type, ipv4, ipv6 }, conf);
}

/** Where a key or item stands, or the nearest thing around it that is there. */
function offsetOf(document: ReturnType<typeof parseDocument>, path: KeyPath): number {
  for (let length = path.length; length > 0; length--) {
    const node = document.getIn(path.slice(0, length), true) as { range?: [number, number, number] } | undefined;
    if (node?.range) return node.range[0];
  }
  return 0;
}
