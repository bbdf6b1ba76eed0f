import assert from 'node:assert/strict';
import test from 'node:test';
import { parseFdbEntry, parseFdbFilter, parseFdbFlush, parseFdbGet } from '../../control/fdb-words.ts';
import { nearest } from '../../control/nearest.ts';
import { completeDevice, parseChanges, parseDevice, UsageError } from '../../control/words.ts';

/** The kernel's, and ours where it has none. */
const DEFAULTS = {
  name: 'flannel.1',
  id: 1,
  local: null,
  remote: null,
  group: null,
  dev: null,
  dstport: 8472,
  srcport: [0, 0],
  ttl: 0,
  tos: 0,
  df: 'unset',
  flowlabel: 0,
  udpcsum: true,
  udp6zerocsumtx: false,
  udp6zerocsumrx: false,
  learning: true,
  ageing: 300,
  maxaddress: 0,
  proxy: false,
  neigh_suppress: false,
  rsc: false,
  l2miss: false,
  l3miss: false,
  localbypass: true,
  reserved_bits: '0xf7ffffff000000ff',
  gbp: false,
  ecn: 'linux',
  profile: 'linux',
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
};

const GOOD_DEVICES: [string, object][] = [
  ['flannel.1 id 1', {}],
  ['flannel.1 type vxlan id 1', {}],
  ['flannel.1 vni 0x10', { id: 16 }],
  ['flannel.1 id 0', { id: 0 }],
  ['flannel.1 id 16777215', { id: 16777215 }],
  [
    'flannel.1 id 1 local 192.0.2.1 dev eth0 dstport 4789 nolearning',
    { local: '192.0.2.1', dev: 'eth0', dstport: 4789, learning: false },
  ],
  ['flannel.1 id 1 dstport 0', { dstport: 8472 }],
  ['flannel.1 id 1 srcport 1000 2000', { srcport: [1000, 2000] }],
  ['flannel.1 id 1 srcport 0 0', { srcport: [0, 0] }],
  ['flannel.1 id 1 ttl 64', { ttl: 64 }],
  ['flannel.1 id 1 ttl auto', { ttl: 0 }],
  ['flannel.1 id 1 ttl inherit tos 1 df inherit', { ttl: 'inherit', tos: 'inherit', df: 'inherit' }],
  ['flannel.1 id 1 tos 0xff', { tos: 0xfc }],
  ['flannel.1 id 1 group ff05::1 dev eth0', { group: 'ff05::1', dev: 'eth0' }],
  ['flannel.1 id 1 reserved_bits 0xFF', { reserved_bits: '0x00000000000000ff' }],
  ['flannel.1 id 1 noudpcsum', { udpcsum: false }],
  ['flannel.1 id 1 udpcsum', {}],
  ['flannel.1 id 1 learning ageing 60 maxaddress 100', { ageing: 60, maxaddress: 100 }],
  ['flannel.1 id 1 ageing none maxaddress unlimited', { ageing: 0 }],
  ['flannel.1 id 1 vtep-filter strict', { 'vtep-filter': 'strict' }],
  ['flannel.1 address 02:AB:00:00:00:01 mtu 1400 id 1', { address: '02:ab:00:00:00:01', mtu: 1400 }],
  ['flannel.1 id 1 local 2001:DB8:0::1 remote 2001:db8::2', { local: '2001:db8::1', remote: '2001:db8::2' }],
  ['flannel.1 id 1 local any remote 0.0.0.0', {}],
  ['flannel.1 id 1 local :: remote any', {}],
  ['flannel.1 id 1 nolocalbypass', { localbypass: false }],
  ['flannel.1 id 1 persist', { persist: true }],
  ['flannel.1 id 1 uplink redirect workers 3', { uplink: 'redirect', workers: 3 }],
  ['abcdefghijklmno id 1', { name: 'abcdefghijklmno' }],
];

for (const [line, expected] of GOOD_DEVICES) {
  test(`device words: ${line}`, () => {
    assert.deepEqual(parseDevice(line.split(' ')).device, { ...DEFAULTS, ...expected });
  });
}

