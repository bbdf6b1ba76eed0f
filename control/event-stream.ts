/** The events that one client of the control socket has asked for, one line of JSON each: `{version, event}`. */
import type { Socket } from 'node:net';
import { type DaemonEvent, EVENT_GROUPS, type EventGroup } from './events.ts';
import { CommandError, type DaemonHandlers, VERSION } from './protocol.ts';

/** Bytes that may wait for a client; one that reads so slowly is cut off, so that it costs the daemon no more than them. */
const BACKLOG = 1 << 20;

export class EventStream {
  readonly #socket: Socket;
  readonly #handlers: Pick<DaemonHandlers, 'listen'>;
  #asked: readonly EventGroup[] | undefined;
  #end: (() => void) | undefined;

  constructor(socket: Socket, handlers: Pick<DaemonHandlers, 'listen'>) {
    this.#socket = socket;
    this.#handlers = handlers;
  }

  /** The command `monitor`: which groups, all when none is named. The reply says which; events come after it. */
  ask(groups: unknown): { groups: readonly EventGroup[] } {
    if (groups !== undefined && !Array.isArray(groups)) throw new CommandError('groups are not a list', 'EINVAL');
    for (const group of groups ?? []) {
      if (EVENT_GROUPS.includes(group)) continue;
      throw new CommandError(`group "${group}" is unknown, known are ${EVENT_GROUPS.join(', ')}`, 'EINVAL');
    }
    this.#asked = groups?.length ? groups : EVENT_GROUPS;
    return { groups: this.#asked! };
  }

  /** After each reply: sends what was asked for from now on. */
  open(): void {
    if (!this.#asked) return;
    this.#end?.();
    this.#end = this.#handlers.listen(this.#asked, (event) => this.#send(event));
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
