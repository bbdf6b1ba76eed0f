import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Nexthop, NexthopRecord } from '../fdb/groups.ts';
import type { MdbRecord, MdbSelection } from '../fdb/mdb.ts';
import type { FdbRecord } from '../fdb/records.ts';
import { familyOf } from '../wire/address.ts';
import type { CaptureRequest, Sink } from './capture/capture.ts';
import type { DaemonEvent, EventGroup, EventListener } from './events.ts';
import type { FdbHistory } from './fdb-history.ts';
import type { FdbSelection } from './fdb-selection.ts';
import type { DeviceConfig, FdbEntry } from './fields.ts';
import type { MdbArguments } from './mdb-words.ts';
import type { NeighArguments, NeighCommand, NeighFilter, NeighRecord } from './neigh-words.ts';
import type { Offender } from './offenders.ts';
import type { TrafficRequest, TrafficSample } from './traffic/sample.ts';

export type { FdbRecord };

/**
 * What passes over the control socket. A request is one line of JSON, `{version, command, arguments}`; its reply is one line,
 * `{version, result}` or `{version, error: {message, errno?}}`. A connection may send any number of requests; replies
 * come in the order of the requests. The records have the key names of iproute2's JSON, so that `-j` prints them as they are.
 * After the request `capture` the connection carries a capture in pcapng, until the client ends its side.
 * After the request `monitor` with `{groups, rate}` lines `{version, event}` come as well, until the client ends its side.
 */

/** The version of package.json (a test holds them together). */
export const VERSION = '0.1.0';

/** Longest request, in bytes; the longest that the client sends is a batch of BATCH_LIMIT commands. */
export const REQUEST_LIMIT = 1 << 20;
export const BATCH_LIMIT = 512;

export interface Request {
  version: string;
  command: string;
  arguments: unknown;
}

export interface ReplyError {
  message: string;
  /** Name of the error as the kernel would have it, `EEXIST` say. */
  errno?: string;
}

export type Reply = { version: string; result: unknown } | { version: string; error: ReplyError };

/** A line that the daemon sends of its own accord. */
export interface EventLine {
  version: string;
  event: DaemonEvent;
}

/** Bytes of a packet that a capture keeps when it is not told otherwise: more than there are. */
export const CAPTURE_SNAP_LENGTH = 262_144;

/** Arguments of the command `batch`: they run in order; without `force` the first failure ends it. */
export interface BatchArguments {
  force: boolean;
  commands: { command: string; arguments: unknown }[];
}

/** One outcome for each command that ran. */
export type BatchResult = ({ result: unknown } | { error: ReplyError })[];

/** An FDB entry and the device that it belongs to. */
export type FdbArguments = FdbEntry & { dev: string };

export interface FdbFilter {
  /** null: of all devices. */
  dev: string | null;
  selection?: FdbSelection;
  /** Whether to tell ages. */
  statistics?: boolean;
}

/** A VXLAN device as `ip -j -s -d link show` prints one, and what only uvxlan knows of it. */
export interface LinkRecord {
  ifindex: number;
  ifname: string;
  flags: string[];
  mtu: number;
  qdisc?: string;
  operstate: string;
  linkmode?: string;
  group?: string;
  txqlen?: number;
  link_type: 'ether';
  address: string;
  broadcast: string;
  linkinfo: { info_kind: 'vxlan'; info_data: VxlanInfo };
  gso_max_size?: number;
  stats64: { rx: LinkCounters; tx: LinkCounters };
  uvxlan: {
    /** The uplink in use, and why it and no other. */
    uplink: string;
    reason: string;
    /** Rules of the host that a redirect uplink gets past; absent with other uplinks. */
    policies?: number;
    /** Absent when offload is off. Each direction: true, or why not. */
    offload?: { send: true | string; receive: true | string };
    workers: number;
    /** Options that the kernel's device has none of; neigh_suppress is a bridge port's. */
    options: Pick<DeviceConfig, 'profile' | 'ecn' | 'vtep-filter' | 'neigh_suppress'>;
    /** How often a worker of the daemon failed and was started again. */
    worker_restarts?: number;
    /** Number of FDB entries and of next hops; how many of the latter have no MAC address yet. */
    fdb_entries: number;
    nexthops: number;
    nexthops_unresolved: number;
    /** How often a MAC could not be learned: maxaddress or the table is full. */
    not_learned?: number;
    /** Who was kept out by vtep-filter or a static entry, the last one first. */
    offenders?: Offender[];
    /** VTEPs that are not resolved, with the reason. */
    unresolved?: { dst: string; reason: string }[];
  };
}

