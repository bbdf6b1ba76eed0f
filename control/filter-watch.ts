/** Notices when somebody removes tc filters or qdiscs: by events of `tc monitor`, which runs from the first uplink on that has filters. */
import { setTimeout as sleep } from 'node:timers/promises';
import { MonitorProcess } from './monitor-process.ts';

/** Milliseconds from the first event to the callback: a qdisc goes with all its filters. */
const DEBOUNCE = 100;
/** Those of start-up probes come and go by the dozen, and are nobody's to mend. */
const OF_PROBE = / dev uvxprobe\d/;

export class FilterWatch {
  readonly #prefix: readonly string[];
  readonly #onChange: () => Promise<void>;
  #monitor: MonitorProcess | undefined;
  #isDue = false;
  #running = false;
  #stopped = false;

  /** `prefix` as in Iproute. `onChange` does not reject; what happens before it has ended makes one more call, however much it is. */
  constructor(prefix: readonly string[], onChange: () => Promise<void>) {
    this.#prefix = prefix;
    this.#onChange = onChange;
  }

  start(): void {
    const changed = () => this.#changed();
    this.#monitor ??= new MonitorProcess(this.#prefix, ['tc', 'monitor'], {
      onListening: changed,
      onLine: (line) => {
        if (line.startsWith('deleted ') && !OF_PROBE.test(line)) changed();
      },
      onComplaint: changed,
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#monitor?.stop();
  }

  #changed(): void {
    this.#isDue = true;
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#isDue && !this.#stopped) {
      await sleep(DEBOUNCE, undefined, { ref: false });
      this.#isDue = false;
      if (!this.#stopped) await this.#onChange();
    }
    this.#running = false;
  }
}
