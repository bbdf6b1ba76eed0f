import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { decodePacket } from '../../../cli/lab/packet.ts';
import { put16 } from '../../../wire/bytes.ts';

/** A ping with 4 bytes of data; tshark reads it likewise. */
const PING = Buffer.from(
  `92620a31d882 96efb07f229d 0800
   4500 0052 0208 0000 40 11 f48f c0000201 c0000202
   bec0 2118 003e 6dad
   08 000000 000001 00
   02000af40200 02000af40100 0800
   4500 0020 1c04 4000 3f 01 06ee 0af40102 0af40202
   08 00 f1f7 0201 0001
   01020304`.replace(/\s/g, ''),
  'hex',
);
const OUTER_TTL = 22;
const UDP_PORT = 36;
const UDP_CHECKSUM = 40;
const INNER_FRAGMENT = 70;
const ICMP_TYPE = 84;

/** 'LAYER: FIELD' -> meaning; of two fields of one name the last. */
function meanings(bytes: Uint8Array): Record<string, string> {
  const fields = decodePacket(bytes).flatMap((layer) =>
    layer.fields.map((field) => [`${layer.name}: ${field.name}`, field.meaning]),
  );
  return Object.fromEntries(fields);
}

/** Layers follow each other, and fields too, from the first byte to the last. */
function assertComplete(bytes: Uint8Array): void {
  let offset = 0;
  for (const layer of decodePacket(bytes)) {
    assert.equal(layer.offset, offset, layer.name);
    for (const field of layer.fields) {
      assert.equal(field.offset, offset, `${layer.name}: ${field.name}`);
      assert.ok(field.length > 0);
      offset += field.length;
    }
    assert.equal(offset, layer.offset + layer.length, layer.name);
  }
  assert.equal(offset, bytes.length);
}

function changed(change: (bytes: Uint8Array) => void): Uint8Array {
  const bytes = Uint8Array.from(PING);
  change(bytes);
  return bytes;
}

test('a ping in VXLAN, field by field', () => {
  assert.deepEqual(meanings(PING), {
    'outer Ethernet: destination': '92:62:0a:31:d8:82',
    'outer Ethernet: source': '96:ef:b0:7f:22:9d',
    'outer Ethernet: type': '0x0800 (IPv4)',
    'outer IPv4: version, IHL': '4, 5 words of 4 bytes',
    'outer IPv4: DSCP, ECN': '0, 0',
    'outer IPv4: total length': '82',
    'outer IPv4: identification': '520',
    'outer IPv4: flags, offset': 'none, 0',
    'outer IPv4: TTL': '64',
    'outer IPv4: protocol': '17 (UDP)',
    'outer IPv4: header checksum': 'correct',
    'outer IPv4: source': '192.0.2.1',
    'outer IPv4: destination': '192.0.2.2',
    'outer UDP: source port': '48832 (hash of the inner flow)',
    'outer UDP: destination port': '8472 (VXLAN)',
    'outer UDP: length': '62',
    'outer UDP: checksum': 'correct',
    'VXLAN: flags': 'I: the VNI is valid',
    'VXLAN: reserved': '0',
    'VXLAN: VNI': '1',
    'inner Ethernet: destination': '02:00:0a:f4:02:00',
    'inner Ethernet: source': '02:00:0a:f4:01:00',
    'inner Ethernet: type': '0x0800 (IPv4)',
    'inner IPv4: version, IHL': '4, 5 words of 4 bytes',
    'inner IPv4: DSCP, ECN': '0, 0',
    'inner IPv4: total length': '32',
    'inner IPv4: identification': '7172',
    'inner IPv4: flags, offset': 'DF, 0',
    'inner IPv4: TTL': '63',
    'inner IPv4: protocol': '1 (ICMP)',
    'inner IPv4: header checksum': 'correct',
    'inner IPv4: source': '10.244.1.2',
    'inner IPv4: destination': '10.244.2.2',
    'ICMP: type': '8 (echo request)',
    'ICMP: code': '0',
    'ICMP: checksum': 'correct',
    'ICMP: identifier': '513',
    'ICMP: sequence number': '1',
    'data: data': '4 bytes',
  });
  assertComplete(PING);
});

test('checksums that are wrong, left out, or left to the NIC', () => {
  const ttl = meanings(changed((bytes) => (bytes[OUTER_TTL] = 63)));
  assert.equal(ttl['outer IPv4: header checksum'], 'wrong');
  const type = meanings(changed((bytes) => (bytes[ICMP_TYPE] = 0)));
  assert.equal(type['ICMP: checksum'], 'wrong');
  assert.equal(type['ICMP: type'], '0 (echo reply)');
  assert.equal(type['outer UDP: checksum'], 'wrong');
  const udp = (checksum: number) => meanings(changed((bytes) => put16(bytes, UDP_CHECKSUM, checksum)));
  assert.equal(udp(0)['outer UDP: checksum'], 'none');
  assert.match(udp(0x8453)['outer UDP: checksum'], /^unfinished/);
});

test('what is something else becomes data', () => {
  const names = (bytes: Uint8Array) => decodePacket(bytes).map(({ name }) => name);
  const otherPort = changed((bytes) => put16(bytes, UDP_PORT, 53));
  assert.deepEqual(names(otherPort), ['outer Ethernet', 'outer IPv4', 'outer UDP', 'data']);
  const fragment = changed((bytes) => put16(bytes, INNER_FRAGMENT, 0x2001));
  assert.deepEqual(names(fragment).slice(3), ['VXLAN', 'inner Ethernet', 'inner IPv4', 'data']);
  assert.equal(meanings(fragment)['inner IPv4: flags, offset'], 'MF, 8');
  assert.deepEqual(names(PING.subarray(0, 13)), ['data']);
  assert.deepEqual(names(new Uint8Array()), []);
});

test('a cut off or damaged packet is shown whole, whatever is wrong with it', () => {
  for (let length = 0; length < PING.length; length++) assertComplete(PING.subarray(0, length));
  const damages = fc.array(fc.tuple(fc.nat(PING.length - 1), fc.nat(255)), { maxLength: 8 });
  fc.assert(
    fc.property(damages, (damage) => {
      const bytes = Uint8Array.from(PING);
      for (const [offset, value] of damage) bytes[offset] = value;
      assertComplete(bytes);
    }),
  );
});
