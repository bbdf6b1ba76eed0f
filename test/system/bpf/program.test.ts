// Needs root (CAP_BPF): loads programs, and runs them on packets. Attaches nothing.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { HELPER_SKB_LOAD_BYTES, TCX_INGRESS, TCX_NEXT } from '../../../system/bpf/abi.ts';
import { Assembler, type Condition } from '../../../system/bpf/assembler.ts';
import { BpfMap, MAP_ARRAY, MAP_HASH } from '../../../system/bpf/map.ts';
import { loadProgram, testRun } from '../../../system/bpf/program.ts';
import { VerifierError } from '../../../system/bpf/verifier.ts';
import * as libc from '../../../system/libc.ts';
import { lackingBpf } from './requirement.ts';

const skip = lackingBpf();
/** Of the package: tests run from dist/. */
const ROOT = new URL('../../../../', import.meta.url);
const PACKET = Uint8Array.from({ length: 64 }, (_, i) => i);
const HELPER_MAP_LOOKUP_ELEM = 1;

function load(build: (program: Assembler) => void): number {
  const program = new Assembler('uvxlan_test');
  build(program);
  return loadProgram(program.assemble(), TCX_INGRESS);
}

function run(build: (program: Assembler) => void): number {
  const fd = load(build);
  try {
    return testRun(fd, PACKET).result;
  } finally {
    libc.close(fd);
  }
}

/** The text of the source line that an error names. */
function named({ message }: VerifierError): string {
  const [, path, line] = message.match(/ at (\S+\.test\.ts):(\d+)/)!;
  return readFileSync(new URL(path, ROOT), 'utf8').split('\n')[Number(line) - 1].trim();
}

function refusal(build: (program: Assembler) => void): VerifierError {
  try {
    libc.close(load(build));
  } catch (error) {
    if (error instanceof VerifierError) return error;
    throw error;
  }
  throw new Error('the verifier takes it');
}

test('runs on a packet, and gives its result and the packet', { skip }, () => {
  const fd = load((p) => {
    p.mov('r0', TCX_NEXT);
    p.exit();
  });
  const { result, packet } = testRun(fd, PACKET);
  assert.equal(result, TCX_NEXT);
  assert.deepEqual(packet, PACKET);
  libc.close(fd);
});

test('the kernel computes and compares as the assembler says', { skip }, () => {
  const conditions: [number, Condition, number][] = [
    [5, '==', 5],
    [5, '!=', 6],
    [6, '>', 5],
    [5, '>=', 5],
    [5, '<', 6],
    [5, '<=', 5],
    [-5, '>', 5],
    [5, 's>', -5],
    [5, 's>=', 5],
    [-5, 's<', 5],
    [-5, 's<=', -5],
    [6, '&', 3],
  ];
  for (const [a, condition, b] of conditions) {
    const jumps = (conditional: (p: Assembler) => void) =>
      run((p) => {
        p.mov('r1', a);
        p.mov('r2', b);
        p.mov('r0', 1);
        conditional(p);
        p.mov('r0', 0);
        p.label('end');
        p.exit();
      });
    const text = `${a} ${condition} ${b}`;
    assert.equal(
      jumps((p) => p.jumpIf('r1', condition, b, 'end')),
      1,
      text,
    );
    assert.equal(
      jumps((p) => p.jumpIf('r1', condition, 'r2', 'end')),
      1,
      text,
    );
    assert.equal(
      jumps((p) => p.jumpIf32('r1', condition, b, 'end')),
      1,
      text,
    );
    assert.equal(
      jumps((p) => p.jumpIf32('r1', condition, 'r2', 'end')),
      1,
      text,
    );
  }
  const result = run((p) => {
    p.loadImmediate64('r1', 0x1_0000_0001n);
    p.alu('rsh', 'r1', 32); // 1
    p.alu('lsh', 'r1', 4); // 16
    p.alu('or', 'r1', 7); // 23
    p.alu('mod', 'r1', 10); // 3
    p.alu('mul', 'r1', -7); // -21
    p.alu('arsh', 'r1', 1); // -11
    p.store(32, 'r10', -4, 'r1');
    p.load(8, 'r0', 'r10', -4); // 0xf5
    p.alu32('xor', 'r0', 0xf0); // 5
    p.alu32('sub', 'r0', 6); // -1
    p.exit();
  });
  assert.equal(result, -1);
});

