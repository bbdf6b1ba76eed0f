/** ARP/ND suppression and route short-circuit in memory: frames of a TAP, what leaves for the network, and what comes back. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Events } from '../../control/events.ts';
import { takeMiss } from '../../control/misses.ts';
import { L2MISS, L3MISS, NEIGH_SUPPRESS, NOARP, PROXY, RSC } from '../../dataplane/device.ts';
import { REPORT_DEVICE, ReportReader } from '../../dataplane/reports.ts';
import { IS_OWN, IS_ROUTER, NUD_PERMANENT, NUD_REACHABLE, NUD_STALE, OF_BRIDGE } from '../../fdb/neighbors.ts';
import { ROUTER, STATE_BITS } from '../../fdb/state.ts';
import { parseIp } from '../../wire/address.ts';
import { ASKER, arp, BROADCAST, ip4, ip6, nd } from './discovery.ts';
import { decapsulate, frame, mac, onWire, packet, payload, superFrame } from './packet.ts';
import { Node, PORT, random, type TestPort } from './rig.ts';

const VTEP = '192.0.2.2';
const [KNOWN, HERE, STALE, BRIDGES, OWN, ROUTERS, NOWHERE] = [0x11, 0x12, 0x14, 0x15, 0x16, 0x17, 0x18];
/** A device that knows some neighbours, whose MACs are behind a VTEP unless said otherwise. */
function create(flags: number): { exchange: (...frames: Uint8Array[]) => string; node: Node } {
  const node = new Node();
  const { rig } = node;
  rig.setFlags(0, flags);
  const vtep = rig.vtep(VTEP);
  for (const last of [KNOWN, STALE, BRIDGES, ROUTERS, ASKER]) rig.entry(0, last, vtep);
  rig.entry(0, -1, vtep);
  const cell = rig.fdb.find(0, 0x0200, ROUTERS);
  rig.fdb.setState(cell, STATE_BITS.static | ROUTER, 0);
  for (const [last, state] of [
    [KNOWN, NUD_PERMANENT],
    [ASKER, NUD_PERMANENT],
    [HERE, NUD_REACHABLE], // no FDB entry
    [STALE, NUD_STALE],
    [BRIDGES, NUD_REACHABLE | OF_BRIDGE],
    [OWN, NUD_PERMANENT | IS_OWN],
    [ROUTERS, NUD_PERMANENT | IS_ROUTER],
  ]) {
    for (const ip of [ip4(last), ip6(last)]) rig.neighbors.set(0, Uint8Array.from(ip), 0x0200, last, state);
  }
  /** What becomes of frames: `sent`, `answered` or `dropped`. */
  const exchange = (...frames: Uint8Array[]): string => {
    rig.clear();
    node.taps[0].waiting.push(...frames.map((bytes) => packet(bytes)));
    node.run();
    node.balance();
    const { tx_packets = 0, tx_answered = 0, tx_suppressed = 0 } = rig.device(0);
    const fates = { sent: tx_packets, answered: tx_answered, dropped: tx_suppressed };
    return Object.entries(fates)
      .filter(([, count]) => count > 0)
      .map(([fate]) => fate)
      .join();
  };
  return { exchange, node };
}

const proxy = create(PROXY);
const suppress = create(NEIGH_SUPPRESS);
const off = create(0);

test('without the options everything goes out', () => {
  for (const bytes of [arp(ip4(KNOWN)), nd(ip6(KNOWN)), arp(ip4(OWN)), nd(ip6(NOWHERE))]) {
    assert.equal(off.exchange(bytes), 'sent');
  }
});

