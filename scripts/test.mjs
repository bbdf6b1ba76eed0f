// npm test [-- PATH... OPTION...]: runs the built tests with Node's test runner, whose summary is the last output.
//   npm test -- wire/ipv4                        only files whose path contains "wire/ipv4"
//   npm test -- net --test-name-pattern=gateway  options go to node --test
//
// One file at a time: the real-network tests share two cores with the dataplane that they measure, and beside another
// test they would see losses that are not the dataplane's. The pure tests take a second or so each at most, so running
// only them in parallel would gain little and need a second runner, with a second summary.

import { spawn } from 'node:child_process';
import { root, typescript } from './sources.mjs';

const args = process.argv.slice(2);
const options = args.filter((arg) => arg.startsWith('-'));
const wanted = args.filter((arg) => !arg.startsWith('-')).map((arg) => arg.replace(/\.(js|ts)$/, ''));
const isNetwork = (file) => file.startsWith('test/net/');

const files = typescript(['test'])
  .filter((file) => file.endsWith('.test.ts'))
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  // Pure tests first: they are quick, and what they find explains what the others would show.
  .sort((a, b) => isNetwork(a) - isNetwork(b) || (a < b ? -1 : 1))
  .map((file) => `dist/${file.replace(/\.ts$/, '.js')}`);

if (files.length === 0) {
  console.error(`no test file matches ${wanted.join(', ')}`);
  process.exit(1);
}

// A file that hangs is ended after 10 minutes, by a signal on which it still cleans up.
const runner = spawn(
  process.execPath,
  ['--enable-source-maps', '--test', '--test-concurrency=1', '--test-timeout=600000', ...options, ...files],
  { cwd: root, stdio: 'inherit' },
);
// Ctrl-C reaches the runner by itself; what is sent to this process alone is passed on.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => runner.kill('SIGTERM'));
runner.on('close', (status) => {
  process.exitCode = status ?? 1;
});
