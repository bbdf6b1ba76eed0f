/** What listeners are shown: every packet once, with its next hop and the reason of its drop; and nothing changes because of them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { COUNTER, COUNTERS } from '../../dataplane/counters.ts';
import { DROPS } from '../../dataplane/drops.ts';
import {
  allocateRing,
  RECORD_COPIES,
  RECORD_DEVICE,
  RECORD_DROP,
  RECORD_DROPPED,
  RECORD_FLAGS,
  RECORD_GSO,
  RECORD_GSO_SIZE,
  RECORD_LENGTH,
  RECORD_NEXT_HOP,
  RECORD_OUTER,
  RECORD_RECEIVED,
  RingReader,
  RingWriter,
} from '../../dataplane/record/ring.ts';
import * as libc from '../../system/libc.ts';
import { VNET_PLAIN, VNET_TUNNEL } from '../../system/vnet.ts';
import {
  ACK,
  decapsulate,
  frame,
  hex,
  onWire,
  outerFrame,
  packet,
  payload,
  superFrame,
  unfinished,
  vxlan,
} from './packet.ts';
import { Node, OWN, PORT, type TestPort, VNI } from './rig.ts';

const RING = 1 << 20;

interface Shown {
  readonly side: 'inner' | 'outer';
  readonly direction: 'tx' | 'rx';
  readonly device: number;
  readonly nextHop: number;
  readonly copies: number;
  readonly drop: string;
  readonly dropped: number;
  readonly length: number;
  readonly gso: number;
  readonly gsoSize: number;
  readonly bytes: Uint8Array;
  readonly time: number;
}

class Listener {
  readonly #reader: RingReader;

  constructor(
    { worker }: Node,
    options: { filter?: string; outerFilter?: string; device?: number; snapLength?: number; ring?: number } = {},
  ) {
    const { filter = '', outerFilter = '', device = -1, snapLength = 65536, ring: size = RING } = options;
    const ring = allocateRing(size);
    this.#reader = new RingReader(ring);
    worker.listen({ id: 1, ring, device, vni: device < 0 ? -1 : VNI + device, filter, outerFilter, snapLength });
  }

  get lost(): number {
    return this.#reader.lost;
  }

  take(): Shown[] {
    const shown: Shown[] = [];
    const { words } = this.#reader;
    for (let record = this.#reader.next(); record >= 0; record = this.#reader.next()) {
      const flags = words[record + RECORD_FLAGS];
      shown.push({
        side: flags & RECORD_OUTER ? 'outer' : 'inner',
        direction: flags & RECORD_RECEIVED ? 'rx' : 'tx',
        device: words[record + RECORD_DEVICE],
        nextHop: words[record + RECORD_NEXT_HOP],
        copies: words[record + RECORD_COPIES],
        drop: COUNTERS[words[record + RECORD_DROP] - 1] ?? '',
        dropped: words[record + RECORD_DROPPED],
        length: words[record + RECORD_LENGTH],
        gso: words[record + RECORD_GSO] >> 8,
        gsoSize: words[record + RECORD_GSO_SIZE],
        bytes: Uint8Array.from(this.#reader.packet(record)),
        time: this.#reader.time(record),
      });
      this.#reader.release(record);
    }
    return shown;
  }
}

const summary = ({ side, direction, drop, dropped }: Shown): string =>
  `${side} ${direction}${drop && ` ${drop} ${dropped}`}`;

function sending(options: { devices?: number } = {}): { node: Node; peer: number; uplink: TestPort } {
  const node = new Node({ ...options });
  const peer = node.rig.vtep('192.0.2.2');
  node.rig.entry(0, 2, peer);
  node.rig.entry(0, 3, node.rig.vtep('192.0.2.9', { resolved: false }));
  node.rig.entry(0, 4, peer, node.rig.vtep('192.0.2.3'), node.rig.vtep('192.0.2.9', { resolved: false }));
  return { node, peer, uplink: node.uplink as TestPort };
}

/** A network's packet for the uplink's port. */
const arriving = (bytes: Uint8Array): Uint8Array => packet(bytes, {}, true);

test('a frame out: on both sides, with its next hop', () => {
  const { node, peer } = sending();
  const listener = new Listener(node);
  const sent = frame({ payload: payload(10) });
  node.taps[0].waiting.push(packet(sent));
  const before = Date.now();
  node.run();
  const [inner, outer, ...more] = listener.take();
  assert.deepEqual(more, []);
  assert.deepEqual([summary(inner), summary(outer)], ['inner tx', 'outer tx']);
  assert.deepEqual(
    { device: inner.device, nextHop: inner.nextHop, copies: inner.copies },
    { device: 0, nextHop: peer, copies: 1 },
  );
  assert.equal(hex(inner.bytes), hex(sent));
  assert.equal(
    hex(decapsulate(onWire(packet(outer.bytes, { flags: 1, start: 34, offset: 6 }, true), true)[0], PORT).inner),
    hex(sent),
  );
  assert.ok(Math.abs(inner.time - before) < 10_000, 'milliseconds since 1970');
});

