// What is in deploy/ agrees with the program: by structure, since no cluster is to be had here.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse, parseAllDocuments } from 'yaml';
import { parseConf } from '../control/flannel/cni-plugin.ts';
import { Flags } from '../control/flannel/flags.ts';
import { parseNetConf } from '../control/flannel/net-conf.ts';
import { VERSION } from '../control/protocol.ts';

const DEPLOY = fileURLToPath(new URL('../../deploy/', import.meta.url));
const read = (file: string) => readFileSync(join(DEPLOY, file), 'utf8');

interface Volume {
  name: string;
  hostPath?: { path: string; type: string };
}
interface Container {
  image: string;
  args?: string[];
  securityContext?: { privileged: boolean; capabilities: { drop: string[]; add: string[] } };
  volumeMounts: { name: string; mountPath: string }[];
  livenessProbe?: { httpGet: { path: string; port: number } };
  readinessProbe?: { httpGet: { path: string; port: number } };
}
// biome-ignore lint/suspicious/noExplicitAny: Kubernetes objects of several kinds
type Manifest = any;

function documents(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => {
    assert.deepEqual(document.errors, []);
    return document.toJS();
  });
}

/** A chart's template with the values that it has by itself, as far as these templates go: no Helm is to be had here. */
function rendered(file: string, changes: object): string {
  const values = { ...parse(read('chart/values.yaml')), ...changes };
  const chart = parse(read('chart/Chart.yaml'));
  return read(`chart/templates/${file}`)
    .replace(/\{\{-? if \.Values\.bpf \}\}(.*?)\{\{-? end \}\}/gs, (_, body) => (values.bpf ? body : ''))
    .replace(/^ *\{\{- if eq \.Values\.nodes "(\w+)" \}\}\n(.*?)^ *\{\{- end \}\}\n/gms, (_, wanted, body) =>
      wanted === values.nodes ? body : '',
    )
    .replace(/\{\{- toYaml \.Values\.resources \| nindent 12 \}\}/, ` ${JSON.stringify(values.resources)}`)
    .replace('{{ .Values.netConf | toJson }}', JSON.stringify(values.netConf))
    .replaceAll('{{ .Values.image.tag | default .Chart.AppVersion }}', values.image.tag || chart.appVersion)
    .replaceAll('{{ .Values.image.repository }}', values.image.repository)
    .replaceAll('{{ .Values.cniPlugin.image }}', values.cniPlugin.image)
    .replaceAll('{{ .Release.Namespace }}', 'kube-flannel');
}

const chart = (changes: object) =>
  readdirSync(join(DEPLOY, 'chart/templates')).flatMap((file) => documents(rendered(file, changes)));
const SETS: Record<string, () => Manifest[]> = {
  'kube-uvxlan.yaml': () => documents(read('kube-uvxlan.yaml')),
  'kube-uvxlan-beside-flannel.yaml': () => documents(read('kube-uvxlan-beside-flannel.yaml')),
  'chart, nodes all': () => chart({ nodes: 'all' }),
  'chart, nodes beside': () => chart({ nodes: 'beside' }),
};

for (const [name, manifests] of Object.entries(SETS)) {
  const of = (kind: string): Manifest[] => manifests().filter((each) => each?.kind === kind);

  test(`${name}: the pod may do what the agent needs, and no more`, () => {
    const pod = of('DaemonSet')[0].spec.template.spec;
    const [agent] = pod.containers as [Container];
    assert.equal(pod.hostNetwork, true);
    assert.deepEqual(agent.securityContext!.capabilities, { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] });
    assert.equal(agent.securityContext!.privileged, false);
    assert.equal(agent.image, `uvxlan:${VERSION}`);
    const volumes = new Map((pod.volumes as Volume[]).map((volume) => [volume.name, volume]));
    for (const container of [...pod.initContainers, agent] as Container[]) {
      for (const mount of container.volumeMounts) assert.ok(volumes.has(mount.name), mount.name);
    }
    const paths = (agent.volumeMounts ?? []).map(({ mountPath }) => mountPath);
    for (const path of ['/dev/net/tun', '/run/flannel', '/run/uvxlan', '/run/xtables.lock'])
      assert.ok(paths.includes(path));
    assert.equal(volumes.get('tun')!.hostPath!.type, 'CharDevice');
  });

  test(`${name}: flags, files and probes are the program's`, () => {
    const [agent] = of('DaemonSet')[0].spec.template.spec.containers as [Container];
    const [command, ...words] = agent.args!;
    assert.equal(command, 'flannel');
    const flags = new Flags(words, {});
    assert.deepEqual(flags.notes, []);
    const port = flags.number('healthz-port', 1, 65535);
    assert.deepEqual([agent.livenessProbe!.httpGet.path, agent.livenessProbe!.httpGet.port], ['/healthz', port]);
    assert.deepEqual([agent.readinessProbe!.httpGet.path, agent.readinessProbe!.httpGet.port], ['/readyz', port]);
    const mounts = agent.volumeMounts.map(({ mountPath }) => mountPath);
    for (const flag of ['net-config-path', 'subnet-file'] as const) {
      assert.ok(
        mounts.some((path) => flags.text(flag).startsWith(`${path}/`)),
        flag,
      );
    }
  });

  test(`${name}: the account may read nodes and patch their status`, () => {
    const account = of('DaemonSet')[0].spec.template.spec.serviceAccountName;
    assert.equal(of('ServiceAccount')[0].metadata.name, account);
    assert.equal(of('ClusterRoleBinding')[0].subjects[0].name, account);
    assert.deepEqual(of('ClusterRole')[0].rules, [
      { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
      { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] },
    ]);
  });

  test(`${name}: the cluster's configuration is one that the agent and the plugin take`, () => {
    for (const { data } of of('ConfigMap')) {
      assert.equal(parseNetConf(data['net-conf.json'], 'net-conf.json').conf.backend.type, 'vxlan');
      const { plugins, ...list } = JSON.parse(data['cni-conf.json']);
      parseConf(JSON.stringify({ ...list, ...plugins[0] }));
    }
    assert.equal(of('ConfigMap').length, /beside/.test(name) ? 0 : 1);
  });
}

