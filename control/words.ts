import { familyOf } from '../wire/address.ts';
import { overlap, PROFILES } from './device-options.ts';
import { DEFAULT_AGEING, DEFAULT_PORT, DEVICE_FIELDS, type DeviceConfig, WrongValue } from './fields.ts';
import { nearest } from './nearest.ts';

/** A command line or a configuration that is not understood: one sentence for the user, exit status 2. */
export class UsageError extends Error {}

type DeviceKey = keyof typeof DEVICE_FIELDS;

/** What each word sets, how many values follow it, or the value that the bare word stands for. */
interface Word {
  key: DeviceKey;
  values?: 1 | 2;
  means?: string;
}

/** Options that are on as the bare word, and off with `no` in front. */
const SWITCHES = [
  'udpcsum',
  'udp6zerocsumtx',
  'udp6zerocsumrx',
  'learning',
  'proxy',
  'rsc',
  'l2miss',
  'l3miss',
  'localbypass',
] as const;

const DEVICE_WORDS: Record<string, Word> = {
  ...Object.fromEntries(
    SWITCHES.flatMap((key): [string, Word][] => [
      [key, { key, means: 'true' }],
      [`no${key}`, { key, means: 'false' }],
    ]),
  ),
  id: { key: 'id', values: 1 },
  vni: { key: 'id', values: 1 },
  local: { key: 'local', values: 1 },
  remote: { key: 'remote', values: 1 },
  group: { key: 'group', values: 1 },
  dev: { key: 'dev', values: 1 },
  dstport: { key: 'dstport', values: 1 },
  srcport: { key: 'srcport', values: 2 },
  ttl: { key: 'ttl', values: 1 },
  hoplimit: { key: 'ttl', values: 1 },
  tos: { key: 'tos', values: 1 },
  dsfield: { key: 'tos', values: 1 },
  df: { key: 'df', values: 1 },
  flowlabel: { key: 'flowlabel', values: 1 },
  ageing: { key: 'ageing', values: 1 },
  maxaddress: { key: 'maxaddress', values: 1 },
  neigh_suppress: { key: 'neigh_suppress', values: 1 },
  reserved_bits: { key: 'reserved_bits', values: 1 },
  gbp: { key: 'gbp', means: 'true' },
  ecn: { key: 'ecn', values: 1 },
  profile: { key: 'profile', values: 1 },
  'vtep-filter': { key: 'vtep-filter', values: 1 },
  address: { key: 'address', values: 1 },
  mtu: { key: 'mtu', values: 1 },
  uplink: { key: 'uplink', values: 1 },
  offload: { key: 'offload', values: 1 },
  'offload-pin': { key: 'offload-pin', values: 1 },
  persist: { key: 'persist', means: 'true' },
  workers: { key: 'workers', values: 1 },
  'busy-poll': { key: 'busy-poll', values: 1 },
};

/** Words of the kernel's device that uvxlan does not have. */
const LATER_WORDS =
  'remcsumtx noremcsumtx remcsumrx noremcsumrx external noexternal gpe vnifilter novnifilter mcroute nomcroute';

/** iproute2's names for the values that it refuses. */
const LABELS: Partial<Record<DeviceKey, string>> = {
  name: 'device name',
  local: 'local address',
  remote: 'remote address',
  group: 'group address',
  dstport: 'dst port',
  srcport: 'source port range',
  ttl: 'TTL',
  tos: 'TOS',
  df: 'DF',
  address: 'lladdr',
};

export const PORT_NOTE =
  `destination port not specified: using ${DEFAULT_PORT}, the Linux kernel's default (non-standard value); ` +
  `use 'dstport 4789' to get the IANA assigned value, 'dstport 0' to get the default and quiet this message`;

/** Whether the port is the kernel's and nobody has said so. */
export function wantsPortNote({ dstport, profile = 'linux' }: Partial<DeviceConfig>): boolean {
  return dstport === undefined && profile === 'linux';
}

/** The device that `NAME id N local A ...` asks for, with notes for the user. Throws UsageError. */
export function parseDevice(words: readonly string[]): { device: DeviceConfig; notes: string[] } {
  const fields = parseFields(words);
  const problem = deviceProblems(fields)[0];
  if (problem !== undefined) throw new UsageError(problem.message);
  return { device: completeDevice(fields), notes: wantsPortNote(fields) ? [PORT_NOTE] : [] };
}

