/** Loading eBPF programs, and running one on a packet for a test. */
import * as libc from '../libc.ts';
import { PROGRAM_SCHED_CLS } from './abi.ts';
import { INSTRUCTION, type Program } from './assembler.ts';
import { Attributes, BPF_PROG_LOAD, BPF_PROG_TEST_RUN, failure } from './call.ts';
import { VerifierError } from './verifier.ts';

// Offsets in union bpf_attr, BPF_PROG_LOAD.
const LOAD_TYPE = 0;
const LOAD_COUNT = 4;
const LOAD_INSTRUCTIONS = 8;
const LOAD_LICENSE = 16;
const LOAD_LOG_LEVEL = 24;
const LOAD_LOG_SIZE = 28;
const LOAD_LOG = 32;
const LOAD_NAME = 48;
const LOAD_ATTACH_TYPE = 68;
// BPF_PROG_TEST_RUN.
const TEST_PROGRAM = 0;
const TEST_RESULT = 4;
const TEST_SIZE_IN = 8;
const TEST_SIZE_OUT = 12;
const TEST_IN = 16;
const TEST_OUT = 24;
const TEST_REPEAT = 32;
const TEST_CONTEXT_SIZE_IN = 40;
const TEST_CONTEXT_IN = 48;

/** The kernel asks for it because some helpers are for GPL-compatible programs only; none of ours are. */
const LICENSE = Buffer.from('MIT\0');
const LOG_BYTES = 1 << 20;
const VERBOSE = 1;
const MOST_TRIES = 20;

/**
 * Loads a program: by default a tc program, for one kind of attachment (TCX_INGRESS, TCX_EGRESS). Returns its descriptor, which the
 * caller closes; what it is attached to keeps the program. Throws a VerifierError when the kernel refuses the program, a SystemError
 * when it lets us load none.
 */
export function loadProgram(program: Program, attachType: number, type = PROGRAM_SCHED_CLS): number {
  const { name, instructions } = program;
  const attributes = new Attributes()
    .set(LOAD_TYPE, type)
    .set(LOAD_COUNT, instructions.length / INSTRUCTION)
    .point(LOAD_INSTRUCTIONS, instructions)
    .point(LOAD_LICENSE, LICENSE)
    .setText(LOAD_NAME, name)
    .set(LOAD_ATTACH_TYPE, attachType);
  const fd = load(attributes);
  if (fd >= 0) return fd;
  const error = failure(BPF_PROG_LOAD, `eBPF program ${name}`);
  if (error.errno === libc.EPERM || error.errno === libc.ENOSYS) throw error;
  // The log costs memory and time: it is asked for when it is needed.
  const log = Buffer.alloc(LOG_BYTES);
  attributes.set(LOAD_LOG_LEVEL, VERBOSE).set(LOAD_LOG_SIZE, log.length).point(LOAD_LOG, log);
  const second = load(attributes);
  if (second >= 0) return second;
  const text = log.toString('latin1', 0, log.indexOf(0));
  throw text === '' ? error : new VerifierError(program, error.errno, text);
}

/** The verifier gives up with EAGAIN when a signal has come, as one does with the end of every child (kernel/bpf/verifier.c: do_check). */
function load(attributes: Attributes): number {
  for (let tries = 1; ; tries++) {
    const fd = attributes.try(BPF_PROG_LOAD);
    if (fd >= 0 || libc.errno() !== libc.EAGAIN || tries === MOST_TRIES) return fd;
  }
}

/**
 * Runs a loaded program on a packet that starts with its Ethernet header, as if received by the loopback device. `context`, if
 * any, is a struct __sk_buff, of which the kernel takes few fields. Returns the program's result and the packet as it left it.
 */
export function testRun(
  fd: number,
  packet: Uint8Array,
  context = new Uint8Array(0),
): { result: number; packet: Uint8Array } {
  const out = new Uint8Array(packet.length + 256); // the kernel allows no more than 256 bytes of headroom
  const attributes = new Attributes()
    .set(TEST_PROGRAM, fd)
    .set(TEST_SIZE_IN, packet.length)
    .point(TEST_IN, packet)
    .set(TEST_SIZE_OUT, out.length)
    .point(TEST_OUT, out)
    .set(TEST_REPEAT, 1);
  if (context.length > 0) attributes.set(TEST_CONTEXT_SIZE_IN, context.length).point(TEST_CONTEXT_IN, context);
  attributes.call(BPF_PROG_TEST_RUN, 'eBPF program');
  return { result: attributes.get(TEST_RESULT) | 0, packet: out.subarray(0, attributes.get(TEST_SIZE_OUT)) };
}
