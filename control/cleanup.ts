/** Removes what a daemon that was killed has left behind in this network namespace. */
import { Host } from './host.ts';
import { releaseNeighbours } from './neighbours.ts';
import { cleanupRedirects } from './traffic-control.ts';

/** Returns a line for each thing removed. The caller knows that no other daemon runs in the namespace. */
export async function cleanUp(host: Host = new Host()): Promise<string[]> {
  const [removed] = await Promise.all([cleanupRedirects(host), releaseNeighbours(host)]);
  return removed;
}
