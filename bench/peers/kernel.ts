/** The kernel's own vxlan device: what all others are compared with. */

import { runSync } from '../../cli/lab/process.ts';
import { kernelVtep } from '../../cli/lab/vtep.ts';
import type { Kind } from './kind.ts';

export const kernel: Kind = {
  name: 'kernel',
  about: "the kernel's vxlan device",
  lacks() {
    const name = `uvxprobe${process.pid % 10_000}`;
    try {
      runSync(`ip link add ${name} type vxlan id 1 dstport 0 local 127.0.0.1`);
      runSync(`ip link del ${name}`);
      return undefined;
    } catch (error) {
      return `the kernel makes no vxlan device: ${(error as Error).message.split('\n').at(-1)}`;
    }
  },
  open: (host, options) => ({ ...kernelVtep(host, options), daemons: [] }),
};
