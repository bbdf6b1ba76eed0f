import { accessSync, constants } from 'node:fs';

/** Program -> Debian package. */
const PACKAGES: Record<string, string> = {
  ip: 'iproute2',
  bridge: 'iproute2',
  tc: 'iproute2',
  ping: 'iputils-ping',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
  iperf3: 'iperf3',
  tcpdump: 'tcpdump',
  nstat: 'iproute2',
  ss: 'iproute2',
  'ovsdb-server': 'openvswitch-switch',
  'ovs-vswitchd': 'openvswitch-switch',
  'ovs-vsctl': 'openvswitch-switch',
};

/** "iperf3 is not installed: apt-get install iperf3"; undefined when all of them are in PATH. */
export function missing(...programs: readonly string[]): string | undefined {
  const absent = programs.filter((program) => !find(program));
  if (absent.length === 0) return undefined;
  const packages = [...new Set(absent.map((program) => PACKAGES[program] ?? program))];
  return `${absent.join(', ')} ${absent.length > 1 ? 'are' : 'is'} not installed: apt-get install ${packages.join(' ')}`;
}

/** Path of a program in PATH. */
export function find(program: string): string | undefined {
  const candidates = (process.env.PATH ?? '').split(':').map((directory) => `${directory}/${program}`);
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
