import { removeDeadSocket, removeOtherSockets } from '../control/dead-sockets.ts';
import { socketPath } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { takeOptions } from './options.ts';
import { print } from './output.ts';

export const HELP = `Usage: uvxlan cleanup [ offload-pin DIR ]
Removes what a daemon that was killed has left behind in this network namespace: the redirection on NICs and its
control socket; dead control sockets of other namespaces too. Refuses while a daemon runs. The next "uvxlan up" does the same.
What was offloaded under offload-pin is removed from DIR, /sys/fs/bpf when not given.
Exit status: 0, also when there was nothing to do; 1 after a failure, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { words } = takeOptions(args, []);
  const [word, directory, ...more] = words;
  const unknown = word === 'offload-pin' ? more[0] : word;
  if (unknown !== undefined) throw new UsageError(`unknown word "${unknown}": cleanup takes only offload-pin DIR`);
  if (word !== undefined && directory === undefined)
    throw new UsageError('Command line is not complete: "offload-pin" wants a value');
  const path = socketPath();
  if (await removeDeadSocket(path)) print(`uvxlan: removed ${path}`);
  for (const other of await removeOtherSockets(path)) print(`uvxlan: removed ${other}`);
  const { cleanUp } = await import('../control/cleanup.ts');
  const removed = await cleanUp();
  const { PIN_DIRECTORY, removePins } = await import('../control/offload/pins.ts');
  removed.push(...removePins(directory ?? PIN_DIRECTORY));
  for (const what of removed) print(`uvxlan: removed ${what}`);
  return 0;
}