/** iproute2, ip/iplink_vxlan.c: vxlan_print_opt. What may be absent is so where iproute2 6.1 leaves it out. */
export interface VxlanInfo {
  id: number;
  group?: string;
  group6?: string;
  remote?: string;
  remote6?: string;
  local?: string;
  local6?: string;
  link?: string;
  port_range: { low: number; high: number };
  port: number;
  learning: boolean;
  proxy?: true;
  rsc?: true;
  l2miss?: true;
  l3miss?: true;
  /** Hex digits; 0x1: inherited. */
  tos?: string;
  /** 0: the host's default; absent: inherited. */
  ttl?: number;
  df: DeviceConfig['df'];
  /** Flow label, hex digits. */
  label?: string;
  ageing: number;
  limit?: number;
  udp_csum: boolean;
  udp_zero_csum6_tx: boolean;
  udp_zero_csum6_rx: boolean;
  gbp?: true;
  /** These two since iproute2 6.5 and 6.14. */
  localbypass: boolean;
  reserved_bits: string;
}

export interface LinkCounters {
  bytes: number;
  packets: number;
  errors: number;
  dropped: number;
  over_errors?: number;
  multicast?: number;
  carrier_errors?: number;
  collisions?: number;
}

/** in + copies = out + answered + the sum of drops. */
export interface DirectionCounters {
  /** tx: frames that the host sent on the device; rx: encapsulated packets that arrived on the uplink. */
  in: number;
  /** tx: packets that were made beyond these, by head-end replication and by cutting super-frames up; rx: 0. */
  copies: number;
  /** tx: encapsulated packets handed to the uplink; rx: frames handed to the device. */
  out: number;
  /** tx: ARP and neighbour discovery that the device answered itself (proxy, neigh_suppress); absent when there was none. */
  answered?: number;
  /** Of `out`, those that the kernel has carried by itself; absent when there are none. */
  offloaded?: number;
  /** Bytes of inner frames: tx of those that the host sent, rx of those that it was given. */
  bytes: number;
  /** Every reason with its count, zero too; the names are those of dataplane/drops. */
  drops: Record<string, number>;
  /** The last error that has no reason of its own, EINVAL say; absent when there was none. */
  last_error?: string;
}

export interface StatsRecord {
  ifname: string;
  tx: DirectionCounters;
  rx: DirectionCounters;
}

/** A VTEP of the FDB. */
export interface PeerRecord {
  ifname: string;
  dst: string;
  /** How many MACs have it as a remote. */
  macs: number;
}

/** How busy a thread has been since it runs. */
export interface ThreadRecord {
  /** 'main', 'worker 0'. */
  name: string;
  /** Seconds on a CPU, and of waiting for one while it had something to do. */
  cpu: number;
  wait: number;
  /** How often it went to sleep: for a worker, until the next packet. */
  sleeps: number;
}

export interface DaemonStatus {
  version: string;
  pid: number;
  devices: string[];
}

type Answer<T> = T | Promise<T>;

/**
 * What the API server asks of the daemon. A method that cannot do what it is asked throws an Error with one clear sentence;
 * when the error has a string in `errno` or `code` (`EEXIST`) the client is told it. An unknown device is the daemon's to refuse
 * (`noSuchDevice`). Arguments have passed the validators of fields.ts.
 */
