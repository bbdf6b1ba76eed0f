/** Over HTTP: /metrics for Prometheus; /healthz while the daemon lives; /readyz while all of its devices carry traffic. */
import { createServer } from 'node:http';
import { isIP } from 'node:net';
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { CommandError } from '../protocol.ts';
import { CONTENT_TYPE, type MetricsView, metricsText } from './text.ts';

export interface MetricsSource {
  /** All of a scrape but what this process knows of itself. */
  view(): Promise<Omit<MetricsView, 'delay' | 'memoryBytes' | 'cpuSeconds'>>;
  /** Why it is not ready: a line each; none when it is. */
  problems(): readonly string[];
}

export interface MetricsServer {
  readonly url: string;
  close(): Promise<void>;
}

const MOST_CONNECTIONS = 32;
const NANOSECONDS = 1e9;

/** Throws CommandError when nobody can listen there. */
export async function startMetrics(address: string, port: number, source: MetricsSource): Promise<MetricsServer> {
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  const server = createServer((request, response) => {
    answer(request.url ?? '', source, delay).then(
      ([status, type, body]) => response.writeHead(status, { 'content-type': type }).end(body),
      (error: Error) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${error.message}\n`),
    );
  });
  server.maxConnections = MOST_CONNECTIONS;
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once('error', ({ code = 'EIO' }: NodeJS.ErrnoException) =>
      reject(new CommandError(`--metrics ${address}:${port}: cannot listen there (${code})`, code)),
    );
    server.listen(port, address, resolve);
  });
  const host = isIP(address) === 6 ? `[${address}]` : address;
  return {
    url: `http://${host}:${(server.address() as { port: number }).port}/metrics`,
    close: () =>
      new Promise((resolve) => {
        delay.disable();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(
  path: string,
  source: MetricsSource,
  delay: IntervalHistogram,
): Promise<[number, string, string]> {
  const text = 'text/plain; charset=utf-8';
  switch (path.split('?')[0]) {
    case '/healthz':
      return [200, text, 'uvxlan is running\n'];
    case '/readyz': {
      const problems = source.problems();
      return problems.length === 0 ? [200, text, 'ready\n'] : [503, text, `not ready: ${problems.join('; ')}\n`];
    }
    case '/metrics': {
      const { user, system } = process.cpuUsage();
      const view: MetricsView = {
        ...(await source.view()),
        delay: { max: delay.max / NANOSECONDS, p99: delay.percentile(99) / NANOSECONDS },
        memoryBytes: process.memoryUsage.rss(),
        cpuSeconds: (user + system) / 1e6,
      };
      delay.reset();
      return [200, CONTENT_TYPE, metricsText(view)];
    }
    default:
      return [404, text, 'there are /metrics, /healthz and /readyz\n'];
  }
}
