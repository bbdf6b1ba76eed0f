/**
 * Open vSwitch with its userspace datapath (netdev), as its own guide sets it up (Documentation/howto/userspace-tunneling.rst): a bridge
 * that holds the NIC and the underlay's address, and one with the VXLAN port. It counts packets with unfinished checksums as errors,
 * so the veth's offload is off.
 */
import { mkdirSync } from 'node:fs';
import type { Host } from '../../cli/lab/network.ts';
import { words } from '../../cli/lab/process.ts';
import { missing } from '../../cli/lab/programs.ts';
import { configured } from '../../cli/lab/vtep.ts';
import { type Kind, NO_FDB } from './kind.ts';

const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const OVERHEAD = 50;

export const openVswitch: Kind = {
  name: 'ovs',
  about: 'Open vSwitch, userspace datapath',
  link: { checksumOffload: false },
  lacks: () => missing('ovsdb-server', 'ovs-vswitchd', 'ovs-vsctl', 'ethtool'),
  async open(host, options) {
    const directory = `${host.directory}/ovs-${host.name}`;
    mkdirSync(directory);
    const database = `unix:${directory}/db.sock`;
    host.exec(`ovsdb-tool create ${directory}/conf.db ${SCHEMA}`);
    const env = { OVS_RUNDIR: directory };
    const server = host.spawn(
      `ovsdb-server ${directory}/conf.db --remote=p${database} --unixctl=${directory}/server.ctl`,
      env,
    );
    const vsctl = (command: string) => host.run(['ovs-vsctl', `--db=${database}`, '--timeout=10', ...words(command)]);
    await vsctl('--retry --no-wait init');
    const daemon = host.spawn(`ovs-vswitchd ${database} --unixctl=${directory}/vswitchd.ctl`, env);
    const remote = options.local.replace(/\d+$/, (last) => String(3 - Number(last)));
    const mac = host.mac('eth0');
    host.ip('address flush dev eth0');
    await vsctl(
      'add-br underlay -- set bridge underlay datapath_type=netdev fail-mode=standalone ' +
        `other_config:hwaddr=${mac} -- add-port underlay eth0`,
    );
    host.ip(`address add ${options.local}/24 dev underlay`);
    host.ip('link set underlay up');
    await vsctl(
      'add-br overlay -- set bridge overlay datapath_type=netdev fail-mode=standalone ' +
        `other_config:hwaddr=${options.mac} -- add-port overlay vxlan0 -- set interface vxlan0 type=vxlan ` +
        `options:remote_ip=${remote} options:key=1 options:dst_port=8472`,
    );
    const vtep = configured(host, 'overlay', options, NO_FDB);
    host.ip(`link set overlay mtu ${mtuOf(host) - OVERHEAD}`);
    return { ...vtep, daemons: [daemon, server] };
  },
};

function mtuOf(host: Host): number {
  return host.ipJson<{ mtu: number }[]>('link show dev eth0')[0]!.mtu;
}
