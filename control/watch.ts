import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { TOOL_ENVIRONMENT } from './iproute.ts';

/** What may have changed on the host. Rules and nexthop objects count as routes: they decide where packets go. */
export const CHANGES = ['link', 'address', 'route', 'neigh'] as const;
export type Change = (typeof CHANGES)[number];

const LABELS: Record<string, Change> = {
  LINK: 'link',
  ADDR: 'address',
  ROUTE: 'route',
  RULE: 'route',
  NEXTHOP: 'route',
  NEIGH: 'neigh',
};
/** Milliseconds from the first event to the callback: one change of a host is usually a burst of events. */
const DEBOUNCE = 50;
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 5_000;

/**
 * Calls back when something on the host has changed, through one `ip monitor` process. Only a trigger: what is true has to be
 * read again. After every start of the process all counts as changed, since events may have been missed.
 */
export class Watch {
  readonly #prefix: readonly string[];
  readonly #onChange: (changes: Set<Change>) => void;
  #child: ChildProcess | undefined;
  #changes = new Set<Change>();
  #debounce: NodeJS.Timeout | undefined;
  #restart: NodeJS.Timeout | undefined;
  #pause = FIRST_PAUSE;
  #stopped = false;
  // It must not outlive a daemon that is killed. Should that come before setpriv has run, SIGPIPE ends it.
  #wrapper = ['setpriv', '--pdeathsig', 'KILL', '--'];

  /** `prefix` as in Iproute. */
  constructor(prefix: readonly string[], onChange: (changes: Set<Change>) => void) {
    this.#prefix = prefix;
    this.#onChange = onChange;
    this.#start();
  }

  /** Process id of `ip monitor`; undefined while it is not running. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#debounce);
    clearTimeout(this.#restart);
    this.#child?.kill('SIGKILL');
  }

  #start(): void {
    const monitor = ['ip', 'monitor', 'label', ...['link', 'address', 'route', 'rule', 'nexthop', 'neigh']];
    const [file, ...args] = [...this.#prefix, ...this.#wrapper, ...monitor];
    const child = spawn(file, args, { env: TOOL_ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    createInterface(child.stdout).on('line', (line) => {
      const label = line.match(/^\[([A-Z]+)\]/)?.[1];
      if (label !== undefined && label in LABELS) this.#changed([LABELS[label]]);
    });
    // "netlink receive error No buffer space available": events were lost.
    child.stderr.on('data', () => this.#changed(CHANGES));
    let ended = false;
    const again = (error: unknown) => {
      if (ended || this.#stopped) return;
      ended = true;
      // Without util-linux' setpriv, SIGPIPE at the next event has to do.
      if (error instanceof Error && this.#prefix.length === 0) this.#wrapper = [];
      this.#child = undefined;
      this.#restart = setTimeout(() => this.#start(), this.#pause);
      this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    };
    child.on('error', again).on('exit', again);
    this.#announce(child);
  }

  /** Waits until `ip monitor` has subscribed, which it does not tell by itself, and reports that all may have changed. */
  async #announce(child: ChildProcess): Promise<void> {
    for (let tries = 0; tries < 100 && !isSubscribed(child.pid); tries++) await sleep(10);
    if (this.#child !== child) return;
    this.#pause = FIRST_PAUSE;
    this.#changed(CHANGES);
  }

  #changed(changes: readonly Change[]): void {
    if (this.#stopped) return;
    for (const change of changes) this.#changes.add(change);
    this.#debounce ??= setTimeout(() => {
      const seen = this.#changes;
      this.#changes = new Set();
      this.#debounce = undefined;
      this.#onChange(seen);
    }, DEBOUNCE);
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
