/** The capture that one client of the control socket has asked for: after the reply the connection carries pcapng until the client ends its side. */
import type { Socket } from 'node:net';
import { FilterError } from '../../packets/filter/expression.ts';
import { compileFilter } from '../../packets/filter/filter.ts';
import { FDB_FIELDS } from '../fields.ts';
import { CAPTURE_SNAP_LENGTH, CommandError, type DaemonHandlers, type RunningCapture } from '../protocol.ts';
import type { CaptureRequest } from './capture.ts';

/** Bytes that may wait for a client that reads slowly; further packets are lost and counted. */
const BACKLOG = 8 << 20;

export class CaptureStream {
  readonly #socket: Socket;
  readonly #handlers: Pick<DaemonHandlers, 'capture'>;
  #capture: RunningCapture | undefined;
  #isOpen = false;

  constructor(socket: Socket, handlers: Pick<DaemonHandlers, 'capture'>) {
    this.#socket = socket;
    this.#handlers = handlers;
  }

  /** The command `capture`. Throws CommandError. */
  async ask(args: Readonly<Record<string, unknown>>): Promise<null> {
    if (this.#capture) throw new CommandError('this connection captures already', 'EBUSY');
    this.#capture = await this.#handlers.capture(requestOf(args));
    if (this.#socket.destroyed) this.close();
    return null;
  }

  /** After the reply. */
  open(): void {
    if (!this.#capture || this.#isOpen) return;
    this.#isOpen = true;
    this.#capture.start({
      hasRoom: () => this.#socket.writableLength < BACKLOG,
      write: (bytes, done) => void this.#socket.write(bytes, done),
    });
  }

  /** The client has ended its side: what has come until now, and the statistics. */
  async finish(): Promise<void> {
    const capture = this.#capture;
    this.#capture = undefined; // the client may go meanwhile: it is ended once
    await capture?.finish();
  }

  /** The client is gone. */
  close(): void {
    void this.#capture?.abandon();
    this.#capture = undefined;
  }
}

function requestOf({
  dev,
  filter = '',
  outerFilter = '',
  snapLength = CAPTURE_SNAP_LENGTH,
  segments = false,
}: Readonly<Record<string, unknown>>): CaptureRequest {
  for (const text of [filter, outerFilter]) checkFilter(String(text));
  const length = Number(snapLength);
  if (!Number.isInteger(length) || length < 1 || length > CAPTURE_SNAP_LENGTH) {
    throw new CommandError(`a snap length is 1 to ${CAPTURE_SNAP_LENGTH}`, 'EINVAL');
  }
  const name = dev === undefined || dev === null ? null : FDB_FIELDS.via(String(dev));
  return {
    dev: name,
    filter: String(filter),
    outerFilter: String(outerFilter),
    snapLength: length,
    segments: segments === true,
  };
}

function checkFilter(text: string): void {
  try {
    compileFilter(text);
  } catch (error) {
    throw error instanceof FilterError ? new CommandError(error.message, 'EINVAL') : error;
  }
}