test('proxy answers for what is known for certain, and sends no ARP and no solicitation', () => {
  for (const [last, fate] of [
    [KNOWN, 'answered'],
    [HERE, 'answered'],
    [ASKER, 'answered'],
    [STALE, 'dropped'],
    [BRIDGES, 'dropped'],
    [OWN, 'dropped'],
    [NOWHERE, 'dropped'],
  ] as const) {
    assert.equal(proxy.exchange(arp(ip4(last))), fate, `ARP ${last}`);
    assert.equal(proxy.exchange(nd(ip6(last))), fate, `ND ${last}`);
  }
  assert.equal(proxy.exchange(arp(ip4(KNOWN), { to: mac(KNOWN) })), 'answered', 'unicast, too');
  for (const operation of [0, 2, 3, 4, 8, 9]) assert.equal(proxy.exchange(arp(ip4(KNOWN), { operation })), 'dropped');
  for (const target of [
    [127, 0, 0, 1],
    [224, 0, 0, 1],
    [239, 255, 255, 255],
  ]) {
    assert.equal(proxy.exchange(arp(target)), 'dropped');
  }
  assert.equal(proxy.exchange(nd([0xff, ...ip6(KNOWN).slice(1)])), 'dropped');
  assert.equal(proxy.exchange(nd(ip6(KNOWN), { type: 136 })), 'sent', 'advertisements are not its business');
  assert.equal(proxy.exchange(nd(ip6(KNOWN), { type: 133 })), 'sent');
  proxy.node.taps[0].take();
});

test('with arp off on the TAP, proxy answers no ARP, and solicitations all the same', () => {
  const { exchange } = create(PROXY | NOARP);
  assert.equal(exchange(arp(ip4(KNOWN))), 'dropped');
  assert.equal(exchange(nd(ip6(KNOWN))), 'answered');
});

test('neigh_suppress answers for what is behind the device, and floods what it does not know', () => {
  for (const [last, fate] of [
    [KNOWN, 'answered'],
    [STALE, 'answered'],
    [BRIDGES, 'answered'],
    [OWN, 'dropped'],
    [HERE, 'sent'],
    [NOWHERE, 'sent'],
  ] as const) {
    assert.equal(suppress.exchange(arp(ip4(last))), fate, `ARP ${last}`);
    assert.equal(suppress.exchange(nd(ip6(last))), fate, `ND ${last}`);
  }
  assert.equal(suppress.exchange(arp(ip4(ASKER), { sender: ip4(9) })), 'dropped', 'it is the asker that is asked for');
  assert.equal(suppress.exchange(arp(ip4(KNOWN), { to: mac(KNOWN) })), 'sent', 'unicast requests go out');
  assert.equal(suppress.exchange(nd(ip6(KNOWN), { to: mac(KNOWN) })), 'sent');
  assert.equal(suppress.exchange(arp(ip4(KNOWN), { to: mac(NOWHERE) })), 'sent');
  suppress.node.taps[0].take();
});

test('neigh_suppress keeps probes and announcements to itself', () => {
  const own = { sender: ip4(ASKER) };
  assert.equal(suppress.exchange(arp(ip4(ASKER), own)), 'dropped', 'gratuitous request');
  assert.equal(suppress.exchange(arp(ip4(ASKER), { ...own, operation: 2 })), 'dropped', 'gratuitous reply');
  assert.equal(suppress.exchange(arp(ip4(NOWHERE), { sender: [0, 0, 0, 0] })), 'dropped', 'probe');
  assert.equal(suppress.exchange(arp(ip4(9), { operation: 2 })), 'sent', 'a reply to all');
  assert.equal(suppress.exchange(arp(ip4(9), { operation: 3, sender: ip4(9) })), 'sent', 'reverse ARP');
  assert.equal(suppress.exchange(arp(ip4(ASKER), { ...own, operation: 2, to: mac(KNOWN) })), 'sent', 'forwarded');
  assert.equal(suppress.exchange(arp(ip4(ASKER), { ...own, operation: 2, to: mac(NOWHERE) })), 'dropped', 'flooded');
  assert.equal(suppress.exchange(nd(ip6(NOWHERE), { sender: Array(16).fill(0) })), 'dropped', 'DAD');
  assert.equal(suppress.exchange(nd(ip6(9), { type: 136, flags: 0x20 })), 'dropped', 'unsolicited');
  assert.equal(suppress.exchange(nd(ip6(9), { type: 136, flags: 0x60 })), 'sent', 'solicited');
  assert.equal(suppress.exchange(nd(ip6(9), { type: 136, flags: 0x20, to: mac(KNOWN) })), 'sent', 'forwarded');
});