/** What the kernel says of options that a running device keeps (vxlan_nl2conf); of others the name is the word. */
const FIXED: Partial<Record<DeviceKey, string>> = {
  id: 'Cannot change VNI',
  dstport: 'Cannot change port',
  srcport: 'Cannot change port range',
  maxaddress: 'Cannot change limit',
  udpcsum: 'Cannot change UDP_CSUM flag',
  udp6zerocsumtx: 'cannot change UDP_ZERO_CSUM6_TX flag',
  udp6zerocsumrx: 'cannot change UDP_ZERO_CSUM6_RX flag',
  proxy: 'cannot change PROXY flag',
  rsc: 'cannot change RSC flag',
  l2miss: 'cannot change L2MISS flag',
  l3miss: 'cannot change L3MISS flag',
  reserved_bits: 'Cannot change reserved_bits',
  gbp: 'cannot change GBP flag',
  profile: 'Cannot change profile',
  workers: 'Cannot change workers',
  'busy-poll': 'Cannot change busy-poll',
  persist: 'Cannot change persist',
  'offload-pin': 'Cannot change offload-pin',
};

/** Options that a running device can be given others for, as in the kernel (vxlan_changelink), and some of ours. */
const CHANGEABLE = (Object.keys(DEVICE_FIELDS) as DeviceKey[]).filter(
  (key) => !(key in FIXED) && !['name', 'address', 'mtu'].includes(key),
);

/** What `NAME remote A ...` asks to change. Throws UsageError, with the kernel's sentence for what cannot be changed. */
export function parseChanges(words: readonly string[]): { name: string; changes: Partial<DeviceConfig> } {
  const { name = '', ...changes } = parseFields(words);
  for (const key of Object.keys(changes) as DeviceKey[]) {
    if (CHANGEABLE.includes(key)) continue;
    if (key === 'address' || key === 'mtu')
      throw new UsageError(`${key} is changed with 'ip link set ${name} ${key} ...'`);
    throw new UsageError(`${FIXED[key]}: remove the device and add it again`);
  }
  if (Object.keys(changes).length === 0)
    throw new UsageError(`nothing to change: give one of ${CHANGEABLE.join(', ')}`);
  // One takes the other's place, as they are one thing to the kernel.
  if (changes.remote !== undefined) changes.group ??= null;
  if (changes.group) changes.remote ??= null;
  return { name, changes };
}

function parseFields(words: readonly string[]): Partial<DeviceConfig> {
  const [name, ...rest] = words[0] === 'name' ? words.slice(1) : words;
  if (name === undefined) throw new UsageError('a device is missing: NAME id N local ADDRESS dev NIC');
  if (Object.hasOwn(DEVICE_WORDS, name)) throw new UsageError(`the name of the device is missing before "${name}"`);
  const fields: Partial<DeviceConfig> = { name: fieldValue('name', name) };
  for (let next = 0; next < rest.length; ) {
    const word = rest[next++];
    if (word === 'type') {
      expectVxlan(rest[next++]);
      continue;
    }
    if (!Object.hasOwn(DEVICE_WORDS, word)) throw unknownWord(word);
    const { key, values = 0, means } = DEVICE_WORDS[word];
    const given = rest.slice(next, next + values);
    next += values;
    if (given.length < values) throw incomplete(word, values);
    if (key in fields) throw duplicate(word, given[0] ?? word);
    Object.assign(fields, { [key]: fieldValue(key, means ?? given.join(' ')) });
  }
  return fields;
}

