/** The measurements by name, in the order in which they are taken. */
import { connections } from './connections.ts';
import type { Measure } from './measure.ts';
import { processes } from './processes.ts';
import { floodPing, loadedRoundTrip, roundTrip } from './round-trip.ts';
import { jumbo, tcpMeasures } from './tcp.ts';
import { packetCost, udpMeasures } from './udp.ts';

/** Idle ones first, so that no queue of the one before is in their way; jumbo needs a network of its own. */
export const MEASURES: readonly Measure[] = [
  roundTrip,
  floodPing,
  ...tcpMeasures,
  packetCost,
  ...udpMeasures,
  loadedRoundTrip,
  connections,
  processes,
  jumbo,
];

/** What --measures may name instead of measurements. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  quick: ['ping', 'rtt', 'tcp1', 'tcp4', 'udp64', 'udp1400', 'processes'],
  full: MEASURES.map(({ name }) => name),
};

/** In the order in which they are taken. Throws an Error that says what is wrong. */
export function parseMeasures(list: string): Measure[] {
  const wanted = new Set(list.split(',').flatMap((word) => (Object.hasOwn(GROUPS, word) ? GROUPS[word]! : [word])));
  const unknown = [...wanted].find((word) => !MEASURES.some(({ name }) => name === word));
  if (unknown !== undefined) {
    const known = [...MEASURES.map(({ name }) => name), ...Object.keys(GROUPS)].join(', ');
    throw new Error(`there is no measurement "${unknown}"; --measures takes ${known}`);
  }
  return MEASURES.filter(({ name }) => wanted.has(name));
}
