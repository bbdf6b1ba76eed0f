import { type Credentials, HttpClient, HttpError, type HttpRequest, RefusedError } from './http.ts';
import { isMap } from './keys.ts';

/**
 * etcd v3 through its JSON gateway (https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/): a request is a POST of JSON, keys and values are
 * base64, 64-bit numbers are text.
 */
export interface EtcdOptions {
  /** Base URLs of the members. */
  readonly endpoints: readonly string[];
  readonly credentials: () => Credentials;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Milliseconds: SILENCE, and HttpClient's patience. */
  readonly silence?: number | undefined;
  readonly patience?: number | undefined;
}

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** The key's lease; "0" when it has none. */
  readonly lease: string;
  readonly modRevision: string;
}

export interface KeyEvent {
  readonly type: 'put' | 'delete';
  readonly kv: KeyValue;
}

/** A point in the history of a cluster: its id, and the revision of all of its keys. */
export interface Position {
  readonly cluster: string;
  readonly revision: bigint;
}

/** The server answered, and refused. `code` is gRPC's. */
export class EtcdError extends RefusedError {
  readonly code: number;

  constructor(message: string, code: number) {
    super(message);
    this.code = code;
  }
}

/** The history that was to be followed is not there: compacted away, or another one (a backup was restored). List again. */
export class LostHistoryError extends Error {}

const UNKNOWN = 2;
const FAILED_PRECONDITION = 9;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;
/**
 * Milliseconds without an event after which a watch is opened anew, from where it was; by chance up to twice as many. Its member may have
 * stopped without our knowing, which a new request finds out.
 */
const SILENCE = 15_000;

export class EtcdClient {
  readonly #members: readonly HttpClient[];
  readonly #options: EtcdOptions;
  /** The member that answered last. */
  #current = 0;
  #token: string | undefined;

  constructor(options: EtcdOptions) {
    this.#options = options;
    const credentials = () => {
      // A stream of a member without a leader is to fail: other members may have one.
      const headers = { 'content-type': 'application/json', 'grpc-metadata-hasleader': 'true' };
      const { headers: more, ...rest } = options.credentials();
      const token: Record<string, string> = this.#token === undefined ? {} : { authorization: this.#token };
      return { ...rest, headers: { ...headers, ...more, ...token } };
    };
    this.#members = options.endpoints.map(
      (endpoint) => new HttpClient(new URL(endpoint), credentials, options.patience),
    );
  }

  close(): void {
    for (const member of this.#members) member.close();
  }

  /** All keys that begin with this, or the one. */
  async range(key: string, isPrefix: boolean, signal: AbortSignal): Promise<{ kvs: KeyValue[]; at: Position }> {
    const { kvs, header } = await this.#call('/v3/kv/range', rangeOf(key, isPrefix), signal);
    return { kvs: list(kvs).map(toKeyValue), at: positionOf(header) };
  }

  /** Puts a key if it is as it was, that is, at this revision; "0": not there. Whether it did. `lease` "0" is none. */
  async put(kv: Omit<KeyValue, 'modRevision'>, was: string, signal: AbortSignal): Promise<boolean> {
    const key = encode(kv.key);
    const isNew = was === '0';
    const compare = isNew ? { key, target: 'VERSION', version: '0' } : { key, target: 'MOD', mod_revision: was };
    const put = { request_put: { key, value: encode(kv.value), lease: kv.lease } };
    const { succeeded } = await this.#call('/v3/kv/txn', { compare: [compare], success: [put] }, signal);
    return succeeded === true;
  }

  /** Deletes a key if it is still at this revision. */
  async delete(key: string, was: string, signal: AbortSignal): Promise<boolean> {
    const compare = { key: encode(key), target: 'MOD', mod_revision: was };
    const success = [{ request_delete_range: { key: encode(key) } }];
    return (await this.#call('/v3/kv/txn', { compare: [compare], success }, signal)).succeeded === true;
  }

  /** A lease of so many seconds, and what the server made of that. */
  async grant(seconds: number, signal: AbortSignal): Promise<{ id: string; ttl: number }> {
    const { ID, TTL } = await this.#call('/v3/lease/grant', { TTL: String(seconds) }, signal);
    return { id: textOf(ID), ttl: Number(textOf(TTL)) };
  }

  async revoke(id: string, signal: AbortSignal): Promise<void> {
    await this.#call('/v3/lease/revoke', { ID: id }, signal);
  }

  /** Renews a lease: its seconds from now on; 0 when there is none any more. */
  async keepAlive(id: string, signal: AbortSignal): Promise<number> {
    const { result } = await this.#call('/v3/lease/keepalive', { ID: id }, signal);
    return isMap(result) && result.TTL !== undefined ? Number(textOf(result.TTL)) : 0;
  }

  /**
   * Changes of keys with this prefix after a position, batch by batch as they come, each with the position that it leads to; the first, empty,
   * when the watch stands. Ends when the server ends it. Throws LostHistoryError.
   */
  async *watch(
    prefix: string,
    after: Position,
    signal: AbortSignal,
  ): AsyncGenerator<{ events: KeyEvent[]; at: Position }> {
    const create = { ...rangeOf(prefix, true), start_revision: String(after.revision + 1n) };
    const request = { method: 'POST', path: '/v3/watch', body: JSON.stringify({ create_request: create }), signal };
    const silence = (this.#options.silence ?? SILENCE) * (1 + Math.random());
    const lines = await this.#authenticated(signal, async () => {
      const { status, lines } = await this.#anywhere(signal, (member) => member.stream(request, silence));
      if (status !== 200) throw refusal(status, (await lines.next()).value ?? '');
      return lines;
    });
    let at = after;
    for await (const line of lines) {
      const answer = parse(line);
      if (answer.error !== undefined) throw refusal(500, line);
      const result = isMap(answer.result) ? answer.result : {};
      if (textOf(result.compact_revision ?? '0') !== '0') {
        throw new LostHistoryError(`revision ${after.revision} has been compacted away`);
      }
      if (result.canceled === true) throw this.#cancelled(textOf(result.cancel_reason ?? ''));
      const { cluster, revision } = positionOf(result.header);
      if (cluster !== at.cluster || revision < at.revision) {
        throw new LostHistoryError(`it is another cluster, or an older state of it, than before`);
      }
      const events = list(result.events).map(toEvent);
      // Not the header's revision: events before it may still be on their way.
      const last = events.at(-1);
      if (last) at = { cluster, revision: BigInt(last.kv.modRevision) };
      yield { events, at };
    }
  }

  #cancelled(reason: string): EtcdError {
    // A token that has run out shows itself so, and only so, on a watch.
    if (/auth token|permission denied/.test(reason)) this.#token = undefined;
    return new EtcdError(`the watch was cancelled: ${reason || 'no reason given'}`, UNAVAILABLE);
  }

  async #call(path: string, message: object, signal: AbortSignal): Promise<Record<string, unknown>> {
    return this.#authenticated(signal, () => this.#post(path, message, signal));
  }

  async #post(path: string, message: object, signal: AbortSignal): Promise<Record<string, unknown>> {
    const request: HttpRequest = { method: 'POST', path, body: JSON.stringify(message), signal };
    return this.#anywhere(signal, async (member) => {
      const { status, body } = await member.fetch(request);
      if (status !== 200) throw refusal(status, body);
      return parse(body);
    });
  }

  /** With a token, got anew when the server does not take the one that we have: it has been restarted, or the token has run out. */
  async #authenticated<T>(signal: AbortSignal, call: () => Promise<T>): Promise<T> {
    const { username, password } = this.#options;
    if (username === undefined) return call();
    if (this.#token !== undefined) {
      try {
        return await call();
      } catch (error) {
        if (!(error instanceof EtcdError) || error.code !== UNAUTHENTICATED) throw error;
      }
    }
    this.#token = undefined;
    try {
      const login = { name: username, password: password ?? '' };
      this.#token = textOf((await this.#post('/v3/auth/authenticate', login, signal)).token);
    } catch (error) {
      // Authentication is not enabled: nobody needs a token.
      if (!(error instanceof EtcdError) || error.code !== FAILED_PRECONDITION) throw error;
    }
    return call();
  }

  /** Asks the member that answered last and, as long as there is none that answers, the others. */
  async #anywhere<T>(signal: AbortSignal, ask: (member: HttpClient) => Promise<T>): Promise<T> {
    let failure: unknown;
    for (let tries = 0; tries < this.#members.length; tries++) {
      try {
        return await ask(this.#members[this.#current]);
      } catch (error) {
        const isElsewhere = error instanceof HttpError || (error instanceof EtcdError && error.code === UNAVAILABLE);
        if (signal.aborted || !isElsewhere) throw error;
        failure ??= error;
        this.#current = (this.#current + 1) % this.#members.length;
      }
    }
    throw failure;
  }
}

