import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { innerLayout, ipEnd, layoutNetwork, layoutProtocol, layoutTransport } from '../../wire/layout.ts';
import { guarded, hex, placed } from './canvas.ts';

const MACS = '020000000002 020000000001';
const ADDRESSES = '0a000001 0a000002';
const ADDRESSES6 = '20010db8000000000000000000000001 20010db8000000000000000000000002';
const UDP = '0001 0002 0008 0000';
const TCP = '0001000200000000000000005010ffff00000000';
const ICMP = '0800f7ff00000000';

function layout(frame: Uint8Array, length = frame.length): [number, number, number] | 0 {
  const found = innerLayout(guarded(placed(frame, 3), 3, length), 3, length);
  return found && [layoutNetwork(found), layoutTransport(found), layoutProtocol(found)];
}

test('finds the transport header', () => {
  const cases: [string, number, number, number][] = [
    [`${MACS} 0800 45000000000000004011 0000 ${ADDRESSES} ${UDP}`, 14, 34, 17],
    [`${MACS} 0800 46000000000040004006 0000 ${ADDRESSES} 01010101 ${TCP}`, 14, 38, 6],
    [`${MACS} 0800 45000000000000004001 0000 ${ADDRESSES} ${ICMP}`, 14, 34, 1],
    [`${MACS} 8100 0064 0800 45000000000000004011 0000 ${ADDRESSES} ${UDP}`, 18, 38, 17],
    [`${MACS} 88a8 0001 8100 0064 86dd 6000000000000640 ${ADDRESSES6} ${TCP}`, 22, 62, 6],
    [`${MACS} 86dd 6000000000000040 ${ADDRESSES6} 11 00 010400000000 ${UDP}`, 14, 62, 17],
  ];
  for (const [text, ...expected] of cases) {
    const frame = hex(text);
    assert.deepEqual(layout(frame), expected, text);
    // With ICMP, 8 bytes less still hold the whole IP header.
    const needed = expected[2] === 1 ? expected[1] : frame.length;
    for (let length = 0; length < needed; length++) assert.equal(layout(frame, length), 0, `${length} of ${text}`);
  }
});

test('there is none in fragments and in what is not IP', () => {
  for (const text of [
    `${MACS} 0800 45000000000020004011 0000 ${ADDRESSES} ${UDP}`,
    `${MACS} 0800 45000000000000014011 0000 ${ADDRESSES} ${UDP}`,
    `${MACS} 86dd 6000000000002c40 ${ADDRESSES6} 11 00 0001 00000007 ${UDP}`,
    `${MACS} 0800 65000000000000004011 0000 ${ADDRESSES} ${UDP}`,
    `${MACS} 86dd 4000000000001140 ${ADDRESSES6} ${UDP}`,
    `${MACS} 0806 ${'00'.repeat(46)}`,
  ]) {
    assert.equal(layout(hex(text)), 0, text);
  }
});

test('random frames are read within their length', () => {
  const type = fc.constantFrom('0800', '86dd', '81000001', '88a80001');
  const rest = fc.uint8Array({ maxLength: 120 });
  fc.assert(
    fc.property(type, fc.constantFrom(0x45, 0x4f, 0x60), rest, (text, version, data) => {
      const frame = Uint8Array.from([...hex(MACS + text), version, ...data]);
      const found = layout(frame);
      assert.ok(found === 0 || found[1] <= frame.length);
    }),
  );
});

test('tells where the IP packet ends, whatever the frame is padded to', () => {
  const ipv4 = new Uint8Array(80).fill(0xa5);
  ipv4.set([0x45, 0, 0, 30], 14);
  assert.equal(ipEnd(ipv4, 0, 14), 44);
  const ipv6 = new Uint8Array(80).fill(0xa5);
  ipv6.set([0x60, 0, 0, 0, 0, 7], 2 + 18);
  assert.equal(ipEnd(ipv6, 2, 18), 18 + 40 + 7);
});
