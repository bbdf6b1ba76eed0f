// A listening socket in a host's namespace for a server of this process, which stays in its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Server } from 'node:net';
import type { Host } from '../../cli/lab/network.ts';

const LISTEN = (port: number) =>
  `const server = require('net').createServer().listen(${port}, '127.0.0.1', () => process.send('', server, () => process.exit()))`;

/** On the host's loopback. A process in the namespace makes it and hands it over. */
export async function listening(host: Host, port: number): Promise<Server> {
  const [command, ...args] = host.inside([process.execPath, '-e', LISTEN(port)]);
  const child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [, server] = (await once(child, 'message', { signal: AbortSignal.timeout(30_000) })) as [unknown, Server];
  return server;
}
