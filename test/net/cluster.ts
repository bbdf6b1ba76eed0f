// A flannel cluster of three nodes, two of them on one network and the third behind a router, each with a pod made by the real CNI plugins.
// The middle node is on the kernel's vxlan, set up as flannel does it; the others run uvxlan's agent.
//
//   east-pod 10.244.1.x       mid-pod 10.244.2.x        west-pod 10.244.3.x
//        |                         |                          |
//      cni0                      cni0                       cni0
//   flannel.1 (uvxlan)        flannel.1 (kernel)        flannel.1 (uvxlan)
//        |                         |                          |
//   eth0 192.0.2.1            eth0 192.0.2.2            eth0 203.0.113.3
//        +----------- lan ---------+                          |
//                      |                                      |
//             192.0.2.254 router 203.0.113.254 ---------------+
//                      |
//             198.51.100.254 ---- world 198.51.100.9

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { namespacePath } from '../../cli/lab/namespace.ts';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually, type Process } from '../../cli/lab/process.ts';
import { MAIN } from '../../cli/lab/vtep.ts';
import { CNI_PATH } from './requirements.ts';

const PLUGIN = fileURLToPath(new URL('../../cli/cni.js', import.meta.url));

export interface NodePlan {
  readonly name: string;
  readonly publicIp: string;
  readonly subnet: string;
  readonly mac: string;
}

export const EAST: NodePlan = {
  name: 'east',
  publicIp: '192.0.2.1',
  subnet: '10.244.1.0/24',
  mac: '02:00:00:00:01:01',
};
export const MID: NodePlan = { name: 'mid', publicIp: '192.0.2.2', subnet: '10.244.2.0/24', mac: '02:00:00:00:02:02' };
export const WEST: NodePlan = {
  name: 'west',
  publicIp: '203.0.113.3',
  subnet: '10.244.3.0/24',
  mac: '02:00:00:00:03:03',
};
export const WORLD = '198.51.100.9';
/** On the router. */
const ETCD = 'http://192.0.2.254:2379';
export const NETWORK = '10.244.0.0/16';

export class Cluster {
  readonly network: Network;
  /** Each agent's own copy of the cluster's file, so that one can be told what another is not. */
  readonly #backend: string;
  readonly #files: string;
  #nodes: readonly NodePlan[] = [EAST, MID, WEST];
  #more = '';
  #etcd = false;

  /** `backend`: in YAML, `{ type: vxlan }`; `more`: further keys of the file. */
  constructor(t: TestContext, backend = '{ type: vxlan }', more = '') {
    const pods = Object.fromEntries([EAST, MID, WEST].map(({ name }) => [`${name}-pod`, {}]));
    this.network = Network.build(t, {
      hosts: { east: {}, mid: {}, west: {}, router: { forward: true }, world: {}, ...pods, 'east-pod2': {} },
      switches: { lan: ['east eth0 192.0.2.1/24', 'mid eth0 192.0.2.2/24', 'router eth0 192.0.2.254/24'] },
      links: [
        ['router eth1 203.0.113.254/24', 'west eth0 203.0.113.3/24'],
        ['router eth2 198.51.100.254/24', 'world eth0 198.51.100.9/24'],
      ],
      routes: {
        east: ['default via 192.0.2.254'],
        mid: ['default via 192.0.2.254'],
        west: ['default via 203.0.113.254'],
        // The world knows the nodes' networks and not the pods'.
        world: ['192.0.2.0/24 via 198.51.100.254', '203.0.113.0/24 via 198.51.100.254'],
      },
    });
    this.#backend = backend;
    this.#more = more;
    this.#files = this.network.directory;
    this.#write();
  }

  host(name: string): Host {
    return this.network.host(name);
  }

  /** Writes the cluster anew; agents follow the file. */
  setNodes(nodes: readonly NodePlan[]): void {
    this.#nodes = nodes;
    this.#write();
  }

