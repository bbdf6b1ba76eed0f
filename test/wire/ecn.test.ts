import assert from 'node:assert/strict';
import test from 'node:test';
import * as ecn from '../../wire/ecn.ts';
import { frame, otherFrame, referenceSum } from '../dataplane/packet.ts';
import { guarded, hex, placed } from './canvas.ts';

const { NOT_ECT, ECT_0, ECT_1, CE, ECN_DROP } = ecn;
const NAMES = ['Not-ECT', 'ECT(1)', 'ECT(0)', 'CE'];
const FIELDS = [NOT_ECT, ECT_0, ECT_1, CE];

/** RFC 6040, figure 4: outer Not-ECT, ECT(0), ECT(1), CE. */
const FIGURE_4: [number, number[]][] = [
  [NOT_ECT, [NOT_ECT, NOT_ECT, NOT_ECT, ECN_DROP]],
  [ECT_0, [ECT_0, ECT_0, ECT_1, CE]],
  [ECT_1, [ECT_1, ECT_1, ECT_1, CE]],
  [CE, [CE, CE, CE, CE]],
];

for (const [inner, row] of FIGURE_4) {
  for (const [column, expected] of row.entries()) {
    const outer = FIELDS[column];
    test(`inner ${NAMES[inner]}, outer ${NAMES[outer]}`, () => {
      for (const ds of [0, 0xb8, 0xfc]) {
        assert.equal(ecn.decapsulatedEcn(ds | inner, (~ds & 0xfc) | outer), expected);
        for (const version of [4, 6] as const) {
          for (const tags of [[], [1], [1, 2]]) assertTaken({ version, tags, tos: ds | inner }, outer, expected);
        }
      }
    });
  }
}

function assertTaken(spec: { version: 4 | 6; tags: number[]; tos: number }, outer: number, expected: number): void {
  const before = frame(spec);
  const bytes = placed(before, 3);
  const isKept = ecn.takeOuterEcn(bytes, 3, before.length, outer);
  assert.equal(isKept, expected !== ECN_DROP);
  // Not built anew: the checksum of the frame that has the other TOS from the start is the one to have.
  const after = isKept ? frame({ ...spec, tos: (spec.tos & 0xfc) | expected }) : before;
  const shown = Buffer.from(bytes.subarray(3, 3 + before.length)).toString('hex');
  assert.equal(shown, Buffer.from(after).toString('hex'), JSON.stringify({ spec, outer }));
  assert.ok(bytes.subarray(3 + before.length).every((byte) => byte === 0xa5));
}

test('a wrong IPv4 checksum is as wrong afterwards', () => {
  const bytes = frame({ tos: ECT_0 });
  bytes[24] ^= 0x40;
  const wrong = referenceSum(bytes.subarray(14, 34));
  assert.ok(ecn.takeOuterEcn(bytes, 0, bytes.length, CE));
  assert.equal(bytes[15], CE);
  assert.equal(referenceSum(bytes.subarray(14, 34)), wrong);
});

test('what is not IP, or ends in its header, is left alone', () => {
  for (const whole of [otherFrame(0x0806, 28), frame({ tos: ECT_0 }), frame({ version: 6, tos: ECT_0, tags: [5] })]) {
    const header = 14 + (whole[12] === 8 && whole[13] === 0 ? 20 : 44);
    for (let length = 0; length < header; length++) {
      const bytes = placed(whole.subarray(0, length), 5);
      const before = bytes.slice();
      assert.ok(ecn.takeOuterEcn(guarded(bytes, 5, length), 5, length, CE), `${length} bytes`);
      assert.deepEqual(bytes, before);
    }
  }
});

test('encapsulation copies the field, but for Linux, which sends CE as ECT(0)', () => {
  assert.deepEqual(FIELDS.map(ecn.encapsulatedEcn), FIELDS);
  assert.deepEqual(FIELDS.map(ecn.encapsulatedEcnLinux), [NOT_ECT, ECT_0, ECT_1, ECT_0]);
  assert.equal(ecn.encapsulatedEcn(0xff), CE);
  assert.equal(ecn.encapsulatedEcnLinux(0xfe), ECT_0);
});

test('reads the traffic class across the bytes that it lies in', () => {
  assert.equal(ecn.trafficClass(placed(hex('6b812345'), 1), 1), 0xb8);
  assert.equal(ecn.trafficClass(placed(hex('6ff00000'), 1), 1), 0xff);
});
