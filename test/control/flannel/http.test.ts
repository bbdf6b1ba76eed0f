import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import test, { type TestContext } from 'node:test';
import { HttpClient, HttpError, parseRetryAfter } from '../../../control/flannel/http.ts';
import { Backoff, insist } from '../../../control/flannel/retry.ts';

async function start(t: TestContext, answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const base = new URL(`http://user:password@127.0.0.1:${port}/base/`);
  const client = new HttpClient(base, () => ({ headers: { authorization: 'Bearer secret' } }), 100);
  const stop = new AbortController();
  t.after(() => {
    stop.abort();
    client.close();
    server.closeAllConnections();
    server.close();
  });
  return { client, origin: `http://127.0.0.1:${port}`, signal: stop.signal };
}

async function lines(stream: Promise<{ lines: AsyncGenerator<string> }>): Promise<string[]> {
  const all: string[] = [];
  for await (const line of (await stream).lines) all.push(line);
  return all;
}

test('paths go below the base, bodies have a length, and statuses are for the caller', async (t) => {
  const { client, signal } = await start(t, async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { 'content-length': length, authorization, accept } = request.headers;
    response.writeHead(418).end(JSON.stringify([request.method, request.url, length, authorization, accept, body]));
  });
  const { status, body } = await client.fetch({ method: 'POST', path: '/a?b=c', body: 'grüß', signal });
  assert.equal(status, 418);
  assert.deepEqual(JSON.parse(body), ['POST', '/base/a?b=c', '6', 'Bearer secret', 'application/json', 'grüß']);
});

test('a server that is slow, or breaks off, is one sentence without secrets', async (t) => {
  const { client, origin, signal } = await start(t, (request, response) => {
    if (request.url === '/base/half') response.writeHead(200, { 'content-length': '9' }).write('half');
    if (request.url === '/base/broken')
      response.writeHead(200, { 'content-length': '9' }).write('x', () => response.destroy());
  });
  const ask = (path: string) => client.fetch({ method: 'GET', path, signal });
  await assert.rejects(ask('/silent'), new HttpError(`${origin}: no answer in 0.1 s`));
  await assert.rejects(ask('/half'), new HttpError(`${origin}: no answer in 0.1 s`));
  await assert.rejects(ask('/broken'), new HttpError(`${origin}: the connection broke (ECONNRESET)`));
  await assert.rejects(lines(client.stream({ method: 'GET', path: '/silent', signal }, 1000)), HttpError);
});

test('a stream: lines however they are cut, an end after silence, and an error when it breaks', async (t) => {
  const { client, signal } = await start(t, (request, response) => {
    response.writeHead(200);
    // Cut within a character of two bytes.
    const bytes = Buffer.from('{"a":"ü"}\n\n{"b":1}\n{"c"');
    response.write(bytes.subarray(0, 7));
    setTimeout(() => response.write(bytes.subarray(7)), 5);
    if (request.url === '/base/end') setTimeout(() => response.end(':2}'), 10);
    if (request.url === '/base/broken') setTimeout(() => response.destroy(), 10);
  });
  const ask = (path: string, silence = 5000) => lines(client.stream({ method: 'GET', path, signal }, silence));
  assert.deepEqual(await ask('/end'), ['{"a":"ü"}', '{"b":1}', '{"c":2}']);
  await assert.rejects(ask('/broken'), HttpError);
  assert.deepEqual(await ask('/silent', 50), ['{"a":"ü"}', '{"b":1}'], 'half a line is none');
});

test('Retry-After: seconds or a date, within reason', () => {
  const now = Date.UTC(2024, 0, 1);
  assert.deepEqual(
    [undefined, '', '7', 'Mon, 01 Jan 2024 00:00:05 GMT', 'Sun, 31 Dec 2023 00:00:00 GMT', 'soon', '-1', '99999'].map(
      (text) => parseRetryAfter(text, now),
    ),
    [0, 0, 7_000, 5_000, 0, 0, 0, 300_000],
  );
});

test('pauses grow, by up to half shorter, up to a limit, and begin anew', () => {
  const longest = new Backoff(100, 1000, () => 0);
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6].map(() => longest.pause()),
    [100, 200, 400, 800, 1000, 1000],
  );
  longest.reset();
  assert.equal(longest.pause(), 100);
  assert.equal(new Backoff(100, 1000, () => 0.5).pause(), 75);
});

test('asking goes on until there is an answer, or until it is stopped', async () => {
  const failures: unknown[] = [];
  const stop = new AbortController();
  let tries = 0;
  const third = async () => {
    if (++tries < 3) throw new Error(`try ${tries}`);
    return tries;
  };
  const backoff = () => new Backoff(1, 1);
  assert.equal(await insist(third, (error) => failures.push((error as Error).message), backoff(), stop.signal), 3);
  assert.deepEqual(failures, ['try 1', 'try 2']);
  const never = insist(
    () => Promise.reject(new Error('no')),
    () => stop.abort(new Error('stopped')),
    backoff(),
    stop.signal,
  );
  await assert.rejects(never, new Error('stopped'));
});
