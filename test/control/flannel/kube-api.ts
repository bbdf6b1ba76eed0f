import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Server } from 'node:net';
import type { TestContext } from 'node:test';

/**
 * Stands in for a Kubernetes API server: nodes, and as much of pods as there is to read. Its behaviour is that of
 * https://kubernetes.io/docs/reference/using-api/api-concepts/, and a test has the project's own client of Kubernetes agree with it.
 */
export class KubeApi {
  /** `METHOD path`, without the query, in the order in which they came. */
  readonly requests: string[] = [];
  /** A too old version on a watch is answered by a status, or by an event: servers do both. */
  goneAs: 'status' | 'event' = 'status';
  /** Answers instead of the server's own. */
  intercept: (request: string, response: ServerResponse, query: URLSearchParams) => boolean = () => false;
  readonly pods = new Map<string, object>();
  readonly #nodes = new Map<string, Json>();
  readonly #watchers = new Set<ServerResponse>();
  readonly #token: string | undefined;
  readonly #server;
  #history: { type: string; object: Json; version: number }[] = [];
  /** Versions up to here are forgotten. */
  #compacted = 0;
  #version = 100;
  /** What pages of a list are taken from, by version. */
  readonly #lists = new Map<number, Json[]>();

  private constructor(tls: { cert: string; key: string } | undefined, token: string | undefined) {
    this.#token = token;
    const answer = (request: IncomingMessage, response: ServerResponse) => {
      this.#answer(request, response).catch((error) => {
        if (error instanceof Refusal) send(response, error.code, error.status);
        else response.destroy(error);
      });
    };
    this.#server = tls ? createHttpsServer(tls, answer) : createHttpServer(answer);
  }

  /** `on`: where it listens, if not on a free port of loopback. */
  static async start(
    t: TestContext,
    {
      tls = undefined as { cert: string; key: string } | undefined,
      token = undefined as string | undefined,
      on = undefined as Server | undefined,
    } = {},
  ): Promise<KubeApi> {
    const api = new KubeApi(tls, token);
    await api.up(on);
    t.after(() => api.down());
    return api;
  }

  up(on?: Server): Promise<void> {
    return new Promise((resolve) => {
      if (on) this.#server.listen(on, resolve);
      else this.#server.listen(0, '127.0.0.1', resolve);
    });
  }

  /** Nobody listens any more; the nodes stay. */
  down(): void {
    this.#server.close();
    this.cut();
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  /** A copy of a node as it is. */
  node(name: string): Json {
    return structuredClone(this.#find(name));
  }

  add(name: string, subnets: readonly string[], annotations: Json = {}): void {
    const spec = subnets.length > 0 ? { podCIDR: subnets[0], podCIDRs: [...subnets] } : {};
    this.#create({ metadata: { name, annotations }, spec, status: { conditions: [] } });
  }

  annotate(name: string, annotations: Json): void {
    this.#change(name, mergePatch(this.#find(name), { metadata: { annotations } }) as Json);
  }

  delete(name: string): Json {
    const node = this.#find(name);
    this.#nodes.delete(name);
    return this.#record('DELETED', node);
  }

  /** Ends all watches as a time-out does, in good order. */
  endWatches(): void {
    for (const watcher of this.#watchers) watcher.end();
    this.#watchers.clear();
  }

  /** Breaks all connections. */
  cut(): void {
    this.#watchers.clear();
    this.#server.closeAllConnections();
  }

  /** Forgets all that was, as etcd's compaction does. */
  compact(): void {
    this.#compacted = this.#version;
    this.#lists.clear();
  }

  /** Tells all watchers how far they are, after events that do not concern them. */
  bookmark(): void {
    this.#version += 10;
    const object = { kind: 'Node', apiVersion: 'v1', metadata: { resourceVersion: String(this.#version) } };
    for (const watcher of this.#watchers) writeEvent(watcher, 'BOOKMARK', object);
  }

  /** Sends all watchers a line that stands for itself. */
  say(line: string): void {
    for (const watcher of this.#watchers) watcher.write(`${line}\n`);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams: query } = new URL(request.url!, 'http://server');
    const { method = '' } = request;
    this.requests.push(`${method} ${pathname}`);
    if (this.#token !== undefined && request.headers.authorization !== `Bearer ${this.#token}`) {
      throw new Refusal(401, 'Unauthorized', 'Unauthorized');
    }
    if (this.intercept(`${method} ${pathname}`, response, query)) return;
    const [, name, subresource] = /^\/api\/v1\/nodes(?:\/([^/]+))?(?:\/(status))?$/.exec(pathname) ?? [];
    if (this.pods.has(pathname)) send(response, 200, this.pods.get(pathname)!);
    else if (name !== undefined) await this.#answerNode(request, response, decodeURIComponent(name), subresource);
    else if (pathname !== '/api/v1/nodes')
      throw new Refusal(404, 'NotFound', 'the server could not find the requested resource');
    else if (method === 'POST') send(response, 201, this.#create(JSON.parse(await readBody(request))));
    else if (query.get('watch') === 'true' || query.get('watch') === '1') this.#watch(query, response);
    else send(response, 200, this.#list(query));
  }

  async #answerNode(
    request: IncomingMessage,
    response: ServerResponse,
    name: string,
    subresource?: string,
  ): Promise<void> {
    const node = this.#find(name);
    const body = request.method === 'GET' ? '' : await readBody(request);
    switch (request.method) {
      case 'GET':
        return send(response, 200, node);
      case 'DELETE':
        return send(response, 200, this.delete(name));
      case 'PUT':
        return send(response, 200, this.#replace(name, JSON.parse(body), subresource));
      case 'PATCH': {
        const type = request.headers['content-type'] ?? '';
        const merge = {
          'application/merge-patch+json': mergePatch,
          'application/strategic-merge-patch+json': strategicPatch,
        }[type];
        if (!merge)
          throw new Refusal(415, 'UnsupportedMediaType', `the body of the request was in an unknown format: ${type}`);
        return send(response, 200, this.#replace(name, merge(node, JSON.parse(body)) as Json, subresource));
      }
      default:
        throw new Refusal(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource');
    }
  }

  #list(query: URLSearchParams): Json {
    const limit = Number(query.get('limit') ?? 0) || Number.POSITIVE_INFINITY;
    const token = query.get('continue');
    const [version, from] = token ? JSON.parse(Buffer.from(token, 'base64url').toString()) : [this.#version, 0];
    if (!token) this.#lists.set(version, [...this.#nodes.values()]);
    const items = this.#lists.get(version);
    if (!items) throw new Refusal(410, 'Expired', 'The provided continue parameter is too old');
    const end = from + limit;
    const next = Buffer.from(JSON.stringify([version, end])).toString('base64url');
    const more = end < items.length ? { continue: next, remainingItemCount: items.length - end } : {};
    const metadata = { resourceVersion: String(version), ...more };
    return { kind: 'NodeList', apiVersion: 'v1', metadata, items: items.slice(from, end) };
  }

  #watch(query: URLSearchParams, response: ServerResponse): void {
    const from = Number(query.get('resourceVersion') ?? 0);
    const isGone = from !== 0 && from < this.#compacted;
    const gone = new Refusal(410, 'Expired', `too old resource version: ${from} (${this.#version})`);
    if (isGone && this.goneAs === 'status') throw gone;
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    if (isGone) {
      writeEvent(response, 'ERROR', gone.status);
      response.end();
      return;
    }
    if (from === 0) for (const node of this.#nodes.values()) writeEvent(response, 'ADDED', node);
    else for (const { type, object, version } of this.#history) if (version > from) writeEvent(response, type, object);
    this.#watchers.add(response);
    const seconds = Number(query.get('timeoutSeconds') ?? 0);
    const timer = setTimeout(() => response.end(), (seconds || 1800) * 1000);
    response.on('close', () => {
      clearTimeout(timer);
      this.#watchers.delete(response);
    });
  }

  #create(node: Json): Json {
    const { name } = node.metadata as { name: string };
    if (this.#nodes.has(name)) throw new Refusal(409, 'AlreadyExists', `nodes "${name}" already exists`);
    const uid = `00000000-0000-0000-0000-${String(this.#version).padStart(12, '0')}`;
    const metadata = { uid, creationTimestamp: '2024-01-01T00:00:00Z', ...(node.metadata as Json) };
    return this.#record('ADDED', { kind: 'Node', apiVersion: 'v1', ...node, metadata });
  }

  /** The status and the annotations through the subresource, everything else not through it. */
  #replace(name: string, given: Json, subresource?: string): Json {
    const node = this.#find(name);
    const { resourceVersion } = given.metadata as { resourceVersion?: string };
    if (resourceVersion && resourceVersion !== (node.metadata as Json).resourceVersion) {
      const words = 'the object has been modified; please apply your changes to the latest version and try again';
      throw new Refusal(409, 'Conflict', `Operation cannot be fulfilled on nodes "${name}": ${words}`);
    }
    const kept = subresource === 'status' ? { spec: node.spec } : { status: node.status };
    return this.#change(name, { ...given, ...kept });
  }

  #change(name: string, node: Json): Json {
    const before = this.#find(name);
    // What changes nothing has no version of its own.
    return JSON.stringify(node) === JSON.stringify(before) ? before : this.#record('MODIFIED', node);
  }

  #record(type: string, node: Json): Json {
    const version = ++this.#version;
    const object = { ...node, metadata: { ...(node.metadata as Json), resourceVersion: String(version) } };
    if (type !== 'DELETED') this.#nodes.set((object.metadata as unknown as { name: string }).name, object);
    this.#history.push({ type, object, version });
    for (const watcher of this.#watchers) writeEvent(watcher, type, object);
    return object;
  }

  #find(name: string): Json {
    const node = this.#nodes.get(name);
    if (!node) throw new Refusal(404, 'NotFound', `nodes "${name}" not found`);
    return node;
  }
}

type Json = Record<string, unknown>;

class Refusal extends Error {
  readonly code: number;
  readonly status: Json;

  constructor(code: number, reason: string, message: string) {
    super(message);
    this.code = code;
    this.status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code };
  }
}

function send(response: ServerResponse, code: number, body: object): void {
  response.writeHead(code, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function writeEvent(response: ServerResponse, type: string, object: object): void {
  response.write(`${JSON.stringify({ type, object })}\n`);
}

async function readBody(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request) body += chunk;
  return body;
}

/** RFC 7386. */
function mergePatch(target: unknown, patch: unknown): unknown {
  return merge(target, patch, (_key, _old, given) => given);
}

/** Lists with a merge key are merged by it (https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/). */
function strategicPatch(target: unknown, patch: unknown): unknown {
  return merge(target, patch, (key, old, given) => {
    const mergeKey = { conditions: 'type', addresses: 'type', taints: 'key' }[key];
    if (!mergeKey) return given;
    const merged = [...(old as Json[])];
    for (const item of given as Json[]) {
      const at = merged.findIndex((each) => each[mergeKey] === item[mergeKey]);
      if (item.$patch === 'delete') merged.splice(at, at < 0 ? 0 : 1);
      else if (at < 0) merged.push(item);
      else merged[at] = strategicPatch(merged[at], item) as Json;
    }
    return merged;
  });
}

type MergeLists = (key: string, old: readonly unknown[], given: readonly unknown[]) => unknown;

function merge(target: unknown, patch: unknown, lists: MergeLists): unknown {
  if (!isObject(patch)) return patch;
  const merged: Json = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    const old = merged[key];
    if (value === null) delete merged[key];
    else if (Array.isArray(value)) merged[key] = lists(key, Array.isArray(old) ? old : [], value);
    else merged[key] = merge(old, value, lists);
  }
  return merged;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
