// Packets of a real overlay as `uvxlan capture` and `uvxlan explain` show them; tshark reads the captures. The pair is drawn in pair.ts.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import type { Host } from '../../cli/lab/network.ts';
import { eventually, run } from '../../cli/lab/process.ts';
import { MAIN, tell, type Vtep } from '../../cli/lab/vtep.ts';
import type { TopView } from '../../cli/top/view.ts';
import type { DaemonEvent } from '../../control/events.ts';
import type { StatsRecord } from '../../control/protocol.ts';
import { bulkTransfer } from './bulk.ts';
import { tsharkFields } from './capture.ts';
import { pair } from './pair.ts';
import { ping } from './ping.ts';
import { frame, sendFrames } from './raw.ts';
import { lacking } from './requirements.ts';

const skip = lacking('tun', 'kernel-vxlan', 'tshark');

const FIELDS = [
  'frame.interface_name',
  'frame.packet_flags_direction',
  'frame.comment',
  'ip.src',
  'ip.dst',
  'ip.len',
  'icmp.type',
  'eth.dst',
  'vxlan.vni',
  '_ws.malformed',
  '_ws.expert.message',
] as const;

/** Captures what `traffic` causes, and returns the file. */
async function capture(host: Host, words: string, traffic: () => Promise<unknown>): Promise<string> {
  const file = join(host.directory, `${host.name}.pcapng`);
  const process_ = host.spawn([process.execPath, MAIN, 'capture', '-w', file, ...words.split(' ').filter(Boolean)]);
  await process_.waitFor(/capturing/);
  await traffic();
  const { status } = await process_.stop('SIGINT');
  assert.equal(status, 0, process_.stderr);
  assert.match(process_.stderr, /^uvxlan: \d+ packets captured, 0 lost$/m);
  return file;
}

/** In a namespace of its own. */
const METRICS = 9469;
const NO_SUCH_MAC = '02:00:00:00:00:99';

/** One pair for all of it: building one takes longer than what is done with it. */
for (const uplink of ['redirect', 'udp'] as const) {
  test(`what passes on ${uplink}`, { skip, timeout: 180_000 }, async (t) => {
    const { left, right } = await pair(t, uplink, 'kernel', { own: `workers 2 --metrics 127.0.0.1:${METRICS}` });
    await t.test('explain: a question, and packets as they pass', () => assertExplains(left, right, uplink));
    await t.test('capture: both sides, directions, next hops, drops', () => assertCaptures(left, right));
    await t.test('metrics: what stats says', () => assertMetrics(left));
    await t.test('top: rates of devices, VTEPs and flows', () => assertTop(left, right));
    if (uplink === 'udp') return;
    await t.test('capture --segments: what comes onto the wire', () => assertSegments(left, right));
    await t.test('capture: device, filter and count', () => assertCounts(left, right));
    await t.test('monitor: groups, VTEPs and drops', () => assertMonitors(left, right));
  });
}

/** Pings are so few that each is seen, both ways; and so is how busy the threads are. */
async function assertTop(left: Vtep, right: Vtep): Promise<void> {
  const pinging = left.host.spawn(`ping -n -q -i 0.05 ${right.addresses[0]}`);
  try {
    // The first look is short.
    const words = 'top -j -n 2 interval 1'.split(' ');
    const { stdout } = await left.host.run([process.execPath, MAIN, ...words]);
    const view = JSON.parse(stdout.trim().split('\n').at(-1)!) as TopView;
    assert.deepEqual(
      view.devices.map(({ ifname }) => ifname),
      [left.device],
    );
    const [{ tx, rx }] = view.devices;
    assert.ok(tx.packets > 5 && rx.packets > 5, JSON.stringify(view.devices));
    const icmp = view.flows.filter(({ protocol }) => protocol === 'ICMP');
    assert.deepEqual(icmp.map(({ direction, src, dst, peer }) => [direction, src, dst, peer].join(' ')).sort(), [
      `rx ${right.addresses[0]} ${left.addresses[0]} ${right.local}`,
      `tx ${left.addresses[0]} ${right.addresses[0]} ${right.local}`,
    ]);
    for (const { packets, bits } of icmp) assert.equal(Math.round(bits / packets), 98 * 8, 'a ping has 98 bytes');
    const peer = view.peers.find(({ dst }) => dst === right.local)!;
    assert.ok(peer.tx.packets > 5 && peer.rx.packets > 5, JSON.stringify(view.peers));
    assert.deepEqual(view.threads.map(({ name }) => name).sort(), ['main', 'worker 0', 'worker 1']);
    assert.ok(view.threads.some(({ name, sleeps, turn }) => name !== 'main' && sleeps > 5 && turn > 0 && turn < 1));
  } finally {
    await pinging.stop('SIGKILL');
  }
}

