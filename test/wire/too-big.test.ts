import assert from 'node:assert/strict';
import test from 'node:test';
import { TOO_BIG_FRAME, writeTooBig } from '../../wire/too-big.ts';
import { frame, payload, referenceSum } from '../dataplane/packet.ts';
import { hex, placed, written } from './canvas.ts';

const AT = 4096;
const answer = (bytes: Uint8Array, mtu = 1400, wantsDf = true): Uint8Array => {
  const memory = placed(bytes, AT);
  const length = writeTooBig(memory, 11, AT, bytes.length, mtu, wantsDf);
  assert.ok(
    memory.subarray(11 + length, AT).every((byte) => byte === 0xa5),
    'bytes behind the answer',
  );
  return memory.slice(11, 11 + length);
};
const changed = (bytes: Uint8Array, ...changes: [number, number][]): Uint8Array => {
  const copy = bytes.slice();
  for (const [offset, value] of changes) copy[offset] = value;
  return copy;
};
const BIG4 = frame({ payload: payload(1400) });
const BIG6 = frame({ version: 6, payload: payload(1400), tos: 0xb8, flowLabel: 5 });

test('tells an IPv4 sender to fragment, in the name of its destination', () => {
  const bytes = answer(BIG4);
  assert.equal(bytes.length, 14 + 576);
  const head = hex(`020000000001 020000000002 0800
    45 00 0240 0000 4000 40 01`);
  assert.deepEqual(bytes.slice(0, head.length), head);
  assert.deepEqual(bytes.slice(26, 34), hex('0a000002 0a000001'));
  assert.equal(referenceSum(bytes.subarray(14, 34)), 0xffff);
  assert.deepEqual(bytes.slice(34, 36), hex('0304'));
  assert.deepEqual(bytes.slice(38, 42), hex('0000 0578'));
  assert.deepEqual(bytes.slice(42), BIG4.slice(14, 14 + 548));
  assert.equal(referenceSum(bytes.subarray(34)), 0xffff);
});

test('tells an IPv6 sender, in the name of its destination', () => {
  const bytes = answer(BIG6);
  assert.equal(bytes.length, TOO_BIG_FRAME);
  assert.deepEqual(bytes.slice(0, 22), hex('020000000001 020000000002 86dd 60000000 04d8 3a 40'));
  assert.deepEqual(bytes.slice(22, 54), Uint8Array.from([...BIG6.slice(38, 54), ...BIG6.slice(22, 38)]));
  assert.deepEqual(bytes.slice(54, 56), hex('0200'));
  assert.deepEqual(bytes.slice(58, 62), hex('00000578'));
  assert.deepEqual(bytes.slice(62), BIG6.slice(14, 14 + 1232));
  const pseudo = referenceSum(bytes.subarray(22, 54), 0x04d8 + 58);
  assert.equal(referenceSum(bytes.subarray(54), pseudo), 0xffff);
});

test('quotes a short packet whole', () => {
  const short = frame({ payload: payload(20) });
  const bytes = answer(short);
  assert.equal(bytes.length, 14 + 28 + short.length - 14);
  assert.equal(
    written(bytes.length, (b, at) => b.set(bytes, at)),
    Buffer.from(bytes).toString('hex'),
  );
});

test('leaves packets without DF to whoever may fragment them', () => {
  const plain = frame({ dontFragment: false, payload: payload(1400) });
  assert.equal(answer(plain).length, 0);
  assert.equal(answer(plain, 1400, false).length, 590);
  assert.equal(answer(changed(plain, [20, 0x20]), 1400, false).length, 590, 'a first fragment');
  assert.equal(answer(changed(plain, [21, 1]), 1400, false).length, 0, 'a later one');
  assert.equal(answer(changed(BIG4, [20, 0x60])).length, 0, 'the kernel wants DF and nothing else');
});

test('says nothing to or of addresses that are nobody, and nothing of errors', () => {
  const icmp4 = (type: number) => changed(BIG4, [23, 1], [34, type]);
  const icmp6 = (type: number) => changed(BIG6, [20, 58], [54, type]);
  const zeros = Array.from({ length: 16 }, (_, i): [number, number] => [22 + i, 0]);
  for (const bytes of [
    changed(BIG4, [26, 0]),
    changed(BIG4, [26, 127]),
    changed(BIG4, [26, 224]),
    changed(BIG4, [26, 255]),
    changed(BIG4, [30, 239]),
    changed(BIG4, [30, 255]),
    changed(BIG6, [22, 0xff]),
    changed(BIG6, ...zeros),
    changed(BIG6, ...zeros, [37, 1]),
    ...[3, 4, 5, 11, 12].map(icmp4),
    ...[1, 2, 3, 4, 127, 137].map(icmp6),
    changed(BIG4, [12, 0x81], [13, 0x00]),
    changed(BIG4, [12, 0x08], [13, 0x06]),
  ]) {
    assert.equal(answer(bytes).length, 0);
  }
  for (const bytes of [
    icmp4(8),
    icmp4(0),
    icmp6(128),
    icmp6(135),
    changed(BIG6, [20, 44], [54, 58], [56, 0], [57, 0x08]),
    changed(BIG6, [20, 44], [54, 17], [56, 0], [57, 0x01]),
  ]) {
    assert.notEqual(answer(bytes).length, 0);
  }
});

test('tells no MTU that is smaller than every path has', () => {
  assert.equal(answer(BIG4, 575).length, 0);
  assert.equal(answer(BIG4, 576).length, 590);
  assert.equal(answer(BIG6, 1279).length, 0);
  assert.equal(answer(BIG6, 1280).length, TOO_BIG_FRAME);
});

test('keeps within frames that are cut off anywhere', () => {
  const extended = frame({ version: 6, ipOptions: new Uint8Array(24).fill(1, 1, 2), payload: payload(40) });
  const icmp = changed(frame({ payload: payload(40) }), [23, 1], [34, 8]);
  const fragment = changed(frame({ version: 6, payload: payload(40) }), [20, 44], [54, 58], [56, 0], [57, 0]);
  for (const whole of [BIG4.subarray(0, 90), BIG6.subarray(0, 110), extended, icmp, fragment]) {
    for (let length = 0; length <= whole.length; length++) {
      // What lies behind the frame must not matter.
      const [a, b] = [0x00, 0xff].map((behind) => {
        const memory = new Uint8Array(AT + 4096).fill(behind);
        memory.set(whole.subarray(0, length), AT);
        const size = writeTooBig(memory, 0, AT, length, 1400, false);
        return Buffer.from(memory.subarray(0, size)).toString('hex');
      });
      assert.equal(a, b);
    }
  }
});