  /** Makes the file one that nobody can use; returns what mends it. */
  spoil(): () => void {
    writeFileSync(join(this.#files, 'cluster.yaml'), 'network: nowhere\n');
    return () => this.#write();
  }

  directory(node: NodePlan): string {
    return join(this.#files, node.name);
  }

  subnetFile(node: NodePlan): string {
    return join(this.directory(node), 'subnet.env');
  }

  /** Starts `uvxlan flannel` on a node, and resolves when it is ready. */
  async agent(node: NodePlan, args: readonly string[] = ['--ip-masq'], ready = /uvxlan: ready: /): Promise<Process> {
    const state = this.#etcd
      ? ['--etcd-endpoints', ETCD]
      : ['--config', join(this.#files, 'cluster.yaml'), '--node-name', node.name];
    const command = [process.execPath, MAIN, 'flannel', ...state, '--subnet-file', this.subnetFile(node), ...args];
    const agent = this.host(node.name).spawn(command);
    await agent.waitFor(ready);
    return agent;
  }

  /** Keeps the cluster in a real etcd on the router from now on, under `config` as net-conf.json. */
  async etcd(config: object): Promise<Process> {
    const urls = [`--listen-client-urls=${ETCD}`, `--advertise-client-urls=${ETCD}`];
    const peers = ['--listen-peer-urls=http://127.0.0.1:2380', '--log-level=error'];
    const etcd = this.host('router').spawn(['etcd', '--data-dir', join(this.#files, 'etcd'), ...urls, ...peers]);
    const key = Buffer.from('/coreos.com/network/config').toString('base64');
    const value = Buffer.from(JSON.stringify(config)).toString('base64');
    const put = `fetch("${ETCD}/v3/kv/put", { method: "POST", body: '${JSON.stringify({ key, value })}' }).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))`;
    await eventually('etcd takes the configuration', async () => {
      return (await this.host('router').run([process.execPath, '-e', put], { check: false })).status === 0;
    });
    this.#etcd = true;
    return etcd;
  }

  /** What flannel on the kernel's vxlan has on a host, by hand. */
  kernelNode(node: NodePlan): void {
    const host = this.host(node.name);
    const tunnel = tunnelOf(node);
    host.ip(
      `link add flannel.1 address ${node.mac} type vxlan id 1 local ${node.publicIp} dev eth0 dstport 8472 nolearning`,
    );
    host.ip('link set flannel.1 mtu 1450 up');
    host.ip(`addr add ${tunnel}/32 dev flannel.1`);
    host.exec(['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward']);
    for (const peer of this.#nodes) if (peer.name !== node.name) introduceToKernel(host, peer);
    mkdirSync(this.directory(node), { recursive: true });
    writeFileSync(
      this.subnetFile(node),
      `FLANNEL_NETWORK=${NETWORK}\nFLANNEL_SUBNET=${tunnel.replace(/0$/, '1')}/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n`,
    );
  }

  /** Connects a pod by the plugin `flannel` as a container runtime would; returns its address. */
  async addPod(node: NodePlan, pod: string): Promise<string> {
    const { stdout } = await this.cni('ADD', node, pod);
    return (JSON.parse(stdout) as { ips: { address: string }[] }).ips[0]!.address.split('/')[0]!;
  }

  cni(command: string, node: NodePlan, pod: string, more: object = {}, check = true) {
    const directory = this.directory(node);
    const conf = {
      cniVersion: '1.0.0',
      name: 'cbr0',
      type: 'flannel',
      subnetFile: this.subnetFile(node),
      dataDir: join(directory, 'cni'),
      delegate: { hairpinMode: true, isDefaultGateway: true },
      ipam: { dataDir: join(directory, 'ipam') },
      ...more,
    };
    const env = {
      CNI_COMMAND: command,
      CNI_CONTAINERID: pod,
      CNI_NETNS: namespacePath(this.host(pod).namespace),
      CNI_IFNAME: 'eth0',
      CNI_PATH,
    };
    return this.host(node.name).run([process.execPath, PLUGIN], { input: JSON.stringify(conf), env, check });
  }

  #write(): void {
    const nodes = this.#nodes.map(
      ({ name, publicIp, subnet, mac }) =>
        `  - { name: ${name}, public-ip: ${publicIp}, subnet: ${subnet}, mac: "${mac}" }`,
    );
    const lines = [`network: ${NETWORK}`, `backend: ${this.#backend}`, this.#more, 'nodes:', ...nodes, ''];
    writeFileSync(join(this.#files, 'cluster.yaml'), lines.filter((line) => line !== '').join('\n'));
  }
}

export function tunnelOf({ subnet }: NodePlan): string {
  return subnet.split('/')[0]!;
}

/** What flannel does on the kernel's device for each peer. */
export function introduceToKernel(host: Host, peer: NodePlan): void {
  const tunnel = tunnelOf(peer);
  host.ip(`neigh replace ${tunnel} lladdr ${peer.mac} dev flannel.1 nud permanent`);
  host.bridge(`fdb replace ${peer.mac} dev flannel.1 dst ${peer.publicIp} self permanent`);
  host.ip(`route replace ${peer.subnet} via ${tunnel} dev flannel.1 onlink`);
}

/** Resolves when a ping is answered. */
export async function reaches(from: Host, address: string): Promise<void> {
  await eventually(
    `${from.name} reaches ${address}`,
    async () => (await from.run(`ping -n -c 1 -W 1 ${address}`, { check: false })).status === 0,
  );
}
