import assert from 'node:assert/strict';
import test from 'node:test';
import {
  mdbEntryOf,
  mdbSelectionOf,
  parseMdbEntry,
  parseMdbFlush,
  parseMdbGet,
  parseMdbShow,
} from '../../control/mdb-words.ts';
import { UsageError } from '../../control/words.ts';

const words = (line: string) => line.split(' ').filter((word) => word !== '');

test("bridge mdb's words", () => {
  assert.deepEqual(parseMdbEntry(words('dev v4 port v4 grp 239.1.1.1 permanent dst 192.0.2.2')), {
    dev: 'v4',
    grp: '239.1.1.1',
    state: 'permanent',
    dst: '192.0.2.2',
  });
  const all = 'dst 192.0.2.2 dst_port 4789 vni 7 src_vni 6 via eth0 filter_mode exclude source_list 10.0.0.1,10.0.0.2';
  assert.deepEqual(parseMdbEntry(words(`temp port v4 ${all} grp FF05::0:1 src fd00::0:1 dev v4`)), {
    ...{
      dev: 'v4',
      grp: 'ff05::1',
      src: 'fd00::1',
      state: 'temp',
      dst: '192.0.2.2',
      dst_port: 4789,
      vni: 7,
      src_vni: 6,
    },
    ...{ via: 'eth0', filter_mode: 'exclude', source_list: ['10.0.0.1', '10.0.0.2'] },
  });
  assert.deepEqual(parseMdbShow([]), { dev: null });
  assert.deepEqual(parseMdbShow(words('dev v4')), { dev: 'v4' });
  assert.deepEqual(parseMdbGet(words('dev v4 grp 239.1.1.1 src 10.0.0.1')), {
    dev: 'v4',
    grp: '239.1.1.1',
    src: '10.0.0.1',
  });
  assert.deepEqual(parseMdbFlush(words('dev v4 port v4 dst 192.0.2.2 vni 7 permanent')), {
    dev: 'v4',
    selection: { dst: '192.0.2.2', vni: 7 },
  });
});

for (const [line, message] of [
  ['dev v4 grp 239.1.1.1', 'Device, group address and port name are required arguments.'],
  ['dev v4 port eth0 grp 239.1.1.1', 'Error: vxlan: Port net device must be the VXLAN net device.'],
  [
    'dev v4 port v4 grp 01:00:5e:00:00:01',
    'argument "01:00:5e:00:00:01" is wrong: invalid group address, it is not an IP address',
  ],
  [
    'dev v4 port v4 grp 239.1.1.1 dst 239.1.1.2',
    'argument "239.1.1.2" is wrong: invalid dst address, it is not the unicast address of a host',
  ],
  [
    'dev v4 port v4 grp 239.1.1.1 filter_mode both',
    'argument "both" is wrong: invalid filter_mode, it is neither include nor exclude',
  ],
  [
    'dev v4 port v4 grp 239.1.1.1 source_list 10.0.0.1,x',
    'argument "x" is wrong: invalid source address, it is not an IP address',
  ],
  ['dev v4 port v4 grp 239.1.1.1 vid 5', '"vid" is for the MDB of a bridge: Error: vxlan: VID must not be specified.'],
  ['dev v4 port v4 grp 239.1.1.1 proto zebra', '"proto" is not there in uvxlan: all entries are "proto static"'],
  ['dev v4 port v4 grp 239.1.1.1 permanent temp', 'duplicate "state": "temp" is the second value.'],
  ['dev v4 dev v5', 'duplicate "dev": "v5" is the second value.'],
  ['dev v4 port v4 gpr 239.1.1.1', 'unknown word "gpr", did you mean "grp"?'],
  ['grp', 'Command line is not complete: "grp" wants a value'],
] as const) {
  test(`refused: ${line}`, () => {
    assert.throws(() => parseMdbEntry(words(line)), { constructor: UsageError, message });
  });
}

test('refused of show, get and flush', () => {
  assert.throws(() => parseMdbShow(words('grp 239.1.1.1')), UsageError);
  assert.throws(() => parseMdbGet(words('dev v4')), { message: 'Device and group address are required arguments.' });
  assert.throws(() => parseMdbFlush([]), { message: 'Device is a required argument.' });
  assert.throws(() => parseMdbFlush(words('dev v4 port eth0')), { message: 'Error: vxlan: Invalid port net device.' });
  assert.throws(() => parseMdbFlush(words('dev v4 nopermanent')), {
    message: 'Error: vxlan: Only permanent MDB entries are supported.',
  });
});

test('what comes over the socket is checked as well', () => {
  const entry = { dev: 'v4', grp: '239.1.1.1', source_list: ['10.0.0.1', '10.0.0.2'], dst: '192.0.2.2', vni: 5 };
  assert.deepEqual(mdbEntryOf({ ...entry, src: null }), entry);
  for (const wrong of [{ ...entry, frob: 1 }, { dev: 'v4' }, { grp: '239.1.1.1' }])
    assert.throws(() => mdbEntryOf(wrong), { errno: 'EINVAL' });
  assert.throws(() => mdbEntryOf({ ...entry, dst: {} }), /not an IP address/);
  assert.throws(() => mdbSelectionOf({ grp: '239.1.1.1' }), { errno: 'EINVAL' });
  assert.deepEqual(mdbSelectionOf({ dst: '192.0.2.2' }), { dst: '192.0.2.2' });
});