// Where iproute2 6.1 has a sentence for the mistake, ours begins with it.
const BAD_DEVICES: [string, string][] = [
  ['', 'a device is missing: NAME id N local ADDRESS dev NIC'],
  ['id 1 local 192.0.2.1', 'the name of the device is missing before "id"'],
  ['v1', 'missing virtual network identifier: give id N'],
  ['v1 id', 'Command line is not complete: "id" wants a value'],
  ['v1 id 16777216', 'argument "16777216" is wrong: invalid id, it is out of range 0..16777215'],
  ['v1 id -1', 'argument "-1" is wrong: invalid id, it is out of range 0..16777215'],
  ['v1 id abc', 'argument "abc" is wrong: invalid id, it is not a number 0..16777215'],
  ['v1 id 010', 'argument "010" is wrong: invalid id, it is not a number 0..16777215'],
  ['v1 id 1e3', 'argument "1e3" is wrong: invalid id, it is not a number 0..16777215'],
  ['v1 id 5 id 6', 'duplicate "id": "6" is the second value.'],
  ['v1 id 5 vni 6', 'duplicate "vni": "6" is the second value.'],
  ['v1 id 5 udpcsum noudpcsum', 'duplicate "noudpcsum": "noudpcsum" is the second value.'],
  ['v1 id 5 local 1.2.3', 'argument "1.2.3" is wrong: invalid local address, it is not an IP address'],
  ['v1 id 5 local fe80::zz', 'argument "fe80::zz" is wrong: invalid local address, it is not an IP address'],
  [
    'v1 id 5 local 224.0.0.1',
    'argument "224.0.0.1" is wrong: invalid local address, it is not the unicast address of a host',
  ],
  [
    'v1 id 5 remote ff02::1',
    'argument "ff02::1" is wrong: invalid remote address, it is not the unicast address of a host',
  ],
  ['v1 id 5 local 192.0.2.4 remote 2001:db8::1', 'inet address is expected rather than "2001:db8::1", as local is one'],
  ['v1 id 5 dev a/b', 'argument "a/b" is wrong: invalid dev, it is not a valid interface name'],
  ['v1 id 5 dstport 70000', 'argument "70000" is wrong: invalid dst port, it is out of range 0..65535'],
  ['v1 id 5 dstport abc', 'argument "abc" is wrong: invalid dst port, it is not a number 0..65535'],
  ['v1 id 5 srcport 1', 'Command line is not complete: "srcport" wants 2 values'],
  ['v1 id 5 srcport 1 abc', 'argument "abc" is wrong: invalid source port range, it is not a number 0..65535'],
  [
    'v1 id 5 srcport 9 3',
    'argument "9 3" is wrong: invalid source port range, it is not a range: the maximum is below the minimum',
  ],
  ['v1 id 5 ttl 256', 'argument "256" is wrong: invalid TTL, it is out of range 0..255'],
  ['v1 id 5 ttl abc', 'argument "abc" is wrong: invalid TTL, it is not a number 0..255, auto or inherit'],
  ['v1 id 5 vtep-filter on', 'argument "on" is wrong: invalid vtep-filter, it is not one of off, known, strict'],
  ['v1 id 5 address zz', 'argument "zz" is wrong: invalid lladdr, it is not a MAC address such as 02:00:00:00:00:01'],
  [
    'v1 id 5 address 01:00:00:00:00:01',
    'argument "01:00:00:00:00:01" is wrong: invalid lladdr, it is not a unicast MAC address',
  ],
  ['v1 id 5 mtu 10', 'argument "10" is wrong: invalid mtu, it is out of range 68..65521'],
  ['v1 id 5 mtu 65522', 'argument "65522" is wrong: invalid mtu, it is out of range 68..65521'],
  ['v1 id 5 uplink tcp', 'argument "tcp" is wrong: invalid uplink, it is not one of auto, redirect, udp, raw'],
  ['v1 id 5 workers 0', 'argument "0" is wrong: invalid workers, it is out of range 1..64'],
  ['v1 id 5 type bridge', 'type "bridge" is unknown: uvxlan\'s devices are of type vxlan'],
  ['v1 id 5 group 239.1.1.1 remote 192.0.2.2 dev eth0', 'both group and remote cannot be specified'],
  ['v1 id 5 group 239.1.1.1', "'group' requires 'dev' to be specified"],
  [
    'v1 id 5 group 192.0.2.2 dev eth0',
    'argument "192.0.2.2" is wrong: invalid group address, it is not the address of a multicast group',
  ],
  ['v1 id 5 local 192.0.2.1 flowlabel 5', 'Label attribute only applies to IPv6 VXLAN devices'],
  ['v1 id 5 gbp reserved_bits 0x0000000100000000', 'Used bits 0x88ffffffffffff00 cannot overlap reserved bits'],
  ['v1 id 5 df maybe', 'argument "maybe" is wrong: invalid DF, it is not one of unset, set, inherit'],
  ['v1 id 5 external', '"external" is not there yet in uvxlan'],
  ['v1 id 5 dstprot 4789', 'unknown word "dstprot", did you mean "dstport"?'],
  ['v1 id 5 frobnicate', 'unknown word "frobnicate", see uvxlan up --help'],
  ['v1 id 5 constructor', 'unknown word "constructor", see uvxlan up --help'],
  [
    'abcdefghijklmnop id 1',
    'argument "abcdefghijklmnop" is wrong: invalid device name, it is longer than the 15 bytes of an interface name',
  ],
  ['vx%d id 1', 'argument "vx%d" is wrong: invalid device name, it is not a valid interface name'],
];

