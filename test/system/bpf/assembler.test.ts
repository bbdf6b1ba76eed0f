import assert from 'node:assert/strict';
import test from 'node:test';
import { Assembler } from '../../../system/bpf/assembler.ts';
import { BPF_SYSCALL } from '../../../system/libc.ts';

function assemble(build: (program: Assembler) => void): string {
  const program = new Assembler('test');
  build(program);
  return Buffer.from(program.assemble().instructions).toString('hex');
}

// Text and bytes as llvm-objdump 14 has them for `llvm-mc -triple=bpfel -mcpu=v3`, except for the last six: it cannot parse
// them, and their bytes follow from RFC 9669, 3 to 5.
const ENCODINGS: [text: string, build: (program: Assembler) => void, bytes: string][] = [
  ['r6 = r1', (p) => p.mov('r6', 'r1'), 'bf16 0000 00000000'],
  ['w6 = w1', (p) => p.mov32('r6', 'r1'), 'bc16 0000 00000000'],
  ['r0 = -1', (p) => p.mov('r0', -1), 'b700 0000 ffffffff'],
  ['w0 = 7', (p) => p.mov32('r0', 7), 'b400 0000 07000000'],
  ['r1 += -4', (p) => p.alu('add', 'r1', -4), '0701 0000 fcffffff'],
  ['r1 -= r2', (p) => p.alu('sub', 'r1', 'r2'), '1f21 0000 00000000'],
  ['r3 *= 3', (p) => p.alu('mul', 'r3', 3), '2703 0000 03000000'],
  ['r3 /= r4', (p) => p.alu('div', 'r3', 'r4'), '3f43 0000 00000000'],
  ['r1 |= 255', (p) => p.alu('or', 'r1', 255), '4701 0000 ff000000'],
  ['r1 &= r2', (p) => p.alu('and', 'r1', 'r2'), '5f21 0000 00000000'],
  ['r5 <<= 8', (p) => p.alu('lsh', 'r5', 8), '6705 0000 08000000'],
  ['w5 >>= 4', (p) => p.alu32('rsh', 'r5', 4), '7405 0000 04000000'],
  ['r5 s>>= 63', (p) => p.alu('arsh', 'r5', 63), 'c705 0000 3f000000'],
  ['r7 ^= r8', (p) => p.alu('xor', 'r7', 'r8'), 'af87 0000 00000000'],
  ['w0 &= 65535', (p) => p.alu32('and', 'r0', 0xffff), '5400 0000 ffff0000'],
  ['r0 = *(u8 *)(r1 + 0)', (p) => p.load(8, 'r0', 'r1', 0), '7110 0000 00000000'],
  ['r0 = *(u16 *)(r10 - 26)', (p) => p.load(16, 'r0', 'r10', -26), '69a0 e6ff 00000000'],
  ['r0 = *(u32 *)(r6 + 16)', (p) => p.load(32, 'r0', 'r6', 16), '6160 1000 00000000'],
  ['r0 = *(u64 *)(r9 + 32767)', (p) => p.load(64, 'r0', 'r9', 32767), '7990 ff7f 00000000'],
  ['*(u8 *)(r10 - 1) = r2', (p) => p.store(8, 'r10', -1, 'r2'), '732a ffff 00000000'],
  ['*(u16 *)(r10 - 2) = r2', (p) => p.store(16, 'r10', -2, 'r2'), '6b2a feff 00000000'],
  ['*(u32 *)(r10 - 4) = r2', (p) => p.store(32, 'r10', -4, 'r2'), '632a fcff 00000000'],
  ['*(u64 *)(r10 - 512) = r2', (p) => p.store(64, 'r10', -512, 'r2'), '7b2a 00fe 00000000'],
  ['call 23', (p) => p.call(23), '8500 0000 17000000'],
  ['exit', (p) => p.exit(), '9500 0000 00000000'],
  [
    'r1 = 0x1122334455667788 ll',
    (p) => p.loadImmediate64('r1', 0x1122334455667788n),
    '1801 0000 88776655 0000 0000 44332211',
  ],
  ['r7 %= 10', (p) => p.alu('mod', 'r7', 10), '9707 0000 0a000000'],
  ['r1 = map_fd 77', (p) => p.loadMap('r1', 77), '1811 0000 4d000000 0000 0000 00000000'],
  ['*(u8 *)(r10 - 1) = 255', (p) => p.store(8, 'r10', -1, 255), '720a ffff ff000000'],
  ['*(u16 *)(r10 - 2) = 1', (p) => p.store(16, 'r10', -2, 1), '6a0a feff 01000000'],
  ['*(u32 *)(r10 - 4) = 0xfedcba98', (p) => p.store(32, 'r10', -4, 0xfedcba98), '620a fcff 98badcfe'],
  ['*(u64 *)(r10 - 8) = -2', (p) => p.store(64, 'r10', -8, -2), '7a0a f8ff feffffff'],
];

