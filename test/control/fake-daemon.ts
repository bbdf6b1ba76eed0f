import type { CaptureRequest } from '../../control/capture/capture.ts';
import { type EventGroup, type EventListener, Events } from '../../control/events.ts';
import type { FdbHistory } from '../../control/fdb-history.ts';
import type { DeviceConfig } from '../../control/fields.ts';
import type { MdbArguments } from '../../control/mdb-words.ts';
import type { NeighArguments, NeighCommand, NeighFilter, NeighRecord } from '../../control/neigh-words.ts';
import type {
  ExplainRequest,
  Explanation,
  LinkRecord,
  PeerRecord,
  RunningCapture,
  SampleRecord,
  StatsRecord,
  ThreadRecord,
} from '../../control/protocol.ts';
import {
  CommandError,
  type DaemonHandlers,
  type FdbArguments,
  type FdbRecord,
  noSuchDevice,
} from '../../control/protocol.ts';
import type { TrafficRequest, TrafficSample } from '../../control/traffic/sample.ts';
import type { Nexthop, NexthopRecord } from '../../fdb/groups.ts';
import { Mdb, type MdbRecord, type MdbSelection, type MdbUser } from '../../fdb/mdb.ts';
import { FdbWriter } from '../../fdb/writer.ts';

/** What the daemon does, without a dataplane: one device with a list for its FDB. */
export class FakeDaemon implements DaemonHandlers {
  entries: FdbRecord[] = [];
  links: LinkRecord[];
  counters: StatsRecord[] = [];
  readonly events = new Events();
  readonly #fdb = new FdbWriter({ onNextHop() {}, onRelease() {} }, { limit: 10 });
  readonly groups = this.#fdb.groups;
  readonly mdb = new Mdb(this.#fdb.nextHops, this.#fdb.lists);
  neighbours: NeighRecord[] = [];
  /** What was asked for, as it arrived. */
  captures: CaptureRequest[] = [];
  /** What a capture writes. */
  captureBlocks: Uint8Array[] = [];
  neighbourChanges: [string, NeighArguments | undefined][] = [];

  constructor(links: LinkRecord[] = [fakeLink('v4')]) {
    this.links = links;
  }

  status() {
    return { version: '0.1.0', pid: process.pid, devices: this.links.map((link) => link.ifname) };
  }

  linkShow(name: string | null): LinkRecord[] {
    return name === null ? this.links : [this.link(name)];
  }

  linkAdd({ name }: DeviceConfig): void {
    this.links.push(fakeLink(name));
  }

  linkSet(name: string): void {
    this.link(name);
  }

  linkDel(name: string): void {
    this.links.splice(this.links.indexOf(this.link(name)), 1);
  }

  async fdbAdd(entry: FdbArguments): Promise<void> {
    this.link(entry.dev);
    if (this.entries.some((one) => one.mac === entry.mac)) throw new CommandError('File exists', 'EEXIST');
    this.fdbAppend(entry);
  }

  /** Newest MAC first, and a MAC's remotes in the order they came, as the kernel happens to list a few entries. */
  fdbAppend(entry: FdbArguments): void {
    const { id, port } = this.link(entry.dev).linkinfo.info_data;
    const record: FdbRecord = {
      mac: entry.mac,
      ifname: entry.dev,
      dst: entry.dst ?? '',
      ...(entry.port === null || entry.port === port ? {} : { port: entry.port }),
      ...(entry.vni === null || entry.vni === id ? {} : { vni: entry.vni }),
      ...(entry.via === null ? {} : { viaIf: entry.via }),
      flags: ['self', ...(entry.flags ?? [])],
      state: entry.state === 'dynamic' ? '' : entry.state,
    };
    const last = this.entries.findLastIndex((one) => one.mac === entry.mac);
    this.entries.splice(last + 1, 0, record);
  }

  fdbReplace(entry: FdbArguments): void {
    this.entries = this.entries.filter((one) => one.mac !== entry.mac);
    this.fdbAppend(entry);
  }

  fdbDel(entry: FdbArguments): void {
    const kept = this.entries.filter((one) => one.mac !== entry.mac || (entry.dst !== null && one.dst !== entry.dst));
    if (kept.length === this.entries.length) throw new CommandError('No such file or directory', 'ENOENT');
    this.entries = kept;
  }

  fdbShow({ dev }: { dev: string | null }): FdbRecord[] {
    if (dev !== null) this.link(dev);
    return this.entries;
  }

  peerShow(): PeerRecord[] {
    return [];
  }

  fdbGet(dev: string, mac: string): FdbRecord[] {
    this.link(dev);
    const found = this.entries.filter((entry) => entry.mac === mac);
    if (found.length === 0) throw new CommandError('Fdb entry not found', 'ENOENT');
    return found.map((entry) => ({ ...entry, used: 3, updated: 4, ...this.history }));
  }

  /** What fdbHistory() answers. */
  history: FdbHistory = { changes: 0, history: [] };

  fdbHistory(dev: string): FdbHistory {
    this.link(dev);
    return this.history;
  }

  nexthopSet(change: 'add' | 'replace', nexthop: Nexthop): void {
    this.groups[change](nexthop, 0);
  }

  nexthopDel(id: number): void {
    this.groups.del(id, 0);
  }

  nexthopShow(id: number | null): NexthopRecord[] {
    return this.groups.show(id ?? undefined);
  }

  nexthopFlush(): void {
    this.groups.flush(0);
  }

  fdbFlush(dev: string): void {
    this.link(dev);
    this.entries = [];
  }

  mdbChange(change: 'add' | 'replace' | 'del', entry: MdbArguments): void {
    this.mdb[change](this.#mdbUser(entry.dev), entry, 0);
  }

  mdbShow(dev: string | null): MdbRecord[] {
    return this.links
      .filter(({ ifname }) => (dev ?? ifname) === ifname)
      .flatMap((link) => this.mdb.show(this.#mdbUser(link.ifname)));
  }

  mdbGet(entry: MdbArguments): MdbRecord[] {
    return this.mdb.get(this.#mdbUser(entry.dev), entry);
  }

  mdbFlush(dev: string, selection: MdbSelection): void {
    this.mdb.flush(this.#mdbUser(dev), 0, selection);
  }

  #mdbUser(name: string): MdbUser {
    const { id, port } = this.link(name).linkinfo.info_data;
    return { index: 0, name, port, vni: id, family: 4 };
  }

  neighChange(command: NeighCommand, neighbour: NeighArguments): void {
    this.link(neighbour.dev);
    this.neighbourChanges.push([command, neighbour]);
  }

  neighShow({ dev }: NeighFilter): NeighRecord[] {
    if (dev !== null) this.link(dev);
    return this.neighbours;
  }

  neighFlush({ dev, to, states }: NeighFilter): void {
    this.link(dev ?? '');
    this.neighbourChanges.push([`flush ${to} ${states}`, undefined]);
  }

  stats(name: string | null): StatsRecord[] {
    if (name !== null) this.link(name);
    return this.counters;
  }

  /** What explain() answers. */
  explanation: Explanation | undefined;

  explain({ dev }: ExplainRequest): Explanation {
    this.link(dev);
    return this.explanation!;
  }

  capture(request: CaptureRequest): RunningCapture {
    if (request.dev !== null) this.link(request.dev);
    this.captures.push(request);
    return {
      start: (sink) => {
        for (const block of this.captureBlocks) sink.write(block, () => {});
      },
      finish: async () => void this.captures.pop(),
      abandon: async () => void this.captures.pop(),
    };
  }

  samples(): SampleRecord {
    return { drops: [], peers: [] };
  }

  /** What traffic() and threads() answer. */
  sample: TrafficSample | undefined;
  threadRecords: ThreadRecord[] = [];

  traffic({ dev }: TrafficRequest): TrafficSample {
    if (dev !== null) this.link(dev);
    if (!this.sample) throw new CommandError('more than 8 captures at a time', 'EBUSY');
    return this.sample;
  }

  threads(): ThreadRecord[] {
    return this.threadRecords;
  }

  listen(groups: readonly EventGroup[], listener: EventListener): () => void {
    return this.events.listen(groups, listener);
  }

  private link(name: string): LinkRecord {
    const link = this.links.find((one) => one.ifname === name);
    if (link === undefined) throw noSuchDevice(name);
    return link;
  }
}

export const OWN: LinkRecord['uvxlan'] = {
  uplink: 'redirect',
  reason: 'tunnel GSO works here',
  workers: 2,
  options: { profile: 'linux', ecn: 'linux', 'vtep-filter': 'off', neigh_suppress: false },
  fdb_entries: 3,
  nexthops: 2,
  nexthops_unresolved: 1,
  unresolved: [{ dst: '192.0.2.9', reason: 'no answer from 192.0.2.9' }],
};

export function fakeLink(name: string): LinkRecord {
  const counters = { bytes: 0, packets: 0, errors: 0, dropped: 0 };
  return {
    ifindex: 7,
    ifname: name,
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    mtu: 1450,
    qdisc: 'mq',
    operstate: 'UP',
    linkmode: 'DEFAULT',
    group: 'default',
    txqlen: 1000,
    link_type: 'ether',
    address: '02:00:00:00:00:01',
    broadcast: 'ff:ff:ff:ff:ff:ff',
    linkinfo: {
      info_kind: 'vxlan',
      info_data: {
        id: 6,
        local: '192.0.2.1',
        link: 'eth0',
        port_range: { low: 0, high: 0 },
        port: 8472,
        learning: false,
        ttl: 0,
        df: 'unset',
        ageing: 300,
        udp_csum: true,
        udp_zero_csum6_tx: false,
        udp_zero_csum6_rx: false,
        localbypass: true,
        reserved_bits: '0xf7ffffff000000ff',
      },
    },
    stats64: { rx: counters, tx: counters },
    uvxlan: OWN,
  };
}
