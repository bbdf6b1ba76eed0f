import { nearest } from '../control/nearest.ts';
import { UsageError } from '../control/words.ts';

/** Options as iproute2 has them: one dash or two, anywhere among the words, not to be run together. */
export interface Options {
  details?: true;
  force?: true;
  html?: true;
  json?: true;
  live?: true;
  once?: true;
  pretty?: true;
  segments?: true;
  statistics?: true;
  batch?: string;
  count?: string;
  config?: string;
  lesson?: string;
  'log-format'?: string;
  'log-level'?: string;
  metrics?: string;
  'metrics-peers'?: string;
  outer?: string;
  'vxlan-port'?: string;
  web?: string;
  without?: string;
  write?: string;
}

const FLAGS: Record<string, keyof Options> = {
  d: 'details',
  details: 'details',
  force: 'force',
  html: 'html',
  j: 'json',
  json: 'json',
  live: 'live',
  once: 'once',
  p: 'pretty',
  pretty: 'pretty',
  s: 'statistics',
  stats: 'statistics',
  segments: 'segments',
  statistics: 'statistics',
};

const WITH_VALUE: Record<string, keyof Options> = {
  b: 'batch',
  batch: 'batch',
  config: 'config',
  count: 'count',
  lesson: 'lesson',
  'log-format': 'log-format',
  'log-level': 'log-level',
  metrics: 'metrics',
  'metrics-peers': 'metrics-peers',
  n: 'count',
  outer: 'outer',
  'vxlan-port': 'vxlan-port',
  w: 'write',
  web: 'web',
  without: 'without',
  write: 'write',
};

/** Splits a command's arguments into the options that it allows and its words. Throws UsageError. */
export function takeOptions(
  args: readonly string[],
  allowed: readonly (keyof Options)[],
): { options: Options; words: string[] } {
  const options: Options = {};
  const words: string[] = [];
  for (let next = 0; next < args.length; ) {
    const argument = args[next++];
    const [, name, inline] = /^--?([a-z][a-z-]*)(?:=(.*))?$/s.exec(argument) ?? [];
    if (name === undefined) {
      words.push(argument);
      continue;
    }
    const takesValue = Object.hasOwn(WITH_VALUE, name);
    const key = takesValue ? WITH_VALUE[name] : Object.hasOwn(FLAGS, name) ? FLAGS[name] : undefined;
    if (key === undefined || !allowed.includes(key)) throw unknownOption(argument, allowed);
    if (!takesValue && inline !== undefined) throw new UsageError(`option "-${name}" takes no value`);
    const value = takesValue ? (inline ?? args[next++]) : true;
    if (value === undefined || value === '') throw new UsageError(`option "${argument}" wants a value`);
    if (key in options && takesValue) throw new UsageError(`duplicate option "${argument}"`);
    Object.assign(options, { [key]: value });
  }
  return { options, words };
}

function unknownOption(argument: string, allowed: readonly string[]): UsageError {
  const suggestion = nearest(argument.replace(/^-+/, ''), allowed);
  const known = allowed.map((name) => `--${name}`).join(', ');
  return new UsageError(
    `option "${argument}" is unknown here, ${suggestion ? `did you mean "--${suggestion}"?` : `known are ${known || 'none'} and --help`}`,
  );
}

/** The command that a word stands for: as in iproute2 any beginning will do, and the first match in the list wins. */
export function matchCommand<T extends string>(word: string, commands: readonly T[], object: string): T {
  const found = commands.find((command) => command.startsWith(word));
  if (found !== undefined && word !== '') return found;
  const suggestion = nearest(word, commands);
  const hint = suggestion ? `did you mean "${suggestion}"?` : `try "uvxlan ${object} --help"`;
  throw new UsageError(`Command "${word}" is unknown, ${hint}`);
}

/** The value of an option that says where to listen. Throws UsageError. */
export async function listenAddress(option: string, text: string): Promise<{ address: string; port: number }> {
  const { parseListen } = await import('../control/web/server.ts');
  try {
    return parseListen(text);
  } catch (error) {
    throw new UsageError(`${option}: ${(error as Error).message}`);
  }
}
