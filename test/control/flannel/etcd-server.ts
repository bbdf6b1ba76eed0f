import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { EtcdClient, EtcdError } from '../../../control/flannel/etcd-client.ts';
import { until } from './listener.ts';

/** A real etcd on loopback, with its data in a directory of its own, for the length of a test. */
export class EtcdServer {
  readonly endpoint: string;
  readonly client: EtcdClient;
  readonly #directory: string;
  readonly #flags: readonly string[];
  readonly #never = new AbortController();
  #process: ChildProcess | undefined;

  private constructor(
    endpoint: string,
    peer: string,
    name: string,
    cluster: string,
    flags: readonly string[],
    client: EtcdClient,
  ) {
    this.endpoint = endpoint;
    this.client = client;
    this.#directory = mkdtempSync(join(tmpdir(), 'uvxlan-etcd-'));
    this.#flags = [
      ...['--data-dir', join(this.#directory, 'data'), '--logger', 'zap', '--log-level', 'error'],
      ...['--listen-client-urls', endpoint, '--advertise-client-urls', endpoint],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer, '--initial-cluster', cluster],
      ...['--name', name],
      // Not --unsafe-no-fsync: it also leaves what was written in etcd's own buffers, which kill -9 loses.
      ...flags,
    ];
  }

  static async start(
    t: TestContext,
    {
      scheme = 'http',
      flags = [] as string[],
      client = undefined as ((endpoint: string) => EtcdClient) | undefined,
    } = {},
  ): Promise<EtcdServer> {
    const endpoint = `${scheme}://127.0.0.1:${await freePort()}`;
    const peer = `http://127.0.0.1:${await freePort()}`;
    const asked = client?.(endpoint) ?? new EtcdClient({ endpoints: [endpoint], credentials: () => ({}) });
    const server = new EtcdServer(endpoint, peer, 'default', `default=${peer}`, flags, asked);
    t.after(() => server.#end());
    await server.start();
    return server;
  }

  /** Three members, with elections quick enough for a test. */
  static async cluster(t: TestContext): Promise<EtcdServer[]> {
    const ports = await Promise.all(Array.from({ length: 6 }, freePort));
    const urls = ports.map((port) => `http://127.0.0.1:${port}`);
    const cluster = [0, 1, 2].map((i) => `m${i}=${urls[i]}`).join(',');
    const flags = ['--heartbeat-interval', '50', '--election-timeout', '500'];
    const members = [0, 1, 2].map((i) => {
      const client = new EtcdClient({ endpoints: [urls[3 + i]], credentials: () => ({}) });
      return new EtcdServer(urls[3 + i], urls[i], `m${i}`, cluster, flags, client);
    });
    t.after(() => Promise.all(members.map((member) => member.#end())));
    await Promise.all(members.map((member) => member.start()));
    return members;
  }

  get signal(): AbortSignal {
    return this.#never.signal;
  }

  async start(): Promise<void> {
    this.#process = spawn('etcd', this.#flags, {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { PATH: process.env.PATH },
    });
    // A refusal is an answer.
    const answers = () => this.client.range('/', false, this.signal).catch((error) => error instanceof EtcdError);
    await until('etcd answers', answers);
  }

  /** As kill -9. */
  async kill(): Promise<void> {
    const { exitCode, signalCode } = this.#process!;
    if (exitCode !== null || signalCode !== null) return;
    await new Promise((resolve) => {
      this.#process!.once('exit', resolve).kill('SIGKILL');
    });
  }

  /** Loses all data; only when it is not running. */
  forget(): void {
    rmSync(join(this.#directory, 'data'), { recursive: true });
  }

  /** Writes a key whatever is there, as `etcdctl put` would. */
  async put(key: string, value: string, lease = '0'): Promise<void> {
    for (;;) {
      const { kvs } = await this.client.range(key, false, this.signal);
      if (await this.client.put({ key, value, lease }, kvs[0]?.modRevision ?? '0', this.signal)) return;
    }
  }

  async delete(key: string): Promise<void> {
    const { kvs } = await this.client.range(key, false, this.signal);
    await this.client.delete(key, kvs[0].modRevision, this.signal);
  }

  /** Forgets all older revisions. */
  async compact(): Promise<void> {
    const { at } = await this.client.range('/', false, this.signal);
    await this.post('/v3/kv/compaction', { revision: String(at.revision), physical: true });
  }

  /** Asks what the product never does. */
  async post(path: string, body: object): Promise<unknown> {
    const answer = await fetch(`${this.endpoint}${path}`, { method: 'POST', body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${path}: ${await answer.text()}`);
    return answer.json();
  }

  async #end(): Promise<void> {
    this.client.close();
    await this.kill();
    rmSync(this.#directory, { recursive: true });
  }
}

/** A port of loopback that nobody listens on. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

/** Certificates that expire in a day: an authority, a server on loopback, and a client; paths of the PEM files. */
export function certificates(t: TestContext): Record<'ca' | 'server' | 'serverKey' | 'client' | 'clientKey', string> {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-certificates-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  const make = (name: string, ...args: string[]) => {
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${name}.key`];
    openssl('req', '-x509', ...key, '-out', `${name}.pem`, '-days', '1', '-subj', `/CN=${name}`, ...args);
  };
  make('ca');
  const signed = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-addext', 'basicConstraints=critical,CA:FALSE'];
  make('server', ...signed, '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost');
  make('client', ...signed, '-addext', 'extendedKeyUsage=clientAuth');
  const path = (file: string) => join(directory, file);
  return {
    ca: path('ca.pem'),
    server: path('server.pem'),
    serverKey: path('server.key'),
    client: path('client.pem'),
    clientKey: path('client.key'),
  };
}
