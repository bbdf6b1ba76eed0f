// Needs root: tc filters and TAPs in network namespaces of its own.

import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { Network, type Host as NetworkHost } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { Host } from '../../control/host.ts';
import { attachRedirect, detachRedirect } from '../../control/redirect.ts';
import { cleanupRedirects } from '../../control/traffic-control.ts';
import { lacking } from '../net/requirements.ts';

const skip = lacking('tun');
const OPTIONS = { nic: 'eth0', uplink: 'up0', local: '192.0.2.1', port: 8472, tcx: false };

function build(t: TestContext) {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']],
  });
  const left = network.host('left');
  const runtime = join(network.directory, 'run');
  process.env.UVXLAN_RUNTIME_DIR = runtime;
  left.ip('tuntap add up0 mode tap');
  return { network, left, right: network.host('right'), host: new Host(left.inside([])), runtime };
}

/** A NIC's ingress and egress qdisc and filters. */
function trafficControl(host: NetworkHost, dev = 'eth0'): string {
  const shows = ['qdisc show dev DEV ingress', 'filter show dev DEV ingress', 'filter show dev DEV egress'];
  return shows.map((show) => host.exec(`tc ${show.replace('DEV', dev)}`)).join('');
}

/**
 * Replaces a TAP by one that a process has open, so that it has a carrier; it goes when the process is killed. When its standard
 * input ends, the process sends 50 broadcast frames from the TAP.
 */
async function holdTap(host: NetworkHost, name: string) {
  host.ip(`tuntap del ${name} mode tap`);
  const script = `import { writeSync } from 'node:fs';
    import { createTap } from '${new URL('../../system/tun.js', import.meta.url).href}';
    const [fd] = createTap('${name}', 1, 24, 0).queues;
    console.log('open');
    const frame = Buffer.alloc(24 + 60).fill(0xff, 24, 30);
    frame.writeUInt16BE(0x88b5, 24 + 12); // a local experimental EtherType
    process.stdin.resume().on('end', () => { for (let i = 0; i < 50; i++) writeSync(fd, frame); });
    setInterval(() => {}, 1000);`;
  const holder = host.spawn([process.execPath, '--input-type=module', '-e', script]);
  await holder.waitFor(/open/);
  return holder;
}

/** Packets that were sent to a TAP. Its own counters count what is read from it. */
function sent(host: NetworkHost, device: string): number {
  const rows = JSON.parse(host.exec(`tc -j -s qdisc show dev ${device} root`)) as { packets: number }[];
  return rows[0].packets;
}

test('takes exactly the packets that the uplink can take', { skip }, async (t) => {
  const { host, left, right } = build(t);
  await holdTap(left, 'up0');
  await attachRedirect(host, OPTIONS);
  left.ip('address add 192.0.2.11/24 dev eth0');
  const taken = async (command: string, least = 0) => {
    const before = sent(left, 'up0');
    await right.run(['bash', '-c', command]);
    await eventually(`${least} more`, () => sent(left, 'up0') - before >= least);
    await new Promise((resolve) => setTimeout(resolve, 50));
    return sent(left, 'up0') - before;
  };
  const send = (address: string, port: number, bytes: number) =>
    `head -c ${bytes} /dev/zero > /dev/udp/${address}/${port}`;
  assert.equal(await taken(send('192.0.2.1', 8472, 100), 1), 1, 'our address and port');
  assert.equal(await taken(send('192.0.2.1', 4789, 100)), 0, 'another port');
  assert.equal(await taken(send('192.0.2.11', 8472, 100)), 0, 'another address');
  assert.equal(await taken(send('192.0.2.1', 8472, 4000)), 0, 'fragments');
  assert.equal(await taken('timeout 0.2 head -c 10 /dev/zero > /dev/tcp/192.0.2.1/8472 || true'), 0, 'TCP');
  assert.equal(await taken('ping -c 1 192.0.2.1'), 0, 'ICMP');
  // IP options: a record-route option moves the UDP header.
  const options = `python3 -c "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
s.setsockopt(0, 4, bytes([7, 7, 4, 0, 0, 0, 0, 0])); s.sendto(b'x' * 100, ('192.0.2.1', 8472))"`;
  assert.equal(await taken(options), 0, 'IP options');
});

