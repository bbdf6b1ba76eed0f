import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { type Client, connectToDaemon } from '../../cli/client.ts';
import { type Api, startApi } from '../../control/api.ts';
import { removeDeadSocket, removeOtherSockets } from '../../control/dead-sockets.ts';
import {
  type BatchResult,
  type FdbRecord,
  REQUEST_LIMIT,
  readyLine,
  socketPath,
  VERSION,
} from '../../control/protocol.ts';
import { FakeDaemon, fakeLink } from './fake-daemon.ts';

const ENTRY = {
  mac: '02:00:00:00:00:01',
  dev: 'v4',
  dst: '192.0.2.2',
  port: null,
  vni: null,
  via: null,
  state: 'static',
};

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'uvxlan-api-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

async function serve(t: TestContext, daemon = new FakeDaemon()): Promise<Api> {
  const api = await startApi(daemon, join(directory(t), 'run', 'api.sock'));
  t.after(() => api.close());
  return api;
}

async function client(t: TestContext, api: Api): Promise<Client> {
  const connection = await connectToDaemon(api.path);
  t.after(() => connection.close());
  return connection;
}

/** A connection that speaks lines of any kind. */
async function raw(t: TestContext, api: Api): Promise<{ socket: Socket; ask(line: string): Promise<string> }> {
  const socket = connect(api.path);
  socket.setEncoding('utf8');
  t.after(() => socket.destroy());
  await new Promise((resolve) => socket.once('connect', resolve));
  const ask = (line: string) => {
    socket.write(line);
    return new Promise<string>((resolve) => socket.once('data', (reply) => resolve(String(reply))));
  };
  return { socket, ask };
}

test('the version is that of package.json', () => {
  const root = import.meta.dirname.replace(/\/test\/control$/, '').replace(/\/dist$/, '');
  assert.equal(VERSION, JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version);
});

test('the socket is named after the network namespace, in a directory that may be chosen', (t) => {
  const before = process.env.UVXLAN_RUNTIME_DIR;
  t.after(() => {
    if (before === undefined) delete process.env.UVXLAN_RUNTIME_DIR;
    else process.env.UVXLAN_RUNTIME_DIR = before;
  });
  delete process.env.UVXLAN_RUNTIME_DIR;
  assert.equal(socketPath(), `/run/uvxlan/${statSync('/proc/self/ns/net').ino}.sock`);
  process.env.UVXLAN_RUNTIME_DIR = '/tmp/elsewhere';
  assert.match(socketPath(), /^\/tmp\/elsewhere\/\d+\.sock$/);
  process.env.UVXLAN_RUNTIME_DIR = `/tmp/${'x'.repeat(100)}`;
  assert.throws(socketPath, /too long: choose another UVXLAN_RUNTIME_DIR/);
});

test('nobody but the owner may open the socket, and it is gone after close', async (t) => {
  const umask = process.umask();
  const api = await serve(t);
  assert.equal(statSync(api.path).mode & 0o777, 0o600);
  assert.equal(statSync(join(api.path, '..')).mode & 0o777, 0o700);
  assert.equal(process.umask(), umask);
  await api.close();
  assert.equal(existsSync(api.path), false);
});

test('commands reach the daemon and their results come back', async (t) => {
  const daemon = new FakeDaemon();
  const { ask } = await client(t, await serve(t, daemon));
  assert.deepEqual(await ask('status'), daemon.status());
  assert.deepEqual(await ask('link show'), daemon.links);
  assert.deepEqual(await ask('link show', { name: 'v4' }), daemon.links);
  assert.equal(await ask('fdb add', ENTRY), null);
  await ask('fdb append', { ...ENTRY, dst: '192.0.2.3' });
  assert.deepEqual(
    (await ask<FdbRecord[]>('fdb show', { dev: 'v4' })).map(({ dst, state }) => [dst, state]),
    [
      ['192.0.2.2', 'static'],
      ['192.0.2.3', 'static'],
    ],
  );
  await ask('fdb replace', { ...ENTRY, dst: '192.0.2.4' });
  await ask('fdb del', { mac: ENTRY.mac, dev: 'v4' });
  assert.deepEqual(await ask('fdb show'), []);
  await ask('fdb flush', { dev: 'v4' });
  assert.deepEqual(await ask('stats'), []);
});

