import { DocumentError, hostAddressOf, isMap } from './keys.ts';
import type { KubeObject } from './kube-client.ts';
import { type Endpoint, FAMILIES, type Family, type PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';
import { backendData, type Reading, readClaim, type ShareClaim, vtepMacOf } from './reading.ts';

/** How flannel writes a lease on a Kubernetes node (pkg/subnet/kube): annotations, and the subnets are the node's own podCIDRs. */
export class NodeAnnotations {
  readonly #prefix: string;

  /** `flannel.alpha.coreos.com`, or what --kube-annotation-prefix says. Throws DocumentError for what flannel refuses, too. */
  constructor(prefix: string) {
    const withSlash = prefix.includes('/') ? prefix : `${prefix}/`;
    this.#prefix = /[/-]$/.test(withSlash) ? withSlash : `${withSlash}-`;
    if (!/^([a-z0-9_-]+\.)+[a-z0-9_-]+\/([a-z0-9_-]+-)?$/.test(this.#prefix)) {
      throw new DocumentError([`"${prefix}" is not a prefix for annotations such as flannel.alpha.coreos.com`]);
    }
  }

  /** The node as a lease; undefined for one that is not flannel's (yet). */
  read(node: KubeObject, conf: NetConf): Reading | undefined {
    if (this.#get(node, 'kube-subnet-manager') !== 'true') return undefined;
    const subnets = podSubnets(node);
    const share = (family: Family): ShareClaim | null => {
      const [ip, data] = family === 'ipv4' ? ['public-ip', 'backend-data'] : ['public-ipv6', 'backend-v6-data'];
      const publicIp = this.#get(node, ip);
      // A node of one IP version in a cluster of two.
      if (publicIp === undefined && subnets[family] === null) return null;
      return { subnet: subnets[family], publicIp, data: parseData(this.#get(node, data)) };
    };
    const claim = { backendType: this.#get(node, 'backend-type'), ipv4: share('ipv4'), ipv6: share('ipv6') };
    return readClaim(node.metadata.name, claim, conf);
  }

  /** Public IPs to be taken instead of the NIC's own. */
  nodePublicIps(node: KubeObject): PerFamily<string> {
    return this.#addresses(node, 'node-public-ip', 'node-public-ipv6');
  }

  vtepMacs(node: KubeObject): PerFamily<string> {
    const mac = (name: string) => vtepMacOf(parseData(this.#get(node, name)));
    return { ipv4: mac('backend-data'), ipv6: mac('backend-v6-data') };
  }

  /** What other nodes are to see, where an administrator has said that it is not what this node sees (behind NAT, say). */
  overwritten(node: KubeObject, own: PerFamily<Endpoint>): PerFamily<Endpoint> {
    const addresses = this.#addresses(node, 'public-ip-overwrite', 'public-ipv6-overwrite');
    const share = (family: Family) =>
      own[family] && { ...own[family], publicIp: addresses[family] ?? own[family].publicIp };
    return { ipv4: share('ipv4'), ipv6: share('ipv6') };
  }

  /** The annotations of a node that is registered so, as far as they differ from those that it has. */
  missing(node: KubeObject, own: PerFamily<Endpoint>, conf: NetConf): Record<string, string> {
    const wanted: Record<string, string> = { 'backend-type': conf.backend.type, 'kube-subnet-manager': 'true' };
    for (const family of FAMILIES) {
      const endpoint = own[family];
      if (endpoint === null) continue;
      const [ip, data] = family === 'ipv4' ? ['public-ip', 'backend-data'] : ['public-ipv6', 'backend-v6-data'];
      wanted[ip] = endpoint.publicIp;
      // "null" for backends without data is flannel's own writing.
      wanted[data] = JSON.stringify(backendData(endpoint, conf));
    }
    const differing = Object.entries(wanted).filter(([name, value]) => this.#get(node, name) !== value);
    return Object.fromEntries(differing.map(([name, value]) => [`${this.#prefix}${name}`, value]));
  }

  #addresses(node: KubeObject, ipv4: string, ipv6: string): PerFamily<string> {
    return {
      ipv4: attempt(() => hostAddressOf(4)(this.#get(node, ipv4))),
      ipv6: attempt(() => hostAddressOf(6)(this.#get(node, ipv6))),
    };
  }

  #get(node: KubeObject, name: string): string | undefined {
    const { annotations } = node.metadata;
    const value = isMap(annotations) ? annotations[`${this.#prefix}${name}`] : undefined;
    return typeof value === 'string' ? value : undefined;
  }
}

/** The first subnet of each IP version of spec.podCIDRs, or of podCIDR where there is no such list. */
export function podSubnets(node: KubeObject): PerFamily<string> {
  const { podCIDRs, podCIDR } = isMap(node.spec) ? node.spec : {};
  const all = (Array.isArray(podCIDRs) && podCIDRs.length > 0 ? podCIDRs : [podCIDR]).filter(
    (subnet): subnet is string => typeof subnet === 'string' && subnet !== '',
  );
  return {
    ipv4: all.find((subnet) => !subnet.includes(':')) ?? null,
    ipv6: all.find((subnet) => subnet.includes(':')) ?? null,
  };
}

/** Whether the node's condition NetworkUnavailable says that pods may be scheduled. */
export function isNetworkAvailable(node: KubeObject): boolean {
  const { conditions } = isMap(node.status) ? node.status : {};
  const found = (Array.isArray(conditions) ? conditions : []).find(
    (each) => isMap(each) && each.type === 'NetworkUnavailable',
  );
  return found?.status === 'False';
}

/** In flannel's words. */
export function networkAvailable(now: Date): object {
  const time = now.toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    type: 'NetworkUnavailable',
    status: 'False',
    lastHeartbeatTime: time,
    lastTransitionTime: time,
    reason: 'FlannelIsUp',
    message: 'Flannel is running on this node',
  };
}

function parseData(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    // The text itself, for the message.
    return text;
  }
}

function attempt<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}