/** What happens to a group, to the VTEP when the NIC goes down, and to frames that are for nobody. */
async function assertMonitors(left: Vtep, right: Vtep): Promise<void> {
  const { host, device } = left;
  const group = `dev ${device} port ${device} grp 239.1.1.1 permanent dst 192.0.2.77`;
  const monitor = host.spawn([process.execPath, MAIN, ...'monitor mdb peer drop rate 1 -j'.split(' ')]);
  const heard = (): string[] =>
    monitor.stdout
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as DaemonEvent)
      .map(({ group, event, dst, reason }) => [group, event, dst, reason].filter(Boolean).join(' '));
  const until = (what: RegExp) => eventually(`${what}`, () => heard().some((line) => what.test(line)));
  try {
    const changes = ['mdb added', 'peer added', 'mdb deleted', 'peer removed'].map((what) => `${what} 192.0.2.77`);
    // It listens from some moment on.
    await eventually(`all of ${changes}`, async () => {
      await tell(host, `mdb add ${group}`);
      await tell(host, `mdb del ${group}`);
      return changes.every((change) => heard().includes(change));
    });
    host.ip('link set eth0 down');
    await until(new RegExp(`^peer down ${right.local} \\S`));
    host.ip('link set eth0 up');
    await until(new RegExp(`^peer up ${right.local}$`));
    await eventually('drops are told', async () => {
      sendFrames(host, device, [frame(NO_SUCH_MAC, left.mac, '88b5', Buffer.alloc(50))]);
      return heard().includes('drop drops tx_no_remote');
    });
    await until(/^drop drops-ended tx_no_remote$/);
  } finally {
    await monitor.stop('SIGKILL');
  }
}

async function assertCaptures(left: Vtep, right: Vtep): Promise<void> {
  const file = await capture(left.host, 'ip or ether proto 0x88b5', async () => {
    await ping(left.host, right.addresses[0], { count: 2, interval: 0.05 });
    sendFrames(left.host, left.device, [frame(NO_SUCH_MAC, left.mac, '88b5', Buffer.alloc(50))]);
    await bulkTransfer(left.host, right.host, right.addresses[0], 1 << 20);
  });
  const packets = await tsharkFields(file, FIELDS, { filter: 'icmp or eth.type==0x88b5' });
  const shown = packets.map((packet) => {
    const side = packet['vxlan.vni'].length > 0 ? 'outer' : 'inner';
    const [direction] = packet['frame.packet_flags_direction'];
    return `${side} ${direction === '0x00000001' || direction === '1' ? 'in' : 'out'} ${packet['icmp.type'].at(-1) ?? 'other'}`;
  });
  const once = ['inner out 8', 'outer out 8', 'outer in 0', 'inner in 0'];
  assert.deepEqual(shown, [...once, ...once, 'inner out other']);
  assert.deepEqual([...new Set(packets.map((packet) => packet['frame.interface_name'][0]))].sort(), [
    'eth0',
    'flannel.1',
  ]);
  const [first, outer] = packets;
  assert.match(
    first['frame.comment'][0],
    /^to VTEP 192\.0\.2\.2, port 8472, VNI 1 \(FDB: 02:00:00:00:00:02, permanent\)/,
  );
  assert.deepEqual(outer['ip.src'], [left.local, left.addresses[0]]);
  assert.deepEqual(packets[2]['ip.dst'], [left.local, left.addresses[0]]);
  assert.match(packets.at(-1)!['frame.comment'].join(), /^dropped, tx_no_remote: The FDB has no entry/);
  await assertClean(file);
}

/**
 * tshark, with its own settings, reads it without a complaint: no malformed packet, and no warning but about the course of TCP connections.
 */
async function assertClean(file: string): Promise<void> {
  const course = 'tcp.analysis.flags or tcp.options.sack.dsack';
  const filter = `_ws.malformed or (_ws.expert.severity >= 6291456 and not (${course}))`;
  const { stdout, stderr } = await run(['tshark', '-n', '-r', file, '-d', 'udp.port==8472,vxlan', '-Y', filter, '-V']);
  assert.equal(stdout, '');
  assert.equal(stderr.replace(/^Running as user.*\n/m, ''), '');
}

async function assertSegments(left: Vtep, right: Vtep): Promise<void> {
  const file = await capture(left.host, '-segments tcp', () =>
    bulkTransfer(left.host, right.host, right.addresses[0], 200_000),
  );
  const fields = ['frame.len', 'ip.checksum.status', 'udp.checksum.status', 'tcp.checksum.status'] as const;
  const packets = await tsharkFields(file, fields);
  const bad = packets.filter((packet) => fields.slice(1).some((field) => packet[field].includes('0')));
  assert.deepEqual(bad, []);
  assert.ok(packets.length > 2 * (200_000 / 1500), `${packets.length} packets`);
  assert.ok(Math.max(...packets.map((packet) => Number(packet['frame.len'][0]))) <= 1514);
  await assertClean(file);
}

