/** What both of the offload's programs do: r6 is the packet, and the label `next` leaves it to the workers. */
import {
  HELPER_COARSE_NANOSECONDS,
  HELPER_MAP_LOOKUP,
  HELPER_REDIRECT,
  HELPER_SKB_LOAD_BYTES,
  HELPER_SKB_STORE_BYTES,
  TC_ACT_SHOT,
  TCX_NEXT,
} from '../../system/bpf/abi.ts';
import type { Assembler, Operand, Register } from '../../system/bpf/assembler.ts';
import { STAMP_SHIFT } from './tables.ts';

/** Copies `length` bytes of the packet to the stack; a packet that ends before is not ours. `offset`: a number, or a register. */
export function loadBytes(p: Assembler, offset: Operand, to: number, length: number, otherwise = 'next'): void {
  p.mov('r1', 'r6');
  p.mov('r2', offset);
  p.mov('r3', 'r10');
  p.alu('add', 'r3', to);
  p.mov('r4', length);
  p.call(HELPER_SKB_LOAD_BYTES);
  p.jumpIf('r0', '!=', 0, otherwise);
}

/** Writes `length` bytes of the stack over the packet's first ones; only want of memory can keep it from that. */
export function storeHeaders(p: Assembler, from: number, length: number): void {
  p.mov('r1', 'r6');
  p.mov('r2', 0);
  p.mov('r3', 'r10');
  p.alu('add', 'r3', from);
  p.mov('r4', length);
  p.mov('r5', 0);
  p.call(HELPER_SKB_STORE_BYTES);
  p.jumpIf('r0', '!=', 0, 'lost');
}

/** to = a pointer to the value of the key on the stack; without an entry the packet is not ours. */
export function lookUp(p: Assembler, map: number, key: number, to: Register): void {
  p.loadMap('r1', map);
  p.mov('r2', 'r10');
  p.alu('add', 'r2', key);
  p.call(HELPER_MAP_LOOKUP);
  p.jumpIf('r0', '==', 0, 'next');
  p.mov(to, 'r0');
}

/** Notes the time in an entry's stamp: written once in a while, so that processors do not take its cache line from each other. */
export function stamp(p: Assembler, entry: Register, field: number, done: string): void {
  p.call(HELPER_COARSE_NANOSECONDS);
  p.alu('rsh', 'r0', STAMP_SHIFT);
  p.load(32, 'r1', entry, field);
  p.jumpIf32('r0', '==', 'r1', done);
  p.store(32, entry, field, 'r0');
  p.label(done);
}

/** Adds a packet of `length` bytes to a device's counters, whose number is on the stack. `length` is not r0 to r5. */
export function count(p: Assembler, map: number, key: number, packets: number, bytes: number, length: Register): void {
  p.loadMap('r1', map);
  p.mov('r2', 'r10');
  p.alu('add', 'r2', key);
  p.call(HELPER_MAP_LOOKUP);
  const done = `counted ${packets}`;
  p.jumpIf('r0', '==', 0, done);
  increment(p, packets, 1);
  increment(p, bytes, length);
  p.label(done);
}

/** r0 points to the counters, of which each processor has its own. */
function increment(p: Assembler, field: number, by: Operand): void {
  p.load(64, 'r1', 'r0', field);
  p.alu('add', 'r1', by);
  p.store(64, 'r0', field, 'r1');
}

/** The sum of up to 65,536 words of 16 bits as one of them. */
export function fold(p: Assembler, sum: Register): void {
  for (let i = 0; i < 2; i++) {
    p.mov('r3', sum);
    p.alu('rsh', 'r3', 16);
    p.alu('and', sum, 0xffff);
    p.alu('add', sum, 'r3');
  }
}

export function redirect(p: Assembler, ifindex: Register, flags: number): void {
  p.mov('r1', ifindex);
  p.mov('r2', flags);
  p.call(HELPER_REDIRECT);
  p.exit();
}

/** Where packets end that are not redirected. */
export function endings(p: Assembler, map: number, key: number, lost: number): void {
  p.label('lost');
  p.note('no memory left when the packet was changed already');
  p.loadMap('r1', map);
  p.mov('r2', 'r10');
  p.alu('add', 'r2', key);
  p.call(HELPER_MAP_LOOKUP);
  p.jumpIf('r0', '==', 0, 'drop');
  increment(p, lost, 1);
  p.label('drop');
  p.mov('r0', TC_ACT_SHOT);
  p.exit();
  p.label('next');
  p.note('for the workers');
  p.mov('r0', TCX_NEXT);
  p.exit();
}
