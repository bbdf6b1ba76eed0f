import { type DaemonEvent, EVENT_GROUPS } from '../control/events.ts';
import { connectToDaemon } from './client.ts';
import { matchCommand, takeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export const HELP = `Usage: uvxlan monitor [ all | fdb | miss ]...
What happens from now on, one line each, until it is interrupted. After the time and the event stands what "uvxlan fdb show" would
print.
  fdb        entries: learned, moved (with "from", the VTEP until then), aged, added, changed, deleted
  miss       l2miss: no entry for a frame's MAC, and no default; l3miss: no neighbour of an address (devices with these options)
Options:
  -j, -json        one JSON object a line; "time" is in milliseconds since 1970
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json']);
  const groups = words.map((word) => matchCommand(word, ['all', ...EVENT_GROUPS], 'monitor'));
  const client = await connectToDaemon();
  try {
    for await (const event of client.monitor(groups.includes('all') ? [] : groups)) {
      if (options.json) printJson(event);
      else print(eventText(event));
    }
  } finally {
    client.close();
  }
  return 0;
}

/** The time, the event, and what it is about: bare what every entry has, the rest after its key. */
export function eventText({ group: _, event, time, ifname, mac, flags, state, ...rest }: DaemonEvent): string {
  const clock = `${new Date(time).toTimeString().slice(0, 8)}.${String(time % 1000).padStart(3, '0')}`;
  const words = Object.entries(rest).map(([key, value]) => `${key} ${value}`);
  const tail = [...((flags as string[] | undefined) ?? []), ...(state ? [state] : [])];
  return [clock, event, ...(mac === undefined ? [] : [mac]), `dev ${ifname}`, ...words, ...tail].join(' ');
}
