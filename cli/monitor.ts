import { type DaemonEvent, EVENT_GROUPS } from '../control/events.ts';
import { UsageError } from '../control/words.ts';
import { connectToDaemon } from './client.ts';
import { matchCommand, takeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export const HELP = `Usage: uvxlan monitor [ all | fdb | miss | mdb | peer | drop ]... [ rate N ]
What happens from now on, one line each, until it is interrupted: of all kinds, or of those that are named. After the time and the
event stands what "uvxlan fdb show" would print.
  fdb        entries: learned, moved (with "from", the VTEP until then), aged, added, changed, deleted; refused: not learned, for
             want of room (maxaddress), once a second with the last MAC and how many packets there were
  miss       l2miss: no entry for a frame's MAC, and no default; l3miss: no neighbour of an address (devices with these options)
  mdb        multicast groups' remotes: added, changed, deleted
  peer       VTEPs that frames are sent to: added, up (it can be reached), down with the reason, removed
  drop       drops, when N packets a second and reason are reached (10 when not given), every 10 seconds while that lasts, and
             drops-ended with how many there were; "uvxlan stats" says what a reason means
Options:
  -j, -json        one JSON object a line; "time" is in milliseconds since 1970
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json']);
  const { groups, rate } = parse(words);
  const client = await connectToDaemon();
  try {
    for await (const event of client.monitor(groups.includes('all') ? [] : groups, rate)) {
      if (options.json) printJson(event);
      else print(eventText(event));
    }
  } finally {
    client.close();
  }
  return 0;
}

function parse(words: readonly string[]): { groups: string[]; rate: number | undefined } {
  const groups: string[] = [];
  let rate: number | undefined;
  for (let next = 0; next < words.length; next++) {
    if (words[next] !== 'rate') {
      groups.push(matchCommand(words[next], ['all', ...EVENT_GROUPS], 'monitor'));
      continue;
    }
    const text = words[++next] ?? '';
    rate = Number(text);
    if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError(`rate wants a number from 1 on, not "${text}"`);
  }
  return { groups, rate };
}

/** The time, the event, and what it is about: bare what every entry has, the rest after its key. */
export function eventText({ group, event, time, ifname, mac, flags, state, ...rest }: DaemonEvent): string {
  const clock = `${new Date(time).toTimeString().slice(0, 8)}.${String(time % 1000).padStart(3, '0')}`;
  const words = Object.entries(rest).map(([key, value]) => `${key} ${valueText(value)}`);
  const tail = [...((flags as string[] | undefined) ?? []), ...(state ? [state] : [])];
  // Other groups' events do not stand by themselves.
  const what = group === 'mdb' || group === 'peer' ? `${group} ${event}` : event;
  return [clock, what, ...(mac === undefined ? [] : [mac]), `dev ${ifname}`, ...words, ...tail].join(' ');
}

function valueText(value: unknown): string {
  if (typeof value === 'string' && value.includes(' ')) return `"${value}"`;
  // The source list of a multicast group.
  if (Array.isArray(value)) return value.map(({ address }) => address).join(',');
  return String(value);
}
