/** uvxlan on one of its uplinks; without some of what the kernel offers, and from another checkout, where the name says so. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { MAIN, uvxlanVtep } from '../../cli/lab/vtep.ts';
import { CAPABILITY_WORDS } from '../../system/capabilities.ts';
import type { Kind } from './kind.ts';

/** Name -> its words, and what it is. */
export const UPLINKS: Readonly<Record<string, { readonly words: string; readonly about: string }>> = {
  auto: { words: 'uplink auto', about: 'uvxlan, the uplink that it takes by itself' },
  redirect: { words: 'uplink redirect', about: 'uvxlan, frames redirected to and from the NIC' },
  offload: {
    words: 'uplink redirect offload require noudpcsum',
    about: 'uvxlan, known flows carried by eBPF in the kernel, without outer UDP checksums as that wants',
  },
  udp: { words: 'uplink udp', about: 'uvxlan on UDP sockets' },
  raw: { words: 'uplink raw', about: 'uvxlan, one packet a call: what a straightforward Node program reaches' },
};

export const UVXLAN_KINDS: readonly string[] = Object.keys(UPLINKS);

/**
 * UPLINK[/HIDDEN+HIDDEN...][@CHECKOUT]: HIDDEN as in `uvxlan up --without`, CHECKOUT a directory whose dist/ is run instead of this one's.
 * Throws an Error that says what is wrong with the name.
 */
export function uvxlanKind(name: string): Kind {
  const [, uplink, hidden = '', checkout] = /^([^/@]*)(?:\/([^@]*))?(?:@(.+))?$/.exec(name) ?? [];
  const found = Object.hasOwn(UPLINKS, uplink ?? '') ? UPLINKS[uplink!] : undefined;
  if (!found) throw new Error(`there is no peer "${name}"`);
  const without = hidden === '' ? [] : hidden.split('+');
  const unknown = without.find((word) => !Object.hasOwn(CAPABILITY_WORDS, word));
  if (unknown !== undefined) {
    const known = Object.keys(CAPABILITY_WORDS).join(', ');
    throw new Error(`peer "${name}": nothing is called "${unknown}"; known are ${known}`);
  }
  const main = checkout === undefined ? MAIN : resolve(checkout, 'dist/cli/main.js');
  // The trace is where the report's pauses come from, see measures/processes.ts.
  const program = [process.execPath, '--trace-gc', main];
  const options = without.length > 0 ? ` --without ${without.join(',')}` : '';
  return {
    name,
    about: `${found.about}${without.length > 0 ? `, without ${without.join(', ')}` : ''}${checkout ? `, from ${checkout}` : ''}`,
    lacks: () => (existsSync(main) ? undefined : `${main} is not there: npm run build in that checkout`),
    async open(host, place) {
      const words = `id 1 dev eth0 dstport 8472 nolearning ${found.words}${options}`;
      const vtep = await uvxlanVtep(host, { ...place, words, program });
      return { ...vtep, daemons: [vtep.daemon] };
    },
  };
}
