import type { Lease } from '../../../control/flannel/lease.ts';
import type { SourceListener } from '../../../control/flannel/source.ts';

/** Keeps what a source tells, as the reconciler would, and lets a test wait for it. */
export class Listener implements SourceListener {
  /** What follows from the changes alone. */
  readonly peers = new Map<string, Lease>();
  readonly changes: string[][] = [];
  readonly owns: Lease[] = [];
  readonly lines: string[] = [];
  readonly log = (line: string) => {
    this.lines.push(line);
  };

  get own(): Lease | undefined {
    return this.owns.at(-1);
  }

  /** Subnets by node. */
  get subnets(): Record<string, string | undefined> {
    return Object.fromEntries([...this.peers].map(([node, { ipv4, ipv6 }]) => [node, (ipv4 ?? ipv6)?.subnet]));
  }

  onPeers(peers: ReadonlyMap<string, Lease>, changed: ReadonlySet<string>): void {
    this.changes.push([...changed].sort());
    for (const node of changed) {
      const lease = peers.get(node);
      if (lease) this.peers.set(node, lease);
      else this.peers.delete(node);
    }
    if (peers.size !== this.peers.size) throw new Error('a change was not told');
  }

  onOwn(lease: Lease): void {
    this.owns.push(lease);
  }

  /** Waits until a condition holds, for at most 20 seconds. */
  async until(what: string, holds: () => unknown): Promise<void> {
    await until(`${what}; the log says:\n${this.lines.join('\n')}`, holds);
  }
}

export async function until(what: string, holds: () => unknown, patience = 20_000): Promise<void> {
  const end = performance.now() + patience;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