test("the daemon's errors come with their errno name, its faults as faults", async (t) => {
  const daemon = new FakeDaemon();
  const { ask } = await client(t, await serve(t, daemon));
  await ask('fdb add', ENTRY);
  await assert.rejects(ask('fdb add', ENTRY), { message: 'File exists', errno: 'EEXIST' });
  await assert.rejects(ask('link show', { name: 'nope' }), { message: 'Cannot find device "nope"', errno: 'ENODEV' });
  daemon.fdbShow = () => {
    throw new TypeError('x is not a function');
  };
  await assert.rejects(ask('fdb show'), { message: 'the daemon failed: x is not a function' });
  assert.ok(await ask('status'), 'and it goes on');
});

const BAD_REQUESTS: [string, string, unknown, RegExp][] = [
  ['an unknown command', 'frobnicate', {}, /does not know the command "frobnicate"/],
  ['arguments that are no object', 'fdb show', [1], /the arguments are not an object/],
  ['a bad device name', 'fdb show', { dev: 'a/b' }, /a\/b is not a valid interface name/],
  ['no device', 'fdb flush', {}, /the argument dev is missing/],
  ['no MAC', 'fdb add', { dev: 'v4', dst: '192.0.2.2' }, /the argument mac is missing/],
  ['no destination', 'fdb add', { dev: 'v4', mac: ENTRY.mac }, /the argument dst is missing/],
  ['a bad MAC', 'fdb add', { ...ENTRY, mac: 5 }, /5 is not a MAC address/],
  ['a bad VNI', 'fdb add', { ...ENTRY, vni: 2 ** 24 }, /16777216 is out of range 0..16777215/],
  ['an unknown argument', 'fdb add', { ...ENTRY, frob: 1 }, /the argument frob is unknown/],
  ['a key of Object', 'fdb add', { ...ENTRY, constructor: 1 }, /the argument constructor is unknown/],
  ['a batch without commands', 'batch', { force: true }, /a batch has a list of at most 512 commands/],
];

for (const [what, command, args, message] of BAD_REQUESTS) {
  test(`request refused: ${what}`, async (t) => {
    const daemon = new FakeDaemon();
    const { ask } = await client(t, await serve(t, daemon));
    await assert.rejects(ask(command, args), message);
    assert.deepEqual(daemon.entries, []);
  });
}

test('a batch stops at the first failure, or with force goes on', async (t) => {
  const daemon = new FakeDaemon();
  const { ask } = await client(t, await serve(t, daemon));
  const commands = [
    { command: 'fdb add', arguments: ENTRY },
    { command: 'fdb add', arguments: ENTRY },
    { command: 'fdb show', arguments: { dev: null } },
  ];
  const stopped = await ask<BatchResult>('batch', { force: false, commands });
  assert.deepEqual(stopped, [{ result: null }, { error: { message: 'File exists', errno: 'EEXIST' } }]);
  const forced = await ask<BatchResult>('batch', { force: true, commands });
  assert.deepEqual(
    forced.map((outcome) => Object.keys(outcome)[0]),
    ['error', 'error', 'result'],
  );
});

test('what is not a request is answered, and the connection stays', async (t) => {
  const { ask } = await raw(t, await serve(t));
  for (const line of ['hello', '5', 'null', '{"command":"status"}', '{"version":"0.1.0","command":7}', '']) {
    assert.match(await ask(`${line}\n`), /"message":"a request is one line of JSON: \{version, command, arguments\}"/);
  }
  assert.match(await ask(`{"version":"${VERSION}","command":"status"}\n`), /"pid":/);
});

test('requests may come in pieces and many at once', async (t) => {
  const { socket, ask } = await raw(t, await serve(t));
  const line = `{"version":"${VERSION}","command":"status"}\n`;
  socket.write(line.slice(0, 9));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.match(await ask(line.slice(9)), /"pid":/);
  socket.end(line.repeat(20));
  let replies = '';
  for await (const chunk of socket) replies += chunk;
  assert.equal(replies.split('\n').length - 1, 20);
});

