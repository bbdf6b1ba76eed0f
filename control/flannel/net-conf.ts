import type { PerFamily } from './lease.ts';

/** flannel's network configuration, complete: defaults stand where net-conf.json has nothing. A family that is not enabled is null. */
export interface NetConf extends PerFamily<PodNetwork> {
  /** MASQUERADE and forwarding rules through nft instead of iptables. */
  readonly enableNFTables: boolean;
  readonly backend: Backend;
}

export interface PodNetwork {
  /** Network, IPv6Network: all pods' addresses. */
  readonly network: string;
  /** Prefix length of one node's subnet. */
  readonly subnetLen: number;
  /** First and last subnet that a node may get, as addresses. Only etcd hands out subnets. */
  readonly subnetMin: string;
  readonly subnetMax: string;
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
