// The files of the project, for the scripts that build and check it.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The checkout, with a slash at the end. */
export const root = fileURLToPath(new URL('..', import.meta.url));

/** The rooms of the product. */
export const rooms = ['cli', 'control', 'dataplane', 'fdb', 'packets', 'wire', 'system'];

/** Everything that is compiled; web/ for browsers. */
export const folders = [...rooms, 'web', 'test', 'bench'];
/** What browsers get as it is. */
export const pages = ['web/index.html', 'web/style.css'];

/** TypeScript files under the folders, relative to the checkout, sorted. */
export function typescript(under = folders) {
  return under.flatMap((folder) => {
    if (!existsSync(`${root}${folder}`)) return []; // git keeps no empty folder
    const names = readdirSync(`${root}${folder}`, { recursive: true, encoding: 'utf8' });
    return names
      .filter((name) => name.endsWith('.ts'))
      .map((name) => `${folder}/${name}`)
      .sort();
  });
}

/** AssemblyScript, compiled to WebAssembly and not by tsc. */
export function isAssemblyScript(file) {
  return file.startsWith('dataplane/simd/');
}

/** A digest of all that the build's result depends on. */
export function fingerprint() {
  const hash = createHash('sha256');
  for (const file of [
    ...typescript(),
    ...pages,
    'tsconfig.json',
    'web/tsconfig.json',
    'package-lock.json',
    'scripts/build.mjs',
  ]) {
    hash.update(`${file}\0`).update(readFileSync(`${root}${file}`));
  }
  return hash.digest('hex');
}
