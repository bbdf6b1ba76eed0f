import type { DirectionCounters, StatsRecord } from '../control/protocol.ts';
import { DROPS } from '../dataplane/drops.ts';
import { type DaemonCommand, runCommand } from './client.ts';
import { deviceName } from './link.ts';
import { type Options, takeOptions } from './options.ts';
import { bold, print, printJson, yellow } from './output.ts';

export const HELP = `Usage: uvxlan stats [ [ dev ] NAME ]
What each device has carried, and every packet that was not delivered, by reason:
in + copies = out + answered + drops, in each direction (tx: host to network, rx: network to host). Copies are what
head-end replication and the segmentation of super-frames add, answered is what proxy and neigh_suppress reply to.
What arrives for no device is counted by its uplink.
The equation is exact when nothing is in flight.
Options:
  -d, -details    reasons that have not occurred too
  -j, -json       as JSON                    -p, -pretty    indented
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['details', 'json', 'pretty']);
  await runCommand(parseStats(words, options));
  return 0;
}

/** What `stats WORDS` asks of the daemon. Throws UsageError. */
function parseStats(words: readonly string[], options: Options): DaemonCommand {
  return {
    command: 'stats',
    arguments: { name: deviceName(words) },
    print: (records: StatsRecord[]) => {
      if (options.json) printJson(records, options.pretty);
      else for (const record of records) print(statsText(record, options));
    },
  };
}

function statsText(record: StatsRecord, options: Options): string {
  return [
    bold(record.ifname),
    ...directionText('tx', record.tx, options),
    ...directionText('rx', record.rx, options),
  ].join('\n');
}

function directionText(direction: 'tx' | 'rx', counters: DirectionCounters, options: Options): string[] {
  const drops = Object.entries(counters.drops);
  // An uplink counts only what it receives.
  if (drops.length === 0) return [];
  const dropped = drops.reduce((sum, [, count]) => sum + count, 0);
  const copies = direction === 'tx' ? ` + copies ${counters.copies}` : '';
  const answered = counters.answered === undefined ? '' : ` + answered ${counters.answered}`;
  return [
    `  ${direction}: in ${counters.in}${copies} = out ${counters.out}${answered} + drops ${dropped}; ${counters.bytes} bytes${counters.offloaded ? `; ${counters.offloaded} offloaded` : ''}`,
    ...drops
      .filter(([, count]) => count > 0 || options.details)
      .flatMap(([name, count]) => dropText(direction, name, count)),
    ...(counters.last_error === undefined
      ? []
      : [`    the last error without a reason of its own: ${counters.last_error}`]),
  ];
}

function dropText(direction: 'tx' | 'rx', name: string, count: number): string[] {
  const known = DROPS.find((drop) => drop.name === name && drop.direction === direction);
  return [
    `    ${count > 0 ? yellow(name) : name} ${count}`,
    ...(known
      ? [`        ${known.meaning}`, `        ${known.advice}`]
      : ['        a reason that this client does not know']),
  ];
}