test("with BPF: what the patch adds is what the chart adds, and the flag is the program's", () => {
  const pod = (manifests: Manifest[]) => manifests.find((each) => each?.kind === 'DaemonSet').spec.template.spec;
  const [plain, { containers, volumes }] = [pod(chart({})), pod(chart({ bpf: true }))];
  const added = <T>(all: T[], before: T[]) => all.slice(before.length);
  const [agent, before] = [containers[0], plain.containers[0]];
  const patch = parse(read('with-bpf.yaml')).spec.template.spec;
  assert.deepEqual(patch.volumes, added(volumes, plain.volumes));
  assert.deepEqual(patch.containers, [
    {
      name: agent.name,
      env: added(agent.env, before.env),
      securityContext: { capabilities: { add: agent.securityContext.capabilities.add } },
      volumeMounts: added(agent.volumeMounts, before.volumeMounts),
    },
  ]);
  assert.deepEqual(agent.securityContext.capabilities, { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW', 'BPF'] });
  const [{ name, value }] = patch.containers[0].env;
  assert.equal(new Flags([], { [name]: value }).text('offload-pin'), patch.containers[0].volumeMounts[0].mountPath);
});

test('beside flannel, each node has one of the two', () => {
  const { spec } = parse(read('flannel-elsewhere.yaml'));
  const terms =
    spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms;
  const selector = documents(read('kube-uvxlan-beside-flannel.yaml')).at(-1).spec.template.spec.nodeSelector;
  assert.deepEqual(terms[0].matchExpressions[1], {
    key: 'uvxlan/vxlan',
    operator: 'NotIn',
    values: [selector['uvxlan/vxlan']],
  });
});

test('the image has what the agent runs', () => {
  const text = read('Dockerfile');
  for (const tool of ['iproute2', 'iptables', 'nftables']) assert.match(text, new RegExp(`install .*\\b${tool}\\b`));
  // koffi's binary and the compiler's are optional packages: one for each platform.
  assert.doesNotMatch(text, /omit=optional/);
  const [, ...words] = JSON.parse(text.match(/^CMD (.*)$/m)![1]!) as string[];
  assert.deepEqual(new Flags(words, {}).notes, []);
  for (const [, file] of text.matchAll(/\/opt\/uvxlan\/dist\/(\S+\.js)/g)) {
    readFileSync(fileURLToPath(new URL(`../${file}`, import.meta.url)));
  }
});

test('versions agree', () => {
  const { version, appVersion } = parse(read('chart/Chart.yaml'));
  assert.deepEqual([version, appVersion], [VERSION, VERSION]);
});

test('the systemd unit waits for readiness and names flags that there are', () => {
  const unit = read('uvxlan-flannel.service');
  assert.match(unit, /^Type=notify$/m);
  assert.match(unit, /^ExecStart=uvxlan flannel$/m);
  const environment = Object.fromEntries(
    [...unit.matchAll(/^# +(FLANNELD_\w+)=(\S+)$/gm)].map(([, key, value]) => [key, value]),
  );
  assert.deepEqual(Object.keys(environment), ['FLANNELD_ETCD_ENDPOINTS', 'FLANNELD_IP_MASQ']);
  const flags = new Flags([], environment);
  assert.equal(flags.flag('ip-masq'), true);
  assert.match(flags.text('etcd-endpoints'), /^https:/);
});
