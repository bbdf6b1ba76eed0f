// npm run check: format and lint, types, import directions, line budget, then the tests. The checks that only read the
// sources all run, so that one run shows everything; the tests follow when they have passed.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { violations } from './imports.mjs';
import { root, typescript } from './sources.mjs';

/** The part that has to stay readable in one sitting, and its budget in lines. A hint, not an error. */
const budget = { folders: ['dataplane', 'fdb', 'wire', 'system'], lines: 4_000, file: 300 };

function node(...args) {
  return spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' }).status === 0;
}

const checks = {
  'format and lint': () => node('node_modules/@biomejs/biome/bin/biome', 'check', '--error-on-warnings', '.'),
  types: () =>
    ['.', 'web'].every((project) => node('node_modules/typescript/bin/tsc', '--noEmit', '--project', project)),
  'import directions': () => {
    const found = violations();
    for (const line of found) console.error(line);
    return found.length === 0;
  },
  'line budget': () => {
    const sizes = typescript(budget.folders).map((file) => [file, lines(file)]);
    const total = sizes.reduce((sum, [, size]) => sum + size, 0);
    const name = budget.folders.join(' + ');
    console.log(`${name}: ${total} lines of ${budget.lines}${total > budget.lines ? ' (warning: too many)' : ''}`);
    for (const [file, size] of sizes) {
      if (size > budget.file * 1.15) console.log(`warning: ${file} has ${size} lines, more than about ${budget.file}`);
    }
    return true;
  },
};

function lines(file) {
  return readFileSync(`${root}${file}`, 'utf8').split('\n').length - 1;
}

if (!node('scripts/setup.mjs', 'test')) process.exit(1);
const failed = Object.entries(checks).filter(([name, check]) => {
  console.log(`-- ${name}`);
  return !check();
});
if (failed.length > 0) {
  console.error(`-- failed: ${failed.map(([name]) => name).join(', ')}; the tests did not run`);
  process.exit(1);
}
console.log('-- tests');
process.exit(node('scripts/test.mjs') ? 0 : 1);