test('answers go to whoever asked, from whom they are about', () => {
  const bytes = arp(ip4(KNOWN), { from: mac(0x55), senderMac: mac(ASKER) });
  for (const { exchange, node } of [proxy, suppress]) {
    exchange(bytes);
    const [reply] = node.taps[0].take().flatMap((written) => onWire(written));
    assert.deepEqual(
      [...reply],
      [...arp(ip4(ASKER), { to: mac(ASKER), from: mac(KNOWN), operation: 2, sender: ip4(KNOWN) })].map((byte, i) =>
        i >= 32 && i < 38 ? mac(ASKER)[i - 32] : byte,
      ),
    );
  }
});

test('advertisements say who is a router: by the FDB for proxy, by the neighbour for neigh_suppress', () => {
  for (const { exchange, node } of [proxy, suppress]) {
    for (const [last, flags] of [
      [KNOWN, 0x60],
      [ROUTERS, 0xe0],
    ]) {
      assert.equal(exchange(nd(ip6(last), { option: '0e01000000000000 0101020000000055' })), 'answered');
      const [reply] = node.taps[0].take().flatMap((written) => onWire(written));
      assert.deepEqual([...reply.subarray(0, 12)], [...mac(0x55), ...mac(last)]);
      assert.deepEqual([...reply.subarray(22, 38)], ip6(last));
      assert.equal(reply[58], flags);
    }
  }
});

test('a reply that the TAP does not take is no answer', () => {
  const [tap] = proxy.node.taps;
  tap.failure = 5;
  assert.equal(proxy.exchange(arp(ip4(KNOWN))), 'dropped');
  tap.failure = 0;
});

test('sees no frames with VLAN tags, as the kernel does not', () => {
  for (const { exchange } of [proxy, suppress]) {
    const bytes = arp(ip4(KNOWN));
    assert.equal(exchange(Uint8Array.from([...bytes.subarray(0, 12), 0x81, 0, 0, 5, ...bytes.subarray(12)])), 'sent');
  }
});

test('the other frames of a batch are not disturbed', () => {
  const whole = superFrame(frame({ to: KNOWN, payload: payload(4000) }), 1000);
  for (const { node } of [proxy, suppress]) {
    node.rig.clear();
    const [question, solicitation] = [packet(arp(ip4(KNOWN))), packet(nd(ip6(KNOWN)))];
    node.taps[0].waiting.push(whole, question, whole, solicitation, whole);
    (node.uplink as TestPort).take();
    node.run();
    node.balance();
    const out = (node.uplink as TestPort).take().flatMap((bytes) => onWire(bytes, true));
    const inner = out.map((bytes) => Buffer.from(decapsulate(bytes, PORT).inner).toString('hex'));
    const expected = onWire(whole).map((bytes) => Buffer.from(bytes).toString('hex'));
    assert.deepEqual(inner, [...expected, ...expected, ...expected]);
    assert.equal(node.rig.device(0).tx_answered, 2);
    node.taps[0].take();
  }
});

test('route short-circuit: a packet for a router goes straight to the neighbour', () => {
  const { node, exchange } = create(RSC);
  const sent = (bytes: Uint8Array): number[] => {
    (node.uplink as TestPort).take();
    assert.equal(exchange(bytes), 'sent');
    const [out] = (node.uplink as TestPort).take().flatMap((written) => onWire(written, true));
    const { inner } = decapsulate(out, PORT);
    assert.deepEqual([...inner.subarray(12)], [...bytes.subarray(12)]);
    return [...inner.subarray(0, 12)];
  };
  for (const version of [4, 6] as const) {
    const to = (last: number, hop: number): Uint8Array => {
      const bytes = frame({ version, to: last, payload: payload(50) });
      if (version === 6) bytes.set(ip6(last), 38);
      return Uint8Array.from([...mac(hop), ...bytes.subarray(6)]);
    };
    assert.deepEqual(sent(to(KNOWN, ROUTERS)), [...mac(KNOWN), ...mac(ROUTERS)]);
    assert.deepEqual(sent(to(STALE, ROUTERS)), [...mac(STALE), ...mac(ROUTERS)], 'whatever its state');
    assert.deepEqual(sent(to(KNOWN, KNOWN)), [...mac(KNOWN), ...mac(1)], 'it is no router');
    assert.deepEqual(sent(to(NOWHERE, ROUTERS)), [...mac(ROUTERS), ...mac(1)], 'unknown');
    assert.deepEqual(sent(to(ROUTERS, ROUTERS)), [...mac(ROUTERS), ...mac(1)], 'the router itself');
  }
  const short = Uint8Array.from([...mac(ROUTERS), ...mac(1), 8, 0, 0x45]);
  assert.deepEqual(sent(short), [...mac(ROUTERS), ...mac(1)]);
});

