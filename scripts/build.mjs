// npm run build: TypeScript and AssemblyScript to dist/. What is deleted here is deleted there.

import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { fingerprint, isAssemblyScript, pages, root, typescript } from './sources.mjs';

const stamp = `${root}dist/.fingerprint`;

/** Does dist/ hold what the sources say? */
export function isBuilt() {
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === fingerprint();
}

/** Builds; throws when a compiler finds an error, which it has printed. */
export function build() {
  const built = fingerprint(); // first: a file that changes during the build makes the next one run
  rmSync(stamp, { force: true });
  const sources = typescript();
  for (const file of sources.filter(isAssemblyScript)) assemblyScript(file);
  node('typescript/bin/tsc');
  node('typescript/bin/tsc', '--project', 'web');
  for (const file of pages) copyFileSync(`${root}${file}`, `${root}dist/${file}`);
  prune(new Set(sources));
  for (const name of ['main', 'cni']) executable(`${root}dist/cli/${name}.js`);
  manual();
  writeFileSync(stamp, built);
}

/**
 * The module imports env.memory. A memory fits an import when its initial size is at least, and its maximum at most, the
 * declared one: 1 page and 65,536 pages (4 GB) let the dataplane size its shared memory as it likes.
 */
function assemblyScript(file) {
  const wasm = `${root}dist/${file.replace(/\.ts$/, '.wasm')}`;
  mkdirSync(dirname(wasm), { recursive: true });
  node(
    'assemblyscript/bin/asc.js',
    ...[file, '--outFile', wasm, '-O3', '--runtime', 'stub', '--enable', 'simd', '--enable', 'threads'],
    ...['--importMemory', '--sharedMemory', '--initialMemory', '1', '--maximumMemory', '65536'],
  );
}

/** `man uvxlan`, from the help texts. */
function manual() {
  const page = execFileSync(process.execPath, [`${root}dist/cli/main.js`, 'completion', 'man']);
  mkdirSync(`${root}dist/man`, { recursive: true });
  writeFileSync(`${root}dist/man/uvxlan.1`, page);
}

function node(script, ...args) {
  execFileSync(process.execPath, [`${root}node_modules/${script}`, ...args], { cwd: root, stdio: 'inherit' });
}

/** Removes compiled files whose source is gone, so that a deleted test does not run on. */
function prune(sources) {
  for (const name of readdirSync(`${root}dist`, { recursive: true, encoding: 'utf8' })) {
    const stem = name.match(/^(.*)\.(js|js\.map|wasm)$/)?.[1];
    if (stem && !sources.has(`${stem}.ts`)) rmSync(`${root}dist/${name}`);
  }
}

function executable(file) {
  if (!readFileSync(file, 'utf8').startsWith('#!/usr/bin/env node\n')) {
    throw new Error(`cli/${basename(file, '.js')}.ts: the first line has to be #!/usr/bin/env node`);
  }
  chmodSync(file, 0o755);
}

if (process.argv[1] === import.meta.filename) {
  try {
    build();
  } catch (error) {
    // A compiler that found errors has printed them.
    if (error.status === undefined) console.error(error.message);
    process.exitCode = 1;
  }
}
