#!/usr/bin/env node
import { nearest } from '../control/nearest.ts';
import { VERSION } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { complain, print } from './output.ts';

/** A command's module; loaded only when it is the one asked for, since a client command is to end at once. */
interface Command {
  HELP: string;
  /** Returns the exit status; an error that is thrown is printed, and is 1, for a UsageError 2. */
  run(args: string[]): Promise<number>;
}

const COMMANDS: Record<string, () => Promise<Command>> = {
  up: () => import('./up.ts'),
  link: () => import('./link.ts'),
  fdb: () => import('./fdb.ts'),
  neigh: () => import('./neigh.ts'),
  stats: () => import('./stats.ts'),
  monitor: () => import('./monitor.ts'),
  capture: () => import('./capture.ts'),
  explain: () => import('./explain.ts'),
  flannel: () => import('./flannel.ts'),
  doctor: () => import('./doctor.ts'),
  cleanup: () => import('./cleanup.ts'),
  lab: () => import('./lab.ts'),
};

const HELP = `Usage: uvxlan COMMAND ...
       uvxlan [ -force ] -batch FILE
A userspace VXLAN dataplane, in the words of iproute2.
  up         run the daemon with a VXLAN device, in the foreground
  link       show, add, change and remove the daemon's devices
  fdb        show and change the forwarding database
  neigh      show and change the neighbours that devices answer ARP and neighbour discovery for
  stats      packets, bytes, and drops by reason with what to do about them
  monitor    what happens, as it happens: MACs learned, moved, aged, changed
  capture    packets of both sides to a file or to Wireshark, with next hops and drop reasons
  explain    packets of a capture byte by byte: every field with its meaning and RFC section
  flannel    the node agent of a flannel cluster, instead of flanneld
  doctor     what this machine offers, what is in the way, and what to do about it
  cleanup    remove what a killed daemon has left behind
  lab        two nodes in network namespaces, pod to pod over VXLAN: see it work
Each has --help. Options may stand before the command or after it, as with ip: uvxlan -j fdb show.
  --version  print the version
Exit status: 0, 1 after a failure, 2 when the words are wrong.`;

async function main(args: string[]): Promise<number> {
  const at = args.findIndex((argument) => Object.hasOwn(COMMANDS, argument));
  const before = at < 0 ? args : args.slice(0, at);
  if (before.some((argument) => /^--?(V|[vV]ersion)$/.test(argument))) {
    print(`uvxlan ${VERSION}`);
    return 0;
  }
  if (at >= 0 && before.every((argument) => argument.startsWith('-'))) {
    const command = await COMMANDS[args[at]]();
    const rest = [...before, ...args.slice(at + 1)];
    if (!asksForHelp(rest)) return command.run(rest);
    print(command.HELP);
    return 0;
  }
  if (asksForHelp(args)) {
    print(HELP);
    return 0;
  }
  if (args.some((argument) => /^--?b(atch)?(=|$)/.test(argument))) return (await COMMANDS.fdb()).run(args);
  throw unknownCommand(args.find((argument) => !argument.startsWith('-')));
}

/** `-h`, `--help`, or as in iproute2 the last word `help`. */
function asksForHelp(args: readonly string[]): boolean {
  return args.at(-1) === 'help' || args.some((argument) => /^(-h|--?help)$/.test(argument));
}

function unknownCommand(word: string | undefined): UsageError {
  if (word === undefined) return new UsageError('a command is missing, see uvxlan --help');
  const suggestion = nearest(word, Object.keys(COMMANDS));
  return new UsageError(
    `command "${word}" is unknown, ${suggestion ? `did you mean "${suggestion}"?` : 'see uvxlan --help'}`,
  );
}

// A reader that went away (uvxlan fdb show | head) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  complain(error instanceof Error ? error.message : String(error));
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