for (const [text, build, bytes] of ENCODINGS) {
  test(text, () => assert.equal(assemble(build), bytes.replaceAll(' ', '')));
}

test('jumps go to labels before and behind them', () => {
  const bytes = assemble((p) => {
    p.label('again');
    p.jumpIf('r1', '==', 5, 'end'); //                          if r1 == 5 goto +11
    p.jumpIf('r1', '!=', 'r2', 'end');
    p.jumpIf32('r1', '==', 2048, 'again');
    for (const condition of ['>', '>=', '<', '<='] as const) p.jumpIf('r1', condition, 7, 'end');
    for (const condition of ['s>', 's>=', 's<'] as const) p.jumpIf('r1', condition, -7, 'end');
    p.jumpIf('r1', 's<=', 'r2', 'end');
    p.jumpIf32('r1', '<', 'r2', 'end');
    p.jumpIf('r1', '&', 7, 'end');
    p.jump('end');
    p.label('end');
    p.exit();
  });
  assert.deepEqual(bytes.match(/.{16}/g), [
    '15010d0005000000',
    '5d210c0000000000',
    '1601fdff00080000',
    '25010a0007000000',
    '3501090007000000',
    'a501080007000000',
    'b501070007000000',
    '65010600f9ffffff',
    '75010500f9ffffff',
    'c5010400f9ffffff',
    'dd21030000000000',
    'ae21020000000000',
    '4501010007000000',
    '0500000000000000',
    '9500000000000000',
  ]);
});

test('a 64-bit immediate counts as two instructions', () => {
  const program = new Assembler('test');
  program.jump('end');
  program.note('a number');
  program.loadImmediate64('r1', -1n);
  program.label('end');
  program.note('the end');
  program.exit();
  const { instructions, origins } = program.assemble();
  assert.equal(Buffer.from(instructions).toString('hex', 0, 8), '0500020000000000');
  assert.deepEqual(
    origins.map(({ note }) => note),
    ['', 'a number', 'a number', 'the end'],
  );
});

test('what cannot be encoded is refused', () => {
  assert.throws(() => assemble((p) => p.jump('nowhere')), /test: no label nowhere/);
  assert.throws(
    () =>
      assemble((p) => {
        p.label('a');
        p.label('a');
      }),
    /test: two labels a/,
  );
  assert.throws(
    () =>
      assemble((p) => {
        p.jump('end');
        for (let i = 0; i < 0x8000; i++) p.mov('r0', 0);
        p.label('end');
      }),
    /offset 32768 does not fit into 16 bits/,
  );
  assert.throws(() => assemble((p) => p.load(8, 'r0', 'r1', 0x8000)), /offset 32768 does not fit into 16 bits/);
  // 64-bit operations would make 0xffffffff of it.
  assert.throws(() => assemble((p) => p.mov('r0', 0xffffffff)), /4294967295 is no immediate operand for 64 bits/);
  assert.equal(
    assemble((p) => p.mov32('r0', 0xffffffff)),
    'b4000000ffffffff',
  );
  assert.throws(() => assemble((p) => p.mov32('r0', 2 ** 32)), /4294967296 is no immediate operand for 32 bits/);
  assert.throws(() => assemble((p) => p.mov('r0', 1.5)), /1.5 is no immediate operand/);
  assert.throws(() => new Assembler('name with spaces'), /not a name that the kernel takes/);
});

test('bpf(2) has its number on every architecture that we support', () => {
  // arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h
  assert.deepEqual(BPF_SYSCALL, { x64: 321, arm64: 280 });
});
