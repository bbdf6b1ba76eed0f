import { readFileSync } from 'node:fs';
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { StringDecoder } from 'node:string_decoder';

/** How a server is to be talked to. Read anew for every request, since certificates and tokens are replaced while we run. */
export interface Credentials {
  /** PEM: who may have signed the server's certificate; the system's own authorities when undefined. */
  readonly ca?: string | undefined;
  /** PEM: our own certificate and its key. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Do not check the server's certificate. */
  readonly insecure?: boolean | undefined;
  /** The name to check it for, where that is not the URL's host. */
  readonly servername?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

export interface HttpRequest {
  readonly method: string;
  /** With the query, and without the part of the URL that the client has. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal;
}

/** The server cannot be reached, broke off, or is too slow. `message` names the server and the reason, and no secret. */
export class HttpError extends Error {}

/** The server has answered, and refuses. */
export class RefusedError extends Error {
  /** Milliseconds for which it does not want to be asked again (RFC 9110, 10.2.3). */
  readonly retryAfter: number;

  constructor(message: string, retryAfter = 0) {
    super(message);
    this.retryAfter = retryAfter;
  }
}

/** Whole answers, and the beginning of those that go on. */
export interface Answer {
  readonly status: number;
  /** As in RefusedError. */
  readonly retryAfter: number;
}

/** Milliseconds until the head of an answer; of one that is not a stream, also until its end. */
const PATIENCE = 10_000;
/** After so many quiet milliseconds the kernel begins to ask whether the other end is alive. */
const KEEPALIVE = 15_000;
/** A server that wants more than so many milliseconds does not get them. */
const LONGEST_RETRY_AFTER = 300_000;
/** Characters; a page of 500 Kubernetes nodes has about 8 million. */
const LONGEST_BODY = 128 << 20;

/** JSON over HTTP/1.1 with one server: whole answers, and streams of lines. */
export class HttpClient {
  readonly base: URL;
  readonly #credentials: () => Credentials;
  readonly #agent: HttpAgent;
  readonly #patience: number;

  constructor(base: URL, credentials: () => Credentials, patience = PATIENCE) {
    this.base = base;
    this.#credentials = credentials;
    this.#patience = patience;
    this.#agent = new (base.protocol === 'https:' ? HttpsAgent : HttpAgent)({ keepAlive: true });
  }

  /** Throws HttpError; what the server answers, whatever the status, is for the caller. */
  async fetch(request: HttpRequest): Promise<Answer & { body: string }> {
    return this.#limited(request.signal, async (limit) => {
      const answer = await this.#open(request, limit);
      let body = '';
      try {
        answer.setEncoding('utf8');
        for await (const chunk of answer) {
          body += chunk;
          if (body.length > LONGEST_BODY) throw new Error('an answer without end');
        }
      } catch (error) {
        throw this.#failure(error, request.signal, limit);
      }
      return { ...head(answer), body };
    });
  }

  /**
   * An answer that goes on: `lines` ends when the server ends it, or after `silence` milliseconds in which nothing comes: it may be dead
   * without our knowing. Throws HttpError when the connection breaks.
   */
  async stream(request: HttpRequest, silence: number): Promise<Answer & { lines: AsyncGenerator<string> }> {
    return this.#limited(request.signal, async (limit) => {
      const answer = await this.#open(request, limit);
      return { ...head(answer), lines: this.#lines(answer, silence, request.signal) };
    });
  }

  /** What `use` makes of a signal that is aborted with `signal`, and when it has taken longer than the client's patience. */
  async #limited<T>(signal: AbortSignal, use: (limit: AbortSignal) => Promise<T>): Promise<T> {
    // No AbortSignal.timeout: Node 20 forgets one that only AbortSignal.any holds, at the next garbage collection.
    const slow = new AbortController();
    const timer = setTimeout(() => slow.abort(), this.#patience);
    try {
      return await use(AbortSignal.any([signal, slow.signal]));
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#agent.destroy();
  }

  async *#lines(answer: IncomingMessage, silence: number, signal: AbortSignal): AsyncGenerator<string> {
    const decoder = new StringDecoder('utf8');
    let pending = '';
    let isSilent = false;
    answer.setTimeout(silence, () => {
      isSilent = true;
      answer.destroy();
    });
    try {
      for await (const chunk of answer) {
        pending += decoder.write(chunk);
        let end = pending.indexOf('\n');
        if (end < 0 && pending.length > LONGEST_BODY) throw new Error('a line without end');
        for (; end >= 0; end = pending.indexOf('\n')) {
          const line = pending.slice(0, end);
          pending = pending.slice(end + 1);
          if (line !== '') yield line;
        }
      }
      if (pending !== '') yield pending;
    } catch (error) {
      if (!isSilent) throw this.#failure(error, signal);
    }
  }

  #open({ method, path, headers, body, signal }: HttpRequest, limit: AbortSignal): Promise<IncomingMessage> {
    const isTls = this.base.protocol === 'https:';
    const url = `${this.base.origin}${this.base.pathname.replace(/\/$/, '')}${path}`;
    return new Promise<IncomingMessage>((resolve, reject) => {
      const { headers: ours, insecure, ...tls } = this.#credentials();
      const length = body === undefined ? {} : { 'content-length': String(Buffer.byteLength(body)) };
      const request = (isTls ? httpsRequest : httpRequest)(url, {
        method,
        agent: this.#agent,
        headers: { accept: 'application/json', ...length, ...headers, ...ours },
        signal: limit,
        ...(isTls && { ...tls, rejectUnauthorized: !insecure }),
      });
      request.on('socket', (socket) => socket.setKeepAlive(true, KEEPALIVE));
      request.on('response', resolve);
      request.on('error', reject);
      request.end(body);
    }).catch((error) => {
      throw this.#failure(error, signal, limit);
    });
  }

  /** The caller's own abort as it is; everything else as one sentence. */
  #failure(error: unknown, signal: AbortSignal, limit?: AbortSignal): unknown {
    if (signal.aborted || error instanceof HttpError) return signal.aborted ? signal.reason : error;
    const { code, message } = error as NodeJS.ErrnoException;
    let reason = message || code || 'the connection broke';
    if (limit?.aborted) reason = `no answer in ${this.#patience / 1000} s`;
    else if (code === 'ECONNREFUSED') reason = 'nobody listens there (ECONNREFUSED)';
    else if (code === 'ECONNRESET') reason = 'the connection broke (ECONNRESET)';
    return new HttpError(`${this.base.origin}: ${reason}`);
  }
}

function head({ statusCode = 0, headers }: IncomingMessage): Answer {
  return { status: statusCode, retryAfter: parseRetryAfter(headers['retry-after'], Date.now()) };
}

/** The header Retry-After: seconds, or a date; milliseconds from `now` on, which counts from 1970. 0 for what is neither, or past. */
export function parseRetryAfter(text: string | undefined, now: number): number {
  if (text === undefined) return 0;
  const wait = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Math.min(Math.max(wait || 0, 0), LONGEST_RETRY_AFTER);
}

/** Undefined for what is not a URL of http or https. */
export function parseHttpUrl(text: string | undefined): URL | undefined {
  const url = text !== undefined && URL.canParse(text) ? new URL(text) : undefined;
  return url && /^https?:$/.test(url.protocol) ? url : undefined;
}

/** The text of a file that credentials stand in. Throws HttpError. */
export function readCredential(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new HttpError(`cannot read ${file} (${(error as NodeJS.ErrnoException).code})`);
  }
}
