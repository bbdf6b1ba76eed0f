import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { EtcdClient, EtcdError, LostHistoryError } from '../../../control/flannel/etcd-client.ts';
import { HttpError } from '../../../control/flannel/http.ts';
import { certificates, EtcdServer, freePort } from './etcd-server.ts';

test('keys, transactions, leases and watches of a real etcd', async (t) => {
  const server = await EtcdServer.start(t);
  const { client, signal } = server;
  const kv = { key: '/net/subnets/a', value: 'grüß', lease: '0' };

  assert.equal(await client.put(kv, '0', signal), true);
  assert.equal(await client.put(kv, '0', signal), false, 'it is there');
  const { kvs, at } = await client.range('/net/subnets/', true, signal);
  const revision = String(at.revision);
  assert.deepEqual(kvs, [{ ...kv, modRevision: revision }]);
  assert.deepEqual((await client.range('/net/subnets', false, signal)).kvs, []);
  assert.equal(await client.put({ ...kv, value: 'new' }, '999', signal), false, 'not that revision');
  assert.equal(await client.put({ ...kv, value: 'new' }, revision, signal), true);

  const stop = new AbortController();
  const watch = client.watch('/net/subnets/', { ...at, revision: at.revision - 1n }, stop.signal);
  const seen: string[] = [];
  let next = at;
  const lease = await client.grant(60, signal);
  assert.equal(lease.ttl, 60);
  assert.equal(await client.keepAlive(lease.id, signal), 60);
  await client.put({ key: '/net/subnets/b', value: 'x', lease: lease.id }, '0', signal);
  await client.put({ key: '/net/subnets0', value: 'not ours', lease: '0' }, '0', signal);
  await client.revoke(lease.id, signal);
  assert.equal(await client.keepAlive(lease.id, signal), 0, 'there is no such lease');
  for await (const batch of watch) {
    for (const { type, kv } of batch.events) seen.push(`${type} ${kv.key} ${kv.value}`);
    next = batch.at;
    if (seen.length >= 4) break;
  }
  assert.deepEqual(seen, [
    'put /net/subnets/a grüß',
    'put /net/subnets/a new',
    'put /net/subnets/b x',
    'delete /net/subnets/b ',
  ]);

  assert.equal(await client.delete('/net/subnets/a', '1', signal), false);
  const again = client.watch('/net/subnets/', next, stop.signal);
  assert.deepEqual((await again.next()).value.events, [], 'it stands');
  await server.delete('/net/subnets/a');
  assert.equal((await again.next()).value.events[0].type, 'delete', 'nothing twice, nothing lost');
  stop.abort();
  await assert.rejects(again.next(), { name: 'AbortError' });

  await server.compact();
  const late = client.watch('/net/', at, signal);
  await late.next();
  await assert.rejects(late.next(), LostHistoryError);
  const ahead = client.watch('/net/', { ...at, revision: at.revision + 99n }, signal);
  await assert.rejects(ahead.next(), LostHistoryError, 'an older state of it');
});

test('with TLS and certificates on both sides', async (t) => {
  const files = certificates(t);
  const [ca, cert, key] = [files.ca, files.client, files.clientKey].map((file) => readFileSync(file, 'utf8'));
  const flags = [
    '--cert-file',
    files.server,
    '--key-file',
    files.serverKey,
    '--client-cert-auth',
    '--trusted-ca-file',
    files.ca,
  ];
  const connect = (credentials: object) => (endpoint: string) =>
    new EtcdClient({ endpoints: [endpoint], credentials: () => credentials });
  const { client, endpoint, signal } = await EtcdServer.start(t, {
    scheme: 'https',
    flags,
    client: connect({ ca, cert, key }),
  });
  assert.deepEqual((await client.range('/', true, signal)).kvs, []);

  for (const [credentials, reason] of [
    [{ cert, key }, /^https:\/\/127\.0\.0\.1:\d+: unable to verify the first certificate|self.signed certificate/],
    [{ ca }, /^https:\/\/127\.0\.0\.1:\d+: .*(certificate|socket|disconnected|ECONNRESET|EPIPE)/i],
  ] as const) {
    const stranger = connect(credentials)(endpoint);
    t.after(() => stranger.close());
    await assert.rejects(stranger.range('/', true, signal), (error: Error) => {
      assert.ok(error instanceof HttpError);
      assert.match(error.message, reason);
      return true;
    });
  }
});

test('with a user and a password, and a token that is got anew', async (t) => {
  const password = 'a secret of the test';
  const connect = (given: string) => (endpoint: string) =>
    new EtcdClient({ endpoints: [endpoint], credentials: () => ({}), username: 'root', password: given });
  const server = await EtcdServer.start(t);
  const client = connect(password)(server.endpoint);
  assert.deepEqual((await client.range('/a', false, server.signal)).kvs, [], 'without authentication they do no harm');
  await server.post('/v3/auth/user/add', { name: 'root', password });
  await server.post('/v3/auth/role/add', { name: 'root' });
  await server.post('/v3/auth/user/grant', { user: 'root', role: 'root' });
  await server.post('/v3/auth/enable', {});
  const { signal, endpoint } = server;
  const stranger = connect('wrong')(endpoint);
  t.after(() => [client, stranger].map((each) => each.close()));

  assert.equal(await client.put({ key: '/a', value: '1', lease: '0' }, '0', signal), true);
  const { at } = await client.range('/', true, signal);
  const watch = client.watch('/', { ...at, revision: 0n }, signal);
  await watch.next();
  assert.deepEqual(
    (await watch.next()).value.events.map(({ kv }: { kv: { key: string } }) => kv.key),
    ['/a'],
  );
  await watch.return(undefined);
  for (const refused of [server.client, stranger]) {
    await assert.rejects(refused.range('/a', false, signal), (error: Error) => {
      assert.ok(error instanceof EtcdError);
      assert.match(error.message, /^etcd answered 4\d\d: etcdserver: (user name is empty|authentication failed)/);
      assert.doesNotMatch(error.message, /wrong|secret/);
      return true;
    });
  }
  // Simple tokens live in the server's memory.
  await server.kill();
  await server.start();
  assert.equal((await client.range('/a', false, signal)).kvs[0].value, '1');
});

test('of several members, one that answers does', async (t) => {
  const { endpoint, signal } = await EtcdServer.start(t);
  const dead = `http://127.0.0.1:${await freePort()}`;
  const client = new EtcdClient({ endpoints: [dead, endpoint], credentials: () => ({}) });
  t.after(() => client.close());
  assert.deepEqual((await client.range('/', true, signal)).kvs, []);
  const nobody = new EtcdClient({ endpoints: [dead], credentials: () => ({}) });
  await assert.rejects(nobody.range('/', true, signal), {
    message: `${dead}: nobody listens there (ECONNREFUSED)`,
  });
});