test('drops on the way out: each frame with its own reason', () => {
  const { node } = sending();
  const listener = new Listener(node);
  const to = (last: number): Uint8Array => packet(frame({ to: last, payload: payload(10) }));
  node.taps[0].waiting.push(to(2), to(9), to(3), packet(Uint8Array.of(1, 2, 3)), to(2), to(4));
  node.run();
  assert.deepEqual(
    listener
      .take()
      .filter(({ side }) => side === 'inner')
      .map(summary),
    [
      'inner tx',
      'inner tx tx_no_remote 1',
      'inner tx tx_unresolved 1',
      'inner tx tx_runt 1',
      'inner tx',
      'inner tx tx_unresolved 1',
    ],
  );
  node.balance();
});

test('head-end replication: one frame, its copies, and the one that has nowhere to go', () => {
  const { node, peer } = sending();
  const listener = new Listener(node);
  node.taps[0].waiting.push(packet(frame({ to: 4 })));
  node.run();
  const [inner, ...outer] = listener.take();
  assert.deepEqual(
    { nextHop: inner.nextHop, copies: inner.copies, drop: inner.drop },
    { nextHop: peer, copies: 3, drop: 'tx_unresolved' },
  );
  assert.deepEqual(
    outer.map(({ bytes }) => bytes.subarray(30, 34).join('.')),
    ['192.0.2.2', '192.0.2.3'],
  );
});

test('a packet that the uplink does not take is dropped on the outer side', () => {
  const { node, uplink } = sending();
  const listener = new Listener(node);
  uplink.failure = libc.ENOBUFS;
  uplink.good = 1;
  for (const port of [1, 1, 2, 3]) node.taps[0].waiting.push(packet(frame({ payload: payload(10), sourcePort: port })));
  node.run();
  const shown = listener.take();
  assert.deepEqual(shown.filter(({ side }) => side === 'inner').map(summary), new Array(4).fill('inner tx'));
  assert.deepEqual(shown.filter(({ side }) => side === 'outer').map(summary), [
    'outer tx',
    'outer tx tx_uplink_full 1',
    'outer tx tx_uplink_full 1',
  ]);
  node.balance();
});

test('packets in: each with the reason of the check that it failed', () => {
  const { node, uplink } = sending({ devices: 2 });
  node.rig.setMac(0, OWN);
  const listener = new Listener(node);
  const good = frame({ payload: payload(10) });
  const wrongSum = outerFrame(vxlan(VNI, good), PORT);
  wrongSum[60] ^= 1;
  const noFlag = vxlan(VNI, good);
  noFlag[0] = 0;
  uplink.waiting.push(
    arriving(outerFrame(vxlan(VNI, good), PORT)),
    arriving(wrongSum),
    arriving(outerFrame(vxlan(VNI + 9, good), PORT)),
    arriving(outerFrame(noFlag, PORT)),
    arriving(outerFrame(vxlan(VNI + 1, frame({ from: OWN })), PORT)),
    arriving(outerFrame(vxlan(VNI, frame({ from: OWN })), PORT)),
    arriving(outerFrame(vxlan(VNI, good), PORT).subarray(0, 40)),
  );
  node.run();
  const shown = listener.take();
  assert.deepEqual(shown.filter(({ side }) => side === 'outer').map(summary), [
    'outer rx',
    'outer rx rx_outer_checksum 1',
    'outer rx rx_unknown_vni 1',
    'outer rx rx_invalid_header 1',
    'outer rx',
    'outer rx rx_own_mac 1',
    'outer rx rx_outer_malformed 1',
  ]);
  // Those of the first device may be merged with others until the batch ends.
  const inner = shown.filter(({ side }) => side === 'inner').sort((a, b) => a.device - b.device);
  assert.deepEqual(
    inner.map(({ device }) => device),
    [0, 1],
  );
  assert.equal(hex(inner[0].bytes), hex(good));
  node.balance();
});

test('a TAP that is down drops on the inner side', () => {
  const { node, uplink } = sending();
  const listener = new Listener(node);
  node.taps[0].failure = libc.EIO;
  uplink.waiting.push(arriving(outerFrame(vxlan(VNI, frame()), PORT)));
  node.run();
  assert.deepEqual(listener.take().map(summary), ['outer rx', 'inner rx rx_device_down 1']);
});

