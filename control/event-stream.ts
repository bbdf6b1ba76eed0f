/** The events that one client of the control socket has asked for, one line of JSON each: `{version, event}`. */
import type { Socket } from 'node:net';
import { DROP_RATE } from './drop-events.ts';
import { type DaemonEvent, EVENT_GROUPS, type EventGroup } from './events.ts';
import { CommandError, type DaemonHandlers, VERSION } from './protocol.ts';

/** Bytes that may wait for a client; one that reads so slowly is cut off, so that it costs the daemon no more than them. */
const BACKLOG = 1 << 20;

export class EventStream {
  readonly #socket: Socket;
  readonly #handlers: Pick<DaemonHandlers, 'listen'>;
  #asked: { readonly groups: readonly EventGroup[]; readonly rate: number } | undefined;
  #end: (() => void) | undefined;

  constructor(socket: Socket, handlers: Pick<DaemonHandlers, 'listen'>) {
    this.#socket = socket;
    this.#handlers = handlers;
  }

  /**
   * The command `monitor`: which groups, all when none is named, and from how many drops a second on `drop` tells of them. The reply says
   * which; events come after it.
   */
  ask({ groups, rate = DROP_RATE }: Readonly<Record<string, unknown>>): { groups: readonly EventGroup[] } {
    if (!Number.isSafeInteger(rate) || (rate as number) < 1)
      throw new CommandError('rate is not a number of packets a second', 'EINVAL');
    if (groups !== undefined && !Array.isArray(groups)) throw new CommandError('groups are not a list', 'EINVAL');
    for (const group of groups ?? []) {
      if (EVENT_GROUPS.includes(group)) continue;
      throw new CommandError(`group "${group}" is unknown, known are ${EVENT_GROUPS.join(', ')}`, 'EINVAL');
    }
    this.#asked = { groups: groups?.length ? groups : EVENT_GROUPS, rate: rate as number };
    return { groups: this.#asked.groups };
  }

  /** After each reply: sends what was asked for from now on. */
  open(): void {
    if (!this.#asked) return;
    this.#end?.();
    const { groups, rate } = this.#asked;
    this.#end = this.#handlers.listen(groups, (event) => this.#send(event), rate);
    this.#asked = undefined;
  }

  close(): void {
    this.#end?.();
  }

  #send(event: DaemonEvent): void {
    this.#socket.write(`${JSON.stringify({ version: VERSION, event })}\n`);
    if (this.#socket.writableLength > BACKLOG) this.#socket.destroy();
  }
}