test('reads and writes a map', { skip }, () => {
  const map = new BpfMap({ name: 'uvxlan_test', type: MAP_ARRAY, keySize: 4, valueSize: 8, maxEntries: 4 });
  map.key[0] = 2;
  map.value[0] = 41;
  map.update();
  const result = run((p) => {
    p.store(32, 'r10', -4, 2);
    p.mov('r2', 'r10');
    p.alu('add', 'r2', -4);
    p.loadMap('r1', map.fd);
    p.call(HELPER_MAP_LOOKUP_ELEM);
    p.jumpIf('r0', '==', 0, 'end');
    p.load(64, 'r1', 'r0', 0);
    p.alu('add', 'r1', 1);
    p.store(64, 'r0', 0, 'r1');
    p.mov('r0', 'r1');
    p.label('end');
    p.exit();
  });
  assert.equal(result, 42);
  assert.equal(map.lookup(), true);
  assert.deepEqual([...map.value], [42, 0, 0, 0, 0, 0, 0, 0]);
  map.close();
});

test('a hash map takes, finds and loses keys, and says when it is full', { skip }, () => {
  const map = new BpfMap({ name: 'uvxlan_test', type: MAP_HASH, keySize: 6, valueSize: 4, maxEntries: 1 });
  assert.equal(map.lookup(), false);
  assert.equal(map.delete(), false);
  map.value.set([1, 2, 3, 4]);
  map.update();
  map.value.fill(0);
  assert.equal(map.lookup(), true);
  assert.deepEqual([...map.value], [1, 2, 3, 4]);
  map.key[5] = 1;
  assert.throws(() => map.update(), { message: 'eBPF map uvxlan_test: BPF_MAP_UPDATE_ELEM: E2BIG; the map is full' });
  map.key[5] = 0;
  assert.equal(map.delete(), true);
  assert.equal(map.lookup(), false);
  map.close();
});

test('a refusal names our line and its note', { skip }, () => {
  const error = refusal((p) => {
    p.mov('r6', 'r1');
    p.note('beyond the end of the context');
    p.load(32, 'r0', 'r6', 999);
    p.exit();
  });
  assert.equal(error.code, 'EACCES');
  assert.equal(named(error), "p.load(32, 'r0', 'r6', 999);");
  assert.match(
    error.message,
    /^eBPF program uvxlan_test: BPF_PROG_LOAD: EACCES; the verifier refuses it at \S+:\d+, 'beyond the end of the context': /,
  );
  assert.match(
    error.message,
    /: invalid bpf_context access off=999 size=4 \(instruction 1 \(61\) r0 = \*\(u32 \*\)\(r6 \+999\)\)$/,
  );
  assert.match(error.log, /R1=ctx/);
});

test('a refusal is told from what the verifier says of registers', { skip }, () => {
  const helper = refusal((p) => {
    p.loadImmediate64('r7', 1n);
    p.mov('r1', 0);
    p.call(HELPER_SKB_LOAD_BYTES);
    p.exit();
  });
  assert.equal(named(helper), 'p.call(HELPER_SKB_LOAD_BYTES);');
  assert.match(helper.message, /: R1 type=scalar expected=ctx \(instruction 3 /);
  assert.match(refusal((p) => p.exit()).message, /: R0 !read_ok \(instruction 0 /);
});

test('a refusal before the first step names the instruction too', { skip }, () => {
  const unreachable = refusal((p) => {
    p.mov('r0', 0);
    p.exit();
    p.note('never');
    p.mov('r0', 1);
    p.exit();
  });
  assert.equal(named(unreachable), "p.mov('r0', 1);");
  assert.match(unreachable.message, /, 'never': unreachable insn 2 \(instruction 2\)$/);
  const endless = refusal((p) => p.mov('r0', 0));
  assert.match(endless.message, /the verifier refuses it: last insn is not an exit or jmp$/);
});