for (const [line, message] of BAD_DEVICES) {
  test(`device words refused: ${line}`, () => {
    const words = line.split(' ').filter((word) => word !== '');
    assert.throws(() => parseDevice(words), { constructor: UsageError, message });
  });
}

test('a name with a blank in it is refused', () => {
  assert.throws(() => parseDevice(['a b', 'id', '1']), /invalid device name, it is not a valid interface name/);
});

test('the hint about port 4789 is given when dstport is not', () => {
  assert.match(parseDevice(['v1', 'id', '1']).notes.join(), /use 'dstport 4789' to get the IANA assigned value/);
  assert.deepEqual(parseDevice(['v1', 'id', '1', 'dstport', '0']).notes, []);
});

test('the profile rfc7348 has other defaults, which each word overrides', () => {
  const { dstport, srcport, reserved_bits, ecn } = completeDevice({ profile: 'rfc7348' });
  assert.deepEqual(
    { dstport, srcport, reserved_bits, ecn },
    {
      dstport: 4789,
      srcport: [49152, 65535],
      reserved_bits: '0x0000000000000000',
      ecn: 'rfc6040',
    },
  );
  assert.equal(completeDevice({ profile: 'rfc7348', ecn: 'linux' }).ecn, 'linux');
  assert.equal(completeDevice({ gbp: true }).reserved_bits, '0x77000000000000ff');
});

// Where the kernel has a sentence ours begins with it: `ip link set` of Linux 6.18 says these.
const FIXED: [string, string][] = [
  ['id 2', 'Cannot change VNI'],
  ['dstport 4789', 'Cannot change port'],
  ['srcport 1 2', 'Cannot change port range'],
  ['noudpcsum', 'Cannot change UDP_CSUM flag'],
  ['noproxy', 'cannot change PROXY flag'],
  ['nol2miss', 'cannot change L2MISS flag'],
];

for (const [words, message] of FIXED) {
  test(`link set refuses ${words}`, () => {
    assert.throws(() => parseChanges(['vx1', ...words.split(' ')]), {
      constructor: UsageError,
      message: `${message}: remove the device and add it again`,
    });
  });
}

const MAC = '02:00:00:00:00:01';
const ENTRY = { mac: MAC, dev: 'v1', dst: '192.0.2.2', port: null, vni: null, via: null, state: 'permanent' };
const GOOD_ENTRIES: [string, object][] = [
  [`${MAC} dev v1 dst 192.0.2.2`, {}],
  [`to ${MAC} dev v1 dst 192.0.2.2 self permanent`, {}],
  [`dst 192.0.2.2 dev v1 ${MAC} local`, {}],
  [`${MAC} dev v1 dst 192.0.2.2 port 4789 vni 77 via eth0`, { port: 4789, vni: 77, via: 'eth0' }],
  [`${MAC} dev v1 dst 192.0.2.2 port 0 vni 0`, { port: null, vni: 0 }],
  [`${MAC} dev v1 dst 192.0.2.2 static`, { state: 'static' }],
  [`${MAC} dev v1 dst 192.0.2.2 temp`, { state: 'static' }],
  [`${MAC} dev v1 dst 192.0.2.2 self dynamic`, { state: 'dynamic' }],
  [`${MAC} dev v1 dst 192.0.2.2 dynamic extern_learn router`, { state: 'dynamic', flags: ['extern_learn', 'router'] }],
  ['00:00:00:00:00:00 dev v1 dst 2001:db8::1', { mac: '00:00:00:00:00:00', dst: '2001:db8::1' }],
];

for (const [line, expected] of GOOD_ENTRIES) {
  test(`fdb words: ${line}`, () => {
    assert.deepEqual(parseFdbEntry(line.split(' '), 'add'), { ...ENTRY, ...expected });
  });
}

