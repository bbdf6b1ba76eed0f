/**
 * What a flannel cluster knows of its nodes, whatever engine it keeps that in. Addresses, prefixes and MAC addresses are canonical text
 * (RFC 5952 for IPv6, lower case for MAC addresses), prefixes without host bits.
 */

/** One value for each IP version that pods use; null where the cluster, or the node, does without. */
export interface PerFamily<T> {
  readonly ipv4: T | null;
  readonly ipv6: T | null;
}

/** `ipv4` and `ipv6`: in loops over both. */
export const FAMILIES = ['ipv4', 'ipv6'] as const;
export type Family = (typeof FAMILIES)[number];

/** Where a node takes encapsulated packets for its pods of one IP version. */
export interface Endpoint {
  /** Address of the node on the underlay; flannel takes one of the pods' own IP version. */
  readonly publicIp: string;
  /** MAC address of the node's `flannel.<VNI>` (IPv6: `flannel-v6.<VNI>`); null with backends that have no such device. */
  readonly vtepMac: string | null;
}

/** A node's share of the cluster's network. */
export interface Share extends Endpoint {
  /** Its pods' addresses: `10.244.1.0/24`. */
  readonly subnet: string;
}

/**
 * A node that is part of the cluster, with the cluster's own backend type and VNI: whatever has others is refused before it becomes a
 * lease. No two leases have a subnet in common. They may have a MAC address in common, but then also the public IP: one node that
 * has two subnets while it changes from one to the other.
 */
export interface Lease extends PerFamily<Share> {
  /** What the source knows the node by: the name of a Kubernetes node or of a node in the file, the last part of the key in etcd. */
  readonly node: string;
}

export function sameLease(one: Lease, other: Lease): boolean {
  return one.node === other.node && FAMILIES.every((family) => sameShare(one[family], other[family]));
}

function sameShare(one: Share | null, other: Share | null): boolean {
  if (one === null || other === null) return one === other;
  return one.subnet === other.subnet && one.publicIp === other.publicIp && one.vtepMac === other.vtepMac;
}
