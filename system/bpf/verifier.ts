/** What the kernel's verifier says of a program that it refuses, in terms of our source. */
import { existsSync, readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SystemError } from '../libc.ts';
import type { Origin, Program } from './assembler.ts';

/** "12: (69) r0 = *(u16 *)(r10 -26)    ; R0_w=..." */
const STEP = /^(\d+): (\([0-9a-f]{2}\) [^;]*)/;
/** "jump out of range from insn 3 to 99", "unreachable insn 7". */
const MENTION = /\binsn (\d+)\b/;
/** Its statistics, at the end. */
const END = /^(processed|verification time|stack depth) /;

/** The verifier refuses a program: says which line of ours it is about, and has its whole log. */
export class VerifierError extends SystemError {
  readonly log: string;
  constructor(program: Program, errno: number, log: string) {
    super(`eBPF program ${program.name}`, 'BPF_PROG_LOAD', errno, `the verifier refuses it${verdict(program, log)}`);
    this.name = 'VerifierError';
    this.log = log;
  }
}

/** The last instruction that the verifier looked at, or the one that it names, with what it says of it. */
function verdict({ origins }: Program, log: string): string {
  const lines = log.split('\n').filter((line) => line !== '' && !END.test(line));
  const last = lines.findLastIndex((line) => STEP.test(line));
  const reason = lines
    .slice(last + 1)
    .filter((line) => !isState(line))
    .join(', ');
  const mentioned = reason.match(MENTION);
  const step = lines[last]?.match(STEP);
  const number = Number((mentioned ?? step)?.[1]);
  const origin = origins[number];
  if (origin === undefined) return `: ${reason}`;
  const text = mentioned || !step ? '' : ` ${step[2].trim()}`;
  const note = origin.note && `, '${origin.note}'`;
  return ` at ${sourceLine(origin)}${note}: ${reason} (instruction ${number}${text})`;
}

/** Lines that tell of registers, of the path taken, or of a function's start. */
function isState(line: string): boolean {
  return /^(\d+: )?(R\d+(_\w+)?=|from \d+ to \d+|func#\d+|; )/.test(line);
}

/** 'control/redirect-programs.ts:42': who called the assembler. */
function sourceLine({ trace }: Origin): string {
  const frames = trace.stack!.split('\n').slice(1);
  const frame = frames.find((each) => !/[/\\]bpf[/\\]assembler\.[jt]s/.test(each)) ?? '';
  const [, path, line, column] = frame.match(/(?:file:\/\/)?(\/[^()]*):(\d+):(\d+)\)?$/) ?? [];
  if (path === undefined) return 'an unknown line';
  return original(path, Number(line), Number(column));
}

/** A line of a compiled file as its source map has it; Node does so by itself only with --enable-source-maps. */
function original(path: string, line: number, column: number): string {
  const root = fileURLToPath(new URL('../../..', import.meta.url));
  if (!path.endsWith('.js') || !existsSync(`${path}.map`)) return `${relative(root, path)}:${line}`;
  const map = new SourceMap(JSON.parse(readFileSync(`${path}.map`, 'utf8')));
  const entry = map.findEntry(line - 1, column - 1);
  if (!('originalLine' in entry)) return `${relative(root, path)}:${line}`;
  return `${relative(root, resolve(path, '..', entry.originalSource))}:${entry.originalLine + 1}`;
}
