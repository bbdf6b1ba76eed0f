// A VTEP on Open vSwitch's userspace datapath, with daemons and files of its own, whatever the system's may be doing:
//
//   br-int  (inner addresses) --- vxlan ports, one a remote VTEP
//   br-phy  (outer addresses) --- eth0
//
// Open vSwitch reads eth0 by a packet socket without offload metadata: every frame on the link has to have its checksums finished
// (ethtool -K DEV tx off at the other ends).

import { mkdirSync } from 'node:fs';
import type { Host } from '../../cli/lab/network.ts';
import { eventually, words } from '../../cli/lab/process.ts';
import type { Vtep, VtepOptions } from '../../cli/lab/vtep.ts';
import { familyOf } from '../../wire/address.ts';

const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const INNER = 'br-int';
const OUTER = 'br-phy';

export interface OvsOptions extends VtepOptions {
  vni: number;
  /** UDP port of the tunnels. */
  port: number;
}

export class OpenVswitch {
  readonly #host: Host;
  readonly #directory: string;

  private constructor(host: Host) {
    this.#host = host;
    this.#directory = `${host.directory}/ovs`;
  }

  /** Starts the database and the switch in a host, and gives the host's NIC, with its addresses, to the switch. */
  static async start(host: Host, nic: string): Promise<OpenVswitch> {
    const ovs = new OpenVswitch(host);
    const directory = ovs.#directory;
    const env = { OVS_RUNDIR: directory, OVS_LOGDIR: directory, OVS_DBDIR: directory };
    mkdirSync(directory);
    host.exec(`ovsdb-tool create ${directory}/conf.db ${SCHEMA}`);
    const quiet = ['--verbose=off'];
    host.spawn(
      [
        'ovsdb-server',
        `${directory}/conf.db`,
        `--remote=punix:${directory}/db.sock`,
        `--unixctl=${directory}/db.ctl`,
        ...quiet,
      ],
      env,
    );
    await eventually('the database of Open vSwitch', async () => {
      return (await host.run(ovs.#vsctl('--no-wait init'), { check: false })).status === 0;
    });
    host.spawn(['ovs-vswitchd', `unix:${directory}/db.sock`, `--unixctl=${directory}/vswitchd.ctl`, ...quiet], env);
    const mac = host.mac(nic);
    const addresses = host
      .ipJson<{ addr_info: { local: string; prefixlen: number; scope: string }[] }[]>(`address show dev ${nic}`)[0]!
      .addr_info.filter(({ scope }) => scope === 'global');
    await ovs.set(
      `add-br ${OUTER} -- set bridge ${OUTER} datapath_type=netdev other_config:hwaddr=${mac} -- add-port ${OUTER} ${nic}`,
    );
    host.ip(`address flush dev ${nic} scope global`);
    host.ip(`link set ${OUTER} up`);
    for (const { local, prefixlen } of addresses)
      host.ip(`address add ${local}/${prefixlen} dev ${OUTER} ${nodad(local)}`);
    return ovs;
  }

  /** An overlay network of the switch. `fdb append MAC ... dst ADDRESS` makes a tunnel to the address, once. */
  async vtep({ name = INNER, local, addresses, mac, vni, port }: OvsOptions): Promise<Vtep> {
    const host = this.#host;
    await this.set(`add-br ${name} -- set bridge ${name} datapath_type=netdev other_config:hwaddr="${mac}"`);
    const mtu = 1500 - (familyOf(local) === 6 ? 70 : 50);
    await this.set(`set interface ${name} mtu_request=${mtu}`);
    host.ip(`link set ${name} up`);
    for (const address of words(addresses)) host.ip(`address add ${address} dev ${name} ${nodad(address)}`);
    let tunnels = 0;
    return {
      ...{ host, device: name, local, mac },
      addresses: words(addresses).map((address) => address.split('/')[0]!),
      fdb: async (args) => {
        const [, remote] = args.match(/^append .* dst (\S+)$/) ?? [];
        if (remote === undefined) throw new Error(`Open vSwitch has no fdb ${args}`);
        const tunnel = `${name}-${++tunnels}`;
        const options = `options:remote_ip="${remote}" options:local_ip="${local}" options:key=${vni} options:dst_port=${port}`;
        await this.set(`add-port ${name} ${tunnel} -- set interface ${tunnel} type=vxlan ${options}`);
        return '';
      },
    };
  }

  /** A change of the switch, by ovs-vsctl's words; resolves when it is in place. */
  async set(args: string): Promise<void> {
    await this.#host.run(this.#vsctl(args));
  }

  #vsctl(args: string): string {
    return `ovs-vsctl --timeout=10 --db=unix:${this.#directory}/db.sock ${args}`;
  }
}

/** An IPv6 address is usable at once. */
function nodad(address: string): string {
  return familyOf(address) === 6 ? 'nodad' : '';
}
