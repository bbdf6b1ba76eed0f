// npm test [-- PATH... OPTION]: runs the built tests with Node's test runner, whose summary is the last output.
//   npm test -- wire/ipv4                        only files whose path contains "wire/ipv4"
//   npm test -- net --test-name-pattern=gateway  only tests of such a name
//
// Two phases with one summary. Most files run two at a time, pure tests first: they are quick, and what they find explains what the others
// would show. Those of ALONE run one at a time: beside another test they would see losses that are not the dataplane's, or cause them.

import { Readable } from 'node:stream';
import { run } from 'node:test';
import { spec, tap } from 'node:test/reporters';
import { root, typescript } from './sources.mjs';

/** Rooms whose tests need no network, no root and no time. */
const PURE = ['wire', 'fdb', 'packets', 'dataplane'];
/** Files of test/net that flood, or ask for a rate; all others wait for what they expect, however long it takes. */
const ALONE = ['counters', 'lifecycle', 'order', 'traffic'];
/** A file that hangs is ended, by a signal on which it still cleans up. */
const TIMEOUT = 600_000;
const PATTERN = '--test-name-pattern=';

const args = process.argv.slice(2);
const patterns = args.filter((arg) => arg.startsWith(PATTERN)).map((arg) => arg.slice(PATTERN.length));
const unknown = args.find((arg) => arg.startsWith('-') && !arg.startsWith(PATTERN));
const wanted = args.filter((arg) => !arg.startsWith('-')).map((arg) => arg.replace(/\.(js|ts)$/, ''));

const files = typescript(['test'])
  .filter((file) => file.endsWith('.test.ts'))
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));

if (unknown !== undefined || files.length === 0) {
  console.error(
    unknown ? `${unknown}: the only option is ${PATTERN}PATTERN` : `no test file matches ${wanted.join(', ')}`,
  );
  process.exit(1);
}

function rank(file) {
  if (PURE.some((room) => file.startsWith(`test/${room}/`))) return 0;
  return file.startsWith('test/net/') ? 2 : 1;
}

function isAlone(file) {
  return ALONE.some((name) => file === `test/net/${name}.test.ts`);
}

const abort = new AbortController();
// Ctrl-C reaches the tests by itself; what is sent to this process alone is passed on.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => abort.abort());
// The tests' processes get the options of this one, and its environment. With NODE_EXTRA_CA_CERTS each of the many that they start would
// parse all root certificates first, 70 ms; npm alone, which test/package.test.ts runs, talks to strangers.
process.execArgv.push('--enable-source-maps');
const { NODE_EXTRA_CA_CERTS: certificates } = process.env;
delete process.env.NODE_EXTRA_CA_CERTS;
if (certificates !== undefined) process.env.NPM_EXTRA_CA_CERTS = certificates;

/** The events of both phases, as if of one. */
async function* events() {
  const summary = new Map();
  let tests = 0;
  for (const [phase, concurrency] of [
    [files.filter((file) => !isAlone(file)), 2],
    [files.filter(isAlone), 1],
  ]) {
    if (phase.length === 0) continue;
    const before = tests;
    const stream = run({
      files: phase.map((file) => `${root}dist/${file.replace(/\.ts$/, '.js')}`),
      ...{ concurrency, timeout: TIMEOUT, signal: abort.signal },
      ...(patterns.length > 0 ? { testNamePatterns: patterns } : {}),
    });
    for await (const event of stream) {
      const { type, data } = event;
      const isTop = data.nesting === 0 && data.file === undefined;
      if (type === 'test:fail' && !data.todo) process.exitCode = 1;
      if (isTop && type === 'test:plan') tests += data.count;
      else if (isTop && type === 'test:diagnostic') {
        const [name, value] = data.message.split(' ');
        summary.set(name, (summary.get(name) ?? 0) + Number(value));
      } else {
        if (data.nesting === 0 && data.testNumber !== undefined) data.testNumber += before;
        yield event;
      }
    }
  }
  yield { type: 'test:plan', data: { nesting: 0, count: tests } };
  for (const [name, value] of summary) {
    yield { type: 'test:diagnostic', data: { nesting: 0, message: `${name} ${value}` } };
  }
}

Readable.from(events())
  .compose(process.stdout.isTTY ? new spec() : tap)
  .pipe(process.stdout);
