import assert from 'node:assert/strict';
import test from 'node:test';
import { ConfigError, parseConfig } from '../../control/config.ts';
import { parseDevice } from '../../control/words.ts';

function problems(text: string): readonly string[] {
  try {
    parseConfig(text, 'uvxlan.yaml');
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  assert.fail('the configuration was accepted');
}

test('a configuration gives the same device as the words', () => {
  const { devices, notes } = parseConfig(
    `
devices:
  - name: flannel.1
    id: 0x1
    local: 192.0.2.1
    dev: eth0
    dstport: 8472
    srcport: [1000, 2000]
    ttl: auto
    udpcsum: false
    learning: false
    address: 02:00:00:00:00:01
    mtu: 1400
    uplink: redirect
    workers: 2
`,
    'uvxlan.yaml',
  );
  const words =
    'flannel.1 id 1 local 192.0.2.1 dev eth0 dstport 8472 srcport 1000 2000 ttl auto noudpcsum nolearning ' +
    'address 02:00:00:00:00:01 mtu 1400 uplink redirect workers 2';
  assert.deepEqual(devices, [parseDevice(words.split(' ')).device]);
  assert.deepEqual(notes, []);
});

test('several devices, their FDB entries, anchors, and the note about the port', () => {
  const { devices, notes } = parseConfig(
    `
devices:
  - { name: vx1, id: 1, local: &us 192.0.2.1, fdb: [ { mac: "00:00:00:00:00:00", dst: 192.0.2.2 } ] }
  - name: vx2
    id: 1
    local: *us
    dstport: 4789
    fdb:
      - mac: 02:00:00:00:00:02
        dst: 192.0.2.3
        port: 8472
        vni: 7
        via: eth1
        state: static
`,
    'uvxlan.yaml',
  );
  assert.deepEqual(
    devices.map(({ name, local, dstport }) => [name, local, dstport]),
    [
      ['vx1', '192.0.2.1', 8472],
      ['vx2', '192.0.2.1', 4789],
    ],
  );
  assert.deepEqual(devices[0].fdb, [
    { mac: '00:00:00:00:00:00', dst: '192.0.2.2', port: null, vni: null, via: null, state: 'permanent' },
  ]);
  assert.deepEqual(devices[1].fdb, [
    { mac: '02:00:00:00:00:02', dst: '192.0.2.3', port: 8472, vni: 7, via: 'eth1', state: 'static' },
  ]);
  assert.equal(notes.length, 1);
  assert.match(notes[0], /^vx1: destination port not specified/);
});

const MISTAKES: [string, string, string[]][] = [
  ['an empty file', '', ['uvxlan.yaml:1:1: the configuration is not a map; keys are devices']],
  ['no devices', 'devices: []\n', ['uvxlan.yaml:1:1: devices: is missing: a list of at least one device']],
  ['devices not a list', 'devices: 5\n', ['uvxlan.yaml:1:10: devices: is not a list']],
  [
    'a device that is not a map',
    'devices:\n  - vx1\n',
    ['uvxlan.yaml:2:5: devices[0]: is not a map; keys are the words of uvxlan up: see uvxlan up --help'],
  ],
  [
    'a value out of range',
    'devices:\n  - name: vx1\n    id: 16777216\n',
    ['uvxlan.yaml:3:9: devices[0].id: 16777216 is out of range 0..16777215'],
  ],
  [
    'missing keys',
    'devices:\n  - dstport: 8472\n',
    [
      'uvxlan.yaml:2:5: devices[0].name: missing name of the device',
      'uvxlan.yaml:2:5: devices[0].id: missing virtual network identifier: give id N',
    ],
  ],
  ['unknown keys', 'device:\n  - name: vx1\n', ['uvxlan.yaml:1:1: device: unknown key, did you mean devices?']],
  [
    'an unknown key of a device, and one that is to come',
    'devices:\n  - name: vx1\n    id: 1\n    dstprot: 4789\n    external: true\n',
    [
      'uvxlan.yaml:4:5: devices[0].dstprot: unknown key, did you mean dstport?',
      'uvxlan.yaml:5:5: devices[0].external: is not there yet in uvxlan',
    ],
  ],
  [
    'an empty value',
    'devices:\n  - name: vx1\n    id: 1\n    local:\n',
    ['uvxlan.yaml:4:11: devices[0].local: is empty: give a value, or leave the key out'],
  ],
  [
    'the wrong kind of value',
    'devices:\n  - name: vx1\n    id: [1]\n    srcport: 1000\n    udpcsum: "no"\n',
    [
      'uvxlan.yaml:3:9: devices[0].id: is a list or a map, but one value is expected',
      'uvxlan.yaml:4:14: devices[0].srcport: is not a list',
      'uvxlan.yaml:5:14: devices[0].udpcsum: no is neither true nor false',
    ],
  ],
  [
    'a bad range',
    'devices:\n  - name: vx1\n    id: 1\n    srcport: [9, 3]\n',
    ['uvxlan.yaml:4:14: devices[0].srcport: "9 3" is not a range: the maximum is below the minimum'],
  ],
  [
    'learning',
    'devices:\n  - name: vx1\n    id: 1\n    learning: on\n',
    ['uvxlan.yaml:4:15: devices[0].learning: on is neither true nor false'],
  ],
  [
    'mistakes in FDB entries',
    'devices:\n  - name: vx1\n    id: 1\n    fdb:\n      - mac: 02:00:00:00:00:0z\n        dst: 192.0.2.2\n' +
      '      - dst: 192.0.2.2\n        prot: 1\n',
    [
      'uvxlan.yaml:5:14: devices[0].fdb[0].mac: 02:00:00:00:00:0z is not a MAC address such as 02:00:00:00:00:01',
      'uvxlan.yaml:8:9: devices[0].fdb[1].prot: unknown key, did you mean port?',
      'uvxlan.yaml:7:9: devices[0].fdb[1].mac: is missing',
    ],
  ],
  [
    'families that do not agree',
    'devices:\n  - name: vx1\n    id: 1\n    local: 192.0.2.1\n    remote: 2001:db8::1\n',
    ['uvxlan.yaml:5:13: devices[0].remote: inet address is expected rather than "2001:db8::1", as local is one'],
  ],
  [
    'FDB entries of another family than local',
    'devices:\n  - name: vx1\n    id: 1\n    local: 192.0.2.1\n    fdb:\n' +
      '      - { mac: "00:00:00:00:00:00", dst: 2001:db8::1 }\n      - { mac: "00:00:00:00:00:00", dst: 192.0.2.2 }\n',
    ['uvxlan.yaml:6:42: devices[0].fdb[0].dst: inet address is expected rather than "2001:db8::1", as local is one'],
  ],
  [
    'FDB entries of another family than remote, or than the first',
    'devices:\n  - name: vx1\n    id: 1\n    remote: 2001:db8::1\n    fdb: [{ mac: "02:00:00:00:00:01", dst: 192.0.2.2 }]\n' +
      '  - name: vx2\n    id: 2\n    fdb:\n      - { mac: "02:00:00:00:00:01", dst: 192.0.2.2 }\n' +
      '      - { mac: "02:00:00:00:00:02", dst: "2001:db8::2" }\n',
    [
      'uvxlan.yaml:5:44: devices[0].fdb[0].dst: inet6 address is expected rather than "192.0.2.2", as remote is one',
      'uvxlan.yaml:10:42: devices[1].fdb[1].dst: inet address is expected rather than "2001:db8::2", as devices[1].fdb[0].dst is one',
    ],
  ],
  [
    'a unicast MAC twice',
    'devices:\n  - name: vx1\n    id: 1\n    fdb:\n      - { mac: "02:00:00:00:00:0a", dst: 192.0.2.2 }\n' +
      '      - { mac: "02:00:00:00:00:0A", dst: 192.0.2.3 }\n      - { mac: "01:00:5e:00:00:01", dst: 192.0.2.2 }\n' +
      '      - { mac: "01:00:5e:00:00:01", dst: 192.0.2.3 }\n',
    [
      'uvxlan.yaml:6:16: devices[0].fdb[1].mac: 02:00:00:00:00:0a has an entry already: ' +
        'only 00:00:00:00:00:00 and multicast MAC addresses may have several',
    ],
  ],
  [
    'one name or one VNI twice',
    'devices:\n  - { name: vx1, id: 1 }\n  - { name: vx1, id: 2 }\n  - { name: vx3, id: 2, dstport: 8472 }\n',
    [
      'uvxlan.yaml:3:13: devices[1].name: vx1 is the name of another device as well',
      'uvxlan.yaml:4:22: devices[2].id: 2 is the VNI of vx1 on the same port already',
    ],
  ],
];

for (const [what, text, expected] of MISTAKES) {
  test(`configuration refused: ${what}`, () => assert.deepEqual(problems(text), expected));
}

test('a mistake in YAML itself names its line', () => {
  const [first] = problems('devices:\n  - name: "vx1\n');
  assert.match(first, /^uvxlan\.yaml:\d+:\d+: .*quote/i);
  assert.match(problems('devices:\n\t- name: vx1\n')[0], /^uvxlan\.yaml:2:\d+: .*[Tt]ab/);
  assert.match(
    problems('devices:\n  - name: a\n    name: b\n    id: 1\n')[0],
    /^uvxlan\.yaml:3:5: Map keys must be unique/,
  );
});
