// Commands and long-running processes of the lab and of the real-network tests. Every wait has a limit, and what goes wrong
// is an error that shows the command and all that it printed.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';

export type Command = string | readonly string[];

export interface Exit {
  status: number | null;
  signal: NodeJS.Signals | null;
}

export interface Result extends Exit {
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Milliseconds until the command is killed and `run` throws; default 30,000. */
  timeout?: number;
  /** Written to standard input. */
  input?: string;
  /** false: a non-zero status is an ordinary result; default true: it throws. */
  check?: boolean;
  env?: NodeJS.ProcessEnv;
}

/** Milliseconds, which only matter when something is wrong: a busy machine may take its time. */
const DEFAULT_TIMEOUT = 30_000;
const PATIENCE = 20_000;
const running = new Set<ChildProcess>();

/** Splits a command line at white space; one whose arguments hold spaces is given as an array instead. */
export function words(command: Command): string[] {
  return typeof command === 'string' ? command.trim().split(/\s+/) : [...command];
}

/** Runs a short configuration command to its end, blocking; returns its standard output. Throws when it fails. */
export function runSync(command: Command, timeout = DEFAULT_TIMEOUT): string {
  const argv = words(command);
  const { status, signal, error, stdout, stderr } = spawnSync(argv[0]!, argv.slice(1), { encoding: 'utf8', timeout });
  if (error) throw new Error(`${argv.join(' ')}: ${error.message}`);
  if (status !== 0) throw new Error(`${argv.join(' ')}: ${ending({ status, signal })}\n${stdout}${stderr}`.trimEnd());
  return stdout;
}

/** Runs a command to its end without blocking. */
export async function run(command: Command, options: RunOptions = {}): Promise<Result> {
  const process = new Process(command, options.env);
  process.endInput(options.input);
  const exit = await process.ended(options.timeout ?? DEFAULT_TIMEOUT);
  if (exit.status !== 0 && options.check !== false) throw process.failure(ending(exit));
  return { ...exit, stdout: process.stdout, stderr: process.stderr };
}

/** Resolves when `condition` holds; throws after `timeout` ms, naming `what` was waited for. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeout = PATIENCE,
): Promise<void> {
  const deadline = Date.now() + timeout;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${timeout} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Sends SIGTERM to every process that was started here and still runs; returns their ids. */
export function endChildren(): Set<number> {
  for (const child of running) child.kill();
  return new Set([...running].map((child) => child.pid!));
}

/** A process that runs beside this one; its output is kept. */
export class Process {
  readonly argv: readonly string[];
  stdout = '';
  stderr = '';
  /** Both streams in the order of their arrival. */
  output = '';
  /** Set once the process has ended and its output is complete. */
  exit: Exit | undefined;
  readonly #child: ChildProcess;
  readonly #watchers = new Set<() => void>();

  constructor(command: Command, env?: NodeJS.ProcessEnv) {
    this.argv = words(command);
    // NODE_TEST_CONTEXT tells a Node process that it is a test file: not what a daemon under test should believe.
    const { NODE_TEST_CONTEXT: _, ...inherited } = process.env;
    this.#child = spawn(this.argv[0]!, this.argv.slice(1), { env: { ...inherited, ...env } });
    if (this.#child.pid !== undefined) running.add(this.#child);
    this.#child.on('exit', () => running.delete(this.#child));
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      this.#take(text);
    });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      this.#take(text);
    });
    this.#child.stdin!.on('error', () => {}); // EPIPE: the process ended without reading its input
    this.#child.on('error', (error) => {
      this.stderr += error.message;
      this.exit ??= { status: 127, signal: null };
      this.#take(error.message);
    });
    this.#child.on('close', (status, signal) => {
      this.exit ??= { status, signal };
      this.#take('');
    });
  }

  /** Process id; undefined when the command could not be started. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  endInput(text?: string): void {
    this.#child.stdin!.end(text);
  }

  signal(signal: NodeJS.Signals): void {
    if (this.exit === undefined) this.#child.kill(signal);
  }

  /** Resolves with the match once the output matches; throws when the process ends before or the time is up. */
  async waitFor(pattern: RegExp, timeout = PATIENCE): Promise<RegExpMatchArray> {
    await this.#until(() => this.exit !== undefined || pattern.test(this.output), timeout);
    const match = this.output.match(pattern);
    if (match) return match;
    throw this.failure(`${this.exit ? ending(this.exit) : `not within ${timeout} ms`}, waiting for ${pattern}`);
  }

  /** Resolves when the process has ended; kills it and throws when it has not within `timeout` ms. */
  async ended(timeout: number): Promise<Exit> {
    await this.#until(() => this.exit !== undefined, timeout);
    if (this.exit) return this.exit;
    this.signal('SIGKILL');
    await this.#until(() => this.exit !== undefined, 2_000);
    throw this.failure(`not ended within ${timeout} ms, killed`);
  }

  /** Asks the process to end, and throws when it does not within `timeout` ms (it is killed then). */
  async stop(signal: NodeJS.Signals = 'SIGTERM', timeout = PATIENCE): Promise<Exit> {
    this.signal(signal);
    return this.ended(timeout);
  }

  failure(reason: string): Error {
    return new Error(`${this.argv.join(' ')}: ${reason}\n${this.output}`.trimEnd());
  }

  #take(text: string): void {
    this.output += text;
    for (const watcher of this.#watchers) watcher();
  }

  /** Resolves when `condition` holds or the time is up. */
  async #until(condition: () => boolean, timeout: number): Promise<void> {
    if (condition()) return;
    await new Promise<void>((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        this.#watchers.delete(watcher);
        resolve();
      };
      const watcher = () => {
        if (condition()) finish();
      };
      const timer = setTimeout(finish, timeout);
      this.#watchers.add(watcher);
    });
  }
}

function ending({ status, signal }: Exit): string {
  return signal ? `ended by ${signal}` : `status ${status}`;
}
