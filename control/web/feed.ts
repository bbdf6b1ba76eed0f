/** What happens, once a second, for all pages that are open: the nodes are asked once, however many look on, and not at all when nobody does. */
import type { ServerResponse } from 'node:http';
import { type Node, nodeState, type Tables } from './nodes.ts';
import type { Live, NodeState } from './shapes.ts';

const PERIOD = 1_000;
/** A page that has not taken what it was sent is sent no more, and after so many periods it is cut off. */
const PATIENCE = 10;
/** For so long a page's first look at the nodes may have been taken before it asked. */
const FRESH = 2_000;

export class Feed {
  readonly #nodes: ReadonlyMap<Node, Tables>;
  /** With the periods for which each has not read. */
  readonly #clients = new Map<ServerResponse, number>();
  #timer: NodeJS.Timeout | undefined;
  #asking = false;
  #prepared: { readonly at: number; readonly nodes: Promise<NodeState[]> } | undefined;

  constructor(nodes: ReadonlyMap<Node, Tables>) {
    this.#nodes = nodes;
  }

  get size(): number {
    return this.#clients.size;
  }

  /** A page is about to ask: the nodes are, while it loads. */
  prepare(): void {
    if (this.#timer || (this.#prepared && performance.now() - this.#prepared.at < FRESH)) return;
    this.#prepared = { at: performance.now(), nodes: this.#ask() };
  }

  /** Sends events until the client goes. */
  add(client: ServerResponse): void {
    client.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' });
    client.write('retry: 2000\n\n');
    this.#clients.set(client, 0);
    client.on('close', () => this.#remove(client));
    if (this.#timer) return;
    this.#timer = setInterval(() => void this.#send(), PERIOD).unref();
    void this.#send();
  }

  close(): void {
    for (const client of this.#clients.keys()) client.destroy();
    clearInterval(this.#timer);
  }

  #remove(client: ServerResponse): void {
    this.#clients.delete(client);
    if (this.#clients.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #ask(): Promise<NodeState[]> {
    return Promise.all(Array.from(this.#nodes, ([node, tables]) => nodeState(node, tables)));
  }

  async #send(): Promise<void> {
    if (this.#asking) return; // a node that answers slowly is not asked again meanwhile
    this.#asking = true;
    const prepared = this.#prepared;
    this.#prepared = undefined;
    const nodes = await (prepared && performance.now() - prepared.at < FRESH ? prepared.nodes : this.#ask());
    this.#asking = false;
    const live: Live = { time: Date.now(), nodes };
    const event = `data: ${JSON.stringify(live)}\n\n`;
    for (const [client, missed] of this.#clients) {
      const waits = client.writableNeedDrain;
      this.#clients.set(client, waits ? missed + 1 : 0);
      if (!waits) client.write(event);
      else if (missed >= PATIENCE) client.destroy();
    }
  }
}
