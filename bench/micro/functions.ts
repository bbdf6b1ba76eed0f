/** Single functions of the hot path, and the system calls around it. */
import { openSync } from 'node:fs';
import { loadSum } from '../../dataplane/checksum.ts';
import { STATE_BITS } from '../../fdb/state.ts';
import { FdbReader } from '../../fdb/table.ts';
import * as libc from '../../system/libc.ts';
import { frame, payload } from '../../test/dataplane/packet.ts';
import { Rig } from '../../test/dataplane/rig.ts';
import { flowHash } from '../../wire/flow.ts';
import type { Case } from './case.ts';

/** Operations a turn. */
const CALLS = 1000;
const EFD_NONBLOCK = 0o4000;

/** Nothing that is measured may be left out by the compiler: all results end up here. */
export let sink = 0;

function repeat(name: string, bytes: number, call: (i: number) => number): Case {
  const turn = () => {
    let sum = 0;
    for (let i = 0; i < CALLS; i++) sum = (sum + call(i)) | 0;
    sink ^= sum;
  };
  return { name, operations: CALLS, bytes: bytes * CALLS, turn };
}

function hash(name: string, version: 4 | 6): Case {
  const { memory } = new Rig();
  const bytes = frame({ version, payload: payload(64) });
  const at = memory.take(bytes.length);
  memory.u8.set(bytes, at);
  return repeat(name, 0, () => flowHash(memory.u8, at, bytes.length));
}

function checksum(length: number): Case {
  const { memory } = new Rig();
  const sum = loadSum(memory);
  const at = memory.take(length);
  return repeat(`checksum of ${length} B`, length, () => sum(at, length));
}

function lookup(name: string, device: number): Case {
  const { fdb } = new Rig();
  for (let low = 1; low <= 50; low++) fdb.insert(0, 0x0200, low, 2, STATE_BITS.static, 0);
  const reader = new FdbReader(fdb.buffer);
  return repeat(name, 0, (i) => reader.lookup(device, 0x0200, 1 + (i & 31)));
}

/** What a call costs when there is nothing to do: the last read of every round. */
function emptyRead(): Case {
  const { memory } = new Rig();
  const fd = libc.check(libc.eventfd(0, EFD_NONBLOCK), 'micro', 'eventfd');
  const at = memory.take(64);
  return repeat('system call: read, EAGAIN', 0, () => libc.read(fd, memory.address + at, 8));
}

function write(): Case {
  const { memory } = new Rig();
  const fd = openSync('/dev/null', 'w');
  const at = memory.take(64);
  return repeat('system call: write to /dev/null', 0, () => libc.write(fd, memory.address + at, 64));
}

export const functionCases: readonly (() => Case)[] = [
  () => hash('flow hash, IPv4', 4),
  () => hash('flow hash, IPv6', 6),
  () => lookup('FDB lookup, found', 0),
  () => lookup('FDB lookup, not there', 1),
  ...[64, 1400, 60_000].map((length) => () => checksum(length)),
  emptyRead,
  write,
];
