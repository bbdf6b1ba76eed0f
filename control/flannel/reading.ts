import { contains, formatPrefix, parsePrefix } from '../../wire/prefix.ts';
import { WrongValue } from '../fields.ts';
import type { FaultKind } from './faults.ts';
import { hostAddressOf, isMap, unicastMac } from './keys.ts';
import { type Endpoint, FAMILIES, type Family, type Lease, type PerFamily, type Share } from './lease.ts';
import type { NetConf } from './net-conf.ts';

/** What a source says of one node, as it stands there. */
export interface Claim {
  readonly backendType: unknown;
  /** null: nothing is said of this IP version. */
  readonly ipv4: ShareClaim | null;
  readonly ipv6: ShareClaim | null;
}

export interface ShareClaim {
  readonly subnet: string | null;
  readonly publicIp: unknown;
  /** BackendData: an object, parsed. */
  readonly data: unknown;
}

/** A lease that is right by itself, or why it is not: `message` continues a sentence that begins with the node. */
export type Reading = { readonly lease: Lease } | Fault;

export interface Fault {
  readonly kind: FaultKind;
  readonly message: string;
}

/** Checks what is said of a node against the cluster's configuration; whether other nodes agree is for Peers to see. */
export function readClaim(node: string, claim: Claim, conf: NetConf): Reading {
  const { type } = conf.backend;
  if (claim.backendType !== type) {
    return { kind: 'backend_type', message: `has the backend ${show(claim.backendType)}, the cluster ${type}` };
  }
  const shares: { ipv4: Share | null; ipv6: Share | null } = { ipv4: null, ipv6: null };
  for (const family of FAMILIES) {
    const said = claim[family];
    if (said === null || conf[family] === null) continue;
    const read = readShare(said, family, conf, conf[family].network);
    if ('kind' in read) return read;
    shares[family] = read;
  }
  if (shares.ipv4 === null && shares.ipv6 === null) {
    const enabled = FAMILIES.filter((family) => conf[family] !== null).map((family) =>
      family === 'ipv4' ? 'IPv4' : 'IPv6',
    );
    return { kind: 'lease', message: `has no subnet of ${enabled.join(' or ')}` };
  }
  return { lease: { node, ...shares } };
}

/**
 * BackendData for a VTEP, byte by byte as flannel writes it: it cuts the MAC address out of the text of its annotation. flannel's field is
 * 16 bits wide (pkg/backend/vxlan: vxlanLeaseAttrs), so that is all that is written of a VNI; a larger one would not parse there.
 */
export function backendData({ vtepMac }: Endpoint, conf: NetConf): { VNI: number; VtepMAC: string } | null {
  if (conf.backend.type !== 'vxlan' || vtepMac === null) return null;
  return { VNI: conf.backend.vni & 0xffff, VtepMAC: vtepMac };
}

/** The MAC address in backend data that was written before; null where there is none that is right. */
export function vtepMacOf(data: unknown): string | null {
  try {
    return isMap(data) ? unicastMac(data.VtepMAC) : null;
  } catch {
    return null;
  }
}

/** What a registration of this node and its subnets make of it. */
export function ownLease(node: string, own: PerFamily<Endpoint>, subnets: PerFamily<string>): Lease {
  const share = (family: Family): Share | null => {
    const [endpoint, subnet] = [own[family], subnets[family]];
    return endpoint && subnet !== null ? { ...endpoint, subnet } : null;
  };
  return { node, ipv4: share('ipv4'), ipv6: share('ipv6') };
}

function readShare(
  { subnet, publicIp, data }: ShareClaim,
  family: Family,
  conf: NetConf,
  network: string,
): Share | Fault {
  const version = family === 'ipv4' ? 4 : 6;
  const prefix = subnet === null ? undefined : parsePrefix(subnet);
  if (prefix?.family !== version) return { kind: 'lease', message: `has ${show(subnet)} for its IPv${version} subnet` };
  if (!contains(parsePrefix(network)!, prefix)) {
    return {
      kind: 'subnet_outside',
      message: `has the subnet ${formatPrefix(prefix)}, outside the network ${network}`,
    };
  }
  try {
    const address = hostAddressOf(version)(publicIp);
    const vtepMac = conf.backend.type === 'vxlan' ? readVtep(data, conf.backend.vni) : null;
    if (vtepMac !== null && typeof vtepMac !== 'string') return vtepMac;
    return { subnet: formatPrefix(prefix), publicIp: address, vtepMac };
  } catch (error) {
    if (!(error instanceof WrongValue)) throw error;
    return { kind: 'lease', message: `says ${error.message}` };
  }
}

function readVtep(data: unknown, vni: number): string | Fault {
  if (!isMap(data)) return { kind: 'lease', message: `has ${show(data)} for its backend data` };
  // Before 0.14 flannel wrote no VNI.
  if (data.VNI !== undefined && data.VNI !== vni && data.VNI !== (vni & 0xffff)) {
    return { kind: 'vni', message: `has the VNI ${show(data.VNI)}, the cluster ${vni}` };
  }
  return unicastMac(data.VtepMAC);
}

/** A foreign value for a message: on one line, and not longer than a line. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 80 ? `${text.slice(0, 80)}...` : text;
}
