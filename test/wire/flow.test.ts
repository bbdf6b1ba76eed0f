import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { put16, put32 } from '../../wire/bytes.ts';
import { flowHash, sourcePort } from '../../wire/flow.ts';
import { guarded, hex, placed } from './canvas.ts';

const MACS = '020000000002 020000000001';
const ADDRESSES = '0a000001 0a000002';
const ADDRESSES6 = '20010db8000000000000000000000001 20010db8000000000000000000000002';

/** IPv4 frame: byte 4 on of the header as given, then what follows the addresses. */
const v4 = (middle: string, rest: string, addresses = ADDRESSES) =>
  `${MACS} 0800 45000000 ${middle} ${addresses} ${rest}`;
const v6 = (next: string, rest: string) => `${MACS} 86dd 60000000 0000 ${next} 40 ${ADDRESSES6} ${rest}`;
const TCP = v4('00004000 40060000', '0001 0002 00000000');
const UDP = v4('00004000 40110000', '0001 0002 00000000');
const TCP6 = v6('06', '0001 0002 00000000');

/** Hash of the frame at an odd offset, where reading beyond `length` throws. */
function hash(text: string, length = hex(text).length): number {
  return flowHash(guarded(placed(hex(text), 3), 3, length), 3, length);
}

const OTHER_FRAMES: [string, string][] = [
  ['protocol', UDP],
  ['source port', v4('00004000 40060000', '0003 0002 00000000')],
  ['destination port', v4('00004000 40060000', '0001 0003 00000000')],
  ['ports swapped', v4('00004000 40060000', '0002 0001 00000000')],
  ['source address', v4('00004000 40060000', '0001 0002 00000000', '0a000003 0a000002')],
  ['destination address', v4('00004000 40060000', '0001 0002 00000000', '0a000001 0a000003')],
  ['SCTP', v4('00004000 40840000', '0001 0002 00000000')],
  ['SCTP port', v4('00004000 40840000', '0001 0003 00000000')],
  ['IPv6', TCP6],
  ['IPv6 port', v6('06', '0001 0003 00000000')],
  ['IPv6 protocol', v6('11', '0001 0002 00000000')],
];

test('whatever makes another flow makes another hash', () => {
  const hashes = [hash(TCP), ...OTHER_FRAMES.map(([, frame]) => hash(frame))];
  assert.equal(new Set(hashes).size, hashes.length, String(hashes));
  for (const value of hashes) assert.equal(value, value | 0, 'int32');
});

test('packets of one flow have one hash', () => {
  const same: [string, string, string][] = [
    ['TTL, id, checksum, payload', TCP, v4('12340000 3f06beef', '0001 0002 99999999 ffff')],
    ['MAC addresses', TCP, TCP.replace(MACS, '060000000002 060000000001')],
    ['TOS', TCP, TCP.replace('45000000', '45b80000')],
    ['IPv4 options', TCP, TCP.replace('45000000', '46000000').replace(ADDRESSES, `${ADDRESSES} 01010101`)],
    ['a tag', TCP, TCP.replace('0800', '8100 0064 0800')],
    ['two tags', TCP6, TCP6.replace('86dd', '88a8 0001 8100 0064 86dd')],
    ['flow label, hop limit', TCP6, TCP6.replace('60000000', '600abcde').replace('06 40', '06 3f')],
    ['extension headers', TCP6, v6('00', '3c00010400000000 0600010400000000 0001 0002')],
    ['ICMP type and id', v4('00000000 40010000', '0800 f7ff 0001'), v4('00000000 40010000', '0000 ffff 0002')],
    ['802.3 length', `${MACS} 0026 424203`, `${MACS} 0040 424203`],
  ];
  for (const [what, one, other] of same) assert.equal(hash(one), hash(other), what);
});

test('fragments of one packet have one hash, the first with its ports as well', () => {
  const first = hash(v4('00002000 40110000', '0001 0002 0008 0000'));
  assert.equal(hash(v4('00002001 40110000', 'aaaa bbbb')), first);
  assert.equal(hash(v4('00000002 40110000', '')), first);
  const first6 = hash(v6('2c', '11 00 0001 00000007 0001 0002'));
  assert.equal(hash(v6('2c', '11 00 0009 00000007 aaaa bbbb')), first6);
  assert.equal(hash(v6('00', '2c00010400000000 11 00 0008 00000007')), first6);
});

