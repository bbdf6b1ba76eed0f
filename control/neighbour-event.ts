/** A neighbour as `ip monitor label neigh` tells of it, and whether that is news for a path. */
import { type Neighbour, neighbourKey } from './host.ts';

/** Neighbour states in which the kernel sends (NUD_VALID, include/net/neighbour.h). */
const VALID: ReadonlySet<Neighbour['state']> = new Set(['PERMANENT', 'NOARP', 'REACHABLE', 'PROBE', 'STALE', 'DELAY']);

const STATE = / (NONE|INCOMPLETE|REACHABLE|STALE|DELAY|PROBE|FAILED|NOARP|PERMANENT)\b/;

type Entry = Pick<Neighbour, 'mac' | 'state' | 'managed' | 'externallyLearned'>;

/** The MAC address that packets go to; undefined while none is known, or nobody answers at it. */
export function validMac(entry: Pick<Entry, 'mac' | 'state'> | undefined): string | undefined {
  return entry && VALID.has(entry.state) ? entry.mac : undefined;
}

/**
 * What matters of an entry to a path, as text to compare. The kernel tells of every probe: one that is managed goes from REACHABLE to PROBE and
 * back twice a minute, and one that does not answer fails every five seconds, again and again.
 */
export function meaning(entry: Entry | undefined): string {
  if (!entry) return 'none';
  const { state, managed, externallyLearned } = entry;
  const answer = validMac(entry) ?? (state === 'FAILED' ? 'failed' : 'waiting');
  // Whose it is to keep, in NeighbourKeeper's eyes.
  const fixed = state === 'PERMANENT' || state === 'NOARP' ? ` ${state}` : '';
  return `${answer}${fixed}${managed ? ' managed' : ''}${externallyLearned ? ' extern_learn' : ''}`;
}

/** Key and meaning of what a line tells of; undefined when it is about something else. */
export function readEvent(line: string): { key: string; meaning: string } | undefined {
  const [, deleted, address, dev, rest] = /^\[NEIGH\](Deleted )?(\S+) dev (\S+)(.*)$/.exec(line) ?? [];
  if (address === undefined) return undefined;
  const entry: Entry = {
    mac: / lladdr (\S+)/.exec(rest)?.[1],
    state: (STATE.exec(rest)?.[1] ?? 'NONE') as Neighbour['state'],
    managed: / managed\b/.test(rest),
    externallyLearned: / extern_learn\b/.test(rest),
  };
  return { key: neighbourKey(dev, address), meaning: meaning(deleted === undefined ? entry : undefined) };
}
