// What the tests of eBPF need of the machine, for the `skip` option of node:test.

import { TCX_INGRESS } from '../../../system/bpf/abi.ts';
import { Assembler } from '../../../system/bpf/assembler.ts';
import { loadProgram } from '../../../system/bpf/program.ts';
import { close } from '../../../system/libc.ts';

/** False where programs can be loaded, otherwise the reason for the skip. */
export function lackingBpf(): string | false {
  const program = new Assembler('uvxlan_probe');
  program.mov('r0', 0);
  program.exit();
  try {
    close(loadProgram(program.assemble(), TCX_INGRESS));
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}