export interface DaemonHandlers {
  status(): Answer<DaemonStatus>;
  linkShow(name: string | null): Answer<LinkRecord[]>;
  linkAdd(device: DeviceConfig): Answer<void>;
  linkSet(name: string, changes: Partial<DeviceConfig>): Answer<void>;
  linkDel(name: string): Answer<void>;
  fdbAdd(entry: FdbArguments): Answer<void>;
  fdbAppend(entry: FdbArguments): Answer<void>;
  fdbReplace(entry: FdbArguments): Answer<void>;
  /** Without dst all remotes of the MAC; else the remote with this dst, port, vni and via. */
  fdbDel(entry: FdbArguments): Answer<void>;
  fdbShow(filter: FdbFilter): Answer<FdbRecord[]>;
  /** null: of all devices. */
  peerShow(dev: string | null): Answer<PeerRecord[]>;
  /** The remotes of a MAC, with ages and last changes. */
  fdbGet(dev: string, mac: string): Answer<(FdbRecord & Partial<FdbHistory>)[]>;
  /** The last changes of a MAC, also of one that is gone. */
  fdbHistory(dev: string, mac: string): Answer<FdbHistory>;
  nexthopSet(change: 'add' | 'replace', nexthop: Nexthop): Answer<void>;
  nexthopDel(id: number): Answer<void>;
  /** null: all. */
  nexthopShow(id: number | null): Answer<NexthopRecord[]>;
  nexthopFlush(): Answer<void>;
  fdbFlush(dev: string, selection: FdbSelection): Answer<void>;
  mdbChange(change: 'add' | 'replace' | 'del', entry: MdbArguments): Answer<void>;
  /** null: of all devices. */
  mdbShow(dev: string | null): Answer<MdbRecord[]>;
  /** The remotes of one group. */
  mdbGet(entry: MdbArguments): Answer<MdbRecord[]>;
  mdbFlush(dev: string, selection: MdbSelection): Answer<void>;
  neighChange(command: NeighCommand, neighbour: NeighArguments): Answer<void>;
  neighShow(filter: NeighFilter): Answer<NeighRecord[]>;
  neighFlush(filter: NeighFilter): Answer<void>;
  stats(name: string | null): Answer<StatsRecord[]>;
  /** A dry run on the tables as they are. */
  explain(request: ExplainRequest): Answer<Explanation>;
  /** Begins to record packets. Throws CommandError. */
  capture(request: CaptureRequest): Answer<RunningCapture>;
  /** Samples of what passes; they are taken while somebody asks, at least every three seconds. */
  samples(): Answer<SampleRecord>;
  /** Looks at what passes, and adds it up. Throws CommandError. */
  traffic(request: TrafficRequest): Answer<TrafficSample>;
  /** The main thread and the workers. */
  threads(): Answer<ThreadRecord[]>;
  /**
   * Calls the listener for each event of the groups, until what it returns is called. `dropRate`: packets a second of one reason from which
   * on the group `drop` tells.
   */
  listen(groups: readonly EventGroup[], listener: EventListener, dropRate: number): () => void;
}

/** What is asked about: a frame as hex digits, or a frame of which no more than both ends are known. */
export type ExplainRequest = { readonly dev: string } & (
  | { readonly frame: Uint8Array }
  | { readonly from: string; readonly to: string }
);

export interface ExplainLookup {
  readonly question: string;
  readonly answer: string;
}

/** What becomes of a frame: nothing is sent, counted or learned to find out. Packets are hex digits, from the Ethernet header on. */
export interface Explanation {
  readonly dev: string;
  readonly frame: string;
  /** In the order in which they are made. */
  readonly lookups: readonly ExplainLookup[];
  /** What it would send, and what it would give back to the device. */
  readonly packets: readonly string[];
  readonly answers: readonly string[];
  /** Where the outer fields of the first packet come from, by 'LAYER.FIELD'. */
  readonly origins: Readonly<Record<string, string>>;
  readonly verdict: string;
}

/** A capture that was asked for; it costs something until it is ended in either way. */
export interface RunningCapture {
  start(sink: Sink): void;
  /** Writes what has come until now, and statistics. */
  finish(): Promise<void>;
  abandon(): Promise<void>;
}

export interface SampleRecord {
  /** The packet that was dropped last, for each reason and device, of those that were sampled. */
  readonly drops: readonly DropSample[];
  /** Of the last second, the busiest of each device; empty in the first second. */
  readonly peers: readonly PeerRate[];
}

