import { hostname } from 'node:os';
import type { Log } from '../log.ts';
import type { Flags } from './flags.ts';
import type { PerFamily } from './lease.ts';
import type { Source } from './source.ts';
import { readSubnetEnv } from './subnet-env.ts';

/** Where the flags say that the cluster keeps its state: a file, the Kubernetes API, or as flanneld without a word etcd. Throws UsageError. */
export async function openSource(flags: Flags, log: Log): Promise<Source> {
  if (flags.text('config') !== '') return openFile(flags, log);
  return flags.flag('kube-subnet-mgr') ? openKubernetes(flags, log) : openEtcd(flags, log);
}

async function openFile(flags: Flags, log: Log): Promise<Source> {
  const { FileSource } = await import('./file-source.ts');
  const node = flags.text('node-name') || process.env.NODE_NAME || hostname();
  return new FileSource({ file: flags.text('config'), node, log });
}

async function openKubernetes(flags: Flags, log: Log): Promise<Source> {
  const { KubernetesSource } = await import('./kubernetes-source.ts');
  const name = flags.text('node-name');
  return new KubernetesSource({
    kubeconfigFile: flags.text('kubeconfig-file') || undefined,
    apiUrl: flags.text('kube-api-url') || undefined,
    annotationPrefix: flags.text('kube-annotation-prefix'),
    netConfPath: flags.text('net-config-path'),
    environment: name === '' ? process.env : { ...process.env, NODE_NAME: name },
    setNodeNetworkUnavailable: flags.flag('set-node-network-unavailable'),
    log,
  });
}

async function openEtcd(flags: Flags, log: Log): Promise<Source> {
  const { EtcdSource } = await import('./etcd-source.ts');
  return new EtcdSource({
    endpoints: flags.text('etcd-endpoints').split(','),
    prefix: flags.text('etcd-prefix'),
    caFile: flags.text('etcd-cafile') || undefined,
    certFile: flags.text('etcd-certfile') || undefined,
    keyFile: flags.text('etcd-keyfile') || undefined,
    username: flags.text('etcd-username') || undefined,
    password: flags.text('etcd-password') || undefined,
    renewMargin: flags.number('subnet-lease-renew-margin', 1, 24 * 60 - 1) * 60_000,
    previousSubnets: previousSubnets(flags.text('subnet-file')),
    log,
  });
}

/** What this node had before, and would like to have again: its pods have addresses of it. */
function previousSubnets(subnetFile: string): PerFamily<string> {
  try {
    return readSubnetEnv(subnetFile).subnet;
  } catch {
    return { ipv4: null, ipv6: null };
  }
}