test('a request that is too long is refused and ends the connection', async (t) => {
  for (const request of ['x'.repeat(REQUEST_LIMIT + 1), `${'x'.repeat(REQUEST_LIMIT + 1)}\n`]) {
    const { socket, ask } = await raw(t, await serve(t));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    assert.match(await ask(request), /the request is longer than 1048576 bytes/);
    socket.end();
    await closed;
  }
});

test('versions that differ are named: refused when the protocol may differ, told with a failure otherwise', async (t) => {
  const { ask } = await raw(t, await serve(t));
  const [major, minor] = VERSION.split('.').map(Number);
  const skewed = await ask(`{"version":"${major}.${minor + 1}.0","command":"status"}\n`);
  assert.match(
    skewed,
    /this client is uvxlan 0\.2\.0, the daemon is 0\.1\.0: restart the daemon, or use its own client/,
  );
  assert.match(await ask(`{"version":"${major}.${minor}.99","command":"status"}\n`), /"pid":/);
  const failed = await ask(`{"version":"${major}.${minor}.99","command":"frob"}\n`);
  assert.match(failed, /\(this client is uvxlan 0\.1\.99, the daemon is 0\.1\.0\)/);
});

test('a client that does not read blocks nobody else', async (t) => {
  const daemon = new FakeDaemon();
  for (let count = 0; count < 20_000; count++) {
    daemon.entries.push({ mac: ENTRY.mac, ifname: 'v4', dst: '192.0.2.2', flags: ['self'], state: 'permanent' });
  }
  const api = await serve(t, daemon);
  const { socket } = await raw(t, api);
  socket.pause();
  socket.write(`{"version":"${VERSION}","command":"fdb show"}\n`.repeat(100));
  await new Promise((resolve) => setTimeout(resolve, 100));
  const clients = await Promise.all(Array.from({ length: 5 }, () => client(t, api)));
  const results = await Promise.all(clients.map(({ ask }) => ask<FdbRecord[]>('fdb show')));
  assert.ok(results.every((records) => records.length === 20_000));
});

test('a client that goes before its capture is written out harms nobody', async (t) => {
  const daemon = new FakeDaemon();
  const api = await serve(t, daemon);
  const { socket, ask } = await raw(t, api);
  const written = new Promise<void>((resolve) => {
    const { capture } = daemon;
    daemon.capture = (request) => {
      const running = capture.call(daemon, request);
      let write: ((bytes: Uint8Array) => void) | undefined;
      const start: typeof running.start = (sink) => (write = (bytes) => sink.write(bytes, () => {}));
      // The client has ended its side by now, and nobody reads that.
      const finish = async (): Promise<void> => {
        await running.finish();
        socket.destroy();
        await new Promise((done) => socket.once('close', done));
        write!(Buffer.alloc(100));
        await new Promise(setImmediate);
        resolve();
      };
      return { ...running, start, finish };
    };
  });
  await ask(`${JSON.stringify({ version: VERSION, command: 'capture' })}\n`);
  socket.end();
  await written;
  const other = await client(t, api);
  await other.ask('status');
});

test('a second daemon in the namespace is refused, and the first goes on', async (t) => {
  const api = await serve(t);
  await assert.rejects(startApi(new FakeDaemon(), api.path), {
    errno: 'EADDRINUSE',
    message: `a uvxlan daemon already runs in this network namespace (it serves ${api.path}): stop it first`,
  });
  assert.ok(await (await client(t, api)).ask('status'));
});

test('the socket of a dead daemon is replaced', async (t) => {
  const path = join(directory(t), 'dead.sock');
  await leaveDeadSocket(path);
  assert.ok(statSync(path).isSocket());
  const api = await startApi(new FakeDaemon(), path);
  t.after(() => api.close());
  assert.ok(await (await client(t, api)).ask('status'));
});

test('of two daemons that start over a dead socket at once, one runs', async (t) => {
  for (let round = 0; round < 20; round++) {
    const path = join(directory(t), 'dead.sock');
    await leaveDeadSocket(path);
    const started = await Promise.allSettled([startApi(new FakeDaemon(), path), startApi(new FakeDaemon(), path)]);
    const running = started.filter((outcome) => outcome.status === 'fulfilled');
    assert.equal(running.length, 1);
    assert.ok(await (await client(t, running[0].value)).ask('status'));
    await running[0].value.close();
  }
});

