import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { run } from '../cli/lab/process.ts';
import { VERSION } from '../control/protocol.ts';

const root = join(import.meta.dirname, '..', '..');

test('npm pack gives an artefact that installs and runs elsewhere', { timeout: 120_000 }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-pack-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const env = { NODE_EXTRA_CA_CERTS: process.env.NPM_EXTRA_CA_CERTS }; // see scripts/test.mjs
  const npm = (...args: string[]) => run(['npm', '--prefix', directory, ...args], { timeout: 110_000, env });
  const { stdout } = await run(
    ['sh', '-c', `cd '${root}' && npm pack --json --ignore-scripts --pack-destination '${directory}'`],
    {
      timeout: 180_000,
    },
  );
  const [{ filename, files }] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
  assert.ok(files.some(({ path }) => path === 'dist/dataplane/simd/checksum.wasm'));
  assert.equal(
    files.find(({ path }) => /^(test|dist\/test|dist\/bench|node_modules)\//.test(path)),
    undefined,
  );
  await npm(
    'install',
    '--global',
    '--omit=optional',
    '--no-audit',
    '--no-fund',
    '--prefer-offline',
    join(directory, filename),
  );
  const { stdout: version } = await run([join(directory, 'bin', 'uvxlan'), '--version']);
  assert.equal(version, `uvxlan ${VERSION}\n`);
});
