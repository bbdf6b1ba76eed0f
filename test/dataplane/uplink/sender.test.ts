import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Batch } from '../../../dataplane/batch.ts';
import { loadSum } from '../../../dataplane/checksum.ts';
import { block, COUNTER, FIRST_UPLINK_SCOPE } from '../../../dataplane/counters.ts';
import { receiveFrames, takeTapArena } from '../../../dataplane/tap.ts';
import { FrameUplink, takeUplinkArena } from '../../../dataplane/uplink/frame.ts';
import { Sender } from '../../../dataplane/uplink/sender.ts';
import type { UplinkOffloads } from '../../../dataplane/uplink/uplink.ts';
import * as libc from '../../../system/libc.ts';
import { headers, superFrames } from '../arbitrary.ts';
import {
  assertFrames,
  decapsulate,
  frame,
  onWire,
  otherFrame,
  packet,
  payload,
  readVnet,
  superFrame,
  unfinished,
} from '../packet.ts';
import { drops, PORT, Rig, SOURCE_PORTS, TestPort, VNI } from '../rig.ts';

const rig = new Rig();
const { memory } = rig;
const sum = loadSum(memory);
const nextHops = new Int32Array(rig.nextHops.buffer);
const tap = new TestPort(memory);
const tapArena = takeTapArena(memory);
const arena = takeUplinkArena(memory);
const batch = new Batch(64);

const ALL = { tunnelGso: true, udpGso: true };
const RUNS = { tunnelGso: false, udpGso: true };
const SINGLE = { tunnelGso: false, udpGso: false };

/** The way through the host's stack, as far as the sender sees it: takes runs of any length, writes down what it gets. */
class HostPath extends Sender {
  protected readonly leavesChecksums = false;
  protected readonly isHostPath = true;
  readonly runs: Uint8Array[][] = [];

  protected transmitRun(): void {
    const { u8, u32, address } = this.memory;
    this.memory.setIovec(this.iovecs, 0, this.first, this.firstLength);
    const pieces = Array.from({ length: this.iovecCount }, (_, i) => {
      const word = (this.iovecs + i * 16) >> 2;
      const at = u32[word] + u32[word + 1] * 2 ** 32 - address;
      return u8.slice(at, at + u32[word + 2]);
    });
    const packets = Array.from({ length: this.count }, (_, i) => {
      const whole = Buffer.concat(pieces.slice(i === 0 ? 0 : this.iovecOf[i], this.iovecOf[i + 1]));
      return i === 0 ? whole : whole.subarray(8);
    });
    this.runs.push(packets);
    this.counters[this.scope + COUNTER.tx_packets] += this.count;
  }

  protected transmitSuperFrame(): boolean {
    return false;
  }
}

interface Uplink {
  readonly port: TestPort;
  readonly uplink: FrameUplink;
  readonly host: HostPath | undefined;
}

function makeUplink(offloads: UplinkOffloads, withHost = false): Uplink {
  const port = new TestPort(memory);
  const options = { offloads, port: PORT, sourcePorts: SOURCE_PORTS, scope: block(0, FIRST_UPLINK_SCOPE), arena };
  const host = withHost ? new HostPath(memory, sum, rig.counters, nextHops, RUNS) : undefined;
  return { port, uplink: new FrameUplink(port, memory, sum, rig.counters, nextHops, options, host), host };
}

const uplinks = {
  all: makeUplink(ALL),
  runs: makeUplink(RUNS),
  single: makeUplink(SINGLE),
  host: makeUplink(ALL, true),
};

const near = rig.vtep('192.0.2.2');
const far = rig.vtep('192.0.2.3', { vni: 7 });
const unchecked = rig.vtep('192.0.2.4', { udpChecksum: false });
const jumbo = rig.vtep('192.0.2.5', { mtu: 9000 });
const ipv6 = rig.vtep('2001:db8::2');
const unresolved = rig.vtep('192.0.2.6', { resolved: false });

interface Sent {
  readonly packet: Uint8Array;
  readonly nextHop?: number;
  readonly entropy?: number;
}

/** Sends packets of a TAP as one batch, and returns what the uplink's port got. */
function send({ uplink, port }: Uplink, packets: readonly Sent[]): Uint8Array[] {
  rig.clear();
  tap.waiting.push(...packets.map((sent) => sent.packet));
  receiveFrames(tap, memory, tapArena, batch);
  assert.equal(batch.count, packets.length, 'the batch holds all');
  for (const [i, { nextHop = near, entropy = 40_000 }] of packets.entries()) {
    uplink.send(batch, i, nextHop, entropy, block(0, 0), true);
  }
  uplink.flush();
  return port.take();
}

