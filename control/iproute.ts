import { execFile } from 'node:child_process';

/**
 * Runs the host's own tools (ip, tc) in one network namespace. They are spawned, not linked: what they print as JSON is a
 * stable interface, and an administrator can repeat each command by hand.
 */

/** A command that did not do what it was asked. */
export class CommandFailed extends Error {
  /** The tool's own words, `RTNETLINK answers: File exists` say. */
  readonly reason: string;

  constructor(command: string, reason: string) {
    super(`${command}: ${reason}${hint(command, reason)}`);
    this.name = 'CommandFailed';
    this.reason = reason;
  }
}

const PACKAGES: Record<string, string> = {
  ip: 'iproute2',
  tc: 'iproute2',
  nsenter: 'util-linux',
  iptables: 'iptables',
  ip6tables: 'iptables',
  nft: 'nftables',
};
const TIMEOUT = 10_000;
/** Bytes; the routes to 100,000 next hops take 20 MB. */
const OUTPUT_LIMIT = 128 * 1024 * 1024;
/** ip ends a batch at some errors in spite of -force. After so many of them the rest of the batch is given up. */
const RESTARTS = 32;

/** A shell's status of a program that is not there. */
const NOT_FOUND = 127;
/** Where a command's output ends in a shell's; on standard output its status follows. */
const END = '==== uvxlan';

/** An unprivileged user's PATH often lacks sbin, where Debian has tc. */
export const TOOL_ENVIRONMENT = {
  ...process.env,
  LC_ALL: 'C',
  PATH: `${process.env.PATH ?? '/usr/bin:/bin'}:/usr/sbin:/sbin`,
};

interface Outcome {
  stdout: string;
  stderr: string;
  status: number;
}

export class Iproute {
  /** Words that go in front of each command: none here, `nsenter --net=FILE --` for another namespace. */
  readonly prefix: readonly string[];

  constructor(prefix: readonly string[] = []) {
    this.prefix = prefix;
  }

  /**
   * Runs a command, which reads `input`; returns what it prints. Throws CommandFailed with the tool's words when its status is not 0.
   */
  async run(program: string, args: readonly string[], input?: string): Promise<string> {
    const outcome = await this.#execute(program, args, input);
    if (outcome.status !== 0) throw new CommandFailed([program, ...args].join(' '), words(outcome));
    return outcome.stdout;
  }

  /**
   * Runs commands one after the other, and returns for each what it printed or its error. One shell starts them all: to start a process from
   * one as large as this costs more than most of them do.
   */
  async runEach(commands: readonly (readonly string[])[]): Promise<(string | CommandFailed)[]> {
    // Both streams are cut where a command ends.
    const script = commands.map((command) => `${command.map(quoted).join(' ')}\necho "${END} $?"; echo "${END}" >&2`);
    const outcome = await this.#execute('sh', ['-c', script.join('\n')]);
    if (outcome.status !== 0) throw new CommandFailed('sh', words(outcome));
    const printed = outcome.stdout.split(new RegExp(`${END} (\\d+)\\n`));
    const complaints = outcome.stderr.split(`${END}\n`);
    return commands.map((command, i) => {
      const [stdout, status, stderr] = [printed[2 * i], Number(printed[2 * i + 1]), complaints[i]];
      if (status === 0) return stdout;
      const missing = status === NOT_FOUND && notFound(command[0]);
      return new CommandFailed(command.join(' '), missing || words({ stdout, stderr, status }));
    });
  }

  /** Runs a command that prints JSON (`ip -j ...`), and parses it. */
  async json<T>(program: string, args: readonly string[]): Promise<T> {
    const text = await this.run(program, args);
    return (text.trim() === '' ? [] : JSON.parse(text)) as T;
  }

