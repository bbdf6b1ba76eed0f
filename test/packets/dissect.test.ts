import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { dissect, dissectAny, dissectOuter } from '../../packets/dissect.ts';
import { layerTitle, type Packet, problemsOf, valueText } from '../../packets/packet.ts';
import { put16 } from '../../wire/bytes.ts';
import { frame, outerFrame, payload, setPseudo, vxlan } from '../dataplane/packet.ts';
import { corpus } from './corpus.ts';

/** A ping with 4 bytes of data. */
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

/** 'LAYER: FIELD' -> value, meaning and problem; of two fields of one name the last. */
function texts(packet: Packet): Record<string, string> {
  const fields = packet.layers.flatMap((layer) =>
    layer.fields.map((field) => [
      `${layerTitle(packet, layer)}: ${field.name}`,
      [valueText(field), field.meaning ?? [], field.problem ?? []].flat().join('; '),
    ]),
  );
  return Object.fromEntries(fields);
}

const titles = (packet: Packet): string[] => packet.layers.map((layer) => layerTitle(packet, layer));

/** Layers follow each other, and the bits of their fields, too, from the first byte to the last. */
function assertComplete(bytes: Uint8Array): void {
  let bit = 0;
  for (const layer of dissect(bytes).layers) {
    assert.equal(layer.offset * 8, bit, layer.name);
    for (const field of layer.fields) {
      assert.equal(field.offset * 8 + field.bit, bit, `${layer.name}: ${field.name}`);
      assert.ok(field.bits > 0 && field.bit < 8);
      bit += field.bits;
    }
    assert.equal(bit, (layer.offset + layer.length) * 8, layer.name);
  }
  assert.equal(bit, bytes.length * 8);
}

function changed(change: (bytes: Uint8Array) => void): Packet {
  const bytes = Uint8Array.from(PING);
  change(bytes);
  return dissect(bytes);
}

test('a ping in VXLAN, field by field', () => {
  assert.deepEqual(texts(dissect(PING)), {
    'outer Ethernet: destination': '92:62:0a:31:d8:82; locally administered',
    'outer Ethernet: source': '96:ef:b0:7f:22:9d; locally administered',
    'outer Ethernet: type': '0x0800; IPv4',
    'outer IPv4: version': '4',
    'outer IPv4: header length': '5; in words of 4 bytes: 20 bytes',
    'outer IPv4: DSCP': '0; default, CS0',
    'outer IPv4: ECN': '0; not ECN-capable',
    'outer IPv4: total length': '82',
    'outer IPv4: identification': '0x0208',
    'outer IPv4: reserved flag': '0',
    'outer IPv4: DF': '0; may be fragmented',
    'outer IPv4: MF': '0; the last, or the only',
    'outer IPv4: fragment offset': '0; in units of 8 bytes: 0 bytes',
    'outer IPv4: TTL': '64; 64 more hops',
    'outer IPv4: protocol': '17; UDP',
    'outer IPv4: header checksum': '0xf48f; correct',
    'outer IPv4: source': '192.0.2.1',
    'outer IPv4: destination': '192.0.2.2',
    'outer UDP: source port': '48832',
    'outer UDP: destination port': "8472; VXLAN, Linux's default port",
    'outer UDP: length': '62',
    'outer UDP: checksum': '0x6dad; correct',
    'VXLAN: G': '0',
    'VXLAN: reserved flags': '0',
    'VXLAN: I': '1; the VNI is valid',
    'VXLAN: reserved': '0',
    'VXLAN: VNI': '1; the overlay network',
    'inner Ethernet: destination': '02:00:0a:f4:02:00; locally administered',
    'inner Ethernet: source': '02:00:0a:f4:01:00; locally administered',
    'inner Ethernet: type': '0x0800; IPv4',
    'inner IPv4: version': '4',
    'inner IPv4: header length': '5; in words of 4 bytes: 20 bytes',
    'inner IPv4: DSCP': '0; default, CS0',
    'inner IPv4: ECN': '0; not ECN-capable',
    'inner IPv4: total length': '32',
    'inner IPv4: identification': '0x1c04',
    'inner IPv4: reserved flag': '0',
    'inner IPv4: DF': "1; don't fragment",
    'inner IPv4: MF': '0; the last, or the only',
    'inner IPv4: fragment offset': '0; in units of 8 bytes: 0 bytes',
    'inner IPv4: TTL': '63; 63 more hops',
    'inner IPv4: protocol': '1; ICMP',
    'inner IPv4: header checksum': '0x06ee; correct',
    'inner IPv4: source': '10.244.1.2; private',
    'inner IPv4: destination': '10.244.2.2; private',
    'inner ICMP: type': '8; echo request',
    'inner ICMP: code': '0',
    'inner ICMP: checksum': '0xf1f7; correct',
    'inner ICMP: identifier': '513',
    'inner ICMP: sequence number': '1',
    'inner data: data': '01020304; 4 bytes',
  });
  assert.deepEqual(problemsOf(dissect(PING)), []);
});