test('super-frames and runs are shown as they are, with their segment size', () => {
  const { node, uplink } = sending();
  const listener = new Listener(node);
  const large = superFrame(frame({ payload: payload(5000) }), 1000);
  const small = frame({ protocol: 'udp', payload: payload(100) });
  node.taps[0].waiting.push(large, unfinished(small), unfinished(small), unfinished(small));
  node.run();
  const shown = listener.take();
  const [first] = shown;
  assert.deepEqual(
    { gso: first.gso, gsoSize: first.gsoSize, length: first.length },
    { gso: 1, gsoSize: 1000, length: 5054 },
  );
  const outer = shown.filter(({ side }) => side === 'outer');
  assert.deepEqual(
    outer.map(({ gso, length }) => [gso, length]),
    [
      [0x21, 5054 + 50],
      [5, 42 + 3 * (small.length + 8)],
    ],
  );
  assert.deepEqual(
    outer.map(({ bytes }) => hex(bytes)),
    uplink.written.map((bytes) => hex(bytes.subarray(VNET_TUNNEL))),
  );
});

test('a merged frame is shown as it is delivered, whole or its beginning', () => {
  for (const snapLength of [65536, 70, 200]) {
    const { node, uplink } = sending();
    const listener = new Listener(node, { snapLength });
    for (let i = 0; i < 5; i++) {
      const inner = frame({ sequence: 1000 + i * 101, flags: ACK, payload: payload(101) });
      uplink.waiting.push(arriving(outerFrame(vxlan(VNI, inner), PORT)));
    }
    node.run();
    const delivered = node.taps[0].written.map((bytes) => hex(bytes.subarray(VNET_PLAIN).subarray(0, snapLength)));
    assert.equal(delivered.length, 1);
    const inner = listener.take().filter(({ side }) => side === 'inner');
    assert.deepEqual(
      inner.map(({ bytes }) => hex(bytes)),
      delivered,
    );
  }
});

test('filters, devices and snap lengths', () => {
  const { node, uplink } = sending({ devices: 2 });
  node.rig.entry(1, 2, node.rig.vtep('192.0.2.2', { vni: VNI + 1, device: 1 }));
  const traffic = (): void => {
    node.taps[0].waiting.push(packet(frame({ protocol: 'udp', payload: payload(50) })), packet(frame({ flags: ACK })));
    node.taps[1].waiting.push(packet(frame({ flags: ACK, payload: payload(3) })));
    uplink.waiting.push(arriving(outerFrame(vxlan(VNI + 1, frame({ protocol: 'udp' })), PORT)));
    node.run();
  };
  const counted = (options: ConstructorParameters<typeof Listener>[1]): string[] => {
    const listener = new Listener(node, options);
    traffic();
    node.worker.unlisten(1);
    return listener.take().map(({ side, direction, device }) => `${side} ${direction} ${device}`);
  };
  assert.deepEqual(counted({ filter: 'udp' }), ['inner tx 0', 'outer tx -1', 'outer rx -1', 'inner rx 1']);
  assert.deepEqual(counted({ filter: 'udp', device: 1 }), ['outer rx -1', 'inner rx 1']);
  assert.deepEqual(counted({ device: 1 }), ['inner tx 1', 'outer tx -1', 'outer rx -1', 'inner rx 1']);
  assert.deepEqual(counted({ filter: 'tcp', outerFilter: 'dst host 192.0.2.7' }), ['inner tx 0', 'inner tx 1']);
  const short = new Listener(node, { snapLength: 60 });
  traffic();
  const [first] = short.take();
  assert.deepEqual([first.bytes.length, first.length], [60, 92]);
});

test('what is wanted has its own reason, whatever happens to the rest of a batch', () => {
  const { node, uplink } = sending();
  const listener = new Listener(node, { filter: 'tcp' });
  const to = (last: number, protocol: 'tcp' | 'udp'): Uint8Array => packet(frame({ to: last, protocol }));
  const from = (vni: number, protocol: 'tcp' | 'udp'): Uint8Array => outerFrame(vxlan(vni, frame({ protocol })), PORT);
  node.taps[0].waiting.push(to(9, 'udp'), to(2, 'udp'), to(9, 'tcp'), to(3, 'udp'), to(3, 'tcp'), to(2, 'tcp'));
  const wrong = [from(VNI, 'udp'), from(VNI, 'tcp')];
  for (const bytes of wrong) bytes[60] ^= 1;
  const others = [from(VNI + 5, 'udp'), from(VNI, 'udp'), from(VNI + 5, 'tcp'), from(VNI, 'tcp')];
  uplink.waiting.push(...[...wrong, ...others].map(arriving));
  node.run();
  assert.deepEqual(listener.take().map(summary), [
    'inner tx tx_no_remote 1',
    'inner tx tx_unresolved 1',
    'inner tx',
    'outer tx',
    'outer rx rx_outer_checksum 1',
    'outer rx rx_unknown_vni 1',
    'outer rx',
    'inner rx',
  ]);
  node.balance();
});

