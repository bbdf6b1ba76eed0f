/** uvxlan on one of its uplinks; without some of what the kernel offers, and from another checkout, where the name says so. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { MAIN, uvxlanVtep } from '../../cli/lab/vtep.ts';
import { CAPABILITY_WORDS } from '../../system/capabilities.ts';
import type { Kind } from './kind.ts';

export const UPLINKS = ['auto', 'redirect', 'udp', 'raw'] as const;
type UplinkWord = (typeof UPLINKS)[number];

const ABOUT: Record<UplinkWord, string> = {
  auto: 'uvxlan, the uplink that it takes by itself',
  redirect: 'uvxlan, frames redirected to and from the NIC',
  udp: 'uvxlan on UDP sockets',
  raw: 'uvxlan, one packet a call: what a straightforward Node program reaches',
};

/**
 * UPLINK[/HIDDEN+HIDDEN...][@CHECKOUT]: HIDDEN as in `uvxlan up --without`, CHECKOUT a directory whose dist/ is run instead of this one's.
 * Throws an Error that says what is wrong with the name.
 */
export function uvxlanKind(name: string): Kind {
  const [, uplink, hidden = '', checkout] = /^([^/@]*)(?:\/([^@]*))?(?:@(.+))?$/.exec(name) ?? [];
  if (!isUplink(uplink)) throw new Error(`there is no peer "${name}"`);
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
    about: `${ABOUT[uplink]}${without.length > 0 ? `, without ${without.join(', ')}` : ''}${checkout ? `, from ${checkout}` : ''}`,
    lacks: () => (existsSync(main) ? undefined : `${main} is not there: npm run build in that checkout`),
    async open(host, place) {
      const words = `id 1 dev eth0 dstport 8472 nolearning uplink ${uplink}${options}`;
      const vtep = await uvxlanVtep(host, { ...place, words, program });
      return { ...vtep, daemons: [vtep.daemon] };
    },
  };
}

function isUplink(word: string | undefined): word is UplinkWord {
  return UPLINKS.includes(word as UplinkWord);
}
