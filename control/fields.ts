import type { FdbFlag, FdbState } from '../fdb/state.ts';
import type { FdbEntry as AskedEntry } from '../fdb/writer.ts';
import { formatIp, formatMac, parseIp, parseMac } from '../wire/address.ts';

/**
 * What a VXLAN device and an FDB entry are configured with, and one validator for each field. Command-line words, YAML keys
 * and requests on the control socket all pass through these validators, so that each takes and refuses the same values.
 */

export const UPLINKS = ['auto', 'redirect', 'udp', 'raw'] as const;
export type UplinkChoice = (typeof UPLINKS)[number];
const DF_CHOICES = ['unset', 'set', 'inherit'] as const;
/** The kernel's variant of RFC 6040 (INET_ECN_encapsulate), or the RFC's own normal mode. */
const ECN_CHOICES = ['linux', 'rfc6040'] as const;
const PROFILES = ['linux', 'rfc7348'] as const;
export const OFFLOAD_CHOICES = ['off', 'auto', 'require'] as const;
export const VTEP_FILTERS = ['off', 'known', 'strict'] as const;

const FDB_FLAGS: readonly FdbFlag[] = ['router', 'extern_learn'];
const FDB_STATES: readonly FdbState[] = ['permanent', 'static', 'dynamic'];

/** The kernel's default destination port (drivers/net/vxlan: vxlan_port); IANA's is 4789. */
export const DEFAULT_PORT = 8472;
/** The kernel's FDB_AGE_DEFAULT, in seconds. */
export const DEFAULT_AGEING = 300;

/** A VXLAN device as asked for. Addresses are canonical text; null means: not given, the daemon decides from the host. */
export interface DeviceConfig {
  name: string;
  /** VNI, 0..16777215. */
  id: number;
  local: string | null;
  /** Default destination: becomes an entry of the all-zeros MAC, as in the kernel. */
  remote: string | null;
  /** A multicast group in the place of `remote`, joined on `dev`. */
  group: string | null;
  /** The NIC that carries the encapsulated packets. */
  dev: string | null;
  dstport: number;
  /**
   * Range of outer source ports, minimum and (exclusive) maximum; where they are equal it is the host's ip_local_port_range, as in the
   * kernel (udp_flow_src_port).
   */
  srcport: [number, number];
  /** Outer TTL; 0 is the host's default (auto), for a group 1. */
  ttl: number | 'inherit';
  /** Outer TOS or traffic class, its ECN bits zero: these are always the inner packet's. */
  tos: number | 'inherit';
  /** Outer DF, IPv4 only. */
  df: (typeof DF_CHOICES)[number];
  /** Outer IPv6 flow label, 20 bits. */
  flowlabel: number;
  udpcsum: boolean;
  udp6zerocsumtx: boolean;
  udp6zerocsumrx: boolean;
  learning: boolean;
  /** Seconds after which a learned entry that is not heard again goes; 0: never. */
  ageing: number;
  /** Most entries; 0: no limit. */
  maxaddress: number;
  proxy: boolean;
  neigh_suppress: boolean;
  rsc: boolean;
  l2miss: boolean;
  l3miss: boolean;
  localbypass: boolean;
  /** Bits of the VXLAN header that have to be zero in what is received: 0x and 16 hex digits. */
  reserved_bits: string;
  gbp: boolean;
  ecn: (typeof ECN_CHOICES)[number];
  /** Where the defaults of dstport, srcport, reserved_bits and ecn come from. */
  profile: (typeof PROFILES)[number];
  'vtep-filter': (typeof VTEP_FILTERS)[number];
  /** MAC of the device; null: a random one. */
  address: string | null;
  /** null: the NIC's MTU less the outer headers. */
  mtu: number | null;
  uplink: UplinkChoice;
  /** Whether the kernel carries known flows (control/offload); require: fail where it cannot. */
  offload: (typeof OFFLOAD_CHOICES)[number];
  /** Directory of a BPF file system: what is offloaded goes on while no daemon runs. null: it ends with the daemon. */
  'offload-pin': string | null;
  /** The TAP outlives the daemon, and the next one takes it over. */
  persist: boolean;
  /** null: one for each core, up to 4. */
  workers: number | null;
  /** Microseconds that a worker looks for more packets before it blocks; null: the default. */
  'busy-poll': number | null;
  fdb: FdbEntry[];
}

