/** npm run bench: see HELP in arguments.ts. */
import { readFileSync } from 'node:fs';
import { ArgumentError, type Command, HELP, parseArguments } from './arguments.ts';
import { compare, writeReports } from './compare.ts';
import { lock } from './lock.ts';
import { MEASURES } from './measures/measures.ts';
import { micro } from './micro.ts';
import { parsePeers } from './peers/peers.ts';
import { terminalReport } from './report/text.ts';
import type { Result } from './result.ts';
import { scale } from './scale.ts';
import { transfer } from './transfer.ts';

async function run(command: Command, argv: readonly string[]): Promise<boolean> {
  switch (command.name) {
    case 'help':
      console.log(HELP);
      return true;
    case 'list':
      list();
      return true;
    case 'compare':
      wantRoot(command.name);
      return alone(() =>
        compare(command.options, ['npm run bench', ...(argv.length > 0 ? ['--', ...argv] : [])].join(' ')),
      );
    case 'report': {
      const result = readReport(command.file);
      if (command.output === undefined) console.log(terminalReport(result));
      else writeReports(result, command.output);
      return true;
    }
    case 'scale':
      return alone(() => scale(command.output));
    case 'micro':
      return alone(() => micro(command.word));
    case 'transfer':
      wantRoot(command.name);
      return alone(() => transfer(command.megabytes));
  }
}

/** Throws when the file is not there, or is something else. */
function readReport(file: string): Result {
  const text = readFileSync(file, 'utf8');
  let result: Result | undefined;
  try {
    result = JSON.parse(text) as Result;
  } catch {} // said below
  if (result?.format !== 1 || !Array.isArray(result.runs)) {
    throw new Error(`${file} is no report.json of this program's`);
  }
  return result;
}

/** Throws when we may not make network namespaces. */
function wantRoot(name: Command['name']): void {
  if (process.geteuid!() !== 0) throw new Error(`${name} needs root, to create network namespaces`);
}

/** Runs what measures. Throws when another benchmark runs. */
async function alone(measure: () => boolean | Promise<boolean>): Promise<boolean> {
  const unlock = await lock();
  try {
    return await measure();
  } finally {
    unlock();
  }
}

function list(): void {
  const line = (name: string, about: string, lacks: string | undefined) =>
    console.log(`  ${name.padEnd(16)} ${about}${lacks ? ` [cannot run: ${lacks}]` : ''}`);
  console.log('peers (--peers)');
  for (const { name, about, left } of parsePeers('full,auto')) line(name, about, left.lacks());
  console.log('measurements (--measures)');
  for (const { name, about, lacks } of MEASURES) line(name, about, lacks?.());
}

const argv = process.argv.slice(2);
try {
  process.exitCode = (await run(parseArguments(argv), argv)) ? 0 : 1;
} catch (error) {
  const wrong = error instanceof ArgumentError;
  console.error(`bench: ${(error as Error).message}${wrong ? '; npm run bench -- --help shows what there is' : ''}`);
  process.exitCode = wrong ? 2 : 1;
}
