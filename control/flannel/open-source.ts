import { hostname } from 'node:os';
import { UsageError } from '../words.ts';
import type { Flags } from './flags.ts';
import type { Source } from './source.ts';

/** Where the flags say that the cluster keeps its state: a file, the Kubernetes API, or as flanneld without a word etcd. Throws UsageError. */
export async function openSource(flags: Flags, log: (line: string) => void): Promise<Source> {
  const file = flags.text('config');
  if (file !== '') {
    const { FileSource } = await import('./file-source.ts');
    return new FileSource({ file, node: nodeName(flags), log });
  }
  throw new UsageError('etcd and the Kubernetes API are not there yet in uvxlan: give --config FILE');
}

/** Kubernetes gives the name to pods as NODE_NAME (the downward API). */
function nodeName(flags: Flags): string {
  return flags.text('node-name') || process.env.NODE_NAME || hostname();
}
