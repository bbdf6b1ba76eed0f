/** A lesson in the lab: its prose, its commands with what they really print, its question, and whether the answer is right. */
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { bold, cyan, green, print, yellow } from '../output.ts';
import { answerFault, type Commands, firstMissing, type Lesson, type Part, parseLesson } from './lesson.ts';
import type { Host } from './network.ts';
import { MAIN } from './vtep.ts';

/** They are part of the package; compiled, this file is in dist/cli/lab. */
const DIRECTORY = fileURLToPath(new URL('../../../docs/lessons/', import.meta.url));
const TIMEOUT = 30_000;

export interface Stage {
  host(place: string): Host;
  print(text: string): void;
  /** What the reader answers; undefined when nobody does. */
  ask(): Promise<string | undefined>;
}

/** File names, in order: lesson N is the one that begins with N. */
export function lessonFiles(): string[] {
  return readdirSync(DIRECTORY)
    .filter((name) => /^\d+-.*\.md$/.test(name))
    .sort();
}

/** Throws Error that names the file when it is no lesson. */
export function readLesson(file: string): Lesson {
  try {
    return parseLesson(readFileSync(`${DIRECTORY}${file}`, 'utf8'));
  } catch (error) {
    throw new Error(`docs/lessons/${file}: ${(error as Error).message}`);
  }
}

/** Throws Error when a command does not do what the lesson says, or when the answer on record is not what they show. */
export async function runLesson(lesson: Lesson, stage: Stage): Promise<void> {
  let output = '';
  const show = async (parts: readonly Part[]) => {
    for (const part of parts) {
      if (typeof part === 'string') stage.print(`${part.replace(/^#+ (.*)$/gm, (_, heading) => bold(heading))}\n`);
      else output += await perform(part, stage);
    }
  };
  await show(lesson.before);
  const { value } = lesson.answer;
  const answer = await stage.ask();
  await show(lesson.after);
  const fault = answerFault(lesson.answer, output);
  if (fault !== undefined) throw new Error(`${lesson.title}: ${fault}`);
  if (answer === undefined) stage.print(`The answer is ${value}, as was just seen.`);
  // "1450 bytes" is as right as "1450", and "2." as "2".
  else if (/\w+/.exec(answer)?.[0] === value) stage.print(green(`Your answer, ${answer}, is right.`));
  else stage.print(yellow(`Your answer was "${answer}"; it is ${value}: what was just printed shows it.`));
}

/** Returns what the commands have printed. */
async function perform({ place, script, fails, expected }: Commands, stage: Stage): Promise<string> {
  stage.print(cyan(script.replace(/^/gm, `  ${place}$ `)));
  // The commands call this program by its name, installed or not.
  const prelude = `exec 2>&1; uvxlan() { '${process.execPath}' '${MAIN}' "$@"; }\n`;
  const PATH = `${dirname(process.execPath)}:${process.env.PATH}`;
  const { status, stdout } = await stage
    .host(place)
    .run(['sh', '-euc', prelude + script], { timeout: TIMEOUT, check: false, env: { PATH } });
  stage.print(stdout.replace(/^(?=.)/gm, '    '));
  const wrong = (what: string) => new Error(`the lesson's last commands, on ${place}: ${what}`);
  if (status === null || (status !== 0) !== fails)
    throw wrong(`status ${status}${fails ? ', but it had to fail' : ''}`);
  const missing = firstMissing(expected, stdout);
  if (missing !== undefined) throw wrong(`"${missing}" was expected`);
  return stdout;
}

/** On a terminal, a line of the reader's; undefined at the end of input. */
export async function askReader(): Promise<string | undefined> {
  process.stdout.write('Your answer, a number: ');
  const lines = createInterface({ input: process.stdin });
  const [line] = await Promise.race([once(lines, 'line'), once(lines, 'close')]);
  lines.close();
  print('');
  return (line as string | undefined)?.trim();
}
