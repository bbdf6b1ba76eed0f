/**
 * What the agent knew last, kept beside subnet.env: with it the next run forwards at once, also while the cluster's server cannot be
 * reached, and takes nothing away that it does not know of yet. It is overtaken by what the server says.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Lease } from './lease.ts';
import type { NetConf } from './net-conf.ts';
import { replaceFile } from './subnet-env.ts';

export interface KeptState {
  readonly netConf: NetConf;
  readonly own: Lease;
  readonly peers: ReadonlyMap<string, Lease>;
}

/** Another version's file is not read. */
const VERSION = 1;

export function keptStatePath(subnetFile: string): string {
  return join(dirname(subnetFile), 'uvxlan.json');
}

export function writeKeptState(path: string, { netConf, own, peers }: KeptState): void {
  replaceFile(path, `${JSON.stringify({ version: VERSION, netConf, own, peers: [...peers.values()] })}\n`, 0o600);
}

/** undefined when there is none, or none that can be read. */
export function readKeptState(path: string): KeptState | undefined {
  try {
    const { version, netConf, own, peers } = JSON.parse(readFileSync(path, 'utf8'));
    if (version !== VERSION || !netConf || !own || !Array.isArray(peers)) return undefined;
    return { netConf, own, peers: new Map(peers.map((peer: Lease) => [peer.node, peer])) };
  } catch {
    return undefined;
  }
}
