import { mkdirSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { CaptureStream } from './capture/stream.ts';
import { removeDeadSocket, removeOtherSockets, secondDaemon, socketError } from './dead-sockets.ts';
import { EventStream } from './event-stream.ts';
import { selectionOf } from './fdb-selection.ts';
import { FDB_FIELDS, WrongValue } from './fields.ts';
import { mdbEntryOf, mdbSelectionOf } from './mdb-words.ts';
import { type NeighCommand, neighbourOf, neighFilterOf } from './neigh-words.ts';
import { nexthopOf } from './nexthop-words.ts';
import {
  BATCH_LIMIT,
  type BatchArguments,
  type BatchResult,
  CommandError,
  type DaemonHandlers,
  type ExplainRequest,
  type FdbArguments,
  REQUEST_LIMIT,
  type Reply,
  type ReplyError,
  type Request,
  socketPath,
  VERSION,
} from './protocol.ts';
import type { TrafficRequest } from './traffic/sample.ts';
import { parseChanges, parseDevice, UsageError } from './words.ts';

/** A client that does not read its reply for so long is cut off, in milliseconds. */
const READ_PATIENCE = 10_000;
const CLIENT_LIMIT = 256;

export interface Api {
  readonly path: string;
  /** Ends every connection and removes the socket. */
  close(): Promise<void>;
}

/**
 * Serves the control socket of this network namespace. Throws CommandError when another daemon serves it already (EADDRINUSE)
 * or the socket cannot be made; the socket of a daemon that is dead is replaced, and those of other namespaces are removed.
 */
export async function startApi(handlers: DaemonHandlers, path: string = socketPath()): Promise<Api> {
  makeDirectory(dirname(path));
  await removeDeadSocket(path);
  const clients = new Set<Socket>();
  // Half-open, so that a client may end its side after the last request and still get the replies.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    clients.add(socket);
    socket.on('close', () => clients.delete(socket));
    serve(socket, handlers).catch(() => socket.destroy());
  });
  server.maxConnections = CLIENT_LIMIT;
  await listen(server, path);
  await removeOtherSockets(path);
  return {
    path,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of clients) socket.destroy();
      }),
  };
}

/**
 * Runs one client's requests in order, and sends the events that it asks for. Reading waits while a reply is not taken, so that a slow
 * client costs one reply of memory.
 */
async function serve(socket: Socket, handlers: DaemonHandlers): Promise<void> {
  const events = new EventStream(socket, handlers);
  const capture = new CaptureStream(socket, handlers);
  // A client that goes away: it is told by 'close', also when all that it has asked for was read.
  socket.on('error', () => {});
  socket.on('close', () => {
    events.close();
    capture.close();
  });
  socket.setEncoding('utf8');
  socket.setTimeout(READ_PATIENCE, () => {
    if (socket.writableLength > 0) socket.destroy();
  });
  let pending = '';
  // The end of what a client asks is not the end of what it is told.
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    pending += chunk;
    let end = pending.indexOf('\n');
    for (; end >= 0 && end <= REQUEST_LIMIT; end = pending.indexOf('\n')) {
      const line = pending.slice(0, end);
      pending = pending.slice(end + 1);
      await send(socket, await answer(line, handlers, events, capture));
      events.open();
      capture.open();
    }
    if (pending.length > REQUEST_LIMIT) {
      await send(socket, failure({ message: `the request is longer than ${REQUEST_LIMIT} bytes`, errno: 'EMSGSIZE' }));
      break;
    }
  }
  await capture.finish();
  socket.end();
}

function send(socket: Socket, reply: Reply): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(`${JSON.stringify(reply)}\n`, (error) => (error ? reject(error) : resolve()));
  });
}

async function answer(
  line: string,
  handlers: DaemonHandlers,
  events: EventStream,
  capture: CaptureStream,
): Promise<Reply> {
  let request: Request;
  try {
    request = JSON.parse(line);
    if (typeof request?.command !== 'string' || typeof request.version !== 'string') throw new SyntaxError();
  } catch {
    return failure({ message: 'a request is one line of JSON: {version, command, arguments}', errno: 'EPROTO' });
  }
  if (!compatible(request.version)) {
    const message = `this client is uvxlan ${request.version}, the daemon is ${VERSION}: restart the daemon, or use its own client`;
    return failure({ message, errno: 'EPROTONOSUPPORT' });
  }
  try {
    const { command, arguments: args } = request;
    const result = await (command === 'batch'
      ? runBatch(handlers, args)
      : command === 'monitor'
        ? events.ask(fieldsOf(args))
        : command === 'capture'
          ? capture.ask(fieldsOf(args))
          : runCommand(handlers, command, args));
    return { version: VERSION, result: result ?? null };
  } catch (error) {
    const reply = describeError(error);
    // The same protocol, but not the same code: worth knowing when something fails.
    if (request.version !== VERSION)
      reply.message += ` (this client is uvxlan ${request.version}, the daemon is ${VERSION})`;
    return failure(reply);
  }
}

