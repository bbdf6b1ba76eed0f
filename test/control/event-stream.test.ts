import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { connectToDaemon } from '../../cli/client.ts';
import { eventText } from '../../cli/monitor.ts';
import { startApi } from '../../control/api.ts';
import { VERSION } from '../../control/protocol.ts';
import { FakeDaemon } from './fake-daemon.ts';

const MONITOR = `{"version":"${VERSION}","command":"monitor","arguments":{}}\n`;
const ENTRY = { mac: '02:00:00:00:00:01', dst: '192.0.2.2', flags: ['self'], state: '' };

async function serve(t: TestContext) {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-events-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const daemon = new FakeDaemon();
  const api = await startApi(daemon, join(directory, 'api.sock'));
  t.after(() => api.close());
  return { daemon, path: api.path };
}

async function subscriber(t: TestContext, path: string): Promise<Socket> {
  const socket = connect(path);
  t.after(() => socket.destroy());
  socket.on('error', () => {});
  socket.write(MONITOR);
  await new Promise((resolve) => socket.once('data', resolve));
  return socket;
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.ok(condition());
}

test('a client gets the events of its groups from the reply on, in order, beside replies', async (t) => {
  const { daemon, path } = await serve(t);
  daemon.events.emit('fdb', 'added', 'v4', ENTRY);
  const client = await connectToDaemon(path);
  t.after(() => client.close());
  const events = client.monitor(['fdb']);
  const first = events.next();
  await until(() => daemon.events.has('fdb'));
  daemon.events.emit('fdb', 'learned', 'v4', ENTRY);
  daemon.events.emit('fdb', 'moved', 'v4', { ...ENTRY, dst: '192.0.2.3', from: '192.0.2.2' });
  const { time, ...learned } = (await first).value;
  assert.deepEqual(learned, { group: 'fdb', event: 'learned', ifname: 'v4', ...ENTRY });
  assert.ok(Math.abs(Date.now() - time) < 10_000);
  const moved = (await events.next()).value;
  assert.match(
    eventText(moved),
    /^\d\d:\d\d:\d\d\.\d{3} moved 02:00:00:00:00:01 dev v4 dst 192\.0\.2\.3 from 192\.0\.2\.2 self$/,
  );
});

test('groups that there are not are refused', async (t) => {
  const client = await connectToDaemon((await serve(t)).path);
  t.after(() => client.close());
  await assert.rejects(client.ask('monitor', { groups: ['frob'] }), { errno: 'EINVAL', message: /"frob" is unknown/ });
  await assert.rejects(client.ask('monitor', { groups: 'fdb' }), { errno: 'EINVAL' });
  await assert.rejects(client.ask('monitor', { rate: 0 }), { errno: 'EINVAL', message: /rate is not a number/ });
  assert.ok(await client.ask('status'));
});

test('nobody is told any more when a client ends its side, or goes', async (t) => {
  const { daemon, path } = await serve(t);
  for (const leave of [(socket: Socket) => socket.end(), (socket: Socket) => socket.destroy()]) {
    const socket = await subscriber(t, path);
    await until(() => daemon.events.has('fdb'));
    leave(socket);
    await until(() => !daemon.events.has('fdb'));
  }
});

test('a client that does not read is cut off, and the others hear all', { timeout: 120_000 }, async (t) => {
  const { daemon, path } = await serve(t);
  const client = await connectToDaemon(path);
  t.after(() => client.close());
  const events = client.monitor([]);
  const next = events.next();
  await until(() => daemon.events.has('fdb'));
  const socket = await subscriber(t, path);
  socket.pause();
  let heard = 0;
  const reading = (async () => {
    await next;
    heard++;
    while (heard < 30_000) {
      await events.next();
      heard++;
    }
  })();
  for (let i = 0; i < 30_000; i += 100) {
    for (let k = 0; k < 100; k++) daemon.events.emit('fdb', 'learned', 'v4', ENTRY);
    await new Promise(setImmediate);
  }
  await reading;
  assert.equal(heard, 30_000);
  socket.resume();
  await new Promise((resolve) => socket.once('close', resolve));
});

test('events of all groups as lines', () => {
  const line = (event: object) =>
    eventText({ group: 'fdb', event: '', time: 0, ifname: 'v4', ...event }).replace(/^\S+ /, '');
  assert.equal(
    line({ event: 'refused', ...{ mac: ENTRY.mac, dst: '192.0.2.2', reason: 'maxaddress 8 is reached', count: 3 } }),
    'refused 02:00:00:00:00:01 dev v4 dst 192.0.2.2 reason "maxaddress 8 is reached" count 3',
  );
  assert.equal(
    line({ group: 'peer', event: 'down', dst: '192.0.2.2', reason: 'eth0 is down' }),
    'peer down dev v4 dst 192.0.2.2 reason "eth0 is down"',
  );
  const source_list = [{ address: '10.0.0.1', timer: '0.00' }];
  assert.equal(
    line({ group: 'mdb', event: 'added', grp: '239.1.1.1', source_list, flags: [], state: 'permanent' }),
    'mdb added dev v4 grp 239.1.1.1 source_list 10.0.0.1 permanent',
  );
  assert.equal(
    line({ group: 'drop', event: 'drops', reason: 'tx_no_remote', rate: 12, count: 12 }),
    'drops dev v4 reason tx_no_remote rate 12 count 12',
  );
});