test('what is not IP goes by MAC addresses and ethertype', () => {
  const arp = `${MACS} 0806 0001`;
  assert.equal(hash(arp), hash(`${MACS} 0806 9999`), 'payload');
  const others = [`${MACS} 0807 0001`, '020000000003 020000000001 0806', '020000000002 020000000003 0806'];
  assert.equal(new Set([arp, ...others].map((frame) => hash(frame))).size, 4);
});

test('a truncated frame is read to its end only', () => {
  for (const frame of [TCP, TCP6, v6('00', '3c00010400000000 0600010400000000 0001 0002')]) {
    for (let length = 0; length < hex(frame).length; length++) hash(frame, length);
  }
  const random = fc.uint8Array({ maxLength: 120 });
  fc.assert(
    fc.property(fc.constantFrom('0800 45', '0800 4f', '86dd 60', '8100 0001', ''), random, (start, rest) => {
      hash(MACS + start + Buffer.from(rest).toString('hex'));
    }),
  );
});

/**
 * Chi-square of the source ports' spread over 64 equal buckets. With 63 degrees of freedom it is beyond 125 once in 200,000
 * times if the spread is random.
 */
function unevenness(frames: number, change: (bytes: Uint8Array, i: number) => void): number {
  const bytes = hex(TCP);
  const buckets = new Uint32Array(64);
  for (let i = 0; i < frames; i++) {
    change(bytes, i);
    buckets[sourcePort(flowHash(bytes, 0, bytes.length), 0, 64)]++;
  }
  const expected = frames / 64;
  return buckets.reduce((total, count) => total + (count - expected) ** 2 / expected, 0);
}

test('spreads flows whose ports or addresses count up', () => {
  const frames = 1 << 16;
  const spread = {
    'source port': unevenness(frames, (bytes, i) => put16(bytes, 34, i)),
    'destination port': unevenness(frames, (bytes, i) => put16(bytes, 36, i)),
    'source address': unevenness(frames, (bytes, i) => put32(bytes, 26, 0x0a000000 + i)),
    'address of each /24': unevenness(frames, (bytes, i) => put32(bytes, 30, 0x0a000001 + (i << 8))),
    'both ports alike': unevenness(frames, (bytes, i) => put32(bytes, 34, (i << 16) | i)),
    'the even ports': unevenness(frames / 2, (bytes, i) => put16(bytes, 34, 2 * i)),
  };
  for (const [what, value] of Object.entries(spread)) assert.ok(value < 125, `${what}: ${value}`);
});

test('flows that differ in many small ways collide as seldom as random ones', () => {
  const bytes = hex(TCP);
  const hashes = new Set<number>();
  for (let i = 0; i < 1 << 16; i++) {
    put32(bytes, 26, 0x0a000000 + (i >> 12));
    put32(bytes, 30, 0x0a000000 + ((i >> 8) & 15));
    put32(bytes, 34, (((i >> 4) & 15) << 16) | (i & 15));
    hashes.add(flowHash(bytes, 0, bytes.length));
  }
  assert.ok(hashes.size > (1 << 16) - 8, `${(1 << 16) - hashes.size} collisions; one is to be expected at most`);
});

test('few flows seldom share a port', () => {
  const bytes = hex(TCP);
  const ports = new Set<number>();
  for (let i = 0; i < 1000; i++) {
    put16(bytes, 34, 40000 + i);
    ports.add(sourcePort(flowHash(bytes, 0, bytes.length), 32768, 61000));
  }
  assert.ok(ports.size > 960, `${ports.size} ports; 983 are to be expected`);
});

test('source ports are those of udp_flow_src_port', () => {
  const reference = (hash: number, min: number, max: number) => {
    const mixed = BigInt((hash ^ (hash << 16)) >>> 0);
    return Number((mixed * BigInt(max - min)) >> 32n) + min;
  };
  const u32 = fc.integer({ min: 0, max: 0xffffffff });
  const range = fc.tuple(fc.nat(65535), fc.integer({ min: 1, max: 65536 })).filter(([min, max]) => min < max);
  fc.assert(
    fc.property(u32, range, (hash, [min, max]) => {
      const port = sourcePort(hash, min, max);
      assert.equal(port, reference(hash, min, max));
      assert.ok(port >= min && port < max);
    }),
    { numRuns: 2000 },
  );
  assert.equal(sourcePort(0, 0, 65536), 0);
  assert.equal(sourcePort(0xffff0000, 0, 65536), 65535);
  assert.equal(sourcePort(0xffff0000, 49152, 65535), 65534, 'the end is not in the range');
});
