import assert from 'node:assert/strict';
import test from 'node:test';
import { DEVICE_FLAGS, DEVICE_RECORD, LEARNING, VTEP_KNOWN, VTEP_STRICT } from '../../dataplane/device.ts';
import {
  REPORT_COUNT,
  REPORT_MAC_LOW,
  REPORT_SOURCE,
  REPORT_STATIC_MAC,
  REPORT_TYPE,
  REPORT_UNKNOWN_VTEP,
  REPORT_WRONG_SUBNET,
  REPORT_WRONG_VTEP,
  ReportReader,
  reportAddress,
  reportSample,
} from '../../dataplane/reports.ts';
import { NTF_EXT_LEARNED, STATE_BITS } from '../../fdb/state.ts';
import { formatIp } from '../../wire/address.ts';
import { parsePrefix } from '../../wire/prefix.ts';
import { frame, otherFrame, outerFrame, packet, setPseudo, vxlan } from './packet.ts';
import { PORT, Receiving, VNI } from './rig.ts';

const HERE = 7;
const THERE = 9;
const STRANGER = 11;
const ip = (last: number) => `10.0.0.${last}`;

/** A packet of the VTEP `vtep` with the inner source MAC `from`. */
const sent = (vtep: number, from: number) =>
  packet(outerFrame(vxlan(VNI, otherFrame(0x88b5, 50, from)), PORT, { from: vtep }), {}, true);

interface Seen {
  readonly type: number;
  readonly mac: number;
  readonly from: string;
  readonly count: number;
}

/** A device with options, and entries: last byte of a MAC, of its VTEP, and the state. */
function device(flags: number, entries: readonly [number, number, number][] = []) {
  const receiving = new Receiving();
  const { rig } = receiving;
  rig.records[DEVICE_FLAGS] = flags;
  rig.records[DEVICE_RECORD + DEVICE_FLAGS] = flags;
  for (const [mac, vtep, state] of entries) {
    rig.fdb.insert(0, 0x0200, mac, rig.vtep(ip(vtep)) << 1, state, 0);
  }
  const seen: Seen[] = [];
  const samples: string[] = [];
  const reader = new ReportReader(rig.shared.reports, (words, at) => {
    seen.push({
      type: words[at + REPORT_TYPE],
      mac: words[at + REPORT_MAC_LOW],
      from: formatIp(reportAddress(words, at)),
      count: words[at + REPORT_COUNT],
    });
    samples.push(Buffer.from(reportSample(words, at)).toString('hex'));
  });
  const reports = () => {
    seen.length = 0;
    reader.drain();
    return [...seen];
  };
  return { receiving, rig, reports, samples };
}

const { permanent, static: fixed, dynamic } = STATE_BITS;
const EXTERN = dynamic | NTF_EXT_LEARNED;
const MAC = 1;

/** Options, state of MAC's entry at HERE (0: none), sender; the report, and the drop if it is one. */
const CASES: [string, number, number, number, number, string?][] = [
  ['nothing is on', 0, 0, STRANGER, 0],
  ['learning: unknown MAC', LEARNING, 0, STRANGER, REPORT_SOURCE],
  ['learning: known MAC', LEARNING, dynamic, HERE, 0],
  ['learning: moved MAC', LEARNING, dynamic, THERE, REPORT_SOURCE],
  ['learning: moved MAC, extern_learn', LEARNING, EXTERN, THERE, REPORT_SOURCE],
  ['learning: static MAC at its VTEP', LEARNING, fixed, HERE, 0],
  ['learning: static MAC elsewhere', LEARNING, fixed, THERE, REPORT_STATIC_MAC, 'rx_static_mac'],
  ['learning: permanent MAC elsewhere', LEARNING, permanent, THERE, REPORT_STATIC_MAC, 'rx_static_mac'],
  ['known: VTEP of an entry', VTEP_KNOWN, dynamic, HERE, 0],
  ['known: VTEP of another entry', VTEP_KNOWN, dynamic, THERE, 0],
  ['known: unknown VTEP', VTEP_KNOWN, permanent, STRANGER, REPORT_UNKNOWN_VTEP, 'rx_unknown_vtep'],
  ['known and learning: unknown VTEP', VTEP_KNOWN | LEARNING, 0, STRANGER, REPORT_UNKNOWN_VTEP, 'rx_unknown_vtep'],
  ['known and learning: unknown MAC', VTEP_KNOWN | LEARNING, 0, THERE, REPORT_SOURCE],
  ['strict: the MAC at its VTEP', VTEP_KNOWN | VTEP_STRICT, permanent, HERE, 0],
  ['strict: extern_learn is configured', VTEP_KNOWN | VTEP_STRICT, EXTERN, HERE, 0],
  ['strict: the MAC elsewhere', VTEP_KNOWN | VTEP_STRICT, permanent, THERE, REPORT_WRONG_VTEP, 'rx_wrong_vtep'],
  ['strict: a learned MAC', VTEP_KNOWN | VTEP_STRICT, dynamic, HERE, REPORT_WRONG_VTEP, 'rx_wrong_vtep'],
  ['strict: unknown MAC', VTEP_KNOWN | VTEP_STRICT, 0, THERE, REPORT_WRONG_VTEP, 'rx_wrong_vtep'],
  ['strict: unknown VTEP', VTEP_KNOWN | VTEP_STRICT, permanent, STRANGER, REPORT_UNKNOWN_VTEP, 'rx_unknown_vtep'],
];