/** How many VXLAN packets each packet of the port holds. */
function grouping(uplink: Uplink, packets: readonly Sent[]): number[] {
  return send(uplink, packets).map((bytes) => onWire(bytes, true).length);
}

const udp = (length: number, seed = 0) => frame({ protocol: 'udp', payload: payload(length, seed) });
const plain = (length: number, seed = 0): Sent => ({ packet: packet(udp(length, seed)) });

test('sends equal-sized packets to one next hop as one UDP super-packet, a shorter one last', () => {
  const frames = [udp(100, 1), udp(100, 2), udp(100, 3), udp(30, 4)];
  const [whole, ...more] = send(
    uplinks.all,
    frames.map((bytes) => ({ packet: packet(bytes) })),
  );
  assert.equal(more.length, 0);
  const size = 8 + 42 + 100;
  assert.deepEqual(readVnet(whole, true), {
    flags: 1,
    type: 5,
    headerLength: 42,
    size,
    start: 34,
    offset: 6,
    outerTransport: 0,
    innerNetwork: 0,
  });
  assert.equal(whole.length, 24 + 42 + 3 * size + size - 70);
  const packets = onWire(whole, true).map((bytes) => decapsulate(bytes, PORT));
  assertFrames(
    packets.map(({ inner }) => inner),
    frames,
  );
  assert.deepEqual(
    packets.map(({ vni, destination, sourcePort }) => [vni, destination, sourcePort]),
    Array(4).fill([VNI, '192.0.2.2', 40_000]),
  );
  assert.deepEqual(rig.device(0), { tx_packets: 4, tx_writes: 1 });
});

test('ends a run where a packet does not fit it', () => {
  const other = { nextHop: far };
  const runs: Record<string, [Sent[], number[]]> = {
    'longer frame': [
      [plain(50), plain(50), plain(51), plain(51)],
      [2, 2],
    ],
    'shorter frame closes': [
      [plain(50), plain(49), plain(49), plain(49)],
      [2, 2],
    ],
    'other next hop': [
      [plain(50), plain(50), { ...plain(50), ...other }, { ...plain(50), ...other }, plain(50)],
      [2, 2, 1],
    ],
    'other source port': [
      [plain(50), plain(50), { ...plain(50), entropy: 40_001 }],
      [2, 1],
    ],
    '64 segments': [Array.from({ length: 64 }, () => plain(10)), [64]],
    'no UDP checksum': [[1, 2].map((seed) => ({ ...plain(50, seed), nextHop: unchecked })), [1, 1]],
    unresolved: [
      [plain(50), { ...plain(50), nextHop: unresolved }, plain(50)],
      [1, 1],
    ],
    'super-frame': [
      [plain(50), { packet: superFrame(udp(100), 50) }, plain(50)],
      [1, 2, 1],
    ],
  };
  for (const [name, [packets, expected]] of Object.entries(runs)) {
    assert.deepEqual(grouping(uplinks.all, packets), expected, name);
    assert.deepEqual(grouping(uplinks.single, packets), Array(expected.reduce((a, b) => a + b)).fill(1), name);
  }
});

test('ends a run at 65,507 bytes, and at 64 segments of a super-frame', () => {
  const packets = Array.from({ length: 20 }, (_, i) => ({ ...plain(8000, i), nextHop: jumbo }));
  assert.deepEqual(grouping(uplinks.all, packets), [8, 8, 4]);
  const small = superFrame(frame({ payload: payload(15_000) }), 100);
  assert.deepEqual(grouping(uplinks.runs, [{ packet: small }]), [64, 64, 22]);
  assert.deepEqual(rig.device(0), { tx_segments: 149, tx_packets: 150, tx_writes: 3 });
  const edge = (length: number) =>
    Array.from({ length: 14 }, (_, i) => ({ ...plain(length - 8 - 42, i), nextHop: jumbo }));
  assert.deepEqual(grouping(uplinks.all, edge(65_507 / 13)), [13, 1]);
  assert.deepEqual(grouping(uplinks.all, edge(65_507 / 13 + 1)), [12, 2]);
});

test('leaves a single checksum to the kernel, with a finished outer one that stays right', () => {
  for (const protocol of ['tcp', 'udp'] as const) {
    for (const version of [4, 6] as const) {
      for (const tags of [[], [5], [5, 6]]) {
        const bytes = frame({ protocol, version, tags, payload: payload(333) });
        const [whole] = send(uplinks.all, [{ packet: unfinished(bytes) }]);
        const { flags, type, start, offset } = readVnet(whole, true);
        const inner = readVnet(unfinished(bytes), false);
        assert.deepEqual(
          { flags, type, start, offset },
          { flags: 1, type: 0, start: 50 + inner.start, offset: inner.offset },
        );
        assert.notEqual((whole[24 + 40] << 8) | whole[24 + 41], 0);
        assertFrames([decapsulate(onWire(whole, true)[0], PORT).inner], [bytes]); // verifies the outer checksum
        const [zero] = send(uplinks.all, [{ packet: unfinished(bytes), nextHop: unchecked }]);
        assert.equal((zero[24 + 40] << 8) | zero[24 + 41], 0);
        assertFrames([decapsulate(onWire(zero, true)[0], PORT).inner], [bytes]);
      }
    }
  }
});