test('what is not a socket is not removed', async (t) => {
  const path = join(directory(t), 'file.sock');
  writeFileSync(path, 'precious');
  await assert.rejects(startApi(new FakeDaemon(), path), {
    message: `${path} is in the way: it is not a socket, remove it`,
  });
  assert.equal(readFileSync(path, 'utf8'), 'precious');
});

test('a directory that cannot be made is one clear sentence', async (t) => {
  const file = join(directory(t), 'file');
  writeFileSync(file, '');
  const path = join(file, 'run');
  await assert.rejects(startApi(new FakeDaemon(), join(path, 'a.sock')), {
    errno: 'ENOTDIR',
    message: `cannot use the control socket ${path} (ENOTDIR)`,
  });
});

test('without a daemon the client names the socket that nobody serves', async (t) => {
  const path = join(directory(t), 'none.sock');
  await assert.rejects(connectToDaemon(path), {
    errno: 'ENOENT',
    message: new RegExp(`^Is the daemon running\\? Nobody serves .*, ${path} \\(ENOENT\\): start one with "uvxlan up"`),
  });
  await leaveDeadSocket(path);
  await assert.rejects(connectToDaemon(path), { errno: 'ECONNREFUSED', message: /^Is the daemon running\?/ });
});

test('a daemon that ends during a command is an error, not a hang', async (t) => {
  const daemon = new FakeDaemon();
  const api = await serve(t, daemon);
  daemon.stats = () => new Promise(() => {}) as never;
  const connection = await client(t, api);
  const answer = assert.rejects(connection.ask('stats'), /the daemon closed the connection before it replied/);
  setTimeout(() => api.close(), 20);
  await answer;
});

test('the ready line says what the device is and how it is carried', () => {
  assert.equal(
    readyLine(fakeLink('flannel.1')),
    'flannel.1 is up: id 6, local 192.0.2.1, dev eth0, uplink redirect (tunnel GSO works here), 2 workers, mtu 1450',
  );
});

test('a directory that may not be entered is one clear sentence', async (t) => {
  const path = join(directory(t), 'closed', 'a.sock');
  mkdirSync(dirname(path), { mode: 0o000 });
  const isRoot = process.getuid?.() === 0;
  if (isRoot) process.seteuid?.(65534);
  try {
    await assert.rejects(removeDeadSocket(path), {
      errno: 'EACCES',
      message:
        /^cannot use the control socket .*a\.sock \(EACCES\): run it as root, or name a directory of yours in UVXLAN/,
    });
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
});

test('dead sockets of other namespaces are removed, and nothing else', async (t) => {
  const run = directory(t);
  const [dead, live, fresh, file, stranger] = ['1.sock', '2.sock', '3.sock', '4.sock', 'x.sock'].map((name) =>
    join(run, name),
  );
  const record = join(run, '1.clsact.json');
  for (const path of [dead, fresh, stranger]) await leaveDeadSocket(path);
  for (const path of [file, record]) writeFileSync(path, '[]');
  const other = await startApi(new FakeDaemon(), live);
  t.after(() => other.close());
  for (const path of [dead, live, file, stranger]) utimesSync(path, 1000, 1000);
  const api = await startApi(new FakeDaemon(), join(run, '5.sock'));
  t.after(() => api.close());
  assert.deepEqual(readdirSync(run).sort(), ['1.clsact.json', '2.sock', '3.sock', '4.sock', '5.sock', 'x.sock']);
  assert.ok(await (await client(t, other)).ask('status'));
  assert.deepEqual(await removeOtherSockets(api.path, Date.now() + 60_000), [fresh]);
  assert.deepEqual(await removeOtherSockets(join(run, 'gone', '5.sock')), []);
});

/** A listening socket whose process is gone: bound elsewhere, then moved, so that closing does not remove it. */
async function leaveDeadSocket(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.bound`, resolve));
  renameSync(`${path}.bound`, path);
  await new Promise((resolve) => server.close(resolve));
}
