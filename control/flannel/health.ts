/** flanneld's probes over HTTP: /healthz while the agent lives, /readyz while this node forwards; and /metrics for Prometheus. */
import { metric } from '../metrics/format.ts';
import { type MetricsServer, startMetrics } from '../metrics/server.ts';
import { FAULTS, type FaultCounts, type FaultKind } from './faults.ts';
import type { SourceStatus } from './source.ts';

export interface HealthView {
  readonly ready: boolean;
  /** Why it is not ready, or what goes wrong though it is. */
  readonly problem: string | null;
  readonly peers: number;
  /** Those of them that get no route: see peersOffLink. */
  readonly offLink: number;
  /** What was found missing or changed on the host, and put right. */
  readonly repairs: number;
  readonly reconciliations: number;
  /** Of the last one. */
  readonly reconcileSeconds: number;
  readonly source: SourceStatus;
  readonly faults: FaultCounts;
}

/** Listens on `address` (all of this host's when '') and `port`; rejects when it cannot. `dataplane`: the metrics of what forwards. */
export function serveHealth(
  address: string,
  port: number,
  view: () => HealthView,
  dataplane: () => Promise<string>,
): Promise<MetricsServer> {
  return startMetrics(address, port, {
    name: 'uvxlan flannel',
    option: `--healthz-ip ${address} --healthz-port ${port}`,
    metrics: async () => agentMetrics(view()) + (await dataplane()),
    problems: () => {
      const { ready, problem } = view();
      return ready ? [] : [problem ?? 'starting'];
    },
  });
}

function agentMetrics(view: HealthView): string {
  const one = (name: string, type: 'gauge' | 'counter', help: string, value: number): string =>
    metric(`flannel_${name}`, type, help, [[{}, value]]);
  return [
    one('ready', 'gauge', 'Whether this node forwards.', Number(view.ready)),
    one('peers', 'gauge', 'Other nodes of the cluster.', view.peers),
    one(
      'peers_off_link',
      'gauge',
      'Other nodes that get no route: host-gw, and they are not on the link.',
      view.offLink,
    ),
    one(
      'source_connected',
      'gauge',
      'Whether the last answer of the cluster was a good one.',
      Number(view.source.connected),
    ),
    one('repairs_total', 'counter', 'What was missing or changed on the host and was put right.', view.repairs),
    one('reconciliations_total', 'counter', 'Comparisons of the host with what it is to be.', view.reconciliations),
    one('reconcile_seconds', 'gauge', 'How long the last comparison took.', view.reconcileSeconds),
    metric(
      'flannel_faults_total',
      'counter',
      'What was wrong with the state of the cluster, or with getting at it.',
      (Object.keys(FAULTS) as FaultKind[]).map((kind) => [{ kind }, view.faults[kind]]),
    ),
  ].join('');
}
