// tshark reads every header that uvxlan builds, off a wire on which all packets are finished: no checksum offload, so that nothing
// is left for a NIC to do, and what super-frames become is seen as a network would see it. The pair is drawn in pair.ts.

import assert from 'node:assert/strict';
import test from 'node:test';
import type { Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { Capture, tsharkFields } from './capture.ts';
import { type Kind, pair, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { type Datagram, frame, noise, sendDatagrams, sendFrames } from './raw.ts';
import { lacking } from './requirements.ts';
import { restingStats } from './stats.ts';

const skip = lacking('tun', 'kernel-vxlan', 'ethtool', 'tcpdump', 'tshark');

const VNI = 0xabcde;
const PORT = 4789;
/** Of a checksum: verified. 3 is one that the sender did not compute. */
const GOOD = '1';
const FLOWS = 64;
/** Destination ports of the flows that are only counted. */
const FIRST_FLOW = 7000;

interface Case {
  uplink: Kind;
  words: string;
  udpChecksum: boolean;
  ttl: number;
  /** Source ports: from the first to before the second. */
  ports: readonly [number, number];
}

/** The Linux defaults: ip_default_ttl, ip_local_port_range. */
const DEFAULTS = { udpChecksum: true, ttl: 64, ports: [32768, 60999] } as const;
const CASES: readonly Case[] = UPLINKS.flatMap((uplink) => [
  { uplink, words: '', ...DEFAULTS },
  { uplink, words: 'noudpcsum ttl 7 srcport 50000 50100', udpChecksum: false, ttl: 7, ports: [50000, 50100] },
]);

const FIELDS = [
  'frame.len',
  'eth.src',
  'eth.dst',
  'eth.type',
  'ip.src',
  'ip.dst',
  'ip.hdr_len',
  'ip.dsfield',
  'ip.len',
  'ip.id',
  'ip.flags.df',
  'ip.flags.mf',
  'ip.ttl',
  'ip.proto',
  'ip.checksum.status',
  'ipv6.src',
  'udp.srcport',
  'udp.dstport',
  'udp.length',
  'udp.checksum',
  'udp.checksum.status',
  'tcp.checksum',
  'tcp.checksum.status',
  'tcp.len',
  'icmp.checksum.status',
  'icmpv6.checksum.status',
  'vxlan.flags',
  'vxlan.vni',
  '_ws.malformed',
] as const;
type Packet = Record<(typeof FIELDS)[number], string[]>;

for (const each of CASES) {
  const { uplink, words } = each;
  test(`${uplink} ${words || 'with the defaults'}`, { skip, timeout: 180_000 }, async (t) => {
    const { left, right } = await pair(t, uplink, 'kernel', {
      words: `id ${VNI} dev eth0 dstport ${PORT} nolearning`,
      // Workers count identifications apart from each other.
      own: `workers 1 ${words}`,
      link: { checksumOffload: false },
    });
    const capture = await Capture.start(right.host, 'eth0', `udp dst port ${PORT} and src host ${left.local}`, 1600);
    await sendOfEverything(left, right);
    await restingStats(left.host);
    const packets = await tsharkFields(await capture.stop(), FIELDS, { decodeAs: [`udp.port==${PORT},vxlan`] });

    await t.test('packets of every kind were seen', () => seenOfEverything(packets));
    await t.test('outer headers', () => {
      const macs = [left.host.mac('eth0'), right.host.mac('eth0')] as const;
      for (const packet of packets) assertOuterHeaders(packet, each, macs);
    });
    await t.test('inner frames are whole, their checksums finished', () => {
      for (const packet of packets) assertInnerFrame(packet, left.mac);
    });
    await t.test('a flow keeps its source port, and flows are spread over ports', () => flows(packets, uplink));
    if (uplink === 'udp') return; // The kernel gives identifications out again after a UDP_SEGMENT super-packet (__ip_make_skb).
    await t.test('no identification is used twice', () => {
      const ids = packets.map((packet) => packet['ip.id'][0]);
      assert.equal(new Set(ids).size, ids.length);
    });
  });
}

function assertOuterHeaders(packet: Packet, expected: Case, [source, destination]: readonly [string, string]): void {
  const shown = JSON.stringify(packet);
  const outer = (field: keyof Packet, value: string) => assert.equal(packet[field][0], value, `${field} of ${shown}`);
  outer('eth.src', source);
  outer('eth.dst', destination);
  outer('eth.type', '0x0800');
  const length = Number(packet['frame.len'][0]) - 14;
  assert.ok(length <= 1500, shown);
  outer('ip.src', '192.0.2.1');
  outer('ip.dst', '192.0.2.2');
  outer('ip.hdr_len', '20');
  outer('ip.dsfield', '0x00');
  outer('ip.len', `${length}`);
  outer('ip.ttl', `${expected.ttl}`);
  outer('ip.proto', '17');
  outer('ip.checksum.status', GOOD);
  // `df unset`: the network may fragment.
  outer('ip.flags.df', '0');
  outer('ip.flags.mf', '0');
  const port = Number(packet['udp.srcport'][0]);
  assert.ok(port >= expected.ports[0] && port < expected.ports[1], shown);
  outer('udp.dstport', `${PORT}`);
  outer('udp.length', `${length - 20}`);
  outer('udp.checksum.status', expected.udpChecksum ? GOOD : '3');
  if (!expected.udpChecksum) outer('udp.checksum', '0x0000');
  // The I flag and nothing else.
  outer('vxlan.flags', '0x0800');
  outer('vxlan.vni', `${VNI}`);
}

function assertInnerFrame(packet: Packet, mac: string): void {
  const shown = JSON.stringify(packet);
  assert.deepEqual(packet['_ws.malformed'], [], shown);
  assert.equal(packet['eth.src'][1], mac, shown);
  for (const protocol of ['ip', 'tcp', 'udp', 'icmp', 'icmpv6'] as const) {
    const statuses = packet[`${protocol}.checksum.status`];
    const inner = protocol === 'ip' || protocol === 'udp' ? statuses.slice(1) : statuses;
    // One's complement has two zeros. skb_checksum_help, too, stores ffff for either protocol; tshark wants TCP's to be 0.
    if (protocol === 'tcp' && packet['tcp.checksum'][0] === '0xffff') continue;
    for (const status of inner) assert.equal(status, GOOD, `${protocol} checksum of ${shown}`);
  }
}

/** Inner packets of each kind; no more than 65,536 in all, so that identifications do not come around. */
async function sendOfEverything(left: Vtep, right: Vtep): Promise<void> {
  for (const address of right.addresses) {
    await ping(left.host, address, { count: 2, interval: 0.01 });
    await ping(left.host, address, { count: 2, interval: 0.01, size: 5_000 });
    await bulkTransfer(left.host, right.host, address, 1024 * 1024);
  }
  const datagrams: Datagram[] = [{ to: 6000, segment: 1400, payload: noise(20 * 1400 + 17) }];
  for (let round = 0; round < 3; round++) {
    for (let flow = 0; flow < FLOWS; flow++) datagrams.push({ from: 6001, to: FIRST_FLOW + flow, payload: noise(100) });
  }
  sendDatagrams(left.host, right.addresses[0]!, datagrams);
  const frames = [0, 46, 1450].map((size) => frame(right.mac, left.mac, '88b5', noise(size)));
  sendFrames(left.host, left.device, frames);
}

function seenOfEverything(packets: readonly Packet[]): void {
  const count = (what: (packet: Packet) => boolean) => packets.filter(what).length;
  const to6000 = packets.filter((packet) => packet['udp.dstport'][1] === '6000');
  assert.equal(to6000.length, 21, 'datagrams of the super-frame');
  assert.deepEqual(
    [...new Set(to6000.map((packet) => packet['udp.length'][1]))],
    [`${1400 + 8}`, `${17 + 8}`],
    'their sizes, the shorter one last',
  );
  const full = (packet: Packet) => Number(packet['tcp.len'][0] ?? 0) >= 1378;
  assert.ok(count((packet) => full(packet) && packet['ip.src'].length === 2) > 500, 'TCP segments over IPv4');
  assert.ok(count((packet) => full(packet) && packet['ipv6.src'].length === 1) > 500, 'TCP segments over IPv6');
  assert.ok(count((packet) => packet['icmp.checksum.status'].length > 0) >= 4, 'ICMP');
  assert.ok(count((packet) => packet['icmpv6.checksum.status'].length > 0) >= 4, 'ICMPv6');
  assert.ok(count((packet) => packet['ip.flags.mf'][1] === '1') >= 6, 'inner fragments');
  const other = packets.filter((packet) => packet['eth.type'][1] === '0x88b5');
  assert.deepEqual(
    other.map((packet) => Number(packet['frame.len'][0]) - 64).sort((a, b) => a - b),
    [0, 46, 1450],
    'frames that are not IP',
  );
}

function flows(packets: readonly Packet[], uplink: Kind): void {
  const ports = new Map<string, Set<string>>();
  for (const packet of packets) {
    const flow = Number(packet['udp.dstport'][1]) - FIRST_FLOW;
    if (!(flow >= 0 && flow < FLOWS)) continue;
    const seen = ports.get(`${flow}`) ?? new Set();
    ports.set(`${flow}`, seen.add(packet['udp.srcport'][0]!));
  }
  assert.equal(ports.size, FLOWS);
  for (const [flow, seen] of ports) assert.equal(seen.size, 1, `flow ${flow}: ${[...seen]}`);
  const distinct = new Set([...ports.values()].flatMap((seen) => [...seen])).size;
  // redirect: as many as the range has, here at least 100; udp: 16 sockets. 64 flows leave few of them unused.
  assert.ok(distinct >= (uplink === 'udp' ? 10 : 32), `${distinct} source ports for ${FLOWS} flows`);
}