const BAD_ENTRIES: [string, string][] = [
  ['', 'Device and address are required arguments.'],
  [`${MAC} dst 192.0.2.2`, 'Device and address are required arguments.'],
  ['dev v1 dst 192.0.2.2', 'Device and address are required arguments.'],
  [`${MAC} dev v1`, 'dst is a required argument: the VTEP that has the address'],
  [`${MAC} dev v1 dst`, 'Command line is not complete: "dst" wants a value'],
  [
    '02:00:00:00:00:zz dev v1 dst 192.0.2.2',
    'argument "02:00:00:00:00:zz" is wrong: invalid mac address, it is not a MAC address such as 02:00:00:00:00:01',
  ],
  [`${MAC} dev v1 dst 192.0.2.300`, 'argument "192.0.2.300" is wrong: invalid dst address, it is not an IP address'],
  [
    `${MAC} dev v1 dst 239.1.1.1`,
    'argument "239.1.1.1" is wrong: invalid dst address, it is not the unicast address of a host',
  ],
  [`${MAC} dev v1 dst 192.0.2.2 port 70000`, 'argument "70000" is wrong: invalid port, it is out of range 0..65535'],
  [`${MAC} dev v1 dst 192.0.2.2 vni abc`, 'argument "abc" is wrong: invalid VNI, it is not a number 0..16777215'],
  [`${MAC} dev v1 dst 192.0.2.2 dst 192.0.2.3`, 'duplicate "dst": "192.0.2.3" is the second value.'],
  [`${MAC} dev v1 dst 192.0.2.2 static permanent`, 'duplicate "state": "permanent" is the second value.'],
  [`${MAC} ${MAC} dev v1 dst 192.0.2.2`, `unknown word "${MAC}", see uvxlan fdb --help`],
  [`${MAC} dev v1 dst 192.0.2.2 master`, '"master" is the FDB of a bridge: uvxlan has "self" only'],
  [
    `${MAC} dev v1 dst 192.0.2.2 src_vni 5`,
    '"src_vni" is for "external" devices, which have several VNIs: uvxlan has a device for each',
  ],
  [`${MAC} dev v1 dst 192.0.2.2 vlan 5`, '"vlan" is for the FDB of a bridge'],
  [`${MAC} dev v1 nhid 5 dst 192.0.2.2`, 'dst, port, vni are mutually exclusive with nhid'],
  [`${MAC} dev v1 nhid 0`, 'argument "0" is wrong: invalid nhid, it is out of range 1..4294967295'],
  [`${MAC} dev v1 dst 192.0.2.2 prot 5`, 'unknown word "prot", did you mean "port"?'],
];

for (const [line, message] of BAD_ENTRIES) {
  test(`fdb words refused: ${line}`, () => {
    const words = line.split(' ').filter((word) => word !== '');
    assert.throws(() => parseFdbEntry(words, 'add'), { constructor: UsageError, message });
  });
}

test('an entry is deleted with or without dst', () => {
  assert.deepEqual(parseFdbEntry([MAC, 'dev', 'v1'], 'del'), { ...ENTRY, dst: null });
  assert.deepEqual(parseFdbEntry([MAC, 'dev', 'v1', 'dst', '192.0.2.2'], 'del'), ENTRY);
});

test('show and flush take a device, and what they select by', () => {
  const filter = (line: string) => parseFdbFilter(line.split(' ').filter((word) => word !== ''));
  assert.deepEqual(filter(''), { dev: null, selection: {} });
  assert.deepEqual(filter('dev v1'), { dev: 'v1', selection: {} });
  assert.deepEqual(filter('brport v1 self'), { dev: 'v1', selection: {} });
  assert.deepEqual(filter('state static'), { dev: null, selection: { static: true } });
  assert.deepEqual(filter('dynamic noextern_learn'), { dev: null, selection: { dynamic: true, extern_learn: false } });
  assert.deepEqual(parseFdbFlush('dev v1 dst 192.0.2.2 port 4789 vni 7 via eth0 nopermanent'.split(' ')), {
    dev: 'v1',
    selection: { dst: '192.0.2.2', port: 4789, vni: 7, via: 'eth0', permanent: false },
  });
  assert.throws(() => parseFdbFlush(['dev', 'v1', 'vlan', '5']), /"vlan" is for the FDB of a bridge/);
  assert.throws(() => parseFdbFlush([]), { message: 'Device is a required argument.' });
  assert.throws(() => parseFdbFilter(['v1']), /unknown word "v1", see uvxlan fdb --help/);
  assert.throws(() => parseFdbFilter(['dev']), /"dev" wants a value/);
  assert.throws(() => parseFdbFilter(['dev', 'v1', 'dev', 'v2']), /duplicate "dev"/);
});

test('get takes a MAC and a device', () => {
  assert.deepEqual(parseFdbGet(['to', MAC, 'dev', 'v1']), { mac: MAC, dev: 'v1' });
  assert.deepEqual(parseFdbGet([MAC, 'brport', 'v1', 'self']), { mac: MAC, dev: 'v1' });
  for (const words of [[], [MAC], ['dev', 'v1']]) {
    assert.throws(() => parseFdbGet(words), { message: 'Device and address are required arguments.' });
  }
  assert.throws(() => parseFdbGet([MAC, 'dev', 'v1', 'dynamic']), UsageError);
});

test('the nearest word is suggested only when it is near', () => {
  const known = ['dstport', 'srcport', 'local', 'id'];
  assert.equal(nearest('dstprot', known), 'dstport');
  assert.equal(nearest('LOCAL', known), 'local');
  assert.equal(nearest('loca', known), 'local');
  assert.equal(nearest('port', known), undefined);
  assert.equal(nearest('xyz', known), undefined);
});
