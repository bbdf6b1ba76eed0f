import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Batch } from '../../dataplane/batch.ts';
import { loadSum } from '../../dataplane/checksum.ts';
import { MAX_SEGMENTS, Segmenter } from '../../dataplane/segment.ts';
import { receiveFrames, takeTapArena } from '../../dataplane/tap.ts';
import { bytes, superFrames } from './arbitrary.ts';
import { ACK, assertFrames, CWR, FIN, frame, onWire, PSH, packet, payload, superFrame } from './packet.ts';
import { Rig, TestPort } from './rig.ts';

const { memory } = new Rig();
const tap = new TestPort(memory);
const arena = takeTapArena(memory);
const segmenter = new Segmenter(memory, loadSum(memory));
const batch = new Batch(64);

/** The segments of a TAP's packet. */
function segments(packet: Uint8Array): Uint8Array[] {
  tap.waiting.push(packet);
  receiveFrames(tap, memory, arena, batch);
  return Array.from({ length: segmenter.begin(batch, 0) }, (_, i) => {
    segmenter.cut(i);
    return current();
  });
}

function current(): Uint8Array {
  const { header, headerLength, payload, payloadLength } = segmenter;
  const { u8 } = memory;
  return Buffer.concat([u8.slice(header, header + headerLength), u8.slice(payload, payload + payloadLength)]);
}

test('makes of any super-frame what a NIC makes of it', () => {
  fc.assert(
    fc.property(superFrames(100), ({ packet }) => {
      assertFrames(segments(packet), onWire(packet));
    }),
    { numRuns: 1000 },
  );
});

test('shows CWR on the first segment only, FIN and PSH on the last, and counts ids and sequence numbers on', () => {
  const spec = { id: 0xffff, sequence: 0xffffffff, payload: payload(2500), flags: ACK | CWR | FIN | PSH };
  const at = { id: 18, sequence: 38, flags: 47 }; // of Ethernet, IPv4 and TCP without options
  const seen = segments(superFrame(frame(spec), 1000)).map((bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    return [view.getUint16(at.id), view.getUint32(at.sequence), bytes[at.flags], bytes.length - 54];
  });
  assert.deepEqual(seen, [
    [0xffff, 0xffffffff, ACK | CWR, 1000],
    [0, 999, ACK, 1000],
    [1, 1999, ACK | FIN | PSH, 500],
  ]);
});

test("of the checksum's two zeros TCP has 0, UDP ffff", () => {
  for (const [protocol, field, zero] of [
    ['tcp', 50, 0],
    ['udp', 40, 0xffff],
  ] as const) {
    const checksum = (data: Uint8Array) => {
      const [first] = segments(superFrame(frame({ protocol, payload: data }), 2));
      return (first[field] << 8) | first[field + 1];
    };
    // A word that is the checksum of all the rest makes the checksum zero.
    const rest = checksum(new Uint8Array(4));
    assert.equal(checksum(Uint8Array.of(rest >> 8, rest & 0xff, 0, 0)), zero, protocol);
  }
});

test('keeps the headers of as many segments as a run has while the next one is cut', () => {
  const whole = superFrame(frame({ payload: payload(6500) }), 100);
  const expected = onWire(whole);
  tap.waiting.push(whole);
  receiveFrames(tap, memory, arena, batch);
  assert.equal(segmenter.begin(batch, 0), MAX_SEGMENTS + 1);
  segmenter.cut(0);
  const { header, headerLength } = segmenter;
  for (let i = 1; i <= MAX_SEGMENTS; i++) segmenter.cut(i);
  assertFrames([memory.u8.slice(header, header + headerLength)], [expected[0].subarray(0, headerLength)]);
});

test('refuses metadata that contradicts the frame', () => {
  const whole = frame({ payload: payload(3000) });
  const vnet = { flags: 1, type: 1, headerLength: 54, size: 1000, start: 34, offset: 16 };
  const refused = (change: object, bytes = whole) => segments(packet(bytes, { ...vnet, ...change })).length === 0;
  assert.ok(!refused({}));
  assert.ok(refused({ size: 0 }), 'no segment size');
  assert.ok(refused({ start: 20 }), 'transport inside the IP header');
  assert.ok(refused({ start: whole.length - 4 }), 'transport behind the end');
  assert.ok(refused({}, whole.slice(0, 54)), 'no payload');
  assert.ok(refused({}, whole.slice(0, 40)), 'truncated header');
  const noHeader = whole.slice();
  noHeader[46] = 0x40;
  assert.ok(refused({}, noHeader), 'TCP header of 16 bytes');
  const ipv6 = frame({ version: 6, payload: payload(3000) });
  assert.ok(refused({ start: 34 }, ipv6), 'transport inside the IPv6 header');
});

test('takes whatever metadata and bytes there are', () => {
  const shorts = fc.nat(0xffff);
  const vnet = {
    flags: fc.constant(1),
    type: fc.constantFrom(1, 4, 5, 0x81),
    headerLength: shorts,
    size: fc.nat(2000),
  };
  const records = fc.record({ ...vnet, start: fc.oneof(fc.nat(100), shorts), offset: shorts });
  fc.assert(
    fc.property(records, bytes(fc.nat(300)), fc.boolean(), ({ size, ...rest }, junk, likely) => {
      const bytes = likely ? Buffer.concat([frame().subarray(0, 54), junk]) : junk;
      for (const segment of segments(packet(bytes, { size, ...rest }))) assert.ok(segment.length <= bytes.length);
    }),
    { numRuns: 2000 },
  );
});