test('misses are reported with l2miss and l3miss, and only then', () => {
  const seen: string[] = [];
  const { node, exchange } = create(PROXY | RSC | L2MISS | L3MISS);
  const reports = new ReportReader(node.rig.shared.reports, (words, record) => {
    const events = new Events();
    events.listen(['miss'], ({ event, ifname, mac = '', dst = '', count }) =>
      seen.push(`${event} ${ifname} ${mac}${dst} ${count}`),
    );
    assert.ok(takeMiss(events, `vx${words[record + REPORT_DEVICE]}`, words, record));
  });
  const missed = (...frames: Uint8Array[]): string[] => {
    seen.length = 0;
    exchange(...frames);
    reports.drain();
    return seen;
  };
  const routed = (last: number) => Uint8Array.from([...mac(ROUTERS), ...frame({ to: last }).subarray(6)]);
  assert.deepEqual(missed(arp(ip4(NOWHERE)), arp(ip4(NOWHERE))), ['l3miss vx0 10.0.0.24 2']);
  assert.deepEqual(missed(nd(ip6(NOWHERE))), ['l3miss vx0 fd00::18 1']);
  assert.deepEqual(missed(arp(ip4(KNOWN)), arp(ip4(STALE)), nd(ip6(STALE))), []);
  assert.deepEqual(missed(routed(NOWHERE)), ['l3miss vx0 10.0.0.24 1']);
  const unicast = frame({ to: NOWHERE });
  assert.deepEqual(missed(unicast), [], 'there is a default entry');
  node.rig.fdb.remove(node.rig.fdb.find(0, 0, 0));
  assert.deepEqual(missed(unicast), ['l2miss vx0 02:00:00:00:00:18 1']);
  assert.deepEqual(missed(Uint8Array.from([...BROADCAST, ...unicast.subarray(6)])), [], 'only unicast');
  node.rig.setFlags(0, PROXY | RSC);
  assert.deepEqual(missed(unicast, arp(ip4(NOWHERE)), routed(NOWHERE)), []);
});

test('hostile frames of all lengths: nothing throws, every frame is counted, nothing is read beyond one', () => {
  const next = random(7);
  const seeds = [arp(ip4(KNOWN)), nd(ip6(KNOWN)), nd(ip6(KNOWN), { option: '0e01000000000000 0101020000000055' })];
  for (const { exchange, node } of [proxy, suppress, create(PROXY | NEIGH_SUPPRESS | RSC), create(RSC)]) {
    const [tap] = node.taps;
    for (let round = 0; round < 1500; round++) {
      const bytes = seeds[next(seeds.length)].slice();
      for (let flips = next(4); flips > 0; flips--)
        bytes[next(bytes.length)] = next(3) === 0 ? next(256) : next(3) * 127;
      const cut = bytes.subarray(0, next(3) === 0 ? next(bytes.length + 1) : bytes.length);
      // What stands behind the frame, which is not the same both times, must not matter.
      const [first, second] = [0x00, 0xff].map((guard) => {
        tap.guard = guard;
        const fate = exchange(cut);
        const replies = tap.take().map((reply) => Buffer.from(reply).toString('hex'));
        return `${fate} ${replies}`;
      });
      assert.equal(first, second);
    }
  }
});

test('the neighbours are those of the device', () => {
  const node = new Node({ devices: 2 });
  node.rig.setFlags(0, PROXY);
  node.rig.setFlags(1, PROXY);
  node.rig.neighbors.set(1, parseIp('10.0.0.17')!, 0x0200, KNOWN, NUD_PERMANENT);
  for (const tap of node.taps) tap.waiting.push(packet(arp(ip4(KNOWN))));
  node.run();
  node.balance();
  assert.deepEqual([node.rig.device(0).tx_suppressed, node.rig.device(1).tx_answered], [1, 1]);
  assert.deepEqual(
    node.taps.map((tap) => tap.written.length),
    [0, 1],
  );
});
