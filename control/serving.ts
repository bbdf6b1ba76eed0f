/** What a daemon serves over HTTP: the page, and metrics with its probes. */
import { rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { runCommand } from './api.ts';
import { captureStream } from './capture/chunks.ts';
import type { Log } from './log.ts';
import type { MetricsServer } from './metrics/server.ts';
import { type DaemonHandlers, socketPath } from './protocol.ts';
import type { Node } from './web/nodes.ts';
import type { Web } from './web/server.ts';

export interface ServingOptions {
  readonly log: Log;
  /** Where to serve the page, if at all. */
  readonly web?: { readonly address: string; readonly port: number } | undefined;
  /** Where Prometheus finds its metrics, and how many VTEPs get a series of their own; undefined: nowhere. */
  readonly metrics?: { readonly address: string; readonly port: number; readonly peers?: number } | undefined;
}

/** Who serves. */
type Served = DaemonHandlers & { metrics(): Promise<string> };

export class Serving {
  readonly #daemon: Served;
  readonly #options: ServingOptions;
  #web: Web | undefined;
  #tokenFile: string | undefined;
  #metrics: MetricsServer | undefined;

  constructor(daemon: Served, options: ServingOptions) {
    this.#daemon = daemon;
    this.#options = options;
  }

  /** Throws CommandError when nobody can listen there. */
  async page(): Promise<void> {
    const { web, log } = this.#options;
    if (!web) return;
    const node: Node = {
      name: hostname(),
      ask: async <T>(command: string, args?: unknown) => (await runCommand(this.#daemon, command, args ?? {})) as T,
      capture: (request) => captureStream(this.#daemon, request),
    };
    // Only who wants a page pays for what it takes.
    const { startWeb } = await import('./web/server.ts');
    this.#web = await startWeb({ ...web, nodes: [node], token: process.env.UVXLAN_WEB_TOKEN });
    const url = new URL(this.#web.url);
    const token = url.searchParams.get('token');
    url.search = '';
    if (token === null) log(`the page is at ${url}`);
    else if (process.env.UVXLAN_WEB_TOKEN) log(`the page is at ${url}?token=..., that of UVXLAN_WEB_TOKEN`);
    else log(`the page is at ${url}?token=..., that of ${this.#keepToken(token)}`);
  }

  /** `problems`: why the daemon is not ready. Throws CommandError when nobody can listen there. */
  async metrics(problems: () => readonly string[]): Promise<void> {
    const { metrics, log } = this.#options;
    if (!metrics) return;
    const { startMetrics } = await import('./metrics/server.ts');
    this.#metrics = await startMetrics(metrics.address, metrics.port, {
      ...{ name: 'uvxlan', option: `--metrics ${metrics.address}:${metrics.port}` },
      metrics: () => this.#daemon.metrics(),
      problems,
    });
    log(`metrics are at ${this.#metrics.url}`);
  }

  async close(): Promise<void> {
    if (this.#tokenFile) rmSync(this.#tokenFile, { force: true });
    await this.#web?.close();
    await this.#metrics?.close();
  }

  /** Logs go to where a secret must not: it is in a file that only root can read, as long as the daemon runs. Returns its path. */
  #keepToken(token: string): string {
    const path = socketPath().replace(/sock$/, 'token');
    rmSync(path, { force: true }); // of a daemon that was killed
    writeFileSync(path, `${token}\n`, { mode: 0o600, flag: 'wx' });
    this.#tokenFile = path;
    return path;
  }
}