/** One remote of one MAC, as asked for, with nothing left out: null is the device's own port and VNI, and no particular NIC. */
export type FdbEntry = Required<Omit<AskedEntry, 'flags' | 'nhid'>> & Pick<AskedEntry, 'flags' | 'nhid'>;

/** A value that a field does not take. `reason` continues a sentence that names the value: "70000 is out of range 0..65535". */
export class WrongValue extends Error {
  readonly text: string;
  readonly reason: string;

  constructor(text: string, reason: string) {
    super(`${text} ${reason}`);
    this.text = text;
    this.reason = reason;
  }
}

export type Fields<T> = { readonly [K in keyof T]: (text: string) => T[K] };

export const DEVICE_FIELDS: Fields<Omit<DeviceConfig, 'fdb'>> = {
  name: interfaceName,
  id: integer(0, 0xffffff),
  local: givenAddress,
  remote: givenAddress,
  group: multicastAddress,
  dev: interfaceName,
  dstport: (text) => port(text) || DEFAULT_PORT,
  srcport: portRange,
  ttl: timeToLive,
  tos: typeOfService,
  df: oneOf(DF_CHOICES),
  flowlabel: integer(0, 0xfffff),
  udpcsum: boolean,
  udp6zerocsumtx: boolean,
  udp6zerocsumrx: boolean,
  learning: boolean,
  ageing: (text) => (text === 'none' ? 0 : integer(0, 0xffffffff, ' or none')(text)),
  maxaddress: (text) => (text === 'unlimited' ? 0 : integer(0, 0xffffffff, ' or unlimited')(text)),
  proxy: boolean,
  neigh_suppress: (text) => (text === 'on' || text === 'off' ? text === 'on' : boolean(text)),
  rsc: boolean,
  l2miss: boolean,
  l3miss: boolean,
  localbypass: boolean,
  reserved_bits: headerBits,
  gbp: boolean,
  ecn: oneOf(ECN_CHOICES),
  profile: oneOf(PROFILES),
  'vtep-filter': oneOf(VTEP_FILTERS),
  address: unicastMac,
  // A TAP takes no more: 65535 less its hard header (drivers/net/tun.c: tun_net_init).
  mtu: integer(68, 65521),
  uplink: oneOf(UPLINKS),
  offload: oneOf(OFFLOAD_CHOICES),
  'offload-pin': absolutePath,
  persist: boolean,
  workers: integer(1, 64),
  'busy-poll': integer(0, 1000),
};

export const FDB_FIELDS: Fields<Required<FdbEntry>> = {
  mac: mac,
  // 0.0.0.0 and :: are taken as in the kernel: an entry whose frames are dropped, and of `del` all remotes of the MAC.
  dst: (text) => {
    const bytes = ipAddress(text);
    return isUnspecified(bytes) ? formatIp(bytes) : unicastAddress(text, bytes);
  },
  // As in the kernel, port 0 is the device's own.
  port: (text) => port(text) || null,
  vni: integer(0, 0xffffff),
  via: interfaceName,
  state: oneOf(FDB_STATES),
  nhid: integer(1, 0xffffffff),
  flags: (text) => text.split(/[ ,]+/).map(oneOf(FDB_FLAGS)),
};

function integer(low: number, high: number, otherwise = ''): (text: string) => number {
  return (text) => {
    if (!/^(0x[0-9a-f]+|0|[1-9][0-9]*|-[0-9]+)$/i.test(text)) {
      throw new WrongValue(text, `is not a number ${low}..${high}${otherwise}`);
    }
    const value = Number(text);
    if (value < low || value > high) throw new WrongValue(text, `is out of range ${low}..${high}`);
    return value;
  };
}