/** A range from a key to the first one that does not begin with it. */
function rangeOf(key: string, isPrefix: boolean): { key: string; range_end?: string } {
  if (!isPrefix) return { key: encode(key) };
  const end = Buffer.from(key);
  // Keys are paths in ASCII, whose last byte is a slash.
  end[end.length - 1]++;
  return { key: encode(key), range_end: end.toString('base64') };
}

function refusal(status: number, body: string): EtcdError {
  let message = body.slice(0, 200);
  let code = status === 401 ? UNAUTHENTICATED : UNKNOWN;
  try {
    const { error, message: text, code: given } = JSON.parse(body);
    const inner = isMap(error) ? error.message : error;
    message = String(text ?? inner ?? message);
    code = Number(given ?? (isMap(error) ? error.grpc_code : undefined) ?? code);
  } catch {
    // Not etcd's own words: a proxy's, say.
  }
  return new EtcdError(`etcd answered ${status}: ${message.replaceAll('\n', ' ')}`, code);
}

function parse(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Said below.
  }
  if (!isMap(value)) throw new Error('etcd answered what is no JSON object');
  return value;
}

function positionOf(header: unknown): Position {
  const { cluster_id, revision } = isMap(header) ? header : {};
  return { cluster: textOf(cluster_id), revision: BigInt(textOf(revision)) };
}

function list(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isMap) : [];
}

/** A 64-bit number, which stands in JSON as text. */
function textOf(value: unknown): string {
  if (typeof value !== 'string' && typeof value !== 'number') throw new Error('etcd left a field out');
  return String(value);
}

/** Fields that are zero or empty are left out by the gateway. */
function toKeyValue({ key, value, lease, mod_revision }: Record<string, unknown>): KeyValue {
  return {
    key: decode(textOf(key)),
    value: decode(textOf(value ?? '')),
    lease: textOf(lease ?? '0'),
    modRevision: textOf(mod_revision ?? '0'),
  };
}

function toEvent({ type, kv }: Record<string, unknown>): KeyEvent {
  if (!isMap(kv)) throw new Error('etcd left a field out');
  return { type: type === 'DELETE' ? 'delete' : 'put', kv: toKeyValue(kv) };
}

function encode(text: string): string {
  return Buffer.from(text).toString('base64');
}

function decode(text: string): string {
  return Buffer.from(text, 'base64').toString('utf8');
}
