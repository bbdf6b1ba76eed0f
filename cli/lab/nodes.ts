/**
 * The lab's two nodes, each with a pod, set up as flannel does it:
 *
 *   left-pod 10.244.1.2                      right-pod 10.244.2.2
 *        |                                        |
 *   cni0 10.244.1.1/24                       cni0 10.244.2.1/24
 *        |  route 10.244.2.0/24 via 10.244.2.0    |  route 10.244.1.0/24 via 10.244.1.0
 *   flannel.1 10.244.1.0/32                  flannel.1 10.244.2.0/32
 *        |  VXLAN: VNI 1, UDP port 8472           |
 *   eth0 192.0.2.1/24 ------- veth ------- eth0 192.0.2.2/24
 */
import type { LinkRecord } from '../../control/protocol.ts';
import { type Host, Network } from './network.ts';
import { eventually } from './process.ts';
import { kernelVtep, links, type UvxlanVtep, uvxlanVtep, type Vtep } from './vtep.ts';

export const DEVICE = 'flannel.1';

/** What flannel hands out to a node, and the addresses that follow from it. */
export interface Plan {
  readonly name: string;
  /** Outer address of the node. */
  readonly local: string;
  /** The node's part of the pod network. */
  readonly subnet: string;
  /** The subnet's first address: the VXLAN device's. */
  readonly tunnel: string;
  readonly pod: string;
  /** Of the VXLAN device. flannel's are random; the last four bytes of these are the tunnel address. */
  readonly mac: string;
}

export const LEFT: Plan = {
  name: 'left',
  local: '192.0.2.1',
  subnet: '10.244.1.0/24',
  tunnel: '10.244.1.0',
  pod: '10.244.1.2',
  mac: '02:00:0a:f4:01:00',
};

export const RIGHT: Plan = {
  name: 'right',
  local: '192.0.2.2',
  subnet: '10.244.2.0/24',
  tunnel: '10.244.2.0',
  pod: '10.244.2.2',
  mac: '02:00:0a:f4:02:00',
};

export interface Node {
  readonly plan: Plan;
  readonly host: Host;
  readonly pod: Host;
  readonly vtep: Vtep | UvxlanVtep;
}

/**
 * No IPv6 on the devices that are made from now on, unless the reader wants it. Else the first thing to be seen would be drops: of the
 * device's own multicast, for which flannel has no FDB entry.
 */
const NO_IPV6 = 'f=/proc/sys/net/ipv6/conf/default/disable_ipv6; [ ! -e $f ] || echo 1 > $f';

/** Namespaces, bridges and links; no VXLAN yet. */
export function buildNetwork(): Network {
  const network = Network.build(
    { after() {} },
    {
      hosts: {
        left: { bridge: 'cni0 10.244.1.1/24', pods: { 'left-pod': `${LEFT.pod}/24` } },
        right: { bridge: 'cni0 10.244.2.1/24', pods: { 'right-pod': `${RIGHT.pod}/24` } },
      },
      links: [[`left eth0 ${LEFT.local}/24`, `right eth0 ${RIGHT.local}/24`]],
    },
  );
  for (const { name } of [LEFT, RIGHT]) network.host(name).exec(['sh', '-c', NO_IPV6]);
  return network;
}

/** A node whose VXLAN device is uvxlan's. */
export async function uvxlanNode(network: Network, plan: Plan): Promise<Node> {
  const host = network.host(plan.name);
  return equip(network, plan, await uvxlanVtep(host, vtepOptions(plan)));
}

/** A node whose VXLAN device is the kernel's; undefined when the kernel has none. */
export function kernelNode(network: Network, plan: Plan): Node | undefined {
  try {
    return equip(network, plan, kernelVtep(network.host(plan.name), vtepOptions(plan)));
  } catch (error) {
    if (/unknown device type|not supported/i.test(`${error}`)) return undefined;
    throw error;
  }
}

function vtepOptions({ local, tunnel, mac }: Plan) {
  return { name: DEVICE, local, addresses: `${tunnel}/32`, mac };
}

/** Pods get the device's MTU, so that what they send fits when it is encapsulated. */
function equip(network: Network, plan: Plan, vtep: Vtep): Node {
  const host = network.host(plan.name);
  const pod = network.host(`${plan.name}-pod`);
  const [{ mtu }] = host.ipJson<{ mtu: number }[]>(`link show ${DEVICE}`);
  host.ip(`link set ${plan.name}-pod mtu ${mtu}`);
  pod.ip(`link set eth0 mtu ${mtu}`);
  return { plan, host, pod, vtep };
}

/** Tells a node about another one: what flannel does when a node joins. */
export async function introduceTo({ host, vtep }: Node, { plan }: Node): Promise<void> {
  await vtep.fdb(`append ${plan.mac} dev ${DEVICE} dst ${plan.local}`);
  host.ip(`neigh replace ${plan.tunnel} lladdr ${plan.mac} dev ${DEVICE} nud permanent`);
  host.ip(`route add ${plan.subnet} via ${plan.tunnel} dev ${DEVICE} onlink`);
}

export function runsUvxlan(node: Node): node is Node & { vtep: UvxlanVtep } {
  return 'daemon' in node.vtep;
}

/** The node's device as `uvxlan link show` has it. */
export async function linkOf(node: Node): Promise<LinkRecord> {
  return (await links(node.host, DEVICE))[0];
}

/** Resolves when uvxlan knows how to reach the other node: until then it would drop the first packets. */
export async function resolved(node: Node): Promise<LinkRecord> {
  let link = await linkOf(node);
  await eventually(`${node.plan.name}: the next hop to the other node resolved`, async () => {
    if (link.uvxlan.nexthops > 0 && link.uvxlan.nexthops_unresolved === 0) return true;
    link = await linkOf(node);
    return false;
  });
  return link;
}
