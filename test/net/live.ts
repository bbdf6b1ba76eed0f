// Traffic that runs while a host changes: TCP connections that must outlive it, and pings that tell for how long nothing passed.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import type { Host } from '../../cli/lab/network.ts';
import { eventually, type Process } from '../../cli/lab/process.ts';

const STREAM = fileURLToPath(new URL('./stream.js', import.meta.url));
/** Enough to tell that a connection goes on, and is not emptying a buffer. */
const PROGRESS = 512 * 1024;
/** A connection that was silent for a second may wait for as long again until it sends once more (RFC 6298, 5.5). */
const PATIENCE = 20_000;

/** One TCP connection, about 3 MB/s. */
export class Stream {
  readonly #sender: Process;
  readonly #receiver: Process;

  private constructor(sender: Process, receiver: Process) {
    this.#sender = sender;
    this.#receiver = receiver;
  }

  static async start(from: Host, to: Host, address: string): Promise<Stream> {
    const receiver = to.spawn([process.execPath, STREAM, 'receive']);
    const [, port] = await receiver.waitFor(/listening (\d+)/);
    const sender = from.spawn([process.execPath, STREAM, 'send', address, port!]);
    const stream = new Stream(sender, receiver);
    await stream.goesOn('a new connection');
    return stream;
  }

  get bytes(): number {
    return Number(this.#receiver.stdout.slice(-64).match(/(\d+)\n[^\n]*$/)?.[1] ?? 0);
  }

  /** Resolves when half a megabyte more has arrived. */
  async goesOn(what: string): Promise<void> {
    const before = this.bytes;
    await eventually(`the TCP connection goes on: ${what}`, () => this.bytes >= before + PROGRESS, PATIENCE);
  }

  /** Ends the connection; throws unless exactly what was sent has arrived. */
  async finish(): Promise<void> {
    this.#sender.signal('SIGTERM');
    const [sent] = await this.#sender.waitFor(/^\{.*\}$/m, PATIENCE);
    const [received] = await this.#receiver.waitFor(/^\{.*\}$/m, PATIENCE);
    assert.equal(received, sent, 'bytes of the TCP connection');
  }
}

/** Milliseconds without an answer that are nothing but a busy machine. */
const HICCUP = 120;
/** So long after a change answers have to come without a gap. */
const STEADY = 300;

/** Pings, one every 10 ms. */
export class Pings {
  readonly #process: Process;

  private constructor(process: Process) {
    this.#process = process;
  }

  static async start(from: Host, address: string): Promise<Pings> {
    const process = from.spawn(`ping -n -D -i 0.01 ${address}`);
    await process.waitFor(/icmp_seq/);
    return new Pings(process);
  }

  /**
   * Makes a change; resolves, when answers come steadily again, with the longest time without one, in milliseconds from the end of
   * the change on. Throws after `timeout`.
   */
  async through(what: string, change: () => unknown, timeout = PATIENCE): Promise<number> {
    await change();
    const changed = Date.now();
    let longest = 0;
    await eventually(
      `pings are answered again: ${what}`,
      () => {
        const times = [changed, ...this.#answers().filter((time) => time >= changed)];
        const gaps = times.slice(1).map((time, i) => time - times[i]!);
        longest = Math.max(0, ...gaps);
        const now = Date.now();
        const recent = times.filter((time) => time > now - STEADY).length;
        return now > changed + STEADY && recent > STEADY / 30 && now - times.at(-1)! < HICCUP;
      },
      timeout,
    );
    return Math.round(longest);
  }

  async stop(): Promise<void> {
    await this.#process.stop('SIGKILL');
  }

  /** When answers came, in milliseconds since 1970. */
  #answers(): number[] {
    return [...this.#process.stdout.matchAll(/^\[(\d+\.\d+)\].* icmp_seq=.* time=/gm)].map(
      ([, time]) => Number(time) * 1000,
    );
  }
}
