import { MonitorProcess } from './monitor-process.ts';

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

/**
 * Calls back when something on the host has changed, through one `ip monitor` process. Only a trigger: what is true has to be
 * read again. After every start of the process all counts as changed, since events may have been missed.
 *
 * `concerns` is asked of each line; one that does not concern is no change.
 */
export class Watch {
  readonly #onChange: (changes: Set<Change>) => void;
  readonly #monitor: MonitorProcess;
  #changes = new Set<Change>();
  #debounce: NodeJS.Timeout | undefined;
  #stopped = false;

  /** `prefix` as in Iproute. */
  constructor(
    prefix: readonly string[],
    onChange: (changes: Set<Change>) => void,
    concerns: (line: string) => boolean = () => true,
  ) {
    this.#onChange = onChange;
    const objects = ['link', 'address', 'route', 'rule', 'nexthop', 'neigh'];
    this.#monitor = new MonitorProcess(prefix, ['ip', 'monitor', 'label', ...objects], {
      onListening: () => this.#changed(CHANGES),
      onLine: (line) => {
        const label = line.match(/^\[([A-Z]+)\]/)?.[1];
        if (label !== undefined && label in LABELS && concerns(line)) this.#changed([LABELS[label]]);
      },
      // "netlink receive error No buffer space available": events were lost.
      onComplaint: () => this.#changed(CHANGES),
    });
  }

  /** Process id of `ip monitor`; undefined while it is not running. */
  get pid(): number | undefined {
    return this.#monitor.pid;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#debounce);
    this.#monitor.stop();
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