test('an inner frame is wanted although its outer packet is not', () => {
  const { node, uplink } = sending();
  const listener = new Listener(node, { outerFilter: 'host 198.51.100.1' });
  node.taps[0].failure = libc.EIO;
  uplink.waiting.push(arriving(outerFrame(vxlan(VNI, frame()), PORT)));
  node.run();
  assert.deepEqual(listener.take().map(summary), ['inner rx rx_device_down 1']);
});

test('drops of a direction lie side by side, where they are watched', () => {
  for (const direction of ['tx', 'rx'] as const) {
    const indices = DROPS.filter((drop) => drop.direction === direction).map(({ name }) => COUNTER[name]);
    assert.deepEqual(
      indices,
      indices.map((_, i) => indices[0] + i),
    );
  }
});

test('what finds no room is lost and counted, and forwarding goes on', () => {
  const { node, uplink } = sending();
  const listener = new Listener(node, { ring: 4096 });
  for (let i = 0; i < 50; i++) node.taps[0].waiting.push(packet(frame({ sourcePort: i, payload: payload(400) })));
  node.run();
  assert.equal(uplink.written.length, 50);
  const shown = listener.take();
  assert.equal(shown.length + listener.lost, 100);
  assert.ok(shown.length > 5);
  node.taps[0].waiting.push(packet(frame()));
  node.run();
  assert.equal(listener.take().length, 2, 'there is room again');
});

test('listening changes nothing of what is sent and delivered', () => {
  const results = [false, true].map((listening) => {
    const { node, uplink } = sending();
    if (listening) new Listener(node, { snapLength: 100 });
    for (let i = 0; i < 40; i++) {
      const spec = { sourcePort: (i >> 3) + 1, payload: payload(i % 5 === 0 ? 700 : 300), to: i % 7 === 0 ? 4 : 2 };
      node.taps[0].waiting.push(unfinished(frame({ protocol: i % 2 ? 'udp' : 'tcp', ...spec })));
      node.taps[0].waiting.push(superFrame(frame({ payload: payload(3000 + i), sourcePort: i }), 1000));
      const inner = frame({ protocol: i < 20 ? 'tcp' : 'udp', sequence: 1000 + i * 100, payload: payload(100) });
      uplink.waiting.push(arriving(outerFrame(vxlan(VNI, inner), PORT)));
    }
    node.run();
    node.balance();
    const out = uplink.written.map((bytes) =>
      onWire(bytes, true).map((each) => ({ ...decapsulate(each, PORT), id: 0 })),
    );
    return { out, delivered: node.taps[0].written.map(hex), counters: node.rig.device(0) };
  });
  assert.ok(
    results[0].out.some((run) => run.length > 2),
    'there are runs',
  );
  assert.deepEqual(results[1], results[0]);
});

test('when nobody listens any more all is as before', () => {
  const { node, uplink } = sending();
  const listener = new Listener(node);
  node.worker.unlisten(1);
  node.taps[0].waiting.push(packet(frame()));
  uplink.waiting.push(arriving(outerFrame(vxlan(VNI, frame()), PORT)));
  node.run();
  assert.deepEqual(listener.take(), []);
  assert.equal(uplink.written.length, 1);
  assert.equal(node.taps[0].written.length, 1);
});

test('a ring gives back what was put in, however the records lie around its end', () => {
  const ring = allocateRing(1024);
  const writer = new RingWriter(ring);
  const reader = new RingReader(ring);
  let sent = 0;
  let taken = 0;
  const sizes = [0, 1, 7, 8, 100, 300, 13];
  for (let i = 0; i < 2000; i++) {
    const size = sizes[i % sizes.length];
    const record = writer.reserve(0, size, i * 3);
    if (record >= 0) {
      writer.words[record + RECORD_DEVICE] = sent++;
      writer.words[record + RECORD_LENGTH] = size;
      writer.publish();
    }
    for (let k = 0; k < (i % 4 === 0 ? 3 : 0); k++) {
      const next = reader.next();
      if (next < 0) break;
      assert.equal(reader.words[next + RECORD_DEVICE], taken++);
      reader.release(next);
    }
  }
  assert.ok(reader.lost > 100 && taken > 500, `${reader.lost} lost, ${taken} taken`);
  assert.equal(sent + reader.lost, 2000);
});
