/** Over HTTP: /metrics for Prometheus; /healthz while the daemon lives; /readyz while all of its devices carry traffic. */
import { createServer } from 'node:http';
import { isIP } from 'node:net';
import { CommandError } from '../protocol.ts';
import { CONTENT_TYPE } from './format.ts';

export interface MetricsSource {
  /** All of a scrape. */
  metrics(): Promise<string>;
  /** Why it is not ready: a line each; none when it is. */
  problems(): readonly string[];
  /** Who runs: 'uvxlan'. */
  readonly name: string;
  /** The words that say where to listen, for an error. */
  readonly option: string;
}

export interface MetricsServer {
  readonly url: string;
  close(): Promise<void>;
}

const MOST_CONNECTIONS = 32;

/** Address '': all of this host's. Throws CommandError when nobody can listen there. */
export async function startMetrics(address: string, port: number, source: MetricsSource): Promise<MetricsServer> {
  const server = createServer((request, response) => {
    answer(request.url ?? '', source).then(
      ([status, type, body]) => response.writeHead(status, { 'content-type': type }).end(body),
      (error: Error) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${error.message}\n`),
    );
  });
  server.maxConnections = MOST_CONNECTIONS;
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', ({ code = 'EIO' }: NodeJS.ErrnoException) =>
      reject(new CommandError(`${source.option}: cannot listen there (${code})`, code)),
    );
    server.listen(port, address || undefined, resolve);
  });
  const host = isIP(address) === 6 ? `[${address}]` : address;
  return {
    url: `http://${host}:${(server.address() as { port: number }).port}/metrics`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(path: string, source: MetricsSource): Promise<[number, string, string]> {
  const text = 'text/plain; charset=utf-8';
  switch (path.split('?')[0]) {
    case '/healthz':
      return [200, text, `${source.name} is running\n`];
    case '/readyz': {
      const problems = source.problems();
      return problems.length === 0 ? [200, text, 'ready\n'] : [503, text, `not ready: ${problems.join('; ')}\n`];
    }
    case '/metrics':
      return [200, CONTENT_TYPE, await source.metrics()];
    default:
      return [404, text, 'there are /metrics, /healthz and /readyz\n'];
  }
}
