/**
 * The page's server: files, what the page asks for, and a stream of what happens. It only reads, and whatever a client does costs it a
 * bounded amount of memory. On addresses other than loopback it asks for a token.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import { DROPS } from '../../dataplane/drops.ts';
import { WrongValue } from '../fields.ts';
import { CommandError } from '../protocol.ts';
import { Feed } from './feed.ts';
import { type Node, Tables } from './nodes.ts';
import { lookAtPackets, openCapture, sampleOf } from './packets.ts';
import { type DropText, LARGEST_CAPTURE, type MacHistory, type PacketList } from './shapes.ts';

export interface WebOptions {
  /** Where it listens; port 0 takes any that is free. */
  readonly address: string;
  readonly port: number;
  readonly nodes: readonly Node[];
  /** What clients on other machines have to know; a random one when absent. */
  readonly token?: string | undefined;
}

export interface Web {
  /** What to open in a browser, the token in it where one is needed. */
  readonly url: string;
  close(): Promise<void>;
}

/** Connections at a time; further ones are closed at once. */
const MOST_CONNECTIONS = 2048;
/** Streams at a time: each gets a message a second, the same one. */
const MOST_STREAMS = 1024;

const HEADERS = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};
const COOKIE = 'uvxlan_token_';

/** 'ADDRESS:PORT', '[ADDRESS]:PORT' of IPv6. Throws a RangeError that says what is wrong. */
export function parseListen(text: string): { address: string; port: number } {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const address = bracketed ?? plain;
  const port = Number(digits);
  if (address === undefined || isIP(address) === 0 || port > 65535) {
    throw new RangeError(`"${text}" is not ADDRESS:PORT, 127.0.0.1:8443 or [::1]:8443 say`);
  }
  return { address, port };
}

