import type { ExternalInterface } from './external-interface.ts';
import type { Family, Lease, PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';

/** What the cluster, the host and the agent's options ask for, all together. */
export interface Wish {
  readonly netConf: NetConf;
  readonly external: ExternalInterface;
  readonly own: Lease;
  readonly peers: ReadonlyMap<string, Lease>;
}

/** How packets get to the pods of other nodes, for the host's tables. */
export interface Overlay {
  /** The device that encapsulates; null: none does, packets go to the other node as they are (host-gw). */
  readonly device: string | null;
  /** The cluster's network. */
  readonly network: string;
  /** The device's address covers all of the network, so that peers need neither routes nor neighbours (udp). */
  readonly spansNetwork: boolean;
}

/** What was asked for cannot be had on this host, however often it is tried: the agent ends. */
export class HopelessError extends Error {}

/**
 * One way of getting packets to other nodes: flannel's Backend.Type. Whatever it needs beside the host's own tables is made here, compared
 * with what is there, and put right.
 */
export interface Backend {
  readonly overlays: PerFamily<Overlay>;
  /** Whether a peer on the same link is sent packets as they are. */
  readonly directRouting: boolean;

  /** Makes what is not there. Returns a line for each thing that was; throws with what to do when one cannot be made: HopelessError when it never can. */
  keepDevices(wish: Wish): Promise<string[]>;

  /**
   * Tells the device which node has which pods, as far as it does not know. Returns a line for each thing that was not as it had been left.
   */
  keepPeers(wish: Wish): string[];

  /** Of what forwards, for Prometheus; absent where the host itself does. */
  metrics?(): Promise<string>;

  /** Bytes of a pod's packet that fit. */
  mtu(wish: Wish, family: Family): number;

  /** Ends what runs. Devices stay, so that the next run finds them. */
  stop(): Promise<void>;
}

/** Packets go to other nodes as they are, which have to be on the same link (host-gw). */
export class HostGateway implements Backend {
  readonly overlays: PerFamily<Overlay>;
  readonly directRouting = true;

  constructor({ ipv4, ipv6 }: NetConf) {
    const overlay = (network: string): Overlay => ({ device: null, network, spansNetwork: false });
    this.overlays = { ipv4: ipv4 && overlay(ipv4.network), ipv6: ipv6 && overlay(ipv6.network) };
  }

  async keepDevices(): Promise<string[]> {
    return [];
  }

  keepPeers(): string[] {
    return [];
  }

  mtu({ external }: Wish): number {
    return external.nic.mtu;
  }

  async stop(): Promise<void> {}
}