for (const [name, flags, state, sender, report, drop] of CASES) {
  test(name, () => {
    const other: [number, number, number] = [0x55, THERE, permanent];
    const { receiving, rig, reports, samples } = device(flags, state === 0 ? [other] : [[MAC, HERE, state], other]);
    const written = receiving.receive([sent(sender, MAC), sent(sender, MAC)]);
    assert.equal(written.length, drop ? 0 : 2);
    assert.deepEqual(
      reports(),
      report === 0 ? [] : [{ type: report, mac: MAC, from: ip(sender), count: 2 }],
      'one report for both',
    );
    if (report !== 0) assert.match(samples[0], /^0800000[0-9a-f]{7}00020000000002020000000001/);
    const { rx_frames = 0, rx_packets = 0, ...counts } = rig.device(0);
    assert.deepEqual([rx_packets, rx_frames], [2, drop ? 0 : 2]);
    if (drop) assert.equal(counts[drop as 'rx_static_mac'], 2);
  });
}

test('learning stamps the entry, once a coarse second, also of a static MAC that is elsewhere', () => {
  const { receiving, rig } = device(LEARNING, [[MAC, HERE, fixed]]);
  const cell = rig.fdb.find(0, 0x0200, MAC);
  for (const [now, from] of [
    [5, HERE],
    [6, THERE],
  ]) {
    rig.fdb.setClock(now);
    receiving.receive([sent(from, MAC)]);
    assert.equal(rig.fdb.updated(cell), now);
  }
});

test('a member of a list is at its VTEP, others are not', () => {
  const { receiving, rig, reports } = device(VTEP_KNOWN | VTEP_STRICT);
  const list = rig.lists.create([rig.vtep(ip(HERE)), rig.vtep(ip(THERE))], 0);
  rig.fdb.insert(0, 0x0200, MAC, (list << 1) | 1, permanent, 0);
  rig.fdb.insert(0, 0x0200, 2, rig.vtep(ip(STRANGER)) << 1, permanent, 0);
  const written = receiving.receive([sent(THERE, MAC), sent(HERE, MAC), sent(STRANGER, MAC)]);
  assert.equal(written.length, 2);
  assert.deepEqual(
    reports().map(({ type, from }) => [type, from]),
    [[REPORT_WRONG_VTEP, ip(STRANGER)]],
  );
});

test('each MAC of a train is judged by itself', () => {
  const { receiving, rig, reports } = device(LEARNING, [
    [1, HERE, dynamic],
    [3, THERE, permanent],
  ]);
  const macs = [1, 1, 2, 1, 3, 2, 1];
  const inner = Buffer.concat(macs.map((from) => vxlan(VNI, otherFrame(0x88b5, 50, from))));
  const outer = setPseudo(outerFrame(inner, PORT, { from: HERE }));
  const size = inner.length / macs.length;
  const written = receiving.receive([
    packet(outer, { flags: 1, type: 5, headerLength: 42, size, start: 34, offset: 6 }, true),
  ]);
  assert.equal(written.length, 6);
  assert.equal(rig.device(0).rx_static_mac, 1);
  assert.deepEqual(
    reports().map(({ type, mac, count }) => [type, mac, count]),
    [
      [REPORT_SOURCE, 2, 2],
      [REPORT_STATIC_MAC, 3, 1],
    ],
  );
});

test('what passed in one batch is judged again in the next', () => {
  const { receiving, rig } = device(VTEP_KNOWN | VTEP_STRICT, [[MAC, HERE, permanent]]);
  assert.equal(receiving.receive([sent(HERE, MAC)]).length, 1);
  rig.fdb.remove(rig.fdb.find(0, 0x0200, MAC));
  assert.equal(receiving.receive([sent(HERE, MAC)]).length, 0);
});

test('strict: a VTEP that is bound to a subnet sends from there, each packet of its own; others and other modes do not ask', () => {
  const subnet = [parsePrefix('10.0.0.4/30')!];
  const from = (vtep: number, mac: number, source: number) => {
    const inner = frame({ from: source });
    inner[11] = mac;
    return packet(outerFrame(vxlan(VNI, inner), PORT, { from: vtep }), {}, true);
  };
  // The same VTEP and MAC twice, so that the second is let in by what passed last.
  const packets = [4, 7, 8, 3, 5].map((source) => from(HERE, MAC, source));
  const entries: [number, number, number][] = [
    [MAC, HERE, permanent],
    [2, THERE, permanent],
  ];
  const { receiving, rig, reports } = device(VTEP_KNOWN | VTEP_STRICT, entries);
  rig.nextHops.peers.bind(0, Uint8Array.of(10, 0, 0, HERE), subnet);
  assert.equal(receiving.receive([...packets, from(THERE, 2, 200)]).length, 4);
  assert.deepEqual(reports(), [{ type: REPORT_WRONG_SUBNET, mac: MAC, from: ip(HERE), count: 2 }]);
  const { rx_wrong_subnet, rx_packets, rx_frames } = rig.device(0);
  assert.deepEqual([rx_wrong_subnet, rx_packets, rx_frames], [2, 6, 4]);
  rig.nextHops.peers.bind(0, Uint8Array.of(10, 0, 0, HERE), []);
  assert.equal(receiving.receive(packets).length, 5);

  const known = device(VTEP_KNOWN, entries);
  known.rig.nextHops.peers.bind(0, Uint8Array.of(10, 0, 0, HERE), subnet);
  assert.equal(known.receiving.receive(packets).length, 5);
});
