/** Notices when somebody removes tc filters or qdiscs: by events of `tc monitor`, which runs from the first uplink on that has filters. */
import { MonitorProcess } from './monitor-process.ts';

/** Milliseconds from the first event to the callback: a qdisc goes with all its filters. */
const DEBOUNCE = 100;

export class FilterWatch {
  readonly #prefix: readonly string[];
  readonly #onChange: () => void;
  #monitor: MonitorProcess | undefined;
  #debounce: NodeJS.Timeout | undefined;
  #stopped = false;

  /** `prefix` as in Iproute. */
  constructor(prefix: readonly string[], onChange: () => void) {
    this.#prefix = prefix;
    this.#onChange = onChange;
  }

  start(): void {
    const changed = () => this.#changed();
    this.#monitor ??= new MonitorProcess(this.#prefix, ['tc', 'monitor'], {
      onListening: changed,
      onLine: (line) => {
        if (line.startsWith('deleted ')) changed();
      },
      onComplaint: changed,
    });
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#debounce);
    this.#monitor?.stop();
  }

  #changed(): void {
    if (this.#stopped) return;
    this.#debounce ??= setTimeout(() => {
      this.#debounce = undefined;
      this.#onChange();
    }, DEBOUNCE);
  }
}