async function assertCounts(left: Vtep, right: Vtep): Promise<void> {
  const { host } = left;
  const file = join(host.directory, 'counted');
  const counted = host.spawn([process.execPath, MAIN, ...`capture -w ${file} dev flannel.1 count 3 icmp`.split(' ')]);
  await counted.waitFor(/capturing/);
  await ping(host, right.addresses[0], { count: 2, interval: 0.05 });
  assert.equal((await counted.ended(20_000)).status, 0);
  assert.match(counted.stderr, /3 packets captured/);
  assert.equal((await tsharkFields(file, ['frame.number'])).length, 3);
}

async function assertExplains(left: Vtep, right: Vtep, uplink: string): Promise<void> {
  const { host, device } = left;
  const explain = async (words: string) => {
    const { stdout } = await host.run([process.execPath, MAIN, 'explain', '-j', ...words.split(' ')]);
    return stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  };
  const fieldsOf = (shown: {
    layers: { name: string; depth: number; fields: { name: string; origin?: string }[] }[];
  }) =>
    Object.fromEntries(
      shown.layers
        .filter(({ depth }) => depth === 0)
        .flatMap(({ name, fields }) => fields.map((field) => [`${name}.${field.name}`, field])),
    );

  const [frame_, packet] = await explain(`from ${left.addresses[0]} to ${right.addresses[0]} dev ${device}`);
  assert.deepEqual(
    frame_.lookups.map(({ question }: { question: string }) => question),
    [
      `route to ${right.addresses[0]}`,
      `neighbour ${right.addresses[0]} on ${device}`,
      `FDB of ${device}: ${right.mac}`,
      `way to ${right.local}`,
    ],
  );
  assert.equal(packet.verdict, `sent as 1 packet to ${right.local}`);
  const asked = fieldsOf(packet);
  assert.equal(asked['IPv4.destination'].origin, `the FDB entry ${right.mac}, permanent: its dst`);
  assert.equal(asked['UDP.destination port'].origin, `option "dstport 8472" of ${device}`);

  const [dropped] = await explain(`from ${left.mac} to ${NO_SUCH_MAC} dev ${device}`);
  assert.match(dropped.verdict, /^dropped, tx_no_remote: The FDB has no entry/);
  if (uplink === 'redirect') {
    const silent = `${NO_SUCH_MAC} dev ${device} dst 192.0.2.99`;
    await tell(host, `fdb append ${silent}`);
    const [, left_] = await explain(`from ${left.mac} to ${NO_SUCH_MAC} dev ${device}`);
    assert.match(left_.verdict, /^left to the host's stack, .*: the MAC for 192\.0\.2\.99 is not known/);
    assert.equal(fieldsOf(left_)['Ethernet.destination'].origin, "the host's stack (uplink redirect)");
    await tell(host, `fdb del ${silent}`);
  }
  // What the host itself sends on the device has nowhere to go.
  const { stdout } = await host.run([process.execPath, MAIN, '-j', 'stats', device]);
  assert.equal((JSON.parse(stdout) as StatsRecord[])[0].tx.out, 0, 'nothing was sent');

  // A real ping is what the question told: up to what differs from packet to packet.
  const live = host.spawn([process.execPath, MAIN, ...`explain -j --live dev ${device} count 2 icmp`.split(' ')]);
  await live.waitFor(/waiting for packets/);
  await ping(host, right.addresses[0], { count: 1 });
  assert.equal((await live.ended(20_000)).status, 0, live.stderr);
  const [inner, outer] = live.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(inner.lookups.at(-2).question, `FDB of ${device}: ${right.mac}`);
  assert.match(inner.verdict, new RegExp(`^sent to VTEP ${right.local}, port 8472, VNI 1`));
  assert.equal(outer.verdict, 'sent on eth0');
  const seen = fieldsOf(outer);
  for (const name of ['IPv4.source', 'IPv4.destination', 'IPv4.TTL', 'UDP.destination port', 'VXLAN.VNI']) {
    assert.deepEqual(seen[name], asked[name], name);
  }
  if (uplink === 'redirect') assert.deepEqual(seen['Ethernet.destination'], asked['Ethernet.destination']);
}

async function assertMetrics({ host, device }: Vtep): Promise<void> {
  const get = async (path: string): Promise<string> => {
    const script = `fetch('http://127.0.0.1:${METRICS}${path}').then((r) => r.text()).then((text) => process.stdout.write(text))`;
    return (await host.run([process.execPath, '-e', script])).stdout;
  };
  assert.equal(await get('/readyz'), 'ready\n');
  const text = await get('/metrics');
  const { stdout } = await host.run([process.execPath, MAIN, '-j', 'stats', device]);
  const [{ tx, rx }] = JSON.parse(stdout) as StatsRecord[];
  // What the host itself sends on the device is dropped, so that these stand still.
  for (const [direction, count] of [
    ['tx', tx.out],
    ['rx', rx.in],
  ]) {
    assert.ok(text.includes(`uvxlan_packets_total{device="${device}",direction="${direction}"} ${count}\n`), text);
  }
}
