#!/usr/bin/env node
import { nearest } from '../control/nearest.ts';
import { VERSION } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { COMMANDS, HELP } from './commands.ts';
import { complain, print } from './output.ts';

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
