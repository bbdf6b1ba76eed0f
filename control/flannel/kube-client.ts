import { type Answer, HttpClient, RefusedError } from './http.ts';
import { isMap } from './keys.ts';
import type { KubeAccess } from './kube-access.ts';

/** An object of the API as it came, with the two fields that all of them have. */
export interface KubeObject extends Record<string, unknown> {
  readonly metadata: { readonly name: string; readonly resourceVersion?: string } & Record<string, unknown>;
}

export interface KubeEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: KubeObject;
  /** Where to go on after this event. */
  readonly version: string;
}

/** The server answered, and refused. */
export class KubeError extends RefusedError {
  /** HTTP status. */
  readonly status: number;

  constructor(message: string, status: number, retryAfter = 0) {
    super(message, retryAfter);
    this.status = status;
  }
}

/** The resourceVersion or the continue token is too old (410): list again. */
export class GoneError extends KubeError {}

const GONE = 410;
/** Nodes in a page, as client-go's pager has it. */
const PAGE = 500;
/**
 * Milliseconds without an event after which a watch is opened anew, from where it was; by chance up to twice as many. Its server may have
 * stopped without our knowing, which a new request finds out.
 */
const SILENCE = 15_000;
/** Seconds after which the server ends a watch: at least, and by chance up to twice as many, so that not all nodes come at once. */
const WATCH_SECONDS = 240;

export interface KubeClientOptions {
  readonly random?: (() => number) | undefined;
  /** Milliseconds: SILENCE, and HttpClient's patience. */
  readonly silence?: number | undefined;
  readonly patience?: number | undefined;
}

/** The Kubernetes API (https://kubernetes.io/docs/reference/using-api/api-concepts/), as far as a node's agent needs it. */
export class KubeClient {
  readonly #http: HttpClient;
  readonly #random: () => number;
  readonly #silence: number;

  constructor(
    { server, credentials }: KubeAccess,
    { random = Math.random, silence = SILENCE, patience }: KubeClientOptions = {},
  ) {
    this.#http = new HttpClient(server, credentials, patience);
    this.#random = random;
    this.#silence = silence;
  }

  get origin(): string {
    return this.#http.base.origin;
  }

  close(): void {
    this.#http.close();
  }

  async get(path: string, signal: AbortSignal): Promise<KubeObject> {
    return toObject(await this.#ask('GET', path, signal));
  }

  /** Changes some fields of an object: the rules of a strategic merge, by which lists such as conditions are merged by their keys. */
  async patch(path: string, patch: object, signal: AbortSignal): Promise<KubeObject> {
    return toObject(await this.#ask('PATCH', path, signal, JSON.stringify(patch)));
  }

  /**
   * All objects of a collection, page by page to `take`, so that only one page of their JSON is in memory at a time. The version is where a
   * watch goes on. Throws GoneError when the list has become too old between two pages: what was taken counts for nothing then.
   */
  async list(path: string, take: (object: KubeObject) => void, signal: AbortSignal): Promise<string> {
    for (let next = ''; ; ) {
      const query = new URLSearchParams({ limit: String(PAGE), ...(next && { continue: next }) });
      const page = await this.#ask('GET', `${path}?${query}`, signal);
      const { items, metadata } = page;
      const { resourceVersion, continue: more } = isMap(metadata) ? metadata : {};
      if (!Array.isArray(items) || typeof resourceVersion !== 'string') throw this.#nonsense('a list');
      for (const item of items) take(toObject(item));
      if (typeof more !== 'string' || more === '') return resourceVersion;
      next = more;
    }
  }

  /**
   * What happens to a collection after a version; there is an answer when the watch stands. It ends when the server ends it, which it does
   * every few minutes. Both throw GoneError.
   */
  async watch(path: string, version: string, signal: AbortSignal): Promise<AsyncGenerator<KubeEvent>> {
    const seconds = Math.round(WATCH_SECONDS * (1 + this.#random()));
    const query = new URLSearchParams({
      watch: 'true',
      allowWatchBookmarks: 'true',
      resourceVersion: version,
      timeoutSeconds: String(seconds),
    });
    const request = { method: 'GET', path: `${path}?${query}`, signal };
    const answer = await this.#http.stream(request, this.#silence * (1 + this.#random()));
    const { lines } = answer;
    if (answer.status !== 200) throw this.#refusal(answer, (await lines.next()).value ?? '');
    return this.#events(lines);
  }

  async *#events(lines: AsyncGenerator<string>): AsyncGenerator<KubeEvent> {
    for await (const line of lines) {
      const event = this.#parse(line);
      if (event.type === 'ERROR') throw this.#refusal({ status: 200, retryAfter: 0 }, JSON.stringify(event.object));
      if (!/^(ADDED|MODIFIED|DELETED|BOOKMARK)$/.test(String(event.type))) throw this.#nonsense('a watch event');
      const { metadata } = isMap(event.object) ? event.object : {};
      const reached = isMap(metadata) ? metadata.resourceVersion : undefined;
      if (typeof reached !== 'string') throw this.#nonsense('a watch event');
      // A bookmark's object has nothing but its version.
      const object = event.type === 'BOOKMARK' ? { metadata: { name: '' } } : toObject(event.object);
      yield { type: event.type as KubeEvent['type'], object, version: reached };
    }
  }

  async #ask(method: string, path: string, signal: AbortSignal, body?: string): Promise<Record<string, unknown>> {
    const headers = { 'content-type': 'application/strategic-merge-patch+json' };
    const answer = await this.#http.fetch({ method, path, signal, ...(body !== undefined && { body, headers }) });
    if (answer.status !== 200) throw this.#refusal(answer, answer.body);
    return this.#parse(answer.body);
  }

  #parse(text: string): Record<string, unknown> {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      // Said below.
    }
    if (!isMap(value)) throw this.#nonsense('JSON');
    return value;
  }

  /** In the server's own words, which stand in an object of the kind Status. */
  #refusal({ status, retryAfter }: Answer, body: string): KubeError {
    let [code, words] = [status, body.slice(0, 200)];
    try {
      const { kind, message, code: given } = JSON.parse(body);
      if (kind === 'Status') [code, words] = [Number(given ?? status), String(message).slice(0, 500)];
    } catch {
      // A proxy's words, say.
    }
    const message = `${this.origin} answered ${code}: ${words.replaceAll(/\s+/g, ' ')}`;
    return new (code === GONE ? GoneError : KubeError)(message, code, retryAfter);
  }

  #nonsense(expected: string): Error {
    return new Error(`${this.origin} answered what is not ${expected}`);
  }
}

function toObject(value: unknown): KubeObject {
  const metadata = isMap(value) ? value.metadata : undefined;
  if (!isMap(metadata) || typeof metadata.name !== 'string') {
    throw new Error('the Kubernetes API answered an object without a name');
  }
  return value as KubeObject;
}
