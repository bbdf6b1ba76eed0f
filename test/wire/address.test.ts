import assert from 'node:assert/strict';
import { isIPv4, isIPv6 } from 'node:net';
import test from 'node:test';
import fc from 'fast-check';
import * as address from '../../wire/address.ts';
import { hex, placed } from './canvas.ts';

test('MAC addresses to bytes and back', () => {
  assert.deepEqual(address.parseMac('02:0A:bc:00:00:ff'), hex('020abc0000ff'));
  assert.equal(address.formatMac(hex('020abc0000ff')), '02:0a:bc:00:00:ff');
  assert.equal(address.formatMac(placed(hex('020abc0000ff'), 3), 3), '02:0a:bc:00:00:ff');
});

test('what is no MAC address is refused', () => {
  const wrong = ['', '02:0a:bc:00:00', '02:0a:bc:00:00:ff:00', '2:a:bc:0:0:ff', '02-0a-bc-00-00-ff', '020abc0000ff'];
  for (const text of [...wrong, '02:0a:bc:00:00:fg', ' 02:0a:bc:00:00:ff', '02:0a:bc:00:00:ff\n']) {
    assert.equal(address.parseMac(text), undefined, JSON.stringify(text));
  }
});

test('MAC addresses as two numbers', () => {
  const bytes = hex('00 81020a83ff84');
  assert.equal(address.macHigh(bytes, 1), 0x8102);
  assert.equal(address.macLow(bytes, 1), 0x0a83ff84);
  assert.equal(address.macLow(hex('0000ffffffff'), 0), -1, 'int32');
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (mac) => {
      assert.deepEqual(address.macBytes(address.macHigh(mac, 0), address.macLow(mac, 0)), mac);
      assert.deepEqual(address.parseMac(address.formatMac(mac)), mac);
    }),
  );
});

test('IPv4 addresses to bytes and back', () => {
  assert.deepEqual(address.parseIpv4('192.0.2.255'), hex('c00002ff'));
  assert.equal(address.formatIpv4(placed(hex('c00002ff'), 3), 3), '192.0.2.255');
  for (const text of ['', '192.0.2', '192.0.2.256', '192.0.2.01', '192.0.2.1 ', '0xc0.0.2.1', '192.0.2.1/24', '::1']) {
    assert.equal(address.parseIpv4(text), undefined, JSON.stringify(text));
  }
});

test('text is an IPv4 address to us when it is one to Node', () => {
  const part = fc.oneof(fc.nat(300).map(String), fc.constantFrom('', '0', '00', '01', '-1', '1e1', ' 1', '\u0661'));
  fc.assert(
    fc.property(fc.array(part, { minLength: 3, maxLength: 5 }), fc.constantFrom('', '.', '\n'), (parts, end) => {
      const text = parts.join('.') + end;
      const bytes = address.parseIpv4(text);
      assert.equal(bytes !== undefined, isIPv4(text), JSON.stringify(text));
      if (bytes) assert.equal(address.formatIpv4(bytes), text);
    }),
    { numRuns: 2000 },
  );
});

// Text that RFC 5952 would not write, and the form that it would: sections 2, 4 and 5.
const IPV6: [string, string, string][] = [
  ['::', '00000000000000000000000000000000', '::'],
  ['::1', '00000000000000000000000000000001', '::1'],
  ['1::', '00010000000000000000000000000000', '1::'],
  ['2001:0DB8::0001', '20010db8000000000000000000000001', '2001:db8::1'],
  ['2001:db8:0:0:0:0:2:1', '20010db8000000000000000000020001', '2001:db8::2:1'],
  ['2001:db8::1:1:1:1:1', '20010db8000000010001000100010001', '2001:db8:0:1:1:1:1:1'],
  ['2001:0:0:1:0:0:0:1', '20010000000000010000000000000001', '2001:0:0:1::1'],
  ['2001:db8:0:0:1::1', '20010db8000000000001000000000001', '2001:db8::1:0:0:1'],
  ['1:2:3:4:5:6:7::', '00010002000300040005000600070000', '1:2:3:4:5:6:7:0'],
  ['::ffff:c000:201', '00000000000000000000ffffc0000201', '::ffff:192.0.2.1'],
  ['64:ff9b::192.0.2.1', '0064ff9b0000000000000000c0000201', '64:ff9b::c000:201'],
];

test('IPv6 addresses to bytes, and back as RFC 5952 writes them', () => {
  for (const [text, bytes, canonical] of IPV6) {
    assert.deepEqual(address.parseIpv6(text), hex(bytes), text);
    assert.deepEqual(address.parseIpv6(canonical), hex(bytes), canonical);
    assert.equal(address.formatIpv6(placed(hex(bytes), 3), 3), canonical);
  }
});

test('what is no IPv6 address is refused', () => {
  for (const text of [
    '',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '12345::',
    'fe80::1%eth0',
    '2001:db8::/32',
    '1.2.3.4',
  ]) {
    assert.equal(address.parseIpv6(text), undefined, JSON.stringify(text));
  }
});

test('IPv6 text and bytes are inverse of each other', () => {
  const group = fc.oneof(fc.constant(0), fc.nat(0xffff));
  fc.assert(
    fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
      const bytes = Uint8Array.from(groups.flatMap((value) => [value >> 8, value & 0xff]));
      const text = address.formatIpv6(bytes);
      assert.ok(isIPv6(text), text);
      assert.deepEqual(address.parseIpv6(text), bytes);
      // A URL's host is the same address, canonical by an algorithm that is not ours (it does not write dots).
      if (!text.includes('.'))
        assert.equal(new URL(`http://[${groups.map((g) => g.toString(16)).join(':')}]`).hostname, `[${text}]`);
    }),
  );
});

test('either family', () => {
  assert.equal(address.formatIp(address.parseIp('192.0.2.1')!), '192.0.2.1');
  assert.equal(address.formatIp(address.parseIp('2001:db8::1')!), '2001:db8::1');
  assert.equal(address.parseIp('example.org'), undefined);
});

test('the family of an address', () => {
  assert.equal(address.familyOf('192.0.2.1'), 4);
  assert.equal(address.familyOf('::ffff:192.0.2.1'), 6);
});
