import assert from 'node:assert/strict';
import test from 'node:test';
import { buildTemplate, type OuterHeaders } from '../../fdb/template.ts';

const OUTER: OuterHeaders = {
  sourceMac: '02:00:00:00:00:01',
  destinationMac: '02:00:00:00:00:02',
  source: '192.0.2.1',
  destination: '198.51.100.2',
  port: 4789,
  vni: 0x123456,
  ttl: 64,
  tos: 0xb8,
  df: true,
  udpChecksum: true,
  uplink: 2,
  mtu: 1500,
};

function bytesOf({ words }: { words: Int32Array }): string {
  return Buffer.from(words.buffer).toString('hex');
}

test('IPv4 outside, byte by byte', () => {
  const template = buildTemplate(OUTER);
  assert.equal(
    bytesOf(template),
    '00'.repeat(24) + // virtio-net header room
      '020000000002 020000000001 0800'.replaceAll(' ', '') +
      '45b80000 00004000 40110000 c0000201 c6336402'.replaceAll(' ', '') +
      '0000 12b5 0000 0000'.replaceAll(' ', '') +
      '08000000 12345600'.replaceAll(' ', '') +
      '00'.repeat(22),
  );
  assert.deepEqual(
    { outerLength: template.outerLength, uplink: template.uplink, flags: template.flags, mtu: template.mtu },
    { outerLength: 50, uplink: 2, flags: 1, mtu: 1500 },
  );
});

test('DF and UDP checksum by choice', () => {
  const template = buildTemplate({ ...OUTER, df: false, udpChecksum: false });
  assert.equal(bytesOf(template).slice((24 + 14 + 6) * 2, (24 + 14 + 8) * 2), '0000');
  assert.equal(template.flags, 0);
});

/** One's complement sum of little-endian words of hex text, folded. */
function littleEndianSum(text: string): number {
  let total = 0;
  for (const word of text.replaceAll(' ', '').match(/.{4}/g)!) total += Buffer.from(word, 'hex').readUInt16LE();
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

test('sums are of the constant parts', () => {
  const { ipSum, pseudoSum } = buildTemplate(OUTER);
  assert.equal(ipSum, littleEndianSum('45b80000 00004000 40110000 c0000201 c6336402'));
  assert.equal(pseudoSum, littleEndianSum('c0000201 c6336402 0011'));
});

test('an address of the wrong kind is named', () => {
  assert.throws(() => buildTemplate({ ...OUTER, destination: '2001:db8::1' }), /2001:db8::1/);
  assert.throws(() => buildTemplate({ ...OUTER, sourceMac: 'eth0' }), /eth0/);
});