test('finishes checksums in a run, once', () => {
  const frames = Array.from({ length: 5 }, (_, i) => frame({ payload: payload(300, i), sequence: 300 * i }));
  for (const pattern of ['11111', '01111', '10000', '01010']) {
    const packets = frames.map((bytes, i) => ({ packet: pattern[i] === '1' ? unfinished(bytes) : packet(bytes) }));
    const [whole, ...more] = send(uplinks.all, packets);
    assert.equal(more.length, 0);
    assertFrames(
      onWire(whole, true).map((bytes) => decapsulate(bytes, PORT).inner),
      frames,
      pattern,
    );
  }
});

test('hands super-frames on whole where the kernel takes them, and cuts them up where not', () => {
  for (const nextHop of [near, unchecked]) {
    for (const version of [4, 6] as const) {
      for (const tags of [[], [9]]) {
        const bytes = frame({ version, tags, payload: payload(30_000) });
        const whole = superFrame(bytes, 1300);
        for (const [name, uplink] of Object.entries(uplinks)) {
          const written = send(uplink, [{ packet: whole, nextHop }]);
          const checked = nextHop === near;
          const writes = name === 'all' || name === 'host' ? 1 : name === 'runs' && checked ? 1 : 24;
          assert.equal(written.length, writes, name);
          const packets = written.flatMap((bytes) => onWire(bytes, true)).map((bytes) => decapsulate(bytes, PORT));
          assertFrames(
            packets.map(({ inner }) => inner),
            onWire(whole),
          );
          const ids = packets.map(({ id }) => id);
          assert.deepEqual(
            ids,
            ids.map((_, i) => (ids[0] + i) & 0xffff),
          );
        }
      }
    }
  }
  const { flags, type } = readVnet(send(uplinks.all, [{ packet: superFrame(udp(5000), 1000) }])[0], true);
  assert.deepEqual([flags, type], [1 | 8, 5 | 0x20]);
});

test('gives each outer packet an id of its own, those that the kernel makes of a super-packet included', () => {
  const packets: Sent[] = [];
  for (let i = 0; i < 8; i++) packets.push(plain(50), plain(50), { packet: superFrame(udp(5000), 700) }, plain(60));
  for (const uplink of Object.values(uplinks)) {
    const ids = send(uplink, packets)
      .flatMap((bytes) => onWire(bytes, true))
      .map((bytes) => decapsulate(bytes, PORT).id);
    assert.equal(new Set(ids).size, ids.length);
  }
});

test('drops what does not fit the path, under its name', () => {
  const fits = 1500 - 36 - 42; // outer IP, UDP, VXLAN, inner Ethernet; inner IP and UDP come with udp()
  for (const uplink of [uplinks.all, uplinks.runs, uplinks.single]) {
    assert.equal(send(uplink, [plain(fits)]).length, 1);
    assert.equal(
      send(uplink, [plain(fits + 1), plain(fits + 1), plain(20), plain(20)]).length,
      uplink === uplinks.single ? 2 : 1,
    );
    assert.deepEqual([rig.device(0).tx_too_big, rig.device(0).tx_packets], [2, 2]);
    const tcp = frame({ payload: payload(20_000) });
    assert.ok(send(uplink, [{ packet: superFrame(tcp, 1500 - 36 - 54) }]).length > 0);
    assert.equal(send(uplink, [{ packet: superFrame(tcp, 1500 - 36 - 53) }]).length, 0);
    assert.deepEqual(rig.device(0), { tx_too_big: 1 });
    // Its only segment is short, though its segment size is not.
    assert.equal(send(uplink, [{ packet: superFrame(udp(700), 9000) }]).length, 1);
  }
});

test('drops what has no resolved next hop, and super-frames that make no sense', () => {
  for (const uplink of [uplinks.all, uplinks.runs]) {
    const packets = [plain(20), { packet: superFrame(udp(5000), 1000) }].map((sent) => ({
      ...sent,
      nextHop: unresolved,
    }));
    assert.equal(send(uplink, packets).length, 0);
    assert.deepEqual(rig.device(0), { tx_unresolved: 2 });
    const vnet = { flags: 1, type: 1, size: 0, start: 34, offset: 16 };
    assert.equal(send(uplink, [{ packet: packet(frame({ payload: payload(3000) }), vnet) }]).length, 0);
    assert.deepEqual(rig.device(0), { tx_malformed: 1 });
  }
});