  /**
   * Asks many questions of one ip process (about 5 us each): lines such as `route get 192.0.2.2`, which print one line of
   * JSON or fail. Returns in the order of the lines what was printed or the error. Lines have to be well-formed: a
   * malformed one ends ip, and throws.
   */
  async query<T = Record<string, unknown>>(lines: readonly string[]): Promise<(T[] | CommandFailed)[]> {
    if (lines.length === 0) return [];
    const outcome = await this.#batch(lines);
    const failures = failedLines(outcome.stderr);
    const printed = outcome.stdout.split('\n');
    printed.pop();
    if (printed.length + failures.size !== lines.length) {
      throw new CommandFailed(`ip -batch (${lines.length} lines, first: ${lines[0]})`, words(outcome));
    }
    let next = 0;
    return lines.map((line, index) => {
      const reason = failures.get(index);
      return reason === undefined ? (JSON.parse(printed[next++]) as T[]) : new CommandFailed(`ip ${line}`, reason);
    });
  }

  /**
   * Runs many changes (lines such as `neigh add ...`) in one ip process; one that fails does not keep back the others.
   * Returns an error for each line that failed, by the line's index.
   */
  async apply(lines: readonly string[]): Promise<Map<number, CommandFailed>> {
    const errors = new Map<number, CommandFailed>();
    const fail = (index: number, reason: string) => errors.set(index, new CommandFailed(`ip ${lines[index]}`, reason));
    let last = '';
    for (let start = 0, restarts = 0; start < lines.length; restarts++) {
      if (restarts > RESTARTS) {
        for (; start < lines.length; start++) fail(start, `not tried after others had failed: ${last}`);
        break;
      }
      // `ip neigh` ends the whole process at an error of the kernel. So each change is followed by a question whose answer
      // shows that ip got past it.
      const outcome = await this.#batch(lines.slice(start).flatMap((line) => [line, 'link show dev lo']));
      for (const [line, reason] of failedLines(outcome.stderr)) fail(start + line / 2, reason);
      const passed = outcome.stdout.split('\n').length - 1;
      if (passed < lines.length - start) {
        last = lastLine(outcome.stderr) || `status ${outcome.status}`;
        fail(start + passed, last);
      }
      start += passed + 1;
    }
    return errors;
  }

  #batch(lines: readonly string[]): Promise<Outcome> {
    return this.#execute('ip', ['-j', '-force', '-batch', '-'], `${lines.join('\n')}\n`);
  }

  #execute(program: string, args: readonly string[], input?: string): Promise<Outcome> {
    const [file, ...rest] = [...this.prefix, program, ...args];
    const options = { env: TOOL_ENVIRONMENT, timeout: TIMEOUT, maxBuffer: OUTPUT_LIMIT, encoding: 'utf8' } as const;
    return new Promise((resolve, reject) => {
      const child = execFile(file, rest, options, (error, stdout, stderr) => {
        if (error && typeof error.code !== 'number') {
          const missing = error.code === 'ENOENT' && notFound(file);
          const slow = error.killed && `not done after ${TIMEOUT / 1000} s`;
          reject(new CommandFailed([program, ...args].join(' '), missing || slow || error.message));
        } else {
          resolve({ stdout, stderr, status: error ? Number(error.code) : 0 });
        }
      });
      child.stdin?.on('error', () => {}); // EPIPE: it ended without reading all, and its status says why
      child.stdin?.end(input);
    });
  }
}

/** Batch errors by line, counted from 0: the tool's words, then `Command failed -:LINE`. */
function failedLines(stderr: string): Map<number, string> {
  const failures = new Map<number, string>();
  let reason = '';
  for (const line of stderr.split('\n')) {
    const failed = line.match(/^Command failed -:(\d+)$/);
    if (!failed) reason = reason === '' ? line : `${reason}; ${line}`;
    else {
      failures.set(Number(failed[1]) - 1, reason);
      reason = '';
    }
  }
  return failures;
}

function notFound(program: string): string {
  return `not found: install the package ${PACKAGES[program] ?? program}`;
}

/** As a shell takes it for one word. */
function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

function words({ stderr, status }: Outcome): string {
  const text = stderr.trim().replace(/\s*\n\s*/g, '; ');
  return text === '' ? `status ${status}` : text;
}

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}

/** What to do, where the tool's words do not say it. */
function hint(command: string, reason: string): string {
  if (reason.includes('Operation not permitted')) return ' (it needs root or CAP_NET_ADMIN)';
  if (command.startsWith('ip neigh') && reason.includes('No buffer space')) {
    return ' (the neighbour table is full: raise net.ipv4.neigh.default.gc_thresh3)';
  }
  return '';
}