test('checksums that are wrong, left out, or left to the NIC', () => {
  const ttl = changed((bytes) => (bytes[OUTER_TTL] = 63));
  assert.deepEqual(problemsOf(ttl), ['outer IPv4, header checksum: wrong']);
  const type = changed((bytes) => (bytes[ICMP_TYPE] = 0));
  assert.deepEqual(problemsOf(type), ['outer UDP, checksum: wrong', 'inner ICMP, checksum: wrong']);
  const udp = (checksum: number) => texts(changed((bytes) => put16(bytes, UDP_CHECKSUM, checksum)));
  assert.equal(udp(0)['outer UDP: checksum'], '0x0000; none');
  assert.match(udp(0x8453)['outer UDP: checksum'], /unfinished/);
});

test('an outer checksum that counts on the NIC to finish the inner one', () => {
  for (const spec of [{ version: 4 }, { version: 6, protocol: 'udp' }] as const) {
    for (const version of [4, 6] as const) {
      const inner = frame({ ...spec, payload: payload(33) });
      const packet = outerFrame(vxlan(7, inner), 8472, { version });
      packet.set(setPseudo(inner), packet.length - inner.length);
      const checksums = (bytes: Uint8Array) =>
        dissect(bytes).layers.flatMap(({ name, fields }) =>
          fields
            .filter((field) => field.name === 'checksum')
            .map(({ meaning, problem }) => `${name} ${problem ?? meaning}`),
        );
      const [outer, unfinished] = checksums(packet);
      assert.equal(outer, 'UDP correct once the NIC has finished the inner one');
      assert.match(unfinished, /unfinished/);
      packet[packet.length - inner.length]++;
      assert.equal(checksums(packet)[0], 'UDP wrong');
    }
  }
});

test('faults are named with their place', () => {
  const fault = (bytes: Uint8Array) => dissect(bytes).fault;
  assert.deepEqual(fault(PING.subarray(0, 45)), {
    offset: 42,
    message: 'the VXLAN header is cut off: 3 of 8 bytes are there',
  });
  const cut = dissect(PING.subarray(0, 45), { length: PING.length });
  assert.equal(cut.fault?.message, 'the VXLAN header is cut off by the capture: 3 of 8 bytes are there');
  assert.deepEqual(problemsOf(cut), [cut.fault?.message], 'a length that the capture has cut off is no problem');
  const version = changed((bytes) => (bytes[64] = 0x55));
  assert.deepEqual(version.fault, { offset: 64, message: "the type says IPv4, but the header's version is 5" });
  const total = changed((bytes) => put16(bytes, 66, 19));
  assert.deepEqual(total.fault, { offset: 84, message: "the IPv4 total length, 19, is less than the header's" });
  assert.deepEqual(problemsOf(changed((bytes) => (bytes[42] = 0))), [
    'outer UDP, checksum: wrong',
    'VXLAN, I: has to be 1',
  ]);
});