/** Throws CommandError when nobody can listen there. */
export async function startWeb({ address, port, nodes, token }: WebOptions): Promise<Web> {
  const secret = isLoopback(address) ? undefined : (token ?? randomBytes(16).toString('base64url'));
  const site = new Site(nodes, secret, address);
  const server = createServer((request, response) => site.serve(request, response));
  server.maxConnections = MOST_CONNECTIONS;
  server.requestTimeout = 10_000;
  await listen(server, address, port);
  const actual = (server.address() as { port: number }).port;
  const host = isIP(address) === 6 ? `[${address}]` : address;
  return {
    url: `http://${host}:${actual}/${secret === undefined ? '' : `?token=${secret}`}`,
    close: () =>
      new Promise((resolve) => {
        site.close();
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listen(server: Server, address: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const advice = error.code === 'EADDRINUSE' ? 'something else listens there: take another port' : error.message;
      reject(new CommandError(`cannot serve the page on ${address} port ${port}: ${advice}`, error.code ?? 'EIO'));
    });
    server.listen({ host: address, port }, resolve);
  });
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

class Site {
  readonly #secret: string | undefined;
  readonly #address: string;
  readonly #nodes: ReadonlyMap<string, Node>;
  readonly #tables: ReadonlyMap<string, Tables>;
  readonly #feed: Feed;
  readonly #files = new Map<string, { readonly type: string; readonly body: Buffer }>();
  readonly #drops: DropText[] = DROPS.map(({ name, meaning, advice }) => ({ name, meaning, advice }));

  constructor(nodes: readonly Node[], secret: string | undefined, address: string) {
    this.#secret = secret;
    this.#address = address;
    this.#nodes = new Map(nodes.map((node) => [node.name, node]));
    const tables = new Map(nodes.map((node) => [node, new Tables(node)]));
    this.#tables = new Map(Array.from(tables, ([{ name }, own]) => [name, own]));
    this.#feed = new Feed(tables);
    const uplot = (name: string) => readFileSync(createRequire(import.meta.url).resolve(`uplot/dist/uPlot.${name}`));
    const web = (name: string) => readFileSync(new URL(`../../web/${name}`, import.meta.url));
    const script = 'text/javascript; charset=utf-8';
    this.#files.set('/', { type: 'text/html; charset=utf-8', body: web('index.html') });
    this.#files.set('/uplot.css', { type: 'text/css; charset=utf-8', body: uplot('min.css') });
    this.#files.set('/style.css', { type: 'text/css; charset=utf-8', body: web('style.css') });
    this.#files.set('/uplot.js', { type: script, body: uplot('iife.min.js') });
    for (const name of ['main', 'charts', 'dom', 'drops', 'microscope', 'rates', 'steps', 'tables', 'topology']) {
      this.#files.set(`/${name}.js`, { type: script, body: web(`${name}.js`) });
    }
  }

  serve(request: IncomingMessage, response: ServerResponse): void {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    response.on('error', () => {}); // a client that goes away
    // What is posted is shown to who has posted it, and changes nothing.
    const isCapture = request.method === 'POST' && request.url?.startsWith('/api/open');
    if (request.method !== 'GET' && request.method !== 'HEAD' && !isCapture) {
      fail(response, 405, 'the page only reads: GET and HEAD');
      return;
    }
    if (!this.#isOurHost(request.headers.host)) {
      fail(response, 421, 'this host name is not served here');
      return;
    }
    const url = parseUrl(request.url ?? '/');
    if (!url) {
      fail(response, 400, 'the address is not one');
      return;
    }
    if (!this.#isAllowed(request, url)) {
      fail(response, 401, "a token is needed: the daemon's log says where it is");
      return;
    }
    const token = url.searchParams.get('token');
    if (token !== null && this.#secret !== undefined) {
      // From now on the token travels in a cookie, and not in what is copied or logged.
      response.setHeader(
        'set-cookie',
        `${cookieOf(request)}=${encodeURIComponent(token)}; HttpOnly; SameSite=Strict; Path=/`,
      );
      response.writeHead(303, { location: url.pathname }).end();
      return;
    }
    const file = this.#files.get(url.pathname);
    if (file) {
      response.writeHead(200, { 'content-type': file.type, 'cache-control': 'no-cache' }).end(file.body);
      if (url.pathname === '/') this.#feed.prepare();
      return;
    }
    const answer = isCapture ? this.#open(request, url, response) : this.#answer(url, response);
    void answer.catch((error: Error) => fail(response, 503, error.message));
  }

  close(): void {
    this.#feed.close();
  }

  async #answer(url: URL, response: ServerResponse): Promise<void> {
    const { searchParams, pathname } = url;
    switch (pathname) {
      case '/api/live':
        if (this.#feed.size >= MOST_STREAMS) return fail(response, 503, `${MOST_STREAMS} pages are open already`);
        this.#feed.add(response);
        return;
      case '/api/drops':
        return json(response, this.#drops);
      case '/api/packets':
        return this.#packets(searchParams, response);
      case '/api/history':
        return this.#history(searchParams, response);
      case '/api/sample':
        return this.#sample(searchParams, response);
    }
    const table = /^\/api\/(fdb|neighbours|peers)$/.exec(pathname)?.[1] as 'fdb' | 'neighbours' | 'peers' | undefined;
    if (table === undefined) return fail(response, 404, 'there is nothing here');
    const tables = this.#tables.get(searchParams.get('node') ?? '');
    if (!tables) return fail(response, 404, 'there is no such node');
    const offset = Number(searchParams.get('offset') ?? 0);
    if (!Number.isSafeInteger(offset) || offset < 0) return fail(response, 400, 'offset is not a number from 0 on');
    json(response, await tables[table]((searchParams.get('q') ?? '').slice(0, 200), offset));
  }

  async #history(search: URLSearchParams, response: ServerResponse): Promise<void> {
    const node = this.#nodes.get(search.get('node') ?? '');
    if (!node) return fail(response, 404, 'there is no such node');
    const args = { dev: search.get('dev'), mac: (search.get('mac') ?? '').slice(0, 64) };
    try {
      json(response, await node.ask<MacHistory>('fdb history', args));
    } catch (error) {
      if (!(error instanceof CommandError) && !(error instanceof WrongValue)) throw error;
      fail(response, 400, error.message);
    }
  }

  async #open(request: IncomingMessage, { searchParams }: URL, response: ServerResponse): Promise<void> {
    // A form on another site cannot send this type without being asked first, which is refused.
    const isBytes = request.headers['content-type'] === 'application/octet-stream';
    if (!isBytes || Number(request.headers['content-length'] ?? LARGEST_CAPTURE + 1) > LARGEST_CAPTURE) {
      response.setHeader('connection', 'close');
      const what = isBytes ? `of at most ${LARGEST_CAPTURE} bytes` : 'as application/octet-stream';
      fail(response, isBytes ? 413 : 415, `a capture comes ${what}`);
      return;
    }
    try {
      const chunks = request.iterator({ destroyOnReturn: false });
      const list = await openCapture(chunks, (searchParams.get('filter') ?? '').slice(0, 500));
      request.resume(); // a browser takes no answer before it has sent all
      json(response, list);
    } catch (error) {
      request.resume();
      refuse(response, error);
    }
  }

  async #packets(search: URLSearchParams, response: ServerResponse): Promise<void> {
    const node = this.#nodes.get(search.get('node') ?? '');
    if (!node) return fail(response, 404, 'there is no such node');
    try {
      json(response, await lookAtPackets(node, search.get('dev') || null, (search.get('filter') ?? '').slice(0, 500)));
    } catch (error) {
      refuse(response, error);
    }
  }

  async #sample(search: URLSearchParams, response: ServerResponse): Promise<void> {
    const node = this.#nodes.get(search.get('node') ?? '');
    const packet = node && (await sampleOf(node, search.get('dev') || null, search.get('reason') ?? ''));
    if (packet) json(response, { packets: [packet] } satisfies PacketList);
    else fail(response, 404, 'there is no such sample any more');
  }

  /** A name that leads here by a trick of DNS is not ours, so that no other site's scripts read the page. */
  #isOurHost(host: string | undefined): boolean {
    const name = host?.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
    if (name === undefined) return false;
    return name === 'localhost' || isIP(name) !== 0 || name === this.#address;
  }

  #isAllowed(request: IncomingMessage, url: URL): boolean {
    if (this.#secret === undefined) return true;
    const cookie = request.headers.cookie?.match(new RegExp(`(?:^|; )${cookieOf(request)}=([^;]*)`))?.[1];
    const given =
      url.searchParams.get('token') ??
      (cookie && decoded(cookie)) ??
      request.headers.authorization?.replace(/^Bearer /, '');
    return given !== undefined && isSame(given, this.#secret);
  }
}

/** Cookies are of a host, whatever the port: that of another daemon there, or at the other end of another forwarded port, has another name. */
function cookieOf({ headers }: IncomingMessage): string {
  return COOKIE + (headers.host?.match(/:(\d+)$/)?.[1] ?? '80');
}

/** In a time that does not tell where they differ. */
function isSame(given: string, secret: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(secret)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function parseUrl(path: string): URL | undefined {
  try {
    return new URL(`http://page${path}`);
  } catch {
    return undefined;
  }
}

function decoded(cookie: string): string {
  try {
    return decodeURIComponent(cookie);
  } catch {
    return cookie;
  }
}

function json(response: ServerResponse, value: unknown): void {
  response
    .writeHead(200, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' })
    .end(JSON.stringify(value));
}

/** Throws what nobody has asked for. */
function refuse(response: ServerResponse, error: unknown): void {
  if (!(error instanceof CommandError)) throw error;
  fail(response, error.errno === 'EBUSY' ? 503 : 400, error.message);
}

function fail(response: ServerResponse, status: number, message: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response
    .writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' })
    .end(`${message}\n`);
}