/** Before 1.0 the minor version, afterwards the major one, stands for the protocol. */
function compatible(version: string): boolean {
  const [major, minor] = version.split('.');
  const [ourMajor, ourMinor] = VERSION.split('.');
  return major === ourMajor && (major !== '0' || minor === ourMinor);
}

async function runBatch(handlers: DaemonHandlers, given: unknown): Promise<BatchResult> {
  const { force, commands } = fieldsOf(given) as Partial<BatchArguments>;
  if (!Array.isArray(commands) || commands.length > BATCH_LIMIT) {
    throw new CommandError(`a batch has a list of at most ${BATCH_LIMIT} commands`, 'EINVAL');
  }
  const results: BatchResult = [];
  for (const entry of commands) {
    try {
      const { command, arguments: args } = fieldsOf(entry);
      results.push({ result: (await runCommand(handlers, String(command), args)) ?? null });
    } catch (error) {
      results.push({ error: describeError(error) });
      if (!force) break;
    }
  }
  return results;
}

/** Throws what the daemon says. */
export function runCommand(handlers: DaemonHandlers, command: string, args: unknown): unknown {
  switch (command) {
    case 'status':
      return handlers.status();
    case 'link show':
      return handlers.linkShow(nameOf(args, 'name'));
    case 'link add':
      return handlers.linkAdd(parseDevice(wordsOf(args)).device);
    case 'link set': {
      const { name, changes } = parseChanges(wordsOf(args));
      return handlers.linkSet(name, changes);
    }
    case 'link del':
      return handlers.linkDel(requiredName(args, 'name'));
    case 'stats':
      return handlers.stats(nameOf(args, 'name'));
    case 'fdb add':
      return handlers.fdbAdd(entryOf(args, true));
    case 'fdb append':
      return handlers.fdbAppend(entryOf(args, true));
    case 'fdb replace':
      return handlers.fdbReplace(entryOf(args, true));
    case 'fdb del':
      return handlers.fdbDel(entryOf(args, false));
    case 'fdb show':
      return handlers.fdbShow({
        dev: nameOf(args, 'dev'),
        selection: selectionOf(fieldsOf(fieldsOf(args).selection), FDB_FIELDS),
        statistics: fieldsOf(args).statistics === true,
      });
    case 'nexthop add':
      return handlers.nexthopSet('add', nexthopOf(fieldsOf(args)));
    case 'nexthop replace':
      return handlers.nexthopSet('replace', nexthopOf(fieldsOf(args)));
    case 'nexthop del':
      return handlers.nexthopDel(FDB_FIELDS.nhid(String(fieldsOf(args).id))!);
    case 'nexthop show': {
      const id = fieldsOf(args).id ?? null;
      return handlers.nexthopShow(id === null ? null : FDB_FIELDS.nhid(String(id))!);
    }
    case 'nexthop flush':
      return handlers.nexthopFlush();
    case 'peer show':
      return handlers.peerShow(nameOf(args, 'dev'));
    case 'fdb get':
      return handlers.fdbGet(requiredName(args, 'dev'), FDB_FIELDS.mac(String(fieldsOf(args).mac)));
    case 'fdb history':
      return handlers.fdbHistory(requiredName(args, 'dev'), FDB_FIELDS.mac(String(fieldsOf(args).mac)));
    case 'fdb flush':
      return handlers.fdbFlush(requiredName(args, 'dev'), selectionOf(fieldsOf(fieldsOf(args).selection), FDB_FIELDS));
    case 'mdb add':
    case 'mdb replace':
    case 'mdb del':
      return handlers.mdbChange(command.slice('mdb '.length) as 'add' | 'replace' | 'del', mdbEntryOf(fieldsOf(args)));
    case 'mdb show':
      return handlers.mdbShow(nameOf(args, 'dev'));
    case 'mdb get':
      return handlers.mdbGet(mdbEntryOf(fieldsOf(args)));
    case 'mdb flush':
      return handlers.mdbFlush(requiredName(args, 'dev'), mdbSelectionOf(fieldsOf(fieldsOf(args).selection)));
    case 'neigh add':
    case 'neigh change':
    case 'neigh replace':
    case 'neigh del': {
      const verb = command.slice('neigh '.length) as NeighCommand;
      return handlers.neighChange(verb, neighbourOf(fieldsOf(args), verb));
    }
    case 'neigh show':
      return handlers.neighShow(neighFilterOf(fieldsOf(args)));
    case 'neigh flush':
      return handlers.neighFlush(neighFilterOf({ ...fieldsOf(args), dev: requiredName(args, 'dev') }));
    case 'traffic':
      return handlers.traffic(trafficRequestOf(args));
    case 'threads':
      return handlers.threads();
    case 'explain':
      return handlers.explain(explainRequestOf(args));
    case 'samples':
      return handlers.samples();
    default:
      throw new CommandError(`the daemon (uvxlan ${VERSION}) does not know the command "${command}"`, 'EOPNOTSUPP');
  }
}

