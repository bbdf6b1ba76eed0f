import { connect, type Socket } from 'node:net';
import type { DaemonEvent } from '../control/events.ts';
import { CommandError, type EventLine, type Reply, socketPath, VERSION } from '../control/protocol.ts';
import { ByteQueue } from '../packets/byte-queue.ts';

/** A connection to the daemon of this network namespace. Requests are answered in order. */
export interface Client {
  /** The result of a command; throws CommandError with the daemon's sentence. */
  ask<T>(command: string, args?: unknown): Promise<T>;
  /**
   * The events of these groups (all without one) as they come, drops from `rate` a second on; throws when the daemon ends the
   * connection.
   */
  monitor(groups: readonly string[], rate?: number): AsyncGenerator<DaemonEvent, never>;
  close(): void;
}

/** Throws CommandError when there is no daemon, or no permission to talk to it. */
export async function connectToDaemon(path: string = socketPath()): Promise<Client> {
  const socket = await open(path);
  const replies = lines(socket);
  const ask = async <T>(command: string, args: unknown = {}): Promise<T> => {
    socket.write(`${JSON.stringify({ version: VERSION, command, arguments: args })}\n`);
    const { value, done } = await replies.next();
    if (done) throw new CommandError('the daemon closed the connection before it replied: see its log', 'ECONNRESET');
    const reply = JSON.parse(value) as Reply;
    if ('error' in reply) throw new CommandError(reply.error.message, reply.error.errno ?? 'EIO');
    return reply.result as T;
  };
  async function* monitor(groups: readonly string[], rate?: number): AsyncGenerator<DaemonEvent, never> {
    await ask('monitor', { groups, rate });
    for await (const line of replies) yield (JSON.parse(line) as EventLine).event;
    throw new CommandError(
      'the daemon closed the connection: it was stopped, or its events were read too slowly',
      'ECONNRESET',
    );
  }
  return { ask, monitor, close: () => socket.destroy() };
}

/** A capture of the daemon: pcapng, until finish() and the end of what was under way. */
export interface CaptureClient {
  readonly chunks: AsyncIterable<Uint8Array>;
  finish(): void;
  /** Ends it at once, whatever is still to come. */
  close(): void;
}

/** Throws CommandError with the daemon's sentence. */
export async function openCapture(args: unknown, path: string = socketPath()): Promise<CaptureClient> {
  const socket = await open(path);
  const input = new ByteQueue(socket);
  socket.write(`${JSON.stringify({ version: VERSION, command: 'capture', arguments: args })}\n`);
  const line = await input.line();
  if (line === undefined) throw new CommandError('the daemon closed the connection: see its log', 'ECONNRESET');
  const reply = JSON.parse(line.toString()) as Reply;
  if ('error' in reply) {
    socket.destroy();
    throw new CommandError(reply.error.message, reply.error.errno ?? 'EIO');
  }
  return { chunks: input.rest(), finish: () => void socket.end(), close: () => void socket.destroy() };
}

/** A command for the daemon, and how its result is printed if it has any. */
export interface DaemonCommand {
  command: string;
  arguments: unknown;
  print?: (result: never) => void;
}

export async function runCommand(command: DaemonCommand): Promise<void> {
  const result = await askDaemon(command.command, command.arguments);
  command.print?.(result as never);
}

/** One command on a connection of its own. Throws CommandError. */
export async function askDaemon<T>(command: string, args?: unknown, path?: string): Promise<T> {
  const client = await connectToDaemon(path);
  try {
    return await client.ask<T>(command, args);
  } finally {
    client.close();
  }
}

function open(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => resolve(socket));
    socket.on('error', (error: NodeJS.ErrnoException) => reject(unreachable(path, error.code ?? error.message)));
  });
}

function unreachable(path: string, code: string): CommandError {
  if (code === 'EACCES' || code === 'EPERM') {
    return new CommandError(`no permission for the control socket ${path}: run it as root`, code);
  }
  return new CommandError(
    `Is the daemon running? Nobody serves the control socket of this network namespace, ${path} (${code}): ` +
      'start one with "uvxlan up", or run the command in the namespace of the daemon (ip netns exec)',
    code,
  );
}

async function* lines(socket: Socket): AsyncGenerator<string, void> {
  let parts: Buffer[] = [];
  try {
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      let start = 0;
      for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
        parts.push(chunk.subarray(start, end));
        yield Buffer.concat(parts).toString();
        parts = [];
        start = end + 1;
      }
      parts.push(chunk.subarray(start));
    }
  } catch {
    // A reset connection ends the replies, as an orderly end does.
  }
}