export interface DropSample {
  /** null: an outer packet that is of no device's VNI. */
  readonly dev: string | null;
  readonly reason: string;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Where it was seen: a device or a NIC. */
  readonly interface: string;
  readonly direction: 'in' | 'out';
  /** As it was, in bytes; `hex` has its beginning. */
  readonly length: number;
  readonly hex: string;
  readonly comments: readonly string[];
}

/** What passes between a device and a VTEP, a second: VXLAN packets, and bytes of inner frames, that the workers carry. */
export interface PeerRate {
  readonly dev: string;
  readonly address: string;
  readonly tx: { readonly packets: number; readonly bytes: number };
  readonly rx: { readonly packets: number; readonly bytes: number };
}

/** An error that tells the client an errno name besides the sentence. */
export class CommandError extends Error {
  readonly errno: string;

  constructor(message: string, errno: string) {
    super(message);
    this.errno = errno;
  }
}

/** iproute2's sentence for a device that does not exist. */
export function noSuchDevice(name: string): CommandError {
  return new CommandError(`Cannot find device "${name}"`, 'ENODEV');
}

/**
 * The control socket of a network namespace, by default of this process's. Namespaces may share /run, so its inode is the name.
 * Throws CommandError when UVXLAN_RUNTIME_DIR is too long a name.
 */
export function socketPath(namespace = '/proc/self/ns/net'): string {
  const directory = process.env.UVXLAN_RUNTIME_DIR || '/run/uvxlan';
  const path = join(directory, `${statSync(namespace).ino}.sock`);
  // Node would cut it off without a word (sockaddr_un, unix(7)).
  if (Buffer.byteLength(path) > 107) {
    throw new CommandError(
      `the path of the control socket, ${path}, is too long: choose another UVXLAN_RUNTIME_DIR`,
      'ENAMETOOLONG',
    );
  }
  return path;
}

/** The `info_data` of a device; `local` and `link` are what the daemon found when the configuration leaves them open. */
export function vxlanInfo(device: DeviceConfig, local: string | null, link: string | null): VxlanInfo {
  const { remote, group, tos, ttl, flowlabel, maxaddress } = device;
  return {
    id: device.id,
    ...address('group', group),
    ...address('remote', remote),
    ...address('local', local),
    ...(link === null ? {} : { link }),
    port_range: { low: device.srcport[0], high: device.srcport[1] },
    port: device.dstport,
    learning: device.learning,
    ...(device.proxy ? { proxy: true } : {}),
    ...(device.rsc ? { rsc: true } : {}),
    ...(device.l2miss ? { l2miss: true } : {}),
    ...(device.l3miss ? { l3miss: true } : {}),
    ...(tos === 0 ? {} : { tos: tos === 'inherit' ? '0x1' : hex(tos) }),
    ...(ttl === 'inherit' ? {} : { ttl }),
    df: device.df,
    ...(flowlabel === 0 ? {} : { label: hex(flowlabel) }),
    ageing: device.ageing,
    ...(maxaddress === 0 ? {} : { limit: maxaddress }),
    udp_csum: device.udpcsum,
    udp_zero_csum6_tx: device.udp6zerocsumtx,
    udp_zero_csum6_rx: device.udp6zerocsumrx,
    ...(device.gbp ? { gbp: true } : {}),
    localbypass: device.localbypass,
    reserved_bits: device.reserved_bits,
  };
}

/** IPv6 addresses have keys of their own: remote6. */
function address(key: string, value: string | null): Record<string, string> {
  return value === null ? {} : { [familyOf(value) === 6 ? `${key}6` : key]: value };
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** The line that says that a device carries traffic from now on. */
export function readyLine(link: LinkRecord): string {
  const { id, local6, local = local6, link: dev } = link.linkinfo.info_data;
  const { uplink, reason, workers } = link.uvxlan;
  return (
    `${link.ifname} is up: id ${id}${local ? `, local ${local}` : ''}${dev ? `, dev ${dev}` : ''}, ` +
    `uplink ${uplink} (${reason}), ${workers} worker${workers === 1 ? '' : 's'}, mtu ${link.mtu}`
  );
}
