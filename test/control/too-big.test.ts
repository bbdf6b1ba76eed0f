import assert from 'node:assert/strict';
import test from 'node:test';
import { readPathLimit } from '../../control/too-big.ts';
import { hex } from '../wire/canvas.ts';

const IPV4 = '4500 05dc 0000 4000 40 11 0000 c0000201 c0000202';
const IPV6 = '60000000 05b4 11 40 20010db8000000000000000000000001 20010db8000000000000000000000002';
const UDP = 'c001 2118 05b4 0000';
const VXLAN = '08000000 00000700';
const FRONT = '45c0 0038 0000 0000 40 01 0000 c00002fe c0000201';
const v4 = (mtu: string, quote: string, code = '04', front = FRONT): Uint8Array =>
  hex(`${front} 03${code} 0000 0000 ${mtu} ${quote}`);
const v6 = (mtu: string, quote: string): Uint8Array => hex(`0200 0000 ${mtu} ${quote}`);
const read = (bytes: Uint8Array, family: 4 | 6) => readPathLimit(bytes, bytes.length, family);

test('reads what a router says of a packet of ours', () => {
  const limit = { source: '192.0.2.1', destination: '192.0.2.2', port: 8472, vni: undefined, mtu: 1400 };
  assert.deepEqual(read(v4('0578', IPV4 + UDP), 4), limit);
  assert.deepEqual(read(v4('0578', IPV4 + UDP + VXLAN), 4), { ...limit, vni: 7 });
  assert.deepEqual(read(v4('0000', IPV4 + UDP), 4), { ...limit, mtu: 0 }, 'a router that tells none');
  const options = FRONT.replace('45c0', '46c0').concat('01010101');
  assert.deepEqual(read(v4('0578', IPV4 + UDP, '04', options), 4), limit, 'IP options in front');
  assert.deepEqual(read(v6('00000500', IPV6 + UDP + VXLAN), 6), {
    ...{ source: '2001:db8::1', destination: '2001:db8::2', port: 8472, vni: 7, mtu: 1280 },
  });
});

test('takes nothing that is not about one', () => {
  for (const [bytes, why] of [
    [v4('0578', IPV4 + UDP, '03'), 'another code'],
    [v4('05dc', IPV4 + UDP), 'it would have fit'],
    [v4('ffff', IPV4 + UDP), 'it would have fit'],
    [v4('0578', IPV4.replace('4000 40', '0000 40') + UDP), 'without DF'],
    [v4('0578', IPV4.replace('4000 40', '6000 40') + UDP), 'a fragment'],
    [v4('0578', IPV4.replace('40 11', '40 06') + UDP), 'TCP'],
    [v4('0578', `${IPV4.replace('4500', '4600')}01010101${UDP}`), 'with options'],
    [v4('0578', IPV4.replace('4500', '6500') + UDP), 'not IPv4'],
    [v4('0578', `${IPV4}${UDP}00000000 00000700`), 'no VXLAN'],
  ] as const) {
    assert.equal(read(bytes, 4), undefined, why);
  }
  for (const [bytes, why] of [
    [v6('000005dc', IPV6 + UDP), 'it would have fit'],
    [v6('80000578', IPV6 + UDP), 'it would have fit'],
    [v6('00000500', IPV6.replace('11 40', '2c 40') + UDP), 'a fragment'],
    [v6('00000500', IPV6.replace('60000000', '40000000') + UDP), 'not IPv6'],
  ] as const) {
    assert.equal(read(bytes, 6), undefined, why);
  }
});

test('a message that ends anywhere is no trouble', () => {
  for (const [whole, family, shortest] of [
    [v4('0578', IPV4 + UDP + VXLAN), 4, 56],
    [v6('00000500', IPV6 + UDP + VXLAN), 6, 56],
  ] as const) {
    for (let length = 0; length < whole.length; length++) {
      const bytes = new Uint8Array(200).fill(0xff);
      bytes.set(whole.subarray(0, length));
      const limit = readPathLimit(bytes, length, family);
      assert.equal(limit !== undefined, length >= shortest, `${length} bytes`);
      assert.equal(limit?.vni, undefined);
    }
  }
});
