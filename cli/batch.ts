import { readFileSync } from 'node:fs';
import { BATCH_LIMIT, type BatchResult } from '../control/protocol.ts';
import { UsageError } from '../control/words.ts';
import { type Client, connectToDaemon, type DaemonCommand } from './client.ts';
import { parseFdb } from './fdb.ts';
import { parseLink } from './link.ts';
import { parseMdb } from './mdb.ts';
import { parseNeigh } from './neigh.ts';
import { parseNexthopCommand } from './nexthop.ts';
import type { Options } from './options.ts';
import { complain } from './output.ts';

const PARSERS = {
  fdb: parseFdb,
  link: parseLink,
  mdb: parseMdb,
  neigh: parseNeigh,
  nexthop: parseNexthopCommand,
};
/** What a line is about that does not say so. */
type BatchObject = 'fdb' | 'mdb' | 'neigh' | 'nexthop';

interface BatchLine {
  number: number;
  words: string[];
}

/**
 * Runs the commands of a file, or of standard input for `-`, over one connection, as `bridge -batch` does: it stops at the first
 * failure unless forced. Returns the exit status. Commands go to the daemon some hundreds at a time.
 */
export async function runBatch(
  file: string,
  options: Options,
  words: readonly string[],
  object: BatchObject = 'fdb',
): Promise<number> {
  if (words.length > 0) throw new UsageError(`unknown word "${words[0]}" beside -batch ${file}`);
  const lines = batchLines(readBatch(file));
  const client = await connectToDaemon();
  try {
    return await new Batch(file, options, client, object).run(lines);
  } finally {
    client.close();
  }
}

interface NumberedCommand {
  number: number;
  command: DaemonCommand;
}

class Batch {
  private readonly file: string;
  private readonly options: Options;
  private readonly client: Client;
  private readonly object: BatchObject;
  private waiting: NumberedCommand[] = [];
  /** What the daemon is at. */
  private under: { sent: readonly NumberedCommand[]; results: Promise<BatchResult> } | undefined;
  private status = 0;

  constructor(file: string, options: Options, client: Client, object: BatchObject) {
    this.file = file;
    this.options = options;
    this.client = client;
    this.object = object;
  }

  async run(lines: Iterable<BatchLine>): Promise<number> {
    for (const { number, words } of lines) {
      if (this.mayNotGoOn()) break;
      try {
        this.waiting.push({ number, command: parseLine(words, this.options, this.object) });
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
        // What stands before the wrong line runs before the complaint about it.
        await this.send();
        await this.take();
        if (!this.mayNotGoOn()) this.fail(number, error.message);
      }
      if (this.waiting.length === BATCH_LIMIT) await this.send();
    }
    if (!this.mayNotGoOn()) await this.send();
    await this.take();
    return this.status;
  }

  /** Sends what waits, once the answer to what was sent before is there; its own answer comes while more lines are read. */
  private async send(): Promise<void> {
    await this.take();
    if (this.waiting.length === 0 || this.mayNotGoOn()) return;
    const sent = this.waiting;
    this.waiting = [];
    const commands = sent.map(({ command }) => ({ command: command.command, arguments: command.arguments }));
    const results = this.client.ask<BatchResult>('batch', { force: this.options.force === true, commands });
    results.catch(() => {}); // take() hears of it
    this.under = { sent, results };
  }

  /** Tells what became of what was sent last. */
  private async take(): Promise<void> {
    if (!this.under) return;
    const { sent, results } = this.under;
    this.under = undefined;
    (await results).forEach((outcome, index) => {
      if ('error' in outcome) this.fail(sent[index].number, outcome.error.message);
      else sent[index].command.print?.(outcome.result as never);
    });
  }

  private mayNotGoOn(): boolean {
    return this.status !== 0 && !this.options.force;
  }

  private fail(line: number, message: string): void {
    complain(message);
    complain(`Command failed ${this.file}:${line}`);
    this.status = 1;
  }
}

/** `fdb add ...` as in bridge's batches, `neigh add ...` as in ip's; without the object it is the one that the batch was given to. */
export function parseLine(
  words: readonly string[],
  options: Options = {},
  otherwise: BatchObject = 'fdb',
): DaemonCommand {
  const [object, ...rest] = words;
  if (Object.hasOwn(PARSERS, object)) return PARSERS[object as keyof typeof PARSERS](rest, options);
  return PARSERS[otherwise](words, options);
}

function readBatch(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (error) {
    throw new Error(`Cannot open file "${file}" for reading: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/**
 * The commands of a batch with the number of their last line (iproute2, lib/utils.c: getcmdline, makeargs): # begins a comment
 * anywhere, a backslash at the end continues the line, quotes hold a word together.
 */
export function* batchLines(text: string): Generator<BatchLine> {
  let begun = '';
  const lines = text.split('\n');
  for (const [index, line] of lines.entries()) {
    const code = line.includes('#') ? line.slice(0, line.indexOf('#')) : line;
    const continues = code.endsWith('\\') && index + 1 < lines.length;
    begun += continues ? `${code.slice(0, -1)} ` : code;
    if (continues) continue;
    const words = wordsOf(begun);
    begun = '';
    if (words.length > 0) yield { number: index + 1, words };
  }
}

function wordsOf(line: string): string[] {
  if (!/["']/.test(line)) return line.split(/\s+/).filter((word) => word !== '');
  const found = line.matchAll(/"([^"]*)"|'([^']*)'|[^\s"']+/g);
  return Array.from(found, ([word, double, single]) => double ?? single ?? word);
}
