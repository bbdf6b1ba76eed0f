// Topologies of hosts, routers, switches and pods, each a network namespace, described in the words of ip(8):
//
//   Network.build(t, {
//     hosts: { left: {}, right: {}, gateway: { forward: true } },
//     links: [
//       ['left eth0 192.0.2.1/24', 'gateway eth0 192.0.2.254/24'],
//       ['gateway eth1 203.0.113.254/24', 'right eth0 203.0.113.1/24', { checksumOffload: false }],
//     ],
//     routes: { left: ['default via 192.0.2.254'], right: ['default via 203.0.113.254'] },
//   })

import { familyOf } from '../../wire/address.ts';
import { addDirectory, addNamespace, namespacePath, removeDirectory, removeNamespaces } from './namespace.ts';
import { type Command, Process, type Result, type RunOptions, run, runSync, words } from './process.ts';

export interface HostOptions {
  /** Forward packets between interfaces, IPv4 and IPv6. A host with a bridge and pods always does. */
  forward?: boolean;
  /** "cni0 10.244.1.1/24 ...": a bridge with its addresses. */
  bridge?: string;
  /** Pod name -> addresses: each a namespace with an eth0 on the bridge and a default route to the bridge's address. */
  pods?: Record<string, string>;
}

export interface LinkOptions {
  /** false: `ethtool -K DEV tx off` at both ends, so that every frame on the link has its checksums finished. */
  checksumOffload?: boolean;
  /** Bytes; default 1500. */
  mtu?: number;
}

/** "HOST DEVICE ADDRESS/LENGTH ...", with no address or several. */
export type LinkEnd = string;

export interface Topology {
  hosts: Record<string, HostOptions>;
  /** veth pairs. */
  links?: readonly (readonly [LinkEnd, LinkEnd, LinkOptions?])[];
  /** Switch name -> what is plugged into it: a bridge in a namespace of its own. */
  switches?: Record<string, readonly LinkEnd[]>;
  /** Host name -> arguments of `ip route add`. */
  routes?: Record<string, readonly string[]>;
}

/** As sysctl(8), which not every machine has; nor has every kernel IPv6. */
const FORWARD =
  'cd /proc/sys/net && echo 1 > ipv4/ip_forward && { [ ! -e ipv6 ] || echo 1 > ipv6/conf/all/forwarding; }';

/** A network namespace in which commands run. */
export class Host {
  readonly name: string;
  readonly namespace: string;
  /** A directory for captures and configuration files; removed together with the network. */
  readonly directory: string;

  constructor(name: string, directory: string) {
    this.name = name;
    this.directory = directory;
    this.namespace = addNamespace(name);
  }

  /** nsenter(1), not `ip netns exec`: that would mount another /sys and start in a new mount namespace. */
  inside(command: Command): string[] {
    return ['nsenter', `--net=${namespacePath(this.namespace)}`, '--', ...words(command)];
  }

  /** Runs a short configuration command, blocking; returns its standard output, throws when it fails. */
  exec(command: Command): string {
    return runSync(this.inside(command));
  }

  /** `ip ARGUMENTS` in the host. */
  ip(args: string): string {
    return this.exec(`ip ${args}`);
  }

  /** `ip -j ARGUMENTS`, parsed. */
  ipJson<T = Record<string, unknown>[]>(args: string): T {
    return JSON.parse(this.exec(`ip -j ${args}`)) as T;
  }

  /** `bridge ARGUMENTS` in the host. */
  bridge(args: string): string {
    return this.exec(`bridge ${args}`);
  }

  mac(device: string): string {
    return this.ipJson<{ address: string }[]>(`link show dev ${device}`)[0]!.address;
  }

  /** A device counter such as rx_packets or tx_dropped. */
  counter(device: string, direction: 'rx' | 'tx', name: string): number {
    type Row = { stats64: Record<'rx' | 'tx', Record<string, number>> };
    return this.ipJson<Row[]>(`-s link show dev ${device}`)[0]!.stats64[direction][name]!;
  }

  /** Runs a command to its end without blocking. */
  run(command: Command, options?: RunOptions): Promise<Result> {
    return run(this.inside(command), options);
  }

