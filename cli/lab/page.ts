/** The page of the lab: one for all nodes that run uvxlan, served outside of their namespaces, where a browser reaches it. */
import { socketPath } from '../../control/protocol.ts';
import { startWeb, type Web } from '../../control/web/server.ts';
import { askDaemon, openCapture } from '../client.ts';
import { namespacePath } from './namespace.ts';
import type { Node } from './nodes.ts';

/** Throws CommandError when something else listens there. */
export function startPage(address: string, port: number, nodes: readonly Node[]): Promise<Web> {
  return startWeb({
    address,
    port,
    token: process.env.UVXLAN_WEB_TOKEN,
    nodes: nodes.map(({ plan, host }) => {
      const path = socketPath(namespacePath(host.namespace));
      return {
        name: plan.name,
        ask: (command, args) => askDaemon(command, args, path),
        capture: (request) => openCapture(request, path),
      };
    }),
  });
}
