/**
 * Assembles eBPF programs. RFC 9669 (the instruction set; section numbers below); numbers are little-endian, as on all hosts
 * that we support.
 *
 *      0      1         2        4           8
 *      +------+----+----+--------+-----------+
 *      |opcode|dst | src| offset | immediate |       dst in the low four bits; offset and immediate are signed
 *      +------+----+----+--------+-----------+
 *
 * A source operand is a register ('r1') or a number. Every instruction remembers the line that asked for it and the note above
 * it, so that what the verifier says of instruction 12 names a line of ours.
 */

/** r0: results; r1 to r5: arguments, lost in a call; r6 to r9: kept over calls; r10: end of the 512 bytes of stack, read-only. */
export type Register = 'r0' | 'r1' | 'r2' | 'r3' | 'r4' | 'r5' | 'r6' | 'r7' | 'r8' | 'r9' | 'r10';
export type Operand = Register | number;
export type Bits = 8 | 16 | 32 | 64;
export type Operation = keyof typeof OPERATIONS;
export type Condition = keyof typeof CONDITIONS;

/** What an instruction is for, and where it was asked for. */
export interface Origin {
  readonly note: string;
  /** Its stack starts at the assembler's method; the caller is the line wanted. */
  readonly trace: Error;
}

export interface Program {
  /** What bpftool shows: up to 15 letters, digits, '_' and '.'. */
  readonly name: string;
  readonly instructions: Uint8Array;
  /** By the number of the instruction, as the verifier counts: a 64-bit immediate takes two. */
  readonly origins: readonly Origin[];
}

export const INSTRUCTION = 8;

// Classes (3.1).
const LD = 0x00;
const LDX = 0x01;
const ST = 0x02;
const STX = 0x03;
const ALU32 = 0x04;
const JMP = 0x05;
const JMP32 = 0x06;
const ALU64 = 0x07;
/** The source operand is a register (4, 4.3). */
const REGISTER = 0x08;
/** Mode of ordinary loads and stores (5). */
const MEM = 0x60;
const SIZES: Readonly<Record<Bits, number>> = { 32: 0x00, 16: 0x08, 8: 0x10, 64: 0x18 };
// 4.1.
const OPERATIONS = {
  add: 0x00,
  sub: 0x10,
  mul: 0x20,
  div: 0x30,
  or: 0x40,
  and: 0x50,
  lsh: 0x60,
  rsh: 0x70,
  mod: 0x90,
  xor: 0xa0,
  mov: 0xb0,
  arsh: 0xc0,
} as const;
// 4.3; s: signed; &: any of these bits is set.
const CONDITIONS = {
  '==': 0x10,
  '>': 0x20,
  '>=': 0x30,
  '&': 0x40,
  '!=': 0x50,
  's>': 0x60,
  's>=': 0x70,
  '<': 0xa0,
  '<=': 0xb0,
  's<': 0xc0,
  's<=': 0xd0,
} as const;
/** Conversion to big-endian (4.2). */
const TO_BIG_ENDIAN = 0xd8;
const JA = 0x00;
const CALL = 0x80;
const EXIT = 0x90;
/** A 64-bit immediate (5.4), and what its src field says that it is: the descriptor of a map. */
const IMM_64 = LD | SIZES[64];
const MAP_BY_FD = 1;

interface Instruction {
  readonly opcode: number;
  readonly dst: number;
  readonly src: number;
  offset: number;
  readonly immediate: number;
  readonly origin: Origin;
}

export class Assembler {
  readonly #name: string;
  readonly #instructions: Instruction[] = [];
  /** Number of the instruction that follows the label. */
  readonly #labels = new Map<string, number>();
  readonly #jumps: { readonly at: number; readonly label: string }[] = [];
  #note = '';

  constructor(name: string) {
    if (!/^[\w.]{1,15}$/.test(name)) throw new RangeError(`${name}: not a name that the kernel takes for a program`);
    this.#name = name;
  }

  /** Says what the instructions that follow are for. */
  note(text: string): void {
    this.#note = text;
  }

