// The kernel's vxlan device as the oracle: the same frames written to a device of its own and to one of uvxlan's, with the same options, and
// the same packets out; the same packets in, and the same frames delivered. A device a set of options, told apart by its VNI.
//
//   kernel    eth0 10.0.0.10 fd00:a:: ---- veth ---- eth0 10.0.0.11 fd00:b:: kernel-peer
//   redirect  eth0 10.0.0.10 fd00:a:: ---- veth ---- eth0 10.0.0.11 fd00:b:: redirect-peer
//   udp       eth0 10.0.0.10 fd00:a:: ---- veth ---- eth0 10.0.0.11 fd00:b:: udp-peer
//
// What differs, and may: the UDP source port (the hash is another), IPv4's identification, and so its checksum. Not held against it here: frames
// with an invalid source MAC, which the kernel drops only where it learns, and we always.

import assert from 'node:assert/strict';
import { createReadStream, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { MAIN } from '../../cli/lab/vtep.ts';
import { readCapture } from '../../packets/capture-reader.ts';
import {
  checksumHolds,
  decapsulate,
  type FrameSpec,
  frame,
  hex,
  otherFrame,
  outerFrame,
  payload,
  shape,
  vxlan,
} from '../dataplane/packet.ts';
import { Capture } from './capture.ts';
import { resolved, UPLINKS } from './pair.ts';
import { sendFrames } from './raw.ts';
import { lacking } from './requirements.ts';

const skip = lacking('tun', 'kernel-vxlan', 'ethtool', 'tcpdump');
/** Milliseconds for a daemon with all devices to start on a busy machine. */
const START = 40_000;
const KINDS = ['kernel', ...UPLINKS] as const;
const PORT = 8472;
/** A port has one rule about IPv6's zero checksums, as in the kernel: who has another needs another port. */
const ZERO_PORT = 8473;
const LOCAL = { 4: '10.0.0.10', 6: 'fd00:a::' };
const REMOTE = { 4: '10.0.0.11', 6: 'fd00:b::' };
/** Source of the frames that count: not a device's own MAC, whose multicast listeners and routers speak unasked. */
const SOURCE = '020000000001';

/** A device for each, of VNI 1 and so on; on IPv4 and on IPv6 outside. */
const OPTIONS: Record<4 | 6, readonly string[]> = {
  4: [
    '',
    'ttl 7 tos 0x10 df set noudpcsum',
    'ttl inherit tos inherit df inherit',
    'tos 0xff ttl 255',
    'df inherit',
    'tos inherit noudpcsum',
  ],
  6: [
    '',
    'ttl 7 tos 0x10 flowlabel 0x12345',
    'ttl inherit tos inherit df inherit',
    'udp6zerocsumtx udp6zerocsumrx tos 0xb9',
  ],
};
const DEVICES = ([4, 6] as const).flatMap((family) =>
  OPTIONS[family].map((words, i) => ({
    ...{ family, words, vni: (family === 4 ? 1 : 101) + i },
    port: words.includes('zerocsumrx') ? ZERO_PORT : PORT,
  })),
);
type Device = (typeof DEVICES)[number];
const nameOf = ({ vni }: Device) => `vx${vni}`;

function topology(): Parameters<typeof Network.build>[1] {
  const link = (kind: string): [string, string, { checksumOffload: false }] => [
    `${kind} eth0 10.0.0.10/24 fd00:a::/16`,
    `${kind}-peer eth0 10.0.0.11/24 fd00:b::/16`,
    { checksumOffload: false },
  ];
  return {
    hosts: Object.fromEntries(
      KINDS.flatMap((kind) => [
        [kind, {}],
        [`${kind}-peer`, {}],
      ]),
    ),
    links: KINDS.map(link),
  };
}

/** The three hosts with the same devices, their peers known. */
async function build(t: TestContext): Promise<Record<(typeof KINDS)[number], { host: Host; peer: Host }>> {
  const network = Network.build(t, topology());
  const sides = KINDS.map((kind) => ({ host: network.host(kind), peer: network.host(`${kind}-peer`) }));
  for (const { host, peer } of sides) {
    host.ip('link set eth0 address 02:00:00:00:00:0a');
    peer.ip('link set eth0 address 02:00:00:00:00:0b');
    for (const family of [4, 6] as const) {
      host.ip(`neigh replace ${REMOTE[family]} lladdr 02:00:00:00:00:0b dev eth0 nud permanent`);
      peer.ip(`neigh replace ${LOCAL[family]} lladdr 02:00:00:00:00:0a dev eth0 nud permanent`);
    }
  }
  const [kernel, ...ours] = sides;
  for (const device of DEVICES) {
    kernel!.host.ip(`link add ${nameOf(device)} address ${mac(device)} type vxlan ${wordsOf(device)}`);
    kernel!.host.ip(`link set ${nameOf(device)} up`);
  }
  await Promise.all(
    ours.map(async ({ host }, i) => {
      const file = join(host.directory, `${UPLINKS[i]}.yaml`);
      writeFileSync(file, JSON.stringify({ devices: DEVICES.map((device) => configOf(device, UPLINKS[i]!)) }));
      const daemon = host.spawn([process.execPath, MAIN, 'up', '--config', file]);
      await daemon.waitFor(/uvxlan: vx104 is up/, START);
      await resolved(host, UPLINKS[i]!);
    }),
  );
  return Object.fromEntries(KINDS.map((kind, i) => [kind, sides[i]])) as Awaited<ReturnType<typeof build>>;
}

const mac = ({ vni }: Device) => `02:00:00:00:01:${vni.toString(16).padStart(2, '0')}`;
const wordsOf = ({ family, words, vni, port }: Device) =>
  `id ${vni} local ${LOCAL[family]} remote ${REMOTE[family]} dev eth0 dstport ${port} nolearning ${words}`;

function configOf(device: Device, uplink: string): Record<string, unknown> {
  const words = `${wordsOf(device)} uplink ${uplink} workers 1 address ${mac(device)}`.trim().split(/\s+/);
  const config: Record<string, unknown> = { name: nameOf(device) };
  const bare: Record<string, [string, boolean]> = {
    nolearning: ['learning', false],
    noudpcsum: ['udpcsum', false],
    udp6zerocsumtx: ['udp6zerocsumtx', true],
    udp6zerocsumrx: ['udp6zerocsumrx', true],
  };
  for (let i = 0; i < words.length; i++) {
    const [key, value] = bare[words[i]!] ?? [words[i]!, words[++i]];
    config[key] = value;
  }
  return config;
}

/** Frames of every kind, which the outer header may depend on. */
function stimuli(): Uint8Array[] {
  const specs: Partial<FrameSpec>[] = [];
  for (const version of [4, 6] as const) {
    for (const tos of [0, 1, 2, 3, 0xb8, 0xfe, 0xff]) specs.push({ version, tos });
    for (const ttl of [0, 1, 9, 255]) specs.push({ version, ttl });
    for (const dontFragment of [false, true]) specs.push({ version, dontFragment });
    for (const tags of [[5], [0xfff], [5, 6]]) specs.push({ version, tags, tos: 0xba, ttl: 33, dontFragment: false });
    specs.push({
      version,
      tos: 0xba,
      ipOptions: version === 4 ? Uint8Array.of(1, 1, 1, 0) : Uint8Array.of(60, 0, 1, 4, 0, 0, 0, 0),
    });
  }
  return [
    ...specs.map((spec) => frame({ protocol: 'udp', payload: payload(40), ...spec })),
    ...[otherFrame(0x0806, 28), otherFrame(0x88cc, 50)],
  ];
}

/** The packets of a capture's file, in order. */
async function packetsOf(file: string): Promise<Uint8Array[]> {
  const packets: Uint8Array[] = [];
  for await (const { bytes } of readCapture(createReadStream(file))) packets.push(bytes);
  return packets;
}

/**
 * A packet without what may differ; whether its checksums hold was seen by decapsulate(). Nor is DF compared of tagged frames: these stimuli
 * have their tag in the frame, where the kernel, which expects it beside, does not look behind it.
 */
function comparable(bytes: Uint8Array, inner: Uint8Array): string {
  const copy = Uint8Array.from(bytes);
  const { version, network, transport, checksum } = shape(copy);
  const hasChecksum = copy[checksum] !== 0 || copy[checksum + 1] !== 0;
  if (version === 4) {
    copy.fill(0, network + 4, network + 6);
    copy.fill(0, network + 10, network + 12);
    if (['8100', '88a8'].includes(hex(inner.subarray(12, 14)))) copy[network + 6]! &= ~0x40;
  }
  copy.fill(0, transport, transport + 2);
  copy.fill(hasChecksum ? 1 : 0, checksum, checksum + 2);
  return hex(copy);
}

type Sides = Awaited<ReturnType<typeof build>>;

test('the kernel and uvxlan, side by side', { skip, timeout: 180_000 }, async (t) => {
  const sides = await build(t);
  await t.test('the same frames in, the same packets out', (t) => sameOut(t, sides));
  await t.test('the same packets in, the same frames delivered', (t) => sameIn(t, sides));
});

async function sameOut(t: TestContext, sides: Sides): Promise<void> {
  const frames = stimuli();
  const results = await Promise.all(
    KINDS.map(async (kind) => {
      const { host, peer } = sides[kind];
      const capture = await Capture.start(peer, 'eth0', `udp dst port ${PORT} or ${ZERO_PORT}`, 1600);
      sendFrames(host, DEVICES.map(nameOf), frames);
      const seen = new Map(DEVICES.map(({ vni }): [number, string[]] => [vni, []]));
      for (const bytes of await packetsOf(await capture.stop(DEVICES.length * frames.length))) {
        const { vni, inner } = decapsulate(
          bytes,
          bytes[shape(bytes).transport + 3] === (PORT & 0xff) ? PORT : ZERO_PORT,
        );
        if (hex(inner.subarray(6, 12)) === SOURCE) seen.get(vni)!.push(comparable(bytes, inner));
      }
      return seen;
    }),
  );
  const [kernel, ...ours] = results;
  for (const device of DEVICES) {
    const expected = kernel!.get(device.vni)!;
    assert.equal(expected.length, frames.length, 'the kernel sent all');
    for (const [i, uplink] of UPLINKS.entries()) {
      await t.test(`${uplink}, IPv${device.family} outside: ${device.words || 'the defaults'}`, () => {
        const actual = ours[i]!.get(device.vni)!;
        for (const [k, bytes] of expected.entries()) {
          assert.equal(actual[k], bytes, `frame ${k}: ${hex(frames[k]!)}`);
        }
        assert.equal(actual.length, expected.length);
      });
    }
  }
}

/** A VXLAN packet that arrives, and for which device. */
interface Arrival {
  name: string;
  packet: Uint8Array;
}

function arrivals({ family, vni, port }: Device): Arrival[] {
  const outer = { version: family, from: 0xb, to: 0xa };
  const list: Arrival[] = [];
  const add = (
    name: string,
    inner: Uint8Array,
    spec: Partial<FrameSpec> = {},
    change?: (bytes: Uint8Array) => void,
  ) => {
    const bytes = vxlan(vni, inner);
    change?.(bytes);
    list.push({ name, packet: outerFrame(bytes, port, { ...outer, ...spec }) });
  };
  for (const version of [4, 6] as const) {
    for (let inside = 0; inside < 4; inside++) {
      for (let outside = 0; outside < 4; outside++) {
        const spec = {
          version,
          protocol: 'udp',
          tos: 0xb8 | inside,
          payload: payload(20 + 4 * inside + outside),
        } as const;
        add(`ECN ${inside} in ${outside}`, frame(spec), { tos: 0x20 | outside });
      }
    }
    add('tagged', frame({ version, tags: [4], tos: 2 }), { tos: 2 });
  }
  add('not IP', otherFrame(0x88cc, 50), { tos: 3 });
  for (let bit = 0; bit < 64; bit++) {
    if (bit < 32 || bit >= 56) {
      add(`bit ${bit}`, otherFrame(0x88cc, 20 + bit), {}, (bytes) => {
        bytes[bit >> 3]! ^= 0x80 >> (bit & 7);
      });
    }
  }
  add('another VNI', otherFrame(0x88cc, 90), {}, (bytes) => bytes.fill(0x77, 4, 7));
  add('a wrong checksum', otherFrame(0x88cc, 92));
  list.at(-1)!.packet[shape(list.at(-1)!.packet).checksum]! ^= 0x55;
  add('no checksum', otherFrame(0x88cc, 93));
  const last = list.at(-1)!.packet;
  last.fill(0, shape(last).checksum, shape(last).checksum + 2);
  add('the end', otherFrame(0x88cc, 99));
  for (const { packet } of list.slice(0, 32)) assert.ok(checksumHolds(packet));
  return list;
}

async function sameIn(t: TestContext, sides: Sides): Promise<void> {
  const receivers = DEVICES.filter(({ words }) => words === '' || words.includes('zerocsumrx'));
  for (const device of receivers) {
    const all = arrivals(device);
    const delivered = async (kind: (typeof KINDS)[number], count: number) => {
      const { host, peer } = sides[kind];
      // Not `in`: the direction is not known for what a TAP is given, so the source tells.
      const capture = await Capture.start(host, nameOf(device), '', 1600);
      sendFrames(
        peer,
        'eth0',
        all.map(({ packet }) => packet),
      );
      const frames = await packetsOf(await capture.stop(count));
      const own = mac(device).replaceAll(':', '');
      return frames.filter((bytes) => hex(bytes.subarray(6, 12)) !== own).map(hex);
    };
    const kernel = await delivered('kernel', 31);
    const ours = await Promise.all(UPLINKS.map((kind) => delivered(kind, kernel.length)));
    for (const [i, uplink] of UPLINKS.entries()) {
      await t.test(`${uplink}, IPv${device.family} outside: ${device.words || 'the defaults'}`, () => {
        assert.deepEqual(ours[i], kernel);
      });
    }
  }
}