/** What is wrong with the fields taken together; `key` is the one to point at. */
export function deviceProblems(fields: Partial<DeviceConfig>): { key: DeviceKey; message: string }[] {
  const problems: { key: DeviceKey; message: string }[] = [];
  if (fields.name === undefined) problems.push({ key: 'name', message: 'missing name of the device' });
  if (fields.id === undefined) problems.push({ key: 'id', message: 'missing virtual network identifier: give id N' });
  const { local, remote, group, dev, flowlabel } = fields;
  if (group && remote) problems.push({ key: 'group', message: 'both group and remote cannot be specified' });
  if (group && !dev) problems.push({ key: 'group', message: "'group' requires 'dev' to be specified" });
  for (const key of ['remote', 'group'] as const) {
    const address = fields[key];
    if (!local || !address || familyOf(local) === familyOf(address)) continue;
    problems.push({ key, message: otherFamily(address, local, 'local') });
  }
  if (flowlabel && familyOf(local ?? remote ?? group ?? '') !== 6) {
    problems.push({ key: 'flowlabel', message: 'Label attribute only applies to IPv6 VXLAN devices' });
  }
  if (fields['offload-pin'] && !fields.persist) {
    problems.push({
      key: 'offload-pin',
      message: 'offload-pin needs persist: without the device nothing can be forwarded',
    });
  }
  const used = overlap(fields);
  if (used !== undefined) {
    problems.push({ key: 'reserved_bits', message: `Used bits ${used} cannot overlap reserved bits` });
  }
  return problems;
}

/** iproute2's sentence for an address whose family is not that of another one, which `as` names. */
export function otherFamily(address: string, expected: string, as: string): string {
  const family = familyOf(expected) === 6 ? 'inet6' : 'inet';
  return `${family} address is expected rather than "${address}", as ${as} is one`;
}

/** The kernel's or the profile's defaults for what is not given; name and id have to be. */
export function completeDevice(fields: Partial<DeviceConfig>): DeviceConfig {
  const profile = fields.profile ?? 'linux';
  return {
    name: '',
    id: 0,
    local: null,
    remote: null,
    group: null,
    dev: null,
    ttl: 0,
    tos: 0,
    df: 'unset',
    flowlabel: 0,
    udpcsum: true,
    udp6zerocsumtx: false,
    udp6zerocsumrx: false,
    learning: true,
    ageing: DEFAULT_AGEING,
    maxaddress: 0,
    proxy: false,
    neigh_suppress: false,
    rsc: false,
    l2miss: false,
    l3miss: false,
    localbypass: true,
    gbp: false,
    ...PROFILES[profile](fields),
    profile,
    'vtep-filter': 'off',
    address: null,
    mtu: null,
    uplink: 'auto',
    offload: 'off',
    'offload-pin': null,
    persist: false,
    workers: null,
    'busy-poll': null,
    fdb: [],
    ...fields,
  };
}

/** Whether the kernel's device knows a word that uvxlan does not have yet. */
export function isLaterWord(word: string): boolean {
  return LATER_WORDS.split(' ').includes(word);
}

export function incomplete(word: string, values: number): UsageError {
  return new UsageError(
    `Command line is not complete: "${word}" wants ${values === 1 ? 'a value' : `${values} values`}`,
  );
}

export function duplicate(word: string, value: string): UsageError {
  return new UsageError(`duplicate "${word}": "${value}" is the second value.`);
}

/** iproute2's sentence for a value that a word does not take, with the reason. */
export function wrongArgument(wrong: WrongValue, label: string): UsageError {
  return new UsageError(`argument "${wrong.text}" is wrong: invalid ${label}, it ${wrong.reason}`);
}

function fieldValue<K extends DeviceKey>(key: K, text: string): DeviceConfig[K] {
  try {
    return DEVICE_FIELDS[key](text) as DeviceConfig[K];
  } catch (error) {
    if (!(error instanceof WrongValue)) throw error;
    throw wrongArgument(error, LABELS[key] ?? key);
  }
}

function expectVxlan(type: string | undefined): void {
  if (type === undefined) throw incomplete('type', 1);
  if (type !== 'vxlan') throw new UsageError(`type "${type}" is unknown: uvxlan's devices are of type vxlan`);
}

function unknownWord(word: string): UsageError {
  if (isLaterWord(word)) return new UsageError(`"${word}" is not there yet in uvxlan`);
  const suggestion = nearest(word, Object.keys(DEVICE_WORDS));
  const hint = suggestion ? `did you mean "${suggestion}"?` : 'see uvxlan up --help';
  return new UsageError(`unknown word "${word}", ${hint}`);
}