function fieldsOf(args: unknown): Record<string, unknown> {
  if (args === undefined || args === null) return {};
  if (typeof args !== 'object' || Array.isArray(args))
    throw new CommandError('the arguments are not an object', 'EINVAL');
  return args as Record<string, unknown>;
}

/** A device's words pass the socket as they are, and are parsed here. */
function wordsOf(args: unknown): string[] {
  const { words } = fieldsOf(args);
  if (!Array.isArray(words)) throw new CommandError('the argument words is missing', 'EINVAL');
  return words.map(String);
}

function nameOf(args: unknown, key: string): string | null {
  const name = fieldsOf(args)[key] ?? null;
  return name === null ? null : FDB_FIELDS.via(String(name));
}

function requiredName(args: unknown, key: string): string {
  const name = nameOf(args, key);
  if (name === null) throw new CommandError(`the argument ${key} is missing`, 'EINVAL');
  return name;
}

/** The client has checked its words already, but whoever can open the socket can send anything. */
function entryOf(args: unknown, needsDestination: boolean): FdbArguments {
  const given = fieldsOf(args);
  for (const key in given) {
    if (key === 'dev' || Object.hasOwn(FDB_FIELDS, key)) continue;
    throw new CommandError(`the argument ${key} is unknown`, 'EINVAL');
  }
  // Each by its name: with keys that vary it takes four times as long, and a batch has 100,000 of them.
  const { mac, dst, port, vni, via, state, nhid, flags } = given;
  const entry = {
    mac: isGiven(mac) ? FDB_FIELDS.mac(String(mac)) : '',
    dev: requiredName(given, 'dev'),
    dst: isGiven(dst) ? FDB_FIELDS.dst(String(dst)) : null,
    port: isGiven(port) ? FDB_FIELDS.port(String(port)) : null,
    vni: isGiven(vni) ? FDB_FIELDS.vni(String(vni)) : null,
    via: isGiven(via) ? FDB_FIELDS.via(String(via)) : null,
    state: isGiven(state) ? FDB_FIELDS.state(String(state)) : 'permanent',
    nhid: isGiven(nhid) ? FDB_FIELDS.nhid(String(nhid)) : null,
    flags: isGiven(flags) ? FDB_FIELDS.flags(String(flags)) : undefined,
  };
  if (entry.mac === '' || (needsDestination && entry.dst === null && !entry.nhid)) {
    throw new CommandError(`the argument ${entry.mac === '' ? 'mac' : 'dst'} is missing`, 'EINVAL');
  }
  return entry;
}

function isGiven(value: unknown): boolean {
  return value !== null && value !== undefined;
}

/** Milliseconds for which packets are looked at, at most. */
const LONGEST_SAMPLE = 10_000;
const MOST_ROWS = 1000;

function trafficRequestOf(args: unknown): TrafficRequest {
  const number = (key: string, usual: number, most: number): number => {
    const value = fieldsOf(args)[key] ?? usual;
    if (Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most) return value as number;
    throw new CommandError(`the argument ${key} is 1 to ${most}`, 'EINVAL');
  };
  return {
    dev: nameOf(args, 'dev'),
    milliseconds: number('milliseconds', 1000, LONGEST_SAMPLE),
    limit: number('limit', 50, MOST_ROWS),
  };
}

function explainRequestOf(args: unknown): ExplainRequest {
  const { frame, from, to } = fieldsOf(args);
  const dev = requiredName(args, 'dev');
  if (frame === undefined) return { dev, from: String(from), to: String(to) };
  const hex = String(frame);
  if (!/^([\da-f]{2}){14,65600}$/i.test(hex)) {
    throw new CommandError('a frame is 14 to 65600 bytes as hex digits', 'EINVAL');
  }
  return { dev, frame: Buffer.from(hex, 'hex') };
}

function failure(error: ReplyError): Reply {
  return { version: VERSION, error };
}

/** Errors with an errno name and refused values are the user's; anything else is a fault of the daemon and says so. */
function describeError(error: unknown): ReplyError {
  if (error instanceof WrongValue || error instanceof UsageError) return { message: error.message, errno: 'EINVAL' };
  const { message, errno, code } = error as { message?: string; errno?: unknown; code?: unknown };
  const name = typeof errno === 'string' ? errno : typeof code === 'string' ? code : undefined;
  if (name !== undefined && message) return { message, errno: name };
  return { message: `the daemon failed: ${message ?? error}` };
}

function makeDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw socketError(directory, error as NodeJS.ErrnoException);
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'EADDRINUSE' ? secondDaemon(path) : socketError(path, error)),
    );
    // bind(2) happens inside listen() and makes the file with the umask's mode: it is never open to others.
    const umask = process.umask(0o177);
    try {
      server.listen(path, resolve);
    } finally {
      process.umask(umask);
    }
  });
}
