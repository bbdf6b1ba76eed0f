// Imports only go down: cli > control > dataplane > fdb, packets > wire, system. Two more rules: nothing of the product imports
// tests or benchmarks, and koffi is imported by system/libc.ts alone.
//   node scripts/imports.mjs    prints FILE:LINE: MESSAGE for every violation

import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { rooms, root, typescript } from './sources.mjs';

/** Room -> floor. wire and system share the lowest: neither imports the other. */
const floors = { cli: 5, control: 4, dataplane: 3, fdb: 2, packets: 2, wire: 1, system: 1 };

// import ... from 'x', export ... from 'x', import 'x', import('x')
const specifiers = /(?:\bfrom\s*|\bimport\s*\(?\s*)['"]([^'"]+)['"]/g;

/** What is wrong with `file` importing `specifier`, or undefined. */
export function violation(file, specifier) {
  if (specifier === 'koffi') {
    return file === 'system/libc.ts' ? undefined : 'only system/libc.ts may import koffi';
  }
  const room = file.split('/')[0];
  if (!specifier.startsWith('.') || !rooms.includes(room)) return undefined;
  const target = join(dirname(file), specifier).split('/')[0];
  if (target === room) return undefined;
  if (!rooms.includes(target)) return `${room}/ may not import ${target}/, which is no part of the product`;
  if (floors[target] < floors[room]) return undefined;
  return `${room}/ may not import ${target}/: imports only go down (cli > control > dataplane > fdb, packets > wire, system)`;
}

export function violations() {
  const found = [];
  for (const file of typescript()) {
    const text = readFileSync(`${root}${file}`, 'utf8');
    for (const { index, 1: specifier } of text.matchAll(specifiers)) {
      const message = violation(file, specifier);
      if (message) found.push(`${file}:${text.slice(0, index).split('\n').length}: ${message} ('${specifier}')`);
    }
  }
  return found;
}

if (process.argv[1] === import.meta.filename) {
  const found = violations();
  for (const line of found) console.error(line);
  process.exitCode = found.length > 0 ? 1 : 0;
}
