/** What happens, once a second, for all pages that are open: the nodes are asked once, however many look on, and not at all when nobody does. */
import type { ServerResponse } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type Node, nodeState, type Tables } from './nodes.ts';
import type { Live } from './shapes.ts';

const PERIOD = 1_000;
/** Milliseconds between looks at the event loop; the histogram holds the time between two of them. */
const RESOLUTION = 10;
/** Bytes that may wait for a page; one that reads so slowly is cut off. */
const BACKLOG = 1 << 20;

export class Feed {
  readonly #nodes: ReadonlyMap<Node, Tables>;
  readonly #clients = new Set<ServerResponse>();
  readonly #delay = monitorEventLoopDelay({ resolution: RESOLUTION });
  #timer: NodeJS.Timeout | undefined;
  #asking = false;

  constructor(nodes: ReadonlyMap<Node, Tables>) {
    this.#nodes = nodes;
  }

  get size(): number {
    return this.#clients.size;
  }

  /** Sends events until the client goes. */
  add(client: ServerResponse): void {
    client.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' });
    client.write('retry: 2000\n\n');
    this.#clients.add(client);
    client.on('close', () => this.#remove(client));
    if (this.#timer) return;
    this.#delay.enable();
    this.#timer = setInterval(() => void this.#send(), PERIOD).unref();
    void this.#send();
  }

  close(): void {
    for (const client of this.#clients) client.destroy();
    clearInterval(this.#timer);
    this.#delay.disable();
  }

  #remove(client: ServerResponse): void {
    this.#clients.delete(client);
    if (this.#clients.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#delay.disable();
  }

  async #send(): Promise<void> {
    if (this.#asking) return; // a node that answers slowly is not asked again meanwhile
    this.#asking = true;
    const nodes = await Promise.all(Array.from(this.#nodes, ([node, tables]) => nodeState(node, tables)));
    this.#asking = false;
    const delay = Math.max(0, Math.round(this.#delay.percentile(99) / 1e4) / 100 - RESOLUTION);
    this.#delay.reset();
    const live: Live = { time: Date.now(), delay, nodes };
    const event = `data: ${JSON.stringify(live)}\n\n`;
    for (const client of this.#clients) {
      client.write(event);
      if (client.writableLength > BACKLOG) client.destroy();
    }
  }
}
