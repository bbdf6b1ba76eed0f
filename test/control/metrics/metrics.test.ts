import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { parse as parseYaml } from 'yaml';
import { ProcessMeter } from '../../../control/metrics/process.ts';
import { startMetrics } from '../../../control/metrics/server.ts';
import { type MetricsView, metricsText } from '../../../control/metrics/text.ts';
import { fakeLink } from '../fake-daemon.ts';

const counters = (drops: Record<string, number>) => ({ in: 7, copies: 2, out: 5, bytes: 700, drops });

function viewOf(...names: string[]): MetricsView {
  return {
    links: names.map(fakeLink),
    stats: [
      ...names.map((ifname) => ({
        ifname,
        tx: counters({ tx_runt: 0, tx_no_remote: 4 }),
        rx: counters({ rx_own_mac: 1 }),
      })),
      { ifname: 'uplink redirect port 8472 (uvxup0)', tx: counters({}), rx: counters({ rx_outer_checksum: 3 }) },
    ],
    writes: names.map((ifname) => ({ ifname, tx: 3, rx: 2 })),
    workerRestarts: 1,
    threads: [{ name: 'worker 0', cpu: 1.5, wait: 0.25, sleeps: 9 }],
    tables: [{ table: 'fdb', entries: 3, limit: 100 }],
    peers: [
      { dev: 'flannel.1', dst: '192.0.2.10', isUp: true },
      { dev: 'flannel.1', dst: '192.0.2.9', isUp: true },
      { dev: 'flannel.1', dst: '192.0.2.11', isUp: false },
    ],
    mostPeers: 2,
    delay: { max: 0.25, p99: 0.01 },
    memoryBytes: 1e8,
    cpuSeconds: 12.5,
  };
}

interface Metric {
  readonly type: string;
  readonly samples: Map<string, number>;
}

/** The text format, strictly: every line, its order, names, labels and escapes, and no series twice. */
function parse(text: string): Map<string, Metric> {
  assert.ok(text.endsWith('\n'), 'the last line ends');
  const metrics = new Map<string, Metric>();
  let current = '';
  let help = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const [, helped] = /^# HELP ([a-zA-Z_:][\w:]*) \S.*$/.exec(line) ?? [];
    if (helped) {
      assert.ok(!metrics.has(helped), `${helped} twice`);
      help = helped;
      continue;
    }
    const [, typed, type] = /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge)$/.exec(line) ?? [];
    if (typed) {
      assert.equal(typed, help, 'HELP stands before TYPE');
      assert.equal(typed.endsWith('_total'), type === 'counter', `${typed}: counters end in _total, and only they`);
      metrics.set(typed, { type, samples: new Map() });
      current = typed;
      continue;
    }
    const sample =
      /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"(?:,(?!\})|(?=\})))*\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/.exec(
        line,
      );
    assert.ok(sample, `not a line of the format: ${line}`);
    assert.equal(sample[1], current, 'samples stand behind their TYPE');
    const { samples } = metrics.get(current)!;
    assert.ok(!samples.has(sample[2] ?? ''), `twice: ${line}`);
    samples.set(sample[2] ?? '', Number(sample[3]));
  }
  return metrics;
}

test('the text is what Prometheus reads', () => {
  const metrics = parse(metricsText(viewOf('flannel.1', 'vx2')));
  const value = (name: string, labels: string) => metrics.get(`uvxlan_${name}`)!.samples.get(labels);
  assert.equal(value('frames_total', '{device="flannel.1",direction="tx"}'), 7);
  assert.equal(value('frames_total', '{device="vx2",direction="rx"}'), 5);
  assert.equal(value('packets_total', '{device="vx2",direction="rx"}'), 7);
  assert.equal(value('drops_total', '{interface="flannel.1",direction="tx",reason="tx_no_remote"}'), 4);
  assert.equal(value('drops_total', '{interface="flannel.1",direction="tx",reason="tx_runt"}'), 0);
  assert.equal(
    value('drops_total', '{interface="uplink redirect port 8472 (uvxup0)",direction="rx",reason="rx_outer_checksum"}'),
    3,
  );
  assert.equal(value('worker_restarts_total', ''), 1);
  assert.equal(value('event_loop_delay_seconds', '{quantile="1"}'), 0.25);
  assert.equal(value('thread_cpu_wait_seconds_total', '{thread="worker 0"}'), 0.25);
  assert.equal(value('table_limit', '{table="fdb"}'), 100);
  assert.deepEqual(
    [...metrics.get('uvxlan_peer_up')!.samples],
    [
      ['{device="flannel.1",peer="192.0.2.11"}', 0],
      ['{device="flannel.1",peer="192.0.2.9"}', 1],
    ],
    'those that cannot be reached first, and no more than were asked for',
  );
  assert.equal(value('peers_omitted', ''), 1);
});

test('no devices, and names with every character that has to be escaped', () => {
  parse(metricsText(viewOf()));
  const metrics = parse(metricsText(viewOf('a"b\\c\nd')));
  assert.equal(metrics.get('uvxlan_fdb_entries')!.samples.get('{device="a\\"b\\\\c\\nd"}'), 3);
});

test('what the server answers', async (t) => {
  const problems: string[] = ['flannel.1: the NIC is gone'];
  const view = viewOf('flannel.1');
  const meter = new ProcessMeter();
  t.after(() => meter.stop());
  const source = {
    ...{ name: 'uvxlan', option: '--metrics there' },
    metrics: async () => metricsText({ ...view, ...meter.take() }),
    problems: () => problems,
  };
  const server = await startMetrics('127.0.0.1', 0, source);
  t.after(() => server.close());
  const get = async (path: string) => {
    const response = await fetch(new URL(path, server.url));
    return { status: response.status, type: response.headers.get('content-type'), body: await response.text() };
  };
  const { status, type, body } = await get('/metrics');
  assert.deepEqual({ status, type }, { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8' });
  assert.ok(parse(body).get('uvxlan_resident_memory_bytes')!.samples.get('')! > 1e6);
  assert.equal((await get('/healthz')).status, 200);
  assert.deepEqual(await get('/readyz').then(({ status: code, body: text }) => [code, text]), [
    503,
    'not ready: flannel.1: the NIC is gone\n',
  ]);
  problems.pop();
  assert.equal((await get('/readyz')).status, 200);
  assert.equal((await get('/other')).status, 404);
  await assert.rejects(
    startMetrics('127.0.0.1', Number(new URL(server.url).port), source),
    /--metrics there: cannot listen there \(EADDRINUSE\)/,
  );
});

test('the dashboard and the alert rules name metrics that there are', () => {
  const metrics = parse(metricsText(viewOf('flannel.1')));
  for (const file of ['grafana-dashboard.json', 'prometheus-rules.yaml']) {
    const text = readFileSync(join(import.meta.dirname, '../../../../deploy/monitoring', file), 'utf8');
    const names = new Set(text.match(/uvxlan_\w+/g));
    assert.ok(names.size > 4, file);
    for (const name of names) assert.ok(metrics.has(name), `${file}: ${name}`);
    if (file.endsWith('.json')) JSON.parse(text);
    else assert.equal(parseYaml(text).groups[0].rules.length, text.match(/- alert:/g)?.length);
  }
});
