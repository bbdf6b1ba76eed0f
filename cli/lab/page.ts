/** The page of the lab: one for all nodes that run uvxlan, served outside of their namespaces, where a browser reaches it. */
import { statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { socketPath } from '../../control/protocol.ts';
import { startWeb, type Web } from '../../control/web/server.ts';
import { connectToDaemon, openCapture } from '../client.ts';
import { namespacePath } from './namespace.ts';
import type { Node } from './nodes.ts';

/** Throws CommandError when something else listens there. */
export function startPage(address: string, port: number, nodes: readonly Node[]): Promise<Web> {
  return startWeb({
    address,
    port,
    token: process.env.UVXLAN_WEB_TOKEN,
    nodes: nodes.map(({ plan, host }) => {
      const path = join(dirname(socketPath()), `${statSync(namespacePath(host.namespace)).ino}.sock`);
      return {
        name: plan.name,
        async ask<T>(command: string, args?: unknown): Promise<T> {
          const client = await connectToDaemon(path);
          try {
            return await client.ask<T>(command, args);
          } finally {
            client.close();
          }
        },
        capture: (request) => openCapture(request, path),
      };
    }),
  });
}