test("the uplink TAP's frames leave through the NIC, and the host's stack sends nothing into it", {
  skip,
}, async (t) => {
  const { host, left, right } = build(t);
  const holder = await holdTap(left, 'up0');
  await attachRedirect(host, OPTIONS);
  const uplink = (await host.link('up0'))!;
  assert.deepEqual([uplink.up, uplink.noarp, uplink.mtu], [true, true, 1500]);
  assert.equal(left.ipJson<{ addr_info: unknown[] }[]>('address show dev up0')[0].addr_info.length, 0);
  const before = right.counter('eth0', 'rx', 'packets');
  holder.endInput();
  await eventually('frames on the other side', () => right.counter('eth0', 'rx', 'packets') >= before + 50);
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.equal(sent(left, 'up0'), 0);
});

test('detaching leaves everything as it was', { skip }, async (t) => {
  const { host, left, runtime } = build(t);
  const before = trafficControl(left);
  const redirect = await attachRedirect(host, OPTIONS);
  assert.notEqual(trafficControl(left), before);
  assert.equal(readdirSync(runtime).length, 1);
  await detachRedirect(host, redirect);
  assert.equal(trafficControl(left), before);
  assert.deepEqual(readdirSync(runtime), []);
  await detachRedirect(host, redirect); // a second time does no harm
});

test("other people's clsact and filters stay", { skip }, async (t) => {
  const { host, left } = build(t);
  left.exec('tc qdisc add dev eth0 clsact');
  left.exec('tc filter add dev eth0 ingress pref 8472 protocol ip u32 match ip dport 9 0xffff flowid 1:1');
  left.exec('tc filter add dev eth0 egress pref 5 protocol all u32 match u32 0 0 flowid 1:1');
  left.ip('link add dummy0 type veth peer name dummy1');
  left.exec(
    'tc filter add dev eth0 ingress pref 8475 protocol ip u32 match ip dport 9 0xffff action mirred egress redirect dev dummy0',
  );
  const before = trafficControl(left);
  const redirect = await attachRedirect(host, OPTIONS);
  assert.match(left.exec('tc filter show dev eth0 ingress'), /pref 8473/);
  await detachRedirect(host, redirect);
  assert.equal(trafficControl(left), before);
});

test('a clsact of ours stays while somebody else uses it', { skip }, async (t) => {
  const { host, left, runtime } = build(t);
  const redirect = await attachRedirect(host, OPTIONS);
  left.exec('tc filter add dev eth0 egress pref 5 protocol all u32 match u32 0 0 flowid 1:1');
  await detachRedirect(host, redirect);
  assert.match(left.exec('tc qdisc show dev eth0'), /clsact/);
  left.exec('tc filter del dev eth0 egress pref 5');
  left.ip('tuntap del up0 mode tap');
  assert.deepEqual(await cleanupRedirects(host), ['clsact qdisc on eth0']);
  assert.doesNotMatch(left.exec('tc qdisc show dev eth0'), /clsact/);
  assert.deepEqual(readdirSync(runtime), []);
});

test('two redirections on one NIC do not get in each other’s way', { skip }, async (t) => {
  const { host, left } = build(t);
  const before = trafficControl(left);
  left.ip('tuntap add up1 mode tap');
  const first = await attachRedirect(host, OPTIONS);
  const second = await attachRedirect(host, { ...OPTIONS, uplink: 'up1', port: 4789 });
  await detachRedirect(host, first);
  const shown = left.exec('tc filter show dev eth0 ingress');
  assert.match(shown, /device up1/);
  assert.doesNotMatch(shown, /device up0/);
  await detachRedirect(host, second);
  assert.equal(trafficControl(left), before);
});

