/** Who has the UDP port that a tunnel is to use. */
import * as libc from '../../system/libc.ts';
import { openUdpSocket } from '../../system/socket.ts';
import { parseIp } from '../../wire/address.ts';
import type { Host } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import type { Findings } from './finding.ts';

interface KernelDevice {
  ifname: string;
  linkinfo?: { info_data?: { id?: number; port?: number } };
}

/** `isOurs`: a daemon of uvxlan's runs in this namespace and has a device on the port. */
export async function lookAtPort(
  findings: Findings,
  host: Host,
  local: string,
  port: number,
  isOurs: boolean,
): Promise<void> {
  const devices = await host.iproute.json<KernelDevice[]>('ip', ['-j', '-d', 'link', 'show', 'type', 'vxlan']);
  const same = devices.filter(({ linkinfo }) => linkinfo?.info_data?.port === port);
  for (const { ifname, linkinfo } of same) {
    findings.fail(
      'port',
      `the kernel's own vxlan device ${ifname} (VNI ${linkinfo?.info_data?.id}) is on UDP port ${port}`,
      `ip link del ${ifname}, or give uvxlan another dstport`,
    );
  }
  if (same.length > 0) return;
  const error = isOurs ? undefined : bindError(local, port);
  if (error === undefined)
    findings.ok('port', isOurs ? `UDP port ${port} is this daemon's` : `UDP port ${port} is free`);
  else if (error.errno === libc.EADDRINUSE) {
    const holder = await holderOf(host, port);
    findings.fail(
      'port',
      `UDP port ${port} is held by ${holder ?? 'another process'}`,
      holder ? 'stop it, or give uvxlan another dstport' : `ss -ulnp sport = :${port} shows it to root`,
    );
  } else findings.fail('port', error.message);
}

function bindError(local: string, port: number): libc.SystemError | undefined {
  try {
    libc.close(openUdpSocket({ address: parseIp(local)!, port }));
    return undefined;
  } catch (error) {
    if (error instanceof libc.SystemError) return error;
    throw error;
  }
}

/** `nginx (pid 12)`; undefined when it is not to be seen. */
async function holderOf(host: Host, port: number): Promise<string | undefined> {
  try {
    const sockets = await host.iproute.run('ss', ['-Hulnp', `sport = :${port}`]);
    const [, name, pid] = /users:\(\("([^"]*)",pid=(\d+)/.exec(sockets) ?? [];
    return name === undefined ? undefined : `${name} (pid ${pid})`;
  } catch (error) {
    if (error instanceof CommandFailed) return undefined;
    throw error;
  }
}