  /** Names the next instruction, for jumps from anywhere in the program. */
  label(name: string): void {
    if (this.#labels.has(name)) throw new Error(`${this.#name}: two labels ${name}`);
    this.#labels.set(name, this.#instructions.length);
  }

  mov(dst: Register, src: Operand): void {
    this.alu('mov', dst, src);
  }

  mov32(dst: Register, src: Operand): void {
    this.alu32('mov', dst, src);
  }

  /** dst = dst OPERATION src on 64 bits; a number is sign-extended from 32. */
  alu(operation: Operation, dst: Register, src: Operand): void {
    this.#emitOperand(ALU64 | OPERATIONS[operation], dst, src, 64);
  }

  /** The same on 32 bits; the upper half of dst becomes zero. */
  alu32(operation: Operation, dst: Register, src: Operand): void {
    this.#emitOperand(ALU32 | OPERATIONS[operation], dst, src, 32);
  }

  /** dst = its lower bits with their bytes in the other order, as the wire has them; the rest becomes zero. */
  toBigEndian(bits: 16 | 32 | 64, dst: Register): void {
    this.#emit(ALU32 | TO_BIG_ENDIAN, number(dst), 0, 0, bits);
  }

  /** dst = the number of that many bits at base + offset, zero-extended, in the host's byte order. */
  load(bits: Bits, dst: Register, base: Register, offset: number): void {
    this.#emit(LDX | MEM | SIZES[bits], number(dst), number(base), offset, 0);
  }

  /** The number of that many bits at base + offset = src. */
  store(bits: Bits, base: Register, offset: number, src: Operand): void {
    if (typeof src === 'string') this.#emit(STX | MEM | SIZES[bits], number(base), number(src), offset, 0);
    else this.#emit(ST | MEM | SIZES[bits], number(base), 0, offset, immediate(src, bits));
  }

  loadImmediate64(dst: Register, value: bigint): void {
    this.#emitPair(dst, 0, Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
  }

  /** dst = the map that this descriptor stands for. */
  loadMap(dst: Register, fd: number): void {
    this.#emitPair(dst, MAP_BY_FD, fd, 0);
  }

  jump(label: string): void {
    this.#jumps.push({ at: this.#instructions.length, label });
    this.#emit(JMP | JA, 0, 0, 0, 0);
  }

  /** Jumps when `dst CONDITION src` holds on 64 bits; a number is sign-extended from 32. */
  jumpIf(dst: Register, condition: Condition, src: Operand, label: string): void {
    this.#jumps.push({ at: this.#instructions.length, label });
    this.#emitOperand(JMP | CONDITIONS[condition], dst, src, 64);
  }

  /** The same on the lower 32 bits. */
  jumpIf32(dst: Register, condition: Condition, src: Operand, label: string): void {
    this.#jumps.push({ at: this.#instructions.length, label });
    this.#emitOperand(JMP32 | CONDITIONS[condition], dst, src, 32);
  }

  /** r0 = the kernel's helper function of that number, called with r1 to r5. */
  call(helper: number): void {
    this.#emit(JMP | CALL, 0, 0, 0, helper);
  }

  /** Ends the program; r0 is its result. */
  exit(): void {
    this.#emit(JMP | EXIT, 0, 0, 0, 0);
  }

  /** Resolves the labels. Throws for one that is missing or too far away. */
  assemble(): Program {
    for (const { at, label } of this.#jumps) {
      const target = this.#labels.get(label);
      if (target === undefined) throw new Error(`${this.#name}: no label ${label}`);
      // Jumps count from the instruction behind them (4.3).
      this.#instructions[at].offset = int16(target - at - 1);
    }
    const instructions = new Uint8Array(this.#instructions.length * INSTRUCTION);
    const view = new DataView(instructions.buffer);
    for (const [i, { opcode, dst, src, offset, immediate }] of this.#instructions.entries()) {
      view.setUint8(i * INSTRUCTION, opcode);
      view.setUint8(i * INSTRUCTION + 1, dst | (src << 4));
      view.setInt16(i * INSTRUCTION + 2, offset, true);
      view.setInt32(i * INSTRUCTION + 4, immediate, true);
    }
    return { name: this.#name, instructions, origins: this.#instructions.map(({ origin }) => origin) };
  }

  #emitOperand(opcode: number, dst: Register, src: Operand, bits: Bits): void {
    if (typeof src === 'string') this.#emit(opcode | REGISTER, number(dst), number(src), 0, 0);
    else this.#emit(opcode, number(dst), 0, 0, immediate(src, bits));
  }

  #emitPair(dst: Register, kind: number, low: number, high: number): void {
    this.#emit(IMM_64, number(dst), kind, 0, low);
    this.#emit(0, 0, 0, 0, high);
  }

  #emit(opcode: number, dst: number, src: number, offset: number, immediate: number): void {
    const origin = { note: this.#note, trace: new Error() };
    this.#instructions.push({ opcode, dst, src, offset: int16(offset), immediate, origin });
  }
}

function number(register: Register): number {
  return Number(register.slice(1));
}

function int16(offset: number): number {
  if (offset < -0x8000 || offset > 0x7fff) throw new RangeError(`offset ${offset} does not fit into 16 bits`);
  return offset;
}

/** An operand of 32 bits or fewer may be written unsigned; one of 64 would be sign-extended into another number. */
function immediate(value: number, bits: Bits): number {
  const max = bits === 64 ? 0x7fffffff : 0xffffffff;
  if (!Number.isInteger(value) || value < -0x80000000 || value > max) {
    throw new RangeError(`${value} is no immediate operand for ${bits} bits`);
  }
  return value | 0;
}