  /** Starts a process in the host. It is ended with the network, or when this process is killed. */
  spawn(command: Command, env?: NodeJS.ProcessEnv): Process {
    return new Process(['setpriv', '--pdeathsig', 'KILL', '--', ...this.inside(command)], env);
  }
}

/** What a network belongs to: a test of node:test, say. */
export interface Owner {
  /** Takes a function to be called at the owner's end. */
  after(remove: () => void): void;
}

export class Network {
  /** A directory for captures and configuration files; removed at the end. */
  readonly directory = addDirectory();
  readonly #hosts = new Map<string, Host>();

  /**
   * Builds the network and registers its removal at its owner's end, also when building it fails half-way. The end of this
   * process removes it in any case.
   */
  static build(owner: Owner, topology: Topology): Network {
    const network = new Network();
    owner.after(() => network.remove());
    for (const [name, options] of Object.entries(topology.hosts)) network.#addHost(name, options);
    for (const [left, right, options] of topology.links ?? []) network.#link(left, right, options);
    for (const [name, ends] of Object.entries(topology.switches ?? {})) network.#addSwitch(name, ends);
    for (const [name, routes] of Object.entries(topology.routes ?? {})) {
      for (const route of routes) network.host(name).ip(`route add ${route}`);
    }
    return network;
  }

  /** The host, pod or switch of this name. */
  host(name: string): Host {
    const host = this.#hosts.get(name);
    if (!host) throw new Error(`no host ${name} in this network: ${[...this.#hosts.keys()].join(', ')}`);
    return host;
  }

  remove(): void {
    removeNamespaces([...this.#hosts.values()].map((host) => host.namespace));
    removeDirectory(this.directory);
  }

  #addNamespace(name: string): Host {
    if (this.#hosts.has(name)) throw new Error(`two hosts named ${name}`);
    const host = new Host(name, this.directory);
    this.#hosts.set(name, host);
    return host;
  }

  #addHost(name: string, options: HostOptions): void {
    const host = this.#addNamespace(name);
    if (options.forward || options.bridge) {
      host.exec(['sh', '-c', FORWARD]);
    }
    if (!options.bridge) return;
    const [bridge, ...addresses] = words(options.bridge) as [string, ...string[]];
    host.ip(`link add ${bridge} type bridge`);
    configure(host, bridge, addresses);
    for (const [pod, podAddresses] of Object.entries(options.pods ?? {})) {
      this.#addNamespace(pod);
      this.#link(`${name} ${pod}`, `${pod} eth0 ${podAddresses}`);
      host.ip(`link set ${pod} master ${bridge}`);
      for (const address of addresses) this.host(pod).ip(`route add default via ${address.split('/')[0]}`);
    }
  }

  #addSwitch(name: string, ends: readonly LinkEnd[]): void {
    const host = this.#addNamespace(name);
    host.ip('link add br0 type bridge');
    host.ip('link set br0 up');
    for (const [index, end] of ends.entries()) {
      this.#link(`${name} port${index}`, end);
      host.ip(`link set port${index} master br0`);
    }
  }

  #link(left: LinkEnd, right: LinkEnd, options: LinkOptions = {}): void {
    const ends = [left, right].map((end) => {
      const [name, device, ...addresses] = words(end) as [string, string, ...string[]];
      return { host: this.host(name), device, addresses };
    });
    const [a, b] = ends as [(typeof ends)[0], (typeof ends)[0]];
    runSync(
      `ip link add ${a.device} netns ${a.host.namespace} type veth peer name ${b.device} netns ${b.host.namespace}`,
    );
    for (const { host, device, addresses } of ends) {
      if (options.mtu !== undefined) host.ip(`link set ${device} mtu ${options.mtu}`);
      if (options.checksumOffload === false) host.exec(`ethtool -K ${device} tx off`);
      configure(host, device, addresses);
    }
  }
}

/** Sets a device up with its addresses; an IPv6 address is usable at once, without duplicate address detection. */
function configure(host: Host, device: string, addresses: readonly string[]): void {
  host.ip(`link set ${device} up`);
  for (const address of addresses) {
    host.ip(`address add ${address} dev ${device}${familyOf(address) === 6 ? ' nodad' : ''}`);
  }
}
