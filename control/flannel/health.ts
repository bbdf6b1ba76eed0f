/** flanneld's probes over HTTP: /healthz while the agent lives, /readyz while this node forwards; and /metrics for Prometheus. */
import { createServer, type Server } from 'node:http';
import { FAULTS, type FaultCounts, type FaultKind } from './faults.ts';
import type { SourceStatus } from './source.ts';

export interface HealthView {
  readonly ready: boolean;
  /** Why it is not ready, or what goes wrong though it is. */
  readonly problem: string | null;
  readonly peers: number;
  /** What was found missing or changed on the host, and put right. */
  readonly repairs: number;
  readonly reconciliations: number;
  /** Of the last one. */
  readonly reconcileSeconds: number;
  readonly source: SourceStatus;
  readonly faults: FaultCounts;
}

/** Listens on `address` (all of this host's when '') and `port`; rejects when it cannot. */
export function serveHealth(address: string, port: number, view: () => HealthView): Promise<Server> {
  const server = createServer((request, response) => {
    const [status, body] = answer(request.url ?? '', view());
    response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' }).end(body);
  });
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(new Error(`--healthz-ip ${address} --healthz-port ${port}: cannot listen there (${error.code})`)),
    );
    server.listen(port, address === '' ? undefined : address, () => resolve(server.unref()));
  });
}

export function answer(path: string, view: HealthView): [status: number, body: string] {
  switch (path.split('?')[0]) {
    case '/healthz':
      return [200, 'uvxlan flannel is running\n'];
    case '/readyz':
      return view.ready ? [200, 'ready\n'] : [503, `not ready: ${view.problem ?? 'starting'}\n`];
    case '/metrics':
      return [200, metrics(view)];
    default:
      return [404, 'there are /healthz, /readyz and /metrics\n'];
  }
}

function metrics(view: HealthView): string {
  const lines: string[] = [];
  const metric = (name: string, type: 'gauge' | 'counter', help: string, value: number): void => {
    lines.push(`# HELP uvxlan_flannel_${name} ${help}`, `# TYPE uvxlan_flannel_${name} ${type}`);
    lines.push(`uvxlan_flannel_${name} ${value}`);
  };
  metric('ready', 'gauge', 'Whether this node forwards.', Number(view.ready));
  metric('peers', 'gauge', 'Other nodes of the cluster.', view.peers);
  metric(
    'source_connected',
    'gauge',
    'Whether the last answer of the cluster was a good one.',
    Number(view.source.connected),
  );
  metric('repairs_total', 'counter', 'What was missing or changed on the host and was put right.', view.repairs);
  metric('reconciliations_total', 'counter', 'Comparisons of the host with what it is to be.', view.reconciliations);
  metric('reconcile_seconds', 'gauge', 'How long the last comparison took.', view.reconcileSeconds);
  lines.push(
    '# HELP uvxlan_flannel_faults_total What was wrong with the state of the cluster, or with getting at it.',
    '# TYPE uvxlan_flannel_faults_total counter',
  );
  for (const kind of Object.keys(FAULTS) as FaultKind[]) {
    lines.push(`uvxlan_flannel_faults_total{kind="${kind}"} ${view.faults[kind]}`);
  }
  return `${lines.join('\n')}\n`;
}
