import { parseMdbEntry, parseMdbFlush, parseMdbGet, parseMdbShow } from '../control/mdb-words.ts';
import type { MdbRecord } from '../fdb/mdb.ts';
import { type DaemonCommand, runCommand } from './client.ts';
import { matchCommand, type Options, takeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export const HELP = `Usage: uvxlan mdb { add | append | replace | del } dev DEV port DEV grp GROUP [ src SOURCE ] permanent
                  [ filter_mode { include | exclude } ] [ source_list SOURCE,SOURCE... ]
                  dst ADDRESS [ dst_port PORT ] [ vni VNI ] [ src_vni VNI ] [ via NIC ]
       uvxlan mdb [ show ] [ dev DEV ]
       uvxlan mdb get dev DEV grp GROUP [ src SOURCE ]
       uvxlan mdb flush dev DEV [ dst ADDRESS ] [ dst_port PORT ] [ vni VNI ] [ src_vni VNI ]
       uvxlan mdb [ -force ] -batch FILE
The multicast database: which VTEPs get packets to a group inside of the overlay, in the words of "bridge mdb" (iproute2
6.3). A frame to a group goes to the dsts of the entry for its source and group, else for its group, else for all groups
(0.0.0.0 or ::, which link-local groups are no part of), else where the FDB has it. With "port" the device is named again.
  add        one more dst for a group; fails when the group has it; append is the same
  replace    the dst's port, VNI, filter mode and sources, or a new dst
  del        one dst; with the last one the entry goes
  flush      removes the dsts that are selected, all without a selection
filter_mode include: only from the sources listed; exclude (the default): from all but these. As in the kernel each source
becomes an entry of its own, and entries are permanent only.
Options:
  -d, -details     show with filter modes, sources and protocol
  -j, -json        show as JSON, with bridge's keys      -p, -pretty    indented
  -batch FILE      run the commands of FILE (- is standard input), one a line, # begins a comment
  -force           do not stop a batch at the first failure
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

const COMMANDS = ['add', 'append', 'replace', 'delete', 'show', 'lst', 'list', 'get', 'flush'] as const;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['details', 'json', 'pretty', 'batch', 'force']);
  if (options.batch !== undefined) {
    const { runBatch } = await import('./batch.ts');
    return runBatch(options.batch, options, words, 'mdb');
  }
  await runCommand(parseMdb(words, options));
  return 0;
}

/** What `mdb WORDS` asks of the daemon. Throws UsageError. */
export function parseMdb(words: readonly string[], options: Options): DaemonCommand {
  const [word = 'show', ...rest] = words;
  const command = matchCommand(word, COMMANDS, 'mdb');
  const show = (records: MdbRecord[]) => printRecords(records, options);
  switch (command) {
    case 'add':
    case 'append':
      return { command: 'mdb add', arguments: parseMdbEntry(rest) };
    case 'replace':
      return { command: 'mdb replace', arguments: parseMdbEntry(rest) };
    case 'delete':
      return { command: 'mdb del', arguments: parseMdbEntry(rest) };
    case 'flush':
      return { command: 'mdb flush', arguments: parseMdbFlush(rest) };
    case 'get':
      return { command: 'mdb get', arguments: parseMdbGet(rest), print: show };
    default:
      return { command: 'mdb show', arguments: parseMdbShow(rest), print: show };
  }
}

/** As bridge prints them (iproute2, bridge/mdb.c: print_mdb_entry). */
function printRecords(records: readonly MdbRecord[], options: Options): void {
  if (options.json) {
    printJson([{ mdb: options.details ? records : records.map(withoutDetails), router: {} }], options.pretty);
    return;
  }
  if (records.length > 0) print(records.map((record) => recordText(record, options.details === true)).join('\n'));
}

function withoutDetails({ filter_mode: _, source_list: __, protocol: ___, ...record }: MdbRecord): Partial<MdbRecord> {
  return record;
}

function recordText(record: MdbRecord, hasDetails: boolean): string {
  const { dev, port, grp, src, state, filter_mode, source_list, protocol, flags, dst, dst_port, vni, via } = record;
  const words = [`dev ${dev} port ${port} grp ${grp}`];
  if (src !== undefined) words.push(`src ${src}`);
  words.push(state);
  if (hasDetails) {
    words.push(`filter_mode ${filter_mode}`);
    if (source_list) words.push(`source_list ${source_list.map((each) => `${each.address}/${each.timer}`).join(',')}`);
    words.push(`proto ${protocol}`);
  }
  words.push(...flags, `dst ${dst}`);
  if (dst_port !== undefined) words.push(`dst_port ${dst_port}`);
  if (vni !== undefined) words.push(`vni ${vni}`);
  if (via !== undefined) words.push(`via ${via}`);
  return words.join(' ');
}