test('detaching follows a NIC that was renamed and given another MAC', { skip }, async (t) => {
  const { host, left, runtime } = build(t);
  const redirect = await attachRedirect(host, OPTIONS);
  left.ip('link set eth0 down');
  left.ip('link set eth0 name wan0 address 02:00:00:00:00:42');
  await detachRedirect(host, redirect);
  assert.doesNotMatch(left.exec('tc qdisc show dev wan0'), /clsact/);
  assert.deepEqual(readdirSync(runtime), []);
});

test('detaching works when NIC and uplink are gone', { skip }, async (t) => {
  const { host, left } = build(t);
  const redirect = await attachRedirect(host, OPTIONS);
  left.ip('link del eth0');
  left.ip('tuntap del up0 mode tap');
  await detachRedirect(host, redirect);
});

test('cleanup removes what a dead process has left, and nothing of a live one', { skip }, async (t) => {
  const { host, left, runtime } = build(t);
  const before = trafficControl(left);
  left.ip('tuntap add up1 mode tap');
  const holder = await holdTap(left, 'up0');
  await attachRedirect(host, OPTIONS);
  const live = await attachRedirect(host, { ...OPTIONS, uplink: 'up1', port: 4789 });
  // Somebody else's filter, whose target is gone as well.
  left.ip('link add dummy0 type veth peer name dummy1');
  left.exec(
    'tc filter add dev eth0 ingress pref 7 protocol ip u32 match ip dport 9 0xffff action mirred egress redirect dev dummy0',
  );
  left.ip('link del dummy0');
  assert.deepEqual(await cleanupRedirects(host), [], 'both uplinks live');

  await holder.stop('SIGKILL');
  assert.deepEqual(await cleanupRedirects(host), ['tc filter 8472 on eth0, whose uplink is gone']);
  const shown = left.exec('tc filter show dev eth0 ingress');
  assert.match(shown, /device up1/);
  assert.match(shown, /pref 7 /);

  left.exec('tc filter del dev eth0 ingress pref 7');
  await detachRedirect(host, live);
  assert.equal(trafficControl(left), before);
  assert.deepEqual(readdirSync(runtime), []);
});

test('a record of an earlier namespace or NIC removes nothing', { skip }, async (t) => {
  const { host, left, right } = build(t);
  await attachRedirect(host, OPTIONS);
  left.ip('tuntap del up0 mode tap');
  left.exec('tc filter del dev eth0 ingress');
  left.ip('link set eth0 address 02:00:00:00:00:43');
  assert.deepEqual(await cleanupRedirects(host), []);
  assert.match(left.exec('tc qdisc show dev eth0'), /clsact/);
  right.exec('tc qdisc add dev eth0 clsact');
  assert.deepEqual(await cleanupRedirects(new Host(right.inside([]))), []);
});

test('a failed attempt is undone and says which step failed', { skip }, async (t) => {
  const { host, left, runtime } = build(t);
  const before = trafficControl(left);
  await assert.rejects(attachRedirect(host, { ...OPTIONS, nic: 'eth7' }), {
    message: 'cannot redirect to eth7: there is no such device',
  });
  await assert.rejects(attachRedirect(host, { ...OPTIONS, uplink: 'up7' }), {
    message: /^cannot redirect eth0 to up7: ip link set dev up7 .*: Cannot find device "up7"$/,
  });
  const unprivileged = new Host([...left.inside([]), 'setpriv', '--bounding-set=-net_admin', '--']);
  await assert.rejects(attachRedirect(unprivileged, OPTIONS), /cannot redirect eth0 to up0: .*Operation not permitted/);
  assert.equal(trafficControl(left), before);
  mkdirSync(runtime, { recursive: true });
  assert.deepEqual(readdirSync(runtime), []);
});

test('an ingress qdisc of somebody else does as well', { skip }, async (t) => {
  const { host, left } = build(t);
  left.exec('tc qdisc add dev eth0 ingress');
  const before = trafficControl(left);
  const redirect = await attachRedirect(host, OPTIONS);
  assert.match(left.exec('tc filter show dev eth0 ingress'), /device up0/);
  await detachRedirect(host, redirect);
  assert.equal(trafficControl(left), before);
});
