import assert from 'node:assert/strict';
import test from 'node:test';
import type { DeviceConfig } from '../../control/fields.ts';
import { decapsulate, type FrameSpec, frame, onWire, otherFrame, packet, payload, superFrame } from './packet.ts';
import { Node, PORT, type TestPort, TTL } from './rig.ts';

type Options = Partial<DeviceConfig>;

/** What a packet has in its IP header. */
interface Header {
  tos: number;
  ttl: number;
  df: boolean;
}

function headerOf(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (bytes[12] === 8) return { tos: bytes[15], ttl: bytes[22], df: (bytes[20] & 0x40) !== 0 };
  return { tos: (view.getUint16(14) >> 4) & 0xff, ttl: bytes[21], df: false };
}

const REMOTES = ['192.0.2.2', '2001:db8::2'];
const nodes = [
  new Node({ tunnelGso: true }),
  new Node({ tunnelGso: false }),
  new Node({ tunnelGso: false, udpGso: false }),
];

/** The outer headers of what becomes of the packets, each of which decapsulate() has checked. */
function sent(node: Node, remote: string, options: Options, packets: readonly Uint8Array[]): Header[] {
  const { rig } = node;
  rig.setOptions(0, options);
  const { ttl = TTL, tos = 0, df } = options;
  const entry = rig.fdb.find(0, 0, 0);
  if (entry >= 0) rig.fdb.remove(entry);
  rig.entry(
    0,
    -1,
    rig.vtep(remote, {
      ttl: ttl === 'inherit' ? 0 : ttl,
      tos: tos === 'inherit' ? 0 : tos,
      df: df === 'set',
    }),
  );
  rig.clear();
  node.taps[0].waiting.push(...packets);
  node.run();
  node.balance();
  return (node.uplink as TestPort)
    .take()
    .flatMap((bytes) => onWire(bytes, true))
    .map((bytes) => {
      decapsulate(bytes, PORT);
      return headerOf(bytes);
    });
}

const [NOT_ECT, ECT_1, ECT_0, CE] = [0, 1, 2, 3];
const ip = (spec: Partial<FrameSpec>) => packet(frame({ protocol: 'udp', payload: payload(40), ...spec }));
const EF = 0xb8;

/** Options, the inner packet, and what the outer one is to have; both inner versions, tags or not. */
const CASES: [string, Options, Partial<FrameSpec>, Partial<Header>][] = [
  ['by default the inner TOS and TTL are not the outer', {}, { tos: EF, ttl: 9 }, { tos: 0, ttl: TTL, df: false }],
  ['ECN is, ECT(0)', {}, { tos: EF | ECT_0 }, { tos: ECT_0 }],
  ['ECN is, ECT(1)', {}, { tos: ECT_1 }, { tos: ECT_1 }],
  ['Linux sends CE as ECT(0)', {}, { tos: CE }, { tos: ECT_0 }],
  ['RFC 6040 copies CE', { ecn: 'rfc6040' }, { tos: EF | CE }, { tos: CE }],
  ['RFC 6040 copies ECT(1)', { ecn: 'rfc6040' }, { tos: ECT_1 }, { tos: ECT_1 }],
  ['a fixed TOS, and ECN', { tos: 0x20 }, { tos: EF | ECT_1 }, { tos: 0x20 | ECT_1 }],
  ['a fixed TOS, no ECN', { tos: 0x20 }, { tos: EF | NOT_ECT }, { tos: 0x20 }],
  ['an inherited TOS', { tos: 'inherit' }, { tos: EF | ECT_1 }, { tos: EF | ECT_1 }],
  ['an inherited TOS with CE', { tos: 'inherit' }, { tos: EF | CE }, { tos: EF | ECT_0 }],
  ['an inherited TOS with CE by RFC 6040', { tos: 'inherit', ecn: 'rfc6040' }, { tos: EF | CE }, { tos: EF | CE }],
  ['a fixed TTL', { ttl: 7 }, { ttl: 9 }, { ttl: 7 }],
  ['an inherited TTL', { ttl: 'inherit' }, { ttl: 255 }, { ttl: 255 }],
  ['an inherited TTL of 0 is the default', { ttl: 'inherit' }, { ttl: 0 }, { ttl: TTL }],
  ['everything', { ttl: 'inherit', tos: 'inherit', df: 'inherit' }, { ttl: 3, tos: 0xff }, { ttl: 3, tos: 0xfe }],
];

