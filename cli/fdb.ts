import { changeText, type FdbHistory } from '../control/fdb-history.ts';
import { parseFdbEntry, parseFdbFilter, parseFdbFlush, parseFdbGet } from '../control/fdb-words.ts';
import type { FdbRecord } from '../control/protocol.ts';
import { type DaemonCommand, runCommand } from './client.ts';
import { matchCommand, type Options, takeOptions } from './options.ts';
import { print, printJson } from './output.ts';

export const HELP = `Usage: uvxlan fdb { add | append | replace | del } MAC dev DEV
                  { dst ADDRESS [ port PORT ] [ vni VNI ] [ via NIC ] | nhid ID } [ self ] [ permanent | static | dynamic ]
                  [ extern_learn ] [ router ]
       uvxlan fdb [ show ] [ dev DEV ] [ state STATE ] [ SELECTION ]
       uvxlan fdb get MAC dev DEV
       uvxlan fdb flush dev DEV [ SELECTION ]
SELECTION := [ dst ADDRESS ] [ port PORT ] [ vni VNI ] [ via NIC ] [ nhid ID ] [ [no]permanent ] [ [no]static ] [ [no]dynamic ]
             [ [no]extern_learn ] [ [no]router ]
       uvxlan fdb [ -force ] -batch FILE
The forwarding database of the running daemon, in the words of "bridge fdb". The MAC 00:00:00:00:00:00 is the
default: frames to unknown, broadcast and multicast addresses go to every dst appended to it.
  add        a new entry; fails when there is one
  append     one more dst for the all-zeros or a multicast MAC
  replace    the entry, or a new one
  get        where the MAC is, and its last changes: learned, moved from where, by hand or by ageing
  flush      removes what is selected, everything without a selection
  del        all of the MAC's entries, or with dst (port, vni, via) that one
permanent (the default) and static entries stay; dynamic ones, those that were learned and those so added, age and move;
extern_learn: somebody else, a control plane say, learned it, and looks after it; router: the MAC is a router's.
Options:
  -s, -statistics  show with used, the seconds since a frame was sent to the MAC, and since it was heard or changed
  -j, -json        show as JSON, with bridge's keys      -p, -pretty    indented
  -batch FILE      run the commands of FILE (- is standard input), one a line, # begins a comment
  -force           do not stop a batch at the first failure
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

const COMMANDS = ['add', 'append', 'replace', 'del', 'delete', 'show', 'lst', 'list', 'flush', 'get'] as const;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json', 'pretty', 'batch', 'force', 'statistics']);
  if (options.batch !== undefined) {
    const { runBatch } = await import('./batch.ts');
    return runBatch(options.batch, options, words);
  }
  await runCommand(parseFdb(words, options));
  return 0;
}

/** What `fdb WORDS` asks of the daemon. Throws UsageError. */
export function parseFdb(words: readonly string[], options: Options): DaemonCommand {
  const [word = 'show', ...rest] = words;
  const command = matchCommand(word, COMMANDS, 'fdb');
  switch (command) {
    case 'show':
    case 'list':
    case 'lst': {
      const filter = parseFdbFilter(rest);
      return {
        command: 'fdb show',
        arguments: { ...filter, statistics: options.statistics === true },
        print: (records: FdbRecord[]) => printRecords(records, filter.dev !== null, options),
      };
    }
    case 'get': {
      const asked = parseFdbGet(rest);
      return {
        command: 'fdb get',
        arguments: asked,
        print: (records: FoundRecord[]) => {
          const shown = options.statistics ? records : withoutAges(records);
          if (options.json) printJson(shown, options.pretty);
          else print(shown.map(foundText).join('\n'));
        },
      };
    }
    case 'flush':
      return { command: 'fdb flush', arguments: parseFdbFlush(rest) };
    case 'delete':
    case 'del':
      return { command: 'fdb del', arguments: parseFdbEntry(rest, 'del') };
    default:
      return { command: `fdb ${command}`, arguments: parseFdbEntry(rest, command) };
  }
}

/** As bridge prints them (iproute2, bridge/fdb.c: print_fdb); asked for one device, it leaves the device's name out. */
function printRecords(records: readonly FdbRecord[], ofOneDevice: boolean, options: Options): void {
  if (options.json) {
    const shown = ofOneDevice ? records.map(({ ifname: _, ...record }) => record) : records;
    printJson(shown, options.pretty);
    return;
  }
  // One write for all of them: a table may have 100,000 entries.
  if (records.length > 0) print(records.map((record) => recordText(record, ofOneDevice)).join('\n'));
}

type FoundRecord = FdbRecord & Partial<FdbHistory>;

/** As bridge prints it, and what has happened to it, the last change first. */
function foundText({ changes = 0, history = [], ...record }: FoundRecord): string {
  const more = changes > history.length && history.length > 0 ? [`    of ${changes} changes`] : [];
  return [recordText(record, false), ...history.map((change) => `    ${changeText(change)}`), ...more].join('\n');
}

function withoutAges(records: readonly FoundRecord[]): FoundRecord[] {
  return records.map(({ used: _, updated: __, ...record }) => record);
}

export function recordText(record: FdbRecord, ofOneDevice: boolean): string {
  const dev = ofOneDevice ? '' : `dev ${record.ifname} `;
  const port = record.port === undefined ? '' : `port ${record.port} `;
  const vni = record.vni === undefined ? '' : `vni ${record.vni} `;
  const via = record.viaIf === undefined ? '' : `via ${record.viaIf} `;
  const used = record.used === undefined ? '' : `used ${record.used}/${record.updated} `;
  const flags = record.flags.map((flag) => `${flag} `).join('');
  const to = record.nhid === undefined ? `dst ${record.dst}` : `nhid ${record.nhid}`;
  return `${record.mac} ${dev}${to} ${port}${vni}${via}${used}${flags}${record.state}`;
}