test('what is something else becomes data', () => {
  const otherPort = changed((bytes) => put16(bytes, UDP_PORT, 53));
  assert.deepEqual(titles(otherPort), ['Ethernet', 'IPv4', 'UDP', 'data']);
  const fragment = changed((bytes) => put16(bytes, INNER_FRAGMENT, 0x2001));
  assert.deepEqual(titles(fragment).slice(3), ['VXLAN', 'inner Ethernet', 'inner IPv4', 'inner data of a fragment']);
  assert.deepEqual(titles(dissect(PING.subarray(0, 13))), ['data']);
  assert.deepEqual(titles(dissect(new Uint8Array())), []);
  const port = { vxlanPorts: [53] };
  assert.ok(titles(dissect(otherPort.bytes, port)).includes('inner ICMP'), 'another VXLAN port');
  assert.deepEqual(titles(dissect(PING.subarray(14), { linkType: 'ip' })).slice(0, 3), [
    'outer IPv4',
    'outer UDP',
    'VXLAN',
  ]);
});

test('an outer packet of ours carries VXLAN, whatever its port is', () => {
  for (const version of [4, 6] as const) {
    const packet = outerFrame(vxlan(7, frame()), 5555, { version });
    assert.ok(!titles(dissect(packet)).includes('VXLAN'));
    assert.deepEqual(titles(dissectOuter(packet)), [
      ...['outer Ethernet', `outer IPv${version}`, 'outer UDP', 'VXLAN'],
      ...['inner Ethernet', 'inner IPv4', 'inner TCP'],
    ]);
    for (let length = 0; length < packet.length; length++) {
      const short = dissectOuter(packet.slice(0, length), packet.length);
      assert.equal(titles(short).includes('VXLAN'), length >= (version === 4 ? 50 : 70), `${length} bytes`);
    }
  }
});

test('VXLAN in VXLAN ends at a depth', () => {
  let bytes = frame();
  for (let i = 0; i < 20; i++) bytes = outerFrame(vxlan(i, bytes), 4789);
  const packet = dissect(bytes);
  assert.match(packet.fault!.message, /more than 8 VXLAN headers/);
  assertComplete(bytes);
});

test('a cut off or damaged packet is shown whole, whatever is wrong with it', () => {
  for (const { bytes } of corpus()) {
    assertComplete(bytes);
    for (let length = 0; length < bytes.length; length += 7) assertComplete(bytes.subarray(0, length));
  }
  const samples = corpus().map(({ bytes }) => bytes);
  const damages = fc.array(fc.tuple(fc.nat(150), fc.nat(255)), { maxLength: 8 });
  fc.assert(
    fc.property(fc.constantFrom(...samples), damages, (sample, damage) => {
      const bytes = Uint8Array.from(sample);
      for (const [offset, value] of damage) if (offset < bytes.length) bytes[offset] = value;
      assertComplete(bytes);
    }),
    { numRuns: 2000 },
  );
});

test('of any capture: VXLAN behind another port, where it can hardly be anything else', () => {
  const names = (bytes: Uint8Array): string[] => dissectAny(bytes).layers.map(({ name }) => name);
  const inner = frame({ protocol: 'udp', payload: payload(20) });
  const outer = outerFrame(vxlan(7, inner), 14789);
  const plain = dissect(outer).layers.map(({ name }) => name);
  assert.ok(names(outer).includes('VXLAN') && !plain.includes('VXLAN'));
  // A flag more, reserved bits, a source that is a group, an unknown type, and too little of it.
  for (const [at, value] of [
    [42, 0x88],
    [45, 1],
    [49, 1],
    [56, 3],
    [62, 0x77],
  ]) {
    const other = Uint8Array.from(outer);
    other[at!] = value!;
    assert.deepEqual(names(other), plain, `${at}`);
  }
  assert.ok(!names(outer.subarray(0, 60)).includes('VXLAN'));
});
