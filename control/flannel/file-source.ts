import { readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Log } from '../log.ts';
import { Feed } from './feed.ts';
import { DocumentError } from './keys.ts';
import { type Endpoint, FAMILIES, type Lease, type PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';
import { type NodeList, parseNodeList } from './node-list.ts';
import { ownLease } from './reading.ts';
import type { Source, SourceListener, SourceStatus } from './source.ts';

export interface FileSourceOptions {
  readonly file: string;
  /** This node's name in the file; without an entry of that name it is the node with our public IP. */
  readonly node: string;
  readonly log: Log;
}

/** Milliseconds between looks at the file. It is read once it has stayed the same for one of them: not while it is being written. */
const LOOK = 250;

/**
 * A cluster that is written down in a file, for where there is neither Kubernetes nor etcd. The file is followed: nodes come and go as it
 * changes. What is wrong in it at the start rejects netConf() with a DocumentError; later it leaves the last good state as it is.
 */
export class FileSource implements Source {
  readonly name: string;
  readonly #file: string;
  readonly #node: string;
  readonly #feed: Feed;
  #list: NodeList | undefined;
  #own: PerFamily<Endpoint> | undefined;
  #problem: string | null = null;
  #timer: NodeJS.Timeout | undefined;
  /** What tells one state of the file from another: as it was last seen, and as it was read. */
  #seen = '';
  #stamp = '';

  constructor({ file, node, log }: FileSourceOptions) {
    this.name = `the file ${file}`;
    this.#file = resolve(file);
    this.#node = node;
    this.#feed = new Feed(log);
  }

  get faults() {
    return this.#feed.faults.counts;
  }

  get status(): SourceStatus {
    return { connected: this.#problem === null, problem: this.#problem, leaseEnds: null };
  }

  async netConf(): Promise<NetConf> {
    this.#list = this.#read();
    return this.#list.conf;
  }

  async publicIps(): Promise<PerFamily<string>> {
    const lease = this.#list?.leases.find(({ node }) => node === this.#node);
    return { ipv4: lease?.ipv4?.publicIp ?? null, ipv6: lease?.ipv6?.publicIp ?? null };
  }

  async vtepMacs(publicIps: PerFamily<string>): Promise<PerFamily<string>> {
    const lease = this.#find(publicIps);
    return { ipv4: lease?.ipv4?.vtepMac ?? null, ipv6: lease?.ipv6?.vtepMac ?? null };
  }

  start(own: PerFamily<Endpoint>, listener: SourceListener): void {
    this.#feed.open(listener);
    this.register(own);
    this.#update();
    this.#feed.list();
    this.#timer = setInterval(() => this.#look(), LOOK);
  }

  register(own: PerFamily<Endpoint>): void {
    this.#own = own;
    this.#identify();
  }

  /** Nobody else reads a file to know whether this node forwards. */
  ready(): void {}

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#feed.close();
  }

  #look(): void {
    const before = this.#seen;
    this.#seen = stampOf(this.#file);
    if (this.#seen === before && this.#seen !== this.#stamp) this.#reload();
  }

  #read(): NodeList {
    let text: string;
    this.#stamp = stampOf(this.#file);
    try {
      text = readFileSync(this.#file, 'utf8');
    } catch (error) {
      throw new DocumentError([`cannot read ${this.#file} (${(error as NodeJS.ErrnoException).code})`]);
    }
    return parseNodeList(text, this.#file);
  }

  #reload(): void {
    try {
      const list = this.#read();
      const before = JSON.stringify(this.#list!.conf);
      if (JSON.stringify(list.conf) !== before) {
        throw new DocumentError([`${this.#file}: the network or backend has changed, which takes a restart`]);
      }
      this.#list = list;
      this.#problem = null;
      this.#feed.faults.clear('file', `${this.#file} is right again`);
      this.#identify();
      this.#update();
      this.#feed.change();
    } catch (error) {
      if (!(error instanceof DocumentError)) throw error;
      const [first, ...more] = error.message.split('\n');
      this.#problem = first;
      const others = more.length > 0 ? ` (and ${more.length} more mistakes)` : '';
      this.#feed.faults.note('net_conf', 'file', `${first}${others}: the last good state stays`);
    }
  }

  /** By name or, where no node has it, by public IP. */
  #find(publicIps: PerFamily<string>): Lease | undefined {
    const leases = this.#list?.leases ?? [];
    const isOurs = (lease: Lease) =>
      FAMILIES.some((family) => publicIps[family] !== null && publicIps[family] === lease[family]?.publicIp);
    return leases.find(({ node }) => node === this.#node) ?? leases.find(isOurs);
  }

  #identify(): void {
    const own = this.#own!;
    const lease = this.#find({ ipv4: own.ipv4?.publicIp ?? null, ipv6: own.ipv6?.publicIp ?? null });
    if (lease === undefined) {
      const addresses = FAMILIES.flatMap((family) => own[family]?.publicIp ?? []).join(' or ');
      const message = `${this.#file} has no node named ${this.#node}, and none with the public IP ${addresses}`;
      this.#feed.faults.note('no_lease', 'own', `${message}: this node is not in the cluster`);
      return;
    }
    this.#feed.faults.clear('own', `this node is ${lease.node} in ${this.#file}`);
    this.#feed.setOwn(
      ownLease(lease.node, own, { ipv4: lease.ipv4?.subnet ?? null, ipv6: lease.ipv6?.subnet ?? null }),
    );
  }

  #update(): void {
    const leases = this.#list?.leases ?? [];
    this.#feed.peers.replace(new Map(leases.map((lease) => [lease.node, { lease }])));
  }
}

function stampOf(file: string): string {
  try {
    const { ino, mtimeMs, size } = statSync(file);
    return `${ino} ${mtimeMs} ${size}`;
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code);
  }
}