function port(text: string): number {
  return integer(0, 65535)(text);
}

function portRange(text: string): [number, number] {
  const [low, high, ...more] = text.split(' ');
  if (high === undefined || more.length > 0) throw new WrongValue(text, 'is not a range: a minimum and a maximum port');
  const range: [number, number] = [port(low), port(high)];
  if (range[1] < range[0]) throw new WrongValue(text, 'is not a range: the maximum is below the minimum');
  return range;
}

function absolutePath(text: string): string {
  if (!text.startsWith('/') || text.includes('\0')) throw new WrongValue(text, 'is not an absolute path');
  return text;
}

function boolean(text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new WrongValue(text, 'is neither true nor false');
  return text === 'true';
}

function timeToLive(text: string): number | 'inherit' {
  if (text === 'inherit') return text;
  return text === 'auto' ? 0 : integer(0, 255, ', auto or inherit')(text);
}

/** As iproute2 takes it: 1 is another word for inherit. The ECN bits are not the device's to choose. */
function typeOfService(text: string): number | 'inherit' {
  const value = text === 'inherit' ? 1 : integer(0, 255, ' or inherit')(text);
  return value === 1 ? 'inherit' : value & 0xfc;
}

/** 64 bits of a VXLAN header as a number; canonical text of 16 hex digits. */
function headerBits(text: string): string {
  if (!/^(0x[0-9a-f]{1,16}|[0-9]{1,19})$/i.test(text)) {
    throw new WrongValue(text, 'is not a number of 64 bits such as 0xf7ffffff000000ff');
  }
  return `0x${BigInt(text).toString(16).padStart(16, '0')}`;
}

function oneOf<T extends string>(choices: readonly T[]): (text: string) => T {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found === undefined) throw new WrongValue(text, `is not one of ${choices.join(', ')}`);
    return found;
  };
}

/** The kernel's rule (net/core/dev.c: dev_valid_name), plus `%`, which it would take for a pattern. */
function interfaceName(text: string): string {
  if (Buffer.byteLength(text) > 15) throw new WrongValue(text, 'is longer than the 15 bytes of an interface name');
  if (text === '' || text === '.' || text === '..' || /[/:%\s]/.test(text)) {
    throw new WrongValue(text, 'is not a valid interface name');
  }
  return text;
}

function mac(text: string): string {
  const bytes = parseMac(text);
  if (bytes === undefined) throw new WrongValue(text, 'is not a MAC address such as 02:00:00:00:00:01');
  return formatMac(bytes);
}

function unicastMac(text: string): string {
  const address = mac(text);
  if (Number.parseInt(address.slice(0, 2), 16) & 1 || address === '00:00:00:00:00:00') {
    throw new WrongValue(text, 'is not a unicast MAC address');
  }
  return address;
}

function unicastAddress(text: string, bytes: Uint8Array = ipAddress(text)): string {
  if (isMulticast(bytes) || isUnspecified(bytes)) throw new WrongValue(text, 'is not the unicast address of a host');
  return formatIp(bytes);
}

/** `any`, 0.0.0.0 and :: are iproute2's words for none. */
function givenAddress(text: string): string | null {
  return text === 'any' || isUnspecified(ipAddress(text)) ? null : unicastAddress(text);
}

function multicastAddress(text: string): string {
  const bytes = ipAddress(text);
  if (!isMulticast(bytes)) throw new WrongValue(text, 'is not the address of a multicast group');
  return formatIp(bytes);
}

function ipAddress(text: string): Uint8Array {
  const bytes = parseIp(text);
  if (bytes === undefined) throw new WrongValue(text, 'is not an IP address');
  return bytes;
}

function isUnspecified(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** 224.0.0.0/4 and ff00::/8; 240.0.0.0/4 is no host's either. */
function isMulticast(bytes: Uint8Array): boolean {
  return bytes.length === 4 ? bytes[0] >= 224 : bytes[0] === 0xff;
}
