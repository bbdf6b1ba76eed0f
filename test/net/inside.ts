// Sockets in a host's network namespace that this process has itself: a socket stays where it was made.

import { namespacePath } from '../../cli/lab/namespace.ts';
import type { Host } from '../../cli/lab/network.ts';
import * as libc from '../../system/libc.ts';

/** sched.h. */
const CLONE_NEWNET = 0x4000_0000;
const HERE = '/proc/thread-self/ns/net';

/** Does something short in the host's network namespace, and comes back. Blocks, since it is this thread that moves. */
export function inside<T>(host: Host, work: () => T): T {
  const here = libc.check(libc.open(HERE, 0), HERE, 'open');
  try {
    enter(namespacePath(host.namespace));
    return work();
  } finally {
    // Whoever does not come back may not go on.
    if (libc.setns(here, CLONE_NEWNET) < 0) process.abort();
    libc.close(here);
  }
}

function enter(path: string): void {
  const there = libc.check(libc.open(path, 0), path, 'open');
  const result = libc.setns(there, CLONE_NEWNET);
  libc.close(there);
  libc.check(result, path, 'setns');
}