test('names what the port refuses, and counts every packet of a run', () => {
  const names = {
    tx_uplink_full: [libc.EAGAIN, libc.ENOBUFS],
    tx_too_big: [libc.EMSGSIZE],
    tx_uplink_down: [libc.EIO, libc.ENETDOWN, libc.ENODEV],
    tx_unresolved: [libc.ENETUNREACH, libc.EHOSTUNREACH],
    tx_refused: [libc.EPERM, libc.EACCES],
    tx_uplink_error: [libc.EINVAL],
  };
  for (const [name, errors] of Object.entries(names)) {
    for (const failure of errors) {
      uplinks.all.port.failure = failure;
      send(uplinks.all, [
        plain(20),
        plain(20),
        { packet: superFrame(udp(5000), 1000) },
        { packet: unfinished(udp(9)) },
      ]);
      assert.deepEqual(rig.device(0), { [name]: 4, tx_writes: 3 });
    }
  }
  uplinks.all.port.failure = 0;
});

test('sends what it cannot carry through the host, where there is such a way', () => {
  const { host } = uplinks.host;
  assert.ok(host);
  const large = [udp(2000, 1), udp(2000, 2)];
  const tcp = frame({ payload: payload(20_000) });
  const packets = [
    plain(20, 1),
    ...large.map((bytes) => ({ packet: unfinished(bytes) })),
    { packet: superFrame(tcp, 2000) },
    plain(20, 2),
    { ...plain(20), nextHop: unresolved },
  ];
  const direct = send(uplinks.host, packets).flatMap((bytes) => onWire(bytes, true));
  assertFrames(
    direct.map((bytes) => decapsulate(bytes, PORT).inner),
    [udp(20, 1), udp(20, 2)],
  );
  assertFrames(host.runs.splice(0).flat(), [...large, ...onWire(superFrame(tcp, 2000))]);
  assert.equal(rig.device(0).tx_unresolved, 1);
});

const finished = fc.tuple(headers(), fc.constantFrom(0, 10, 100, 100, 100, 1400, 1460, 3000), fc.nat(255));
const kinds = fc.oneof(
  finished.map(([spec, length, seed]) => packet(frame({ ...spec, payload: payload(length, seed) }))),
  finished.map(([spec, length, seed]) => unfinished(frame({ ...spec, payload: payload(length, seed) }))),
  fc.tuple(fc.constantFrom(0x0806, 0x88cc, 0x05dc), fc.nat(1500)).map(([type, n]) => packet(otherFrame(type, n))),
  superFrames(70).map((whole) => whole.packet),
);
const sent = fc.record({
  packet: kinds,
  nextHop: fc.constantFrom(near, near, near, far, unchecked, jumbo, ipv6, unresolved),
  entropy: fc.constantFrom(40_000, 40_000, 40_001),
});

test('delivers any batch to the byte, in order, on every tier, and accounts for each frame', () => {
  const names = new Map([near, far, unchecked, jumbo, ipv6].map((index) => [index, rig.nextHops.key(index)]));
  fc.assert(
    fc.property(
      fc.array(sent, { maxLength: 12 }),
      fc.constantFrom<keyof typeof uplinks>('all', 'runs', 'single'),
      (list, tier) => {
        const written = send(uplinks[tier], list);
        const packets = written.flatMap((bytes) => onWire(bytes, true)).map((bytes) => decapsulate(bytes, PORT));
        const expected = list.flatMap(({ packet, nextHop, entropy }) => {
          const key = names.get(nextHop);
          const frames = onWire(packet);
          const mtu = nextHop === jumbo ? 9000 : 1500;
          const headers = nextHop === ipv6 ? 56 : 36; // without the outer Ethernet header
          if (!key || frames.some((bytes) => bytes.length + headers > mtu)) return [];
          const destination = nextHop === ipv6 ? '20010db8000000000000000000000002' : key.ip;
          return frames.map((inner) => ({ inner, destination, vni: key.vni, sourcePort: entropy }));
        });
        assertFrames(
          packets.map(({ inner }) => inner),
          expected.map(({ inner }) => inner),
          tier,
        );
        packets.forEach(({ destination, vni, sourcePort }, i) => {
          assert.deepEqual({ inner: expected[i].inner, destination, vni, sourcePort }, expected[i]);
        });
        const { tx_segments = 0, tx_packets = 0, ...rest } = rig.device(0);
        assert.equal(list.length + tx_segments, tx_packets + drops(rest, 'tx'));
      },
    ),
    { numRuns: 600 },
  );
});
