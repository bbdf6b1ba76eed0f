import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { TestContext } from 'node:test';
import { startApi } from '../../control/api.ts';
import { type DaemonHandlers, socketPath } from '../../control/protocol.ts';

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** `hangUp` closes standard output as soon as something has come. */
export type Uvxlan = (words: string | readonly string[], stdin?: string, hangUp?: boolean) => Promise<Outcome>;

/** The command line as a process of its own, in a runtime directory of the test's; with a daemon there when one is given. */
export async function commandLine(t: TestContext, daemon?: DaemonHandlers): Promise<Uvxlan> {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-cli-'));
  t.after(() => rmSync(directory, { recursive: true }));
  if (daemon !== undefined) {
    const api = await startApi(daemon, join(directory, basename(socketPath())));
    t.after(() => api.close());
  }
  const main = join(import.meta.dirname, '../../cli/main.js');
  return (words, stdin = '', hangUp = false) =>
    new Promise((resolve, reject) => {
      const args = typeof words === 'string' ? words.split(' ').filter((word) => word !== '') : words;
      const child = spawn(process.execPath, [main, ...args], {
        env: { ...process.env, UVXLAN_RUNTIME_DIR: directory },
        timeout: 60_000,
      });
      const output = { stdout: '', stderr: '' };
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        output.stdout += text;
        if (hangUp) child.stdout.destroy();
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
      child.on('error', reject);
      child.on('close', (status) => resolve({ status, ...output }));
      child.stdin.on('error', () => {}); // ended before it read all
      child.stdin.end(stdin);
    });
}
