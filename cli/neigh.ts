import {
  FLUSHED_STATES,
  type NeighRecord,
  parseNeighbour,
  parseNeighFilter,
  SHOWN_STATES,
} from '../control/neigh-words.ts';
import { UsageError } from '../control/words.ts';
import { type DaemonCommand, runCommand } from './client.ts';
import { matchCommand, type Options, takeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export const HELP = `Usage: uvxlan neigh { add | change | replace } ADDRESS lladdr MAC dev DEV
                    [ nud { permanent | noarp | reachable | stale } ] [ router ]
       uvxlan neigh del ADDRESS dev DEV
       uvxlan neigh [ show ] [ [ to ] PREFIX ] [ dev DEV ] [ nud STATE ]
       uvxlan neigh flush [ [ to ] PREFIX ] dev DEV [ nud STATE ]
       uvxlan neigh [ -force ] -batch FILE
The neighbours that a device with proxy or neigh_suppress answers ARP and neighbour solicitations for, and that rsc
sends to, in the words of "ip neigh". A device knows the host's own neighbours on it as well ("ip neigh show dev DEV");
these are shown with "proto kernel", and changed with ip. Nothing probes or ages what is added here: a state
stays as it is given. proxy answers for permanent, noarp and reachable neighbours, neigh_suppress for all whose MAC is
behind the device.
  show       but for noarp ones, as ip does; "nud all" shows all
  flush      removes reachable and stale ones, as ip does, with nud others
Options:
  -j, -json        show as JSON, with ip's keys          -p, -pretty    indented
  -batch FILE      run the commands of FILE (- is standard input), one a line, # begins a comment
  -force           do not stop a batch at the first failure
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

const COMMANDS = ['add', 'change', 'chg', 'replace', 'del', 'delete', 'show', 'lst', 'list', 'flush'] as const;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json', 'pretty', 'batch', 'force']);
  if (options.batch !== undefined) {
    const { runBatch } = await import('./batch.ts');
    return runBatch(options.batch, options, words, 'neigh');
  }
  await runCommand(parseNeigh(words, options));
  return 0;
}

/** What `neigh WORDS` asks of the daemon. Throws UsageError. */
export function parseNeigh(words: readonly string[], options: Options): DaemonCommand {
  const [word = 'show', ...rest] = words;
  const command = matchCommand(word, COMMANDS, 'neigh');
  switch (command) {
    case 'show':
    case 'list':
    case 'lst': {
      const filter = parseNeighFilter(rest, SHOWN_STATES);
      return {
        command: 'neigh show',
        arguments: filter,
        print: (records: NeighRecord[]) => printRecords(records, filter.dev !== null, options),
      };
    }
    case 'flush': {
      const filter = parseNeighFilter(rest, FLUSHED_STATES);
      if (filter.dev === null) throw new UsageError('Device is a required argument.');
      return { command: 'neigh flush', arguments: filter };
    }
    case 'delete':
    case 'del':
      return { command: 'neigh del', arguments: parseNeighbour(rest, 'del') };
    case 'chg':
    case 'change':
      return { command: 'neigh change', arguments: parseNeighbour(rest, 'change') };
    default:
      return { command: `neigh ${command}`, arguments: parseNeighbour(rest, command) };
  }
}

/** As ip prints them (iproute2, ip/ipneigh.c: print_neigh); asked for one device, it leaves the device's name out. */
function printRecords(records: readonly NeighRecord[], ofOneDevice: boolean, options: Options): void {
  if (options.json) {
    printJson(ofOneDevice ? records.map(({ dev: _, ...record }) => record) : records, options.pretty);
    return;
  }
  for (const { dst, dev, lladdr, router, state, protocol } of records) {
    const words = [dst, ...(ofOneDevice ? [] : [`dev ${dev}`]), `lladdr ${lladdr}`];
    if (router === null) words.push('router');
    words.push(...state);
    if (protocol) words.push(`proto ${protocol}`);
    print(words.join(' '));
  }
}
