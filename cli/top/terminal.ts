/** The whole terminal, for a view that is drawn anew: what was on it comes back at the end, however that comes about. */

const ENTER = '\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
const CTRL_C = '\x03';
const CTRL_Z = '\x1a';

export class Terminal {
  readonly #onKey: (key: string) => void;
  readonly #onResize: () => void;
  #isEntered = false;
  readonly #leave = (): void => this.#exit();
  readonly #keys = (text: string): void => this.#take(text);
  readonly #resume = (): void => this.#enter();

  /** `onKey`: a character that was typed; 'q' also when the user or a signal wants it to end. */
  constructor(onKey: (key: string) => void, onResize: () => void) {
    this.#onKey = onKey;
    this.#onResize = onResize;
    process.on('exit', this.#leave);
    for (const signal of SIGNALS) process.on(signal, this.#quit);
    process.on('SIGCONT', this.#resume);
    process.stdout.on('resize', this.#onResize);
    this.#enter();
  }

  get size(): { columns: number; rows: number } {
    const { columns = 80, rows = 24 } = process.stdout;
    return { columns, rows };
  }

  /** In one write and without clearing first, so that nothing flickers. */
  draw(lines: readonly string[]): void {
    if (this.#isEntered) process.stdout.write(`\x1b[H${lines.map((line) => `${line}\x1b[K`).join('\r\n')}\x1b[J`);
  }

  close(): void {
    this.#exit();
    process.off('exit', this.#leave);
    for (const signal of SIGNALS) process.off(signal, this.#quit);
    process.off('SIGCONT', this.#resume);
    process.stdout.off('resize', this.#onResize);
    process.stdin.unref?.();
  }

  readonly #quit = (): void => this.#onKey('q');

  #enter(): void {
    if (this.#isEntered) return;
    this.#isEntered = true;
    process.stdout.write(ENTER);
    if (process.stdin.isTTY) process.stdin.setRawMode(true);
    process.stdin.setEncoding('utf8').on('data', this.#keys).resume();
    this.#onResize();
  }

  #exit(): void {
    if (!this.#isEntered) return;
    this.#isEntered = false;
    process.stdin.off('data', this.#keys).pause();
    if (process.stdin.isTTY) process.stdin.setRawMode(false);
    process.stdout.write(LEAVE);
  }

  #take(text: string): void {
    for (const key of text) {
      if (key === CTRL_Z) {
        this.#exit();
        process.kill(process.pid, 'SIGSTOP');
      } else this.#onKey(key === CTRL_C ? 'q' : key);
    }
  }
}
