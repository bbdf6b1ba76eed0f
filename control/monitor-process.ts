import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { TOOL_ENVIRONMENT } from './iproute.ts';

const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 5_000;
/** A program that is not there may be installed later. */
const MISSING_PAUSE = 60_000;
/** Exit status of setpriv and nsenter for a program that is not there, as a shell has it. */
const NOT_FOUND = 127;

export interface MonitorEvents {
  /** The process listens. It may have missed events before. */
  onListening(): void;
  onLine(line: string): void;
  /** It has complained on standard error, of events that got lost, say. */
  onComplaint(): void;
}

/**
 * A process that prints a line for every event of one kind on this host (`ip monitor`, `nft monitor`), and is started again when it
 * ends.
 */
export class MonitorProcess {
  /** Resolves when it listens, or has failed to for the first time. */
  readonly started: Promise<void>;
  #onStarted = (): void => {};
  readonly #prefix: readonly string[];
  readonly #command: readonly string[];
  readonly #events: MonitorEvents;
  #child: ChildProcess | undefined;
  #restart: NodeJS.Timeout | undefined;
  #pause = FIRST_PAUSE;
  #stopped = false;
  // It must not outlive a daemon that is killed. Should that come before setpriv has run, SIGPIPE ends it.
  #wrapper = ['setpriv', '--pdeathsig', 'KILL', '--'];

  /** `prefix` as in Iproute. */
  constructor(prefix: readonly string[], command: readonly string[], events: MonitorEvents) {
    this.#prefix = prefix;
    this.#command = command;
    this.#events = events;
    this.started = new Promise((resolve) => {
      this.#onStarted = resolve;
    });
    this.#start();
  }

  /** Undefined while it is not running. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#restart);
    this.#child?.kill('SIGKILL');
  }

  #start(): void {
    const [file, ...args] = [...this.#prefix, ...this.#wrapper, ...this.#command];
    const child = spawn(file, args, { env: TOOL_ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    createInterface(child.stdout).on('line', (line) => this.#events.onLine(line));
    child.stderr.on('data', () => this.#events.onComplaint());
    let ended = false;
    const again = (reason: unknown) => {
      this.#onStarted();
      if (ended || this.#stopped) return;
      ended = true;
      const missing = reason === NOT_FOUND || (reason instanceof Error && this.#wrapper.length === 0);
      // Without util-linux' setpriv, SIGPIPE at the next event has to do.
      if (reason instanceof Error && this.#prefix.length === 0) this.#wrapper = [];
      this.#child = undefined;
      this.#restart = setTimeout(() => this.#start(), missing ? MISSING_PAUSE : this.#pause);
      this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    };
    child.on('error', again).on('exit', again);
    this.#announce(child);
  }

  /** Waits until the process has subscribed to its events, which it does not tell by itself. */
  async #announce(child: ChildProcess): Promise<void> {
    for (let tries = 0; tries < 100 && !isSubscribed(child.pid); tries++) {
      await sleep(10);
      if (this.#stopped || this.#child !== child) return;
    }
    this.#pause = FIRST_PAUSE;
    this.#events.onListening();
    this.#onStarted();
  }
}

/** True when the process has a netlink socket with groups: columns `sk Eth Pid Groups` of /proc/PID/net/netlink. */
function isSubscribed(pid: number | undefined): boolean {
  if (pid === undefined) return false;
  try {
    return readFileSync(`/proc/${pid}/net/netlink`, 'latin1')
      .split('\n')
      .some((line) => {
        const [, , port, groups] = line.trim().split(/\s+/);
        return port === `${pid}` && Number.parseInt(groups, 16) !== 0;
      });
  } catch {
    return false;
  }
}
