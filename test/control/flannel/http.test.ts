import assert from 'node:assert/strict';
import { type AddressInfo, createServer } from 'node:net';
import test from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { HttpClient } from '../../../control/flannel/http.ts';

test('a server that takes a request and says nothing is given up, also when garbage was collected meanwhile', async (t) => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const server = createServer((socket) => t.after(() => socket.destroy())).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const client = new HttpClient(new URL(`http://127.0.0.1:${port}`), () => ({}), 300);
  t.after(() => client.close());
  const collecting = setInterval(collectGarbage, 50);
  t.after(() => clearInterval(collecting));
  const limit = setTimeout(() => client.close(), 10_000);
  t.after(() => clearTimeout(limit));
  const { signal } = new AbortController();
  await assert.rejects(client.fetch({ method: 'GET', path: '/', signal }), { message: /: no answer in 0\.3 s$/ });
});