for (const [name, options, spec, expected] of CASES) {
  test(`outer header: ${name}`, () => {
    for (const node of nodes) {
      for (const remote of REMOTES) {
        for (const version of [4, 6] as const) {
          for (const tags of [[], [7], [7, 8]]) {
            const [header] = sent(node, remote, options, [ip({ ...spec, version, tags })]);
            for (const [key, value] of Object.entries(expected)) {
              if (key === 'df' && remote.includes(':')) continue;
              assert.equal(
                header[key as keyof Header],
                value,
                `${key}, to ${remote}, inner IPv${version}, tags ${tags}`,
              );
            }
          }
        }
      }
    }
  });
}

test('DF: unset, set, and inherited, which IPv6 packets have by nature', () => {
  const df = (options: Options, spec: Partial<FrameSpec>) => sent(nodes[0], REMOTES[0], options, [ip(spec)])[0].df;
  for (const dontFragment of [false, true]) {
    assert.equal(df({ df: 'unset' }, { dontFragment }), false);
    assert.equal(df({ df: 'set' }, { dontFragment }), true);
    assert.equal(df({ df: 'inherit' }, { dontFragment }), dontFragment);
    assert.equal(df({ df: 'inherit' }, { dontFragment, tags: [7] }), dontFragment);
    assert.equal(df({ df: 'inherit' }, { dontFragment, tags: [7, 8] }), false);
  }
  assert.equal(df({ df: 'inherit' }, { version: 6 }), true);
});

test('what is not IP has no TOS and DF, and the default TTL', () => {
  const options: Options = { ttl: 'inherit', tos: 'inherit', df: 'inherit' };
  const packets = [otherFrame(0x0806, 28), otherFrame(0x0800, 19), otherFrame(0x86dd, 39), otherFrame(0x88cc, 0)];
  for (const remote of REMOTES) {
    for (const header of sent(
      nodes[0],
      remote,
      options,
      packets.map((bytes) => packet(bytes)),
    )) {
      assert.deepEqual(header, { tos: 0, ttl: TTL, df: false });
    }
  }
});

test('every packet of a super-frame has its marks', () => {
  const whole = superFrame(frame({ tos: EF | ECT_0, ttl: 5, payload: payload(5000) }), 1000);
  for (const node of nodes) {
    for (const remote of REMOTES) {
      const headers = sent(node, remote, { ttl: 'inherit', tos: 'inherit' }, [whole]);
      assert.equal(headers.length, 5);
      for (const { tos, ttl } of headers) assert.deepEqual([tos, ttl], [EF | ECT_0, 5]);
    }
  }
});

test('frames of one flow that differ in their marks leave in runs of their own', () => {
  const tos = [0, 0, ECT_0, ECT_0, CE, ECT_1, 0];
  const packets = tos.map((field) => ip({ tos: field }));
  for (const node of nodes) {
    assert.deepEqual(
      sent(node, REMOTES[0], {}, packets).map((header) => header.tos),
      [0, 0, ECT_0, ECT_0, ECT_0, ECT_1, 0],
    );
  }
});

test('an option holds from the next batch on', () => {
  const [node] = nodes;
  assert.equal(sent(node, REMOTES[0], { tos: 'inherit' }, [ip({ tos: EF })])[0].tos, EF);
  node.rig.setOptions(0, {});
  node.taps[0].waiting.push(ip({ tos: EF }));
  node.run();
  assert.equal(headerOf(onWire((node.uplink as TestPort).take()[0], true)[0]).tos, 0);
});
