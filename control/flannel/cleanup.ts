/** Takes away what agents of this network namespace have put on the host, and keep there when they end. */
import { rmSync } from 'node:fs';
import { cleanUp } from '../cleanup.ts';
import { TAP_ALIAS } from '../device.ts';
import type { Host } from '../host.ts';
import { removePins } from '../offload/pins.ts';
import { keepIptables, keepNftables } from './firewall.ts';
import { changes, readTable } from './host-table.ts';
import { keptStatePath } from './kept-state.ts';
import { FAMILIES } from './lease.ts';

/** Returns a line for each thing removed. The caller knows that no daemon runs in the namespace. */
export async function cleanUpFlannel(host: Host, subnetFile: string, pins: string): Promise<string[]> {
  const removed: string[] = [...(await cleanUp(host)), ...removePins(pins)];
  const isIpv6 = (await host.addresses()).some(({ family }) => family === 'inet6');
  const families = FAMILIES.filter((family) => family === 'ipv4' || isIpv6);
  const anywhere = { device: null, network: '', spansNetwork: false };
  // No device is named, so that this is what carries our protocol number: all routes and permanent neighbours.
  const left = await readTable(host, { ipv4: anywhere, ipv6: isIpv6 ? anywhere : null });
  const lines = changes(left, new Map());
  const errors = await host.iproute.apply(lines);
  if (errors.size > 0) throw [...errors.values()][0];
  if (left.size > 0) removed.push(`${left.size} routes and neighbours`);
  for (const { name } of await host.links()) {
    const link = await host.link(name);
    if (link?.kind !== 'tun' || link.alias !== TAP_ALIAS) continue;
    await host.iproute.run('ip', ['link', 'del', 'dev', name]);
    removed.push(`device ${name}`);
  }
  for (const family of families) {
    for (const keep of [keepIptables, keepNftables]) {
      // A host may have one of the tools only, and then nothing of the other's.
      removed.push(...(await keep(host, family, null).catch(() => [])).map((line) => line.replace(': removed', '')));
    }
  }
  for (const file of [subnetFile, keptStatePath(subnetFile)]) {
    if (rmIfThere(file)) removed.push(file);
  }
  return removed;
}

function rmIfThere(file: string): boolean {
  try {
    rmSync(file);
    return true;
  } catch {
    return false;
  }
}
