import { parseNexthop, parseNexthopId } from '../control/nexthop-words.ts';
import { UsageError } from '../control/words.ts';
import type { NexthopRecord } from '../fdb/groups.ts';
import { type DaemonCommand, runCommand } from './client.ts';
import { matchCommand, type Options, takeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export const HELP = `Usage: uvxlan nexthop { add | replace } id ID { via ADDRESS | group ID/ID... } fdb
       uvxlan nexthop del id ID
       uvxlan nexthop [ show ] [ id ID ]
       uvxlan nexthop get id ID
       uvxlan nexthop flush
       uvxlan nexthop [ -force ] -batch FILE
VTEPs and groups of VTEPs for FDB entries ("uvxlan fdb add MAC dev DEV nhid ID"), in the words of "ip nexthop ... fdb".
Frames to an entry with a group go to one of its VTEPs, each flow to the same one, all at equal cost. They are the
daemon's, and end with it.
  replace    another VTEP, or other members: flows move at once
  del        a VTEP leaves its groups; a group takes its FDB entries along
Options:
  -j, -json        show as JSON, with ip's keys      -p, -pretty    indented
  -batch FILE      run the commands of FILE (- is standard input), one a line, # begins a comment
  -force           do not stop a batch at the first failure
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json', 'pretty', 'batch', 'force']);
  if (options.batch !== undefined) {
    const { runBatch } = await import('./batch.ts');
    return runBatch(options.batch, options, words, 'nexthop');
  }
  await runCommand(parseNexthopCommand(words, options));
  return 0;
}

/** What `nexthop WORDS` asks of the daemon. Throws UsageError. */
export function parseNexthopCommand(words: readonly string[], options: Options): DaemonCommand {
  const [word = 'show', ...rest] = words;
  const command = matchCommand(word, ['add', 'replace', 'delete', 'show', 'lst', 'list', 'get', 'flush'], 'nexthop');
  switch (command) {
    case 'add':
    case 'replace':
      return { command: `nexthop ${command}`, arguments: parseNexthop(rest) };
    case 'flush':
      if (rest.length > 0) throw new UsageError(`unknown word "${rest[0]}": flush removes all`);
      return { command: 'nexthop flush', arguments: {} };
    case 'delete':
    case 'get': {
      const { id } = parseNexthopId(rest);
      if (id === null) throw new UsageError('"id" is required');
      if (command === 'delete') return { command: 'nexthop del', arguments: { id } };
      return { command: 'nexthop show', arguments: { id }, print: (shown: NexthopRecord[]) => show(shown, options) };
    }
    default:
      return {
        command: 'nexthop show',
        arguments: parseNexthopId(rest),
        print: (shown: NexthopRecord[]) => show(shown, options),
      };
  }
}

/** As ip prints them (iproute2, ip/ipnexthop.c: print_nexthop). */
function show(nexthops: readonly NexthopRecord[], options: Options): void {
  if (options.json) {
    printJson(nexthops, options.pretty);
    return;
  }
  for (const { id, group, gateway } of nexthops) {
    print(
      `id ${id} ${group ? `group ${group.map((member) => member.id).join('/')}` : `via ${gateway} scope link`} fdb `,
    );
  }
}
