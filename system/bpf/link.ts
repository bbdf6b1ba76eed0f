/** Attaching tc programs with links: what is attached goes when the link's descriptor is closed, after kill -9 too. */

import * as libc from '../libc.ts';
import type { Program } from './assembler.ts';
import { Attributes, BPF_LINK_CREATE } from './call.ts';
import { loadProgram } from './program.ts';

// Offsets in union bpf_attr, BPF_LINK_CREATE.
const LINK_PROGRAM = 0;
const LINK_IFINDEX = 4;
const LINK_ATTACH_TYPE = 8;
const LINK_FLAGS = 12;
const LINK_RELATIVE = 16;
/** LINK_FLAGS: in front of LINK_RELATIVE, which is a link's descriptor. */
const BEFORE_LINK = (1 << 3) | (1 << 13);

/**
 * Loads a program and attaches it to a device of this process's network namespace, behind the programs that are there already
 * and before all tc filters; or right in front of the program that the link `before` has attached to the same hook. `attachType` is
 * TCX_INGRESS or TCX_EGRESS. Returns the link's descriptor. Throws a SystemError:
 * EINVAL before Linux 6.6, ENODEV when the device is gone.
 */
export function attachTcx(program: Program, ifindex: number, attachType: number, before?: number): number {
  const fd = loadProgram(program, attachType);
  try {
    const attributes = new Attributes()
      .set(LINK_PROGRAM, fd)
      .set(LINK_IFINDEX, ifindex)
      .set(LINK_ATTACH_TYPE, attachType);
    if (before !== undefined) attributes.set(LINK_FLAGS, BEFORE_LINK).set(LINK_RELATIVE, before);
    return attributes.call(BPF_LINK_CREATE, `eBPF program ${program.name} on device ${ifindex}`);
  } finally {
    libc.close(fd);
  }
}
