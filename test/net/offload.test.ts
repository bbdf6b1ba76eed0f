// Flow offload: known flows are carried by programs in the kernel, the rest by the workers, and the peers cannot tell.
//
//   left                                             right
//   flannel.1 10.244.1.1 fd00:1::1                   flannel.1 10.244.2.1 fd00:1::2
//        | uvxlan, offload require                        | kernel vxlan, or uvxlan again
//   eth0 192.0.2.1  ------------- veth -------------  eth0 192.0.2.2

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import test from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, links, tell, uvxlan, uvxlanUp, uvxlanVtep } from '../../cli/lab/vtep.ts';
import { lackingBpf } from '../system/bpf/requirement.ts';
import { bulkTransfer } from './bulk.ts';
import { LEFT, pair, RIGHT } from './pair.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, restingStats, stats } from './stats.ts';

const MB = 1024 * 1024;
const WORDS = 'id 1 dev eth0 dstport 8472 nolearning noudpcsum';
const OWN = 'workers 2 offload require';
const skip = lacking('tun', 'kernel-vxlan') || lackingBpf();

for (const peer of ['kernel', 'redirect'] as const) {
  test(`carries known flows, with ${peer} on the other side`, { skip, timeout: 180_000 }, async (t) => {
    const { left, right } = await pair(t, 'redirect', peer, { words: WORDS, own: OWN });
    for (const [from, to] of [
      [left, right],
      [right, left],
    ] as const) {
      for (const address of to.addresses) {
        assert.equal((await ping(from.host, address, { count: 20, interval: 0.01 })).loss, 0);
        const { bitsPerSecond } = await bulkTransfer(from.host, to.host, address, 8 * MB);
        t.diagnostic(`${address} ${(bitsPerSecond / 1e9).toFixed(1)} Gbit/s`);
      }
    }
    const records = await restingStats(left.host);
    assertBalanced(records);
    const [{ tx, rx }] = records;
    assert.ok(tx.offloaded! > 200 && rx.offloaded! > 200, JSON.stringify([tx, rx]));
    // What the workers got is the rest: neighbour solicitations, say.
    assert.ok(tx.in - tx.offloaded! < 40 && rx.in - rx.offloaded! < 40, JSON.stringify([tx, rx]));
  });
}

test('carries two devices of one port over IPv6, and what is watched goes through the workers', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 2001:db8::1/64', 'right eth0 2001:db8::2/64']],
  });
  const [host, other] = [network.host('left'), network.host('right')];
  const words = (vni: number): string => `id ${vni} dev eth0 dstport 8472 nolearning udp6zerocsumtx udp6zerocsumrx`;
  const ends = { left: { local: '2001:db8::1' }, right: { local: '2001:db8::2' } };
  const left = await uvxlanVtep(host, { ...LEFT, ...ends.left, words: `${words(1)} ${OWN}` });
  const right = kernelVtep(other, { ...RIGHT, ...ends.right, words: words(1) });
  await introduce(left, right);
  const second = ['192.168.1.1/24', '192.168.1.2/24'];
  await tell(host, `link add vx2 type vxlan local 2001:db8::1 ${words(2)} offload require address 02:00:00:00:02:01`);
  host.ip(`address add ${second[0]} dev vx2`);
  const right2 = kernelVtep(other, {
    name: 'vx2',
    mac: '02:00:00:00:02:02',
    addresses: second[1],
    ...ends.right,
    words: words(2),
  });
  right2.host.bridge('fdb append 02:00:00:00:02:01 dev vx2 dst 2001:db8::1');
  right2.host.ip('neigh replace 192.168.1.1 lladdr 02:00:00:00:02:01 dev vx2 nud permanent');
  host.ip('neigh replace 192.168.1.2 lladdr 02:00:00:00:02:02 dev vx2 nud permanent');
  await tell(host, 'fdb append 02:00:00:00:02:02 dev vx2 dst 2001:db8::2');
  for (const address of [right.addresses[0], '192.168.1.2']) {
    await eventually('it answers', async () => (await ping(host, address, { count: 1 })).loss === 0);
    assert.equal((await ping(host, address, { count: 20, interval: 0.01 })).loss, 0);
    await bulkTransfer(host, other, address, 5 * MB);
  }
  const offloaded = async () => (await stats(host)).map(({ tx }) => tx.offloaded ?? 0);
  const [first, last] = await offloaded();
  assert.ok(first > 20 && last > 20, `${first} ${last}`);

  const ended = new AbortController();
  const meanwhile = ping(host, right.addresses[0], { until: ended.signal });
  const capture = await uvxlan(host, 'capture dev flannel.1 seconds 1 -w /dev/null icmp');
  const [, captured] = capture.stderr.match(/(\d+) packets captured, 0 lost/)!;
  assert.ok(Number(captured) > 20, 'the capture sees flows that were offloaded');
  const [before] = await offloaded();
  await eventually('offloaded again', async () => (await offloaded())[0] > before + 20);
  ended.abort();
  assert.equal((await meanwhile).loss, 0, 'pulled back, and offloaded again, without loss');
  assertBalanced(await restingStats(host));
});

test('follows what changes, and leaves nothing behind', { skip, timeout: 180_000 }, async (t) => {
  const { left, right } = await pair(t, 'redirect', 'kernel', { words: WORDS, own: OWN });
  const [address] = right.addresses;
  const lost = async (count = 10) => (await ping(left.host, address, { count, interval: 0.01 })).loss;
  const offloaded = async () => (await stats(left.host))[0].tx.offloaded ?? 0;
  const offload = async () => {
    const [{ uvxlan: own }] = await links(left.host);
    return own.offload;
  };
  assert.equal(await lost(), 0);
  const before = await offloaded();
  assert.ok(before >= 10);

  await tell(left.host, 'link set flannel.1 offload off');
  assert.equal(await offload(), undefined);
  assert.equal(await lost(), 0);
  assert.equal(await offloaded(), before, 'all through the workers');
  await tell(left.host, 'link set flannel.1 offload auto');
  assert.deepEqual(await offload(), { send: true, receive: true });

  await left.fdb(`del ${right.mac} dev flannel.1 dst ${right.local}`);
  assert.equal(await lost(3), 1, 'an entry that is gone is gone from the kernel as well');
  await left.fdb(`append ${right.mac} dev flannel.1 dst ${right.local}`);
  assert.equal(await lost(), 0);

  const received = async () => (await stats(left.host))[0].rx;
  await tell(left.host, 'link set flannel.1 vtep-filter strict');
  assert.equal(await lost(), 0);
  const allowed = (await received()).offloaded;
  await left.fdb(`replace ${right.mac} dev flannel.1 dst ${right.local} dynamic`);
  assert.equal(await lost(3), 1, 'by a dynamic entry nobody may send under strict');
  const { offloaded: afterwards, drops } = await received();
  assert.deepEqual([afterwards, drops.rx_wrong_vtep], [allowed, 3]);
  await left.fdb(`replace ${right.mac} dev flannel.1 dst ${right.local}`);
  await tell(left.host, 'link set flannel.1 vtep-filter off');

  left.host.ip('link set flannel.1 down');
  await eventually('receive is left to the workers', async () => (await offload())?.receive === 'the device is down');
  assert.equal((await ping(right.host, left.addresses[0], { count: 4, interval: 0.01 })).loss, 1);
  assert.equal((await received()).drops.rx_device_down, 4, 'what is lost is not said to have arrived');
  left.host.ip('link set flannel.1 up');
  left.host.ip(`neigh replace ${address} lladdr ${right.mac} dev flannel.1 nud permanent`); // it forgets them
  await eventually('receive is offloaded', async () => (await offload())?.receive === true);
  assert.equal(await lost(), 0);

  right.host.ip('link set eth0 address 02:00:00:00:09:09');
  await ping(right.host, left.local, { count: 1 }); // so that the left hears of it
  await eventually('the next hop is known by its new MAC', async () => (await lost(1)) === 0);
  left.host.ip('link set flannel.1 address 02:00:00:00:00:77');
  left.host.ip(`neigh replace ${address} lladdr ${right.mac} dev flannel.1 nud permanent`); // it forgets them
  right.host.bridge(`fdb append 02:00:00:00:00:77 dev flannel.1 dst ${left.local}`);
  right.host.ip(`neigh replace ${left.addresses[0]} lladdr 02:00:00:00:00:77 dev flannel.1 nud permanent`);
  await eventually('the device has its new MAC', async () => (await lost(1)) === 0);
  assertBalanced(await restingStats(left.host));

  left.daemon.signal('SIGKILL');
  await eventually('the device is gone', async () => !left.host.ip('link show').includes('flannel.1'));
  left.host.ip('link add flannel.1 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning');
  left.host.ip('link set flannel.1 address 02:00:00:00:00:77');
  await eventually('the port is free', async () =>
    left.host.run(['ip', 'link', 'set', 'flannel.1', 'up'], { check: false }).then(({ status }) => status === 0),
  );
  left.host.ip('address add 10.244.1.1/16 dev flannel.1');
  left.host.bridge(`fdb append ${right.mac} dev flannel.1 dst ${right.local}`);
  left.host.ip(`neigh replace ${address} lladdr ${right.mac} dev flannel.1 nud permanent`);
  assert.equal(await lost(), 0, "the kernel's own device gets every packet");
});

test('says why it does not offload', { skip, timeout: 180_000 }, async (t) => {
  const { left } = await pair(t, 'redirect', 'kernel', { own: 'workers 2 offload auto' });
  const show = await uvxlan(left.host, 'link show -d');
  assert.match(show.stdout, /offload send off \(outer UDP checksums are on.*noudpcsum.*\) receive on/);
  await tell(left.host, 'link set flannel.1 uplink udp');
  assert.match((await uvxlan(left.host, 'link show -d')).stdout, /offload send off \(the uplink is udp:.*receive off/);
  const refused = await uvxlan(
    left.host,
    'link add vx2 type vxlan id 2 local 192.0.2.1 dev eth0 dstport 8472 uplink udp offload require',
    { check: false },
  );
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /vx2: offload require: the uplink is udp/);
});

test('pinned, known flows go on while no daemon runs, and through the start of the next', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const directory = mkdtempSync(`${tmpdir()}/uvxlan-pin-`);
  execFileSync('mount', ['-t', 'bpf', 'bpf', directory]);
  t.after(() => {
    execFileSync('umount', [directory]);
    rmSync(directory, { recursive: true });
  });
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']],
  });
  const [host, right] = [network.host('left'), kernelVtep(network.host('right'), { ...RIGHT, words: WORDS })];
  right.host.bridge(`fdb append ${LEFT.mac} dev flannel.1 dst 192.0.2.1`);
  const [address] = right.addresses;
  right.host.ip(`neigh replace 10.244.1.1 lladdr ${LEFT.mac} dev flannel.1 nud permanent`);
  const config = `${directory}.yaml`;
  t.after(() => rmSync(config));
  writeFileSync(
    config,
    `devices: [{ name: flannel.1, id: 1, local: 192.0.2.1, dev: eth0, address: '${LEFT.mac}', udpcsum: false, persist: true,
      offload: require, offload-pin: ${directory}, fdb: [{ mac: '${RIGHT.mac}', dst: 192.0.2.2 }] }]`,
  );
  const first = await uvxlanUp(host, ['--config', config]);
  host.ip('address add 10.244.1.1/16 dev flannel.1');
  host.ip(`neigh replace ${address} lladdr ${RIGHT.mac} dev flannel.1 nud permanent`);
  const pinned = () => readdirSync(directory).filter((name) => name.startsWith('uvxlan-')).length;
  assert.equal(pinned(), 2);
  await eventually('the next hop is resolved', async () => (await ping(host, address, { count: 1 })).loss === 0);

  const ended = new AbortController();
  const meanwhile = ping(host, address, { interval: 0.01, until: ended.signal });
  await first.stop('SIGKILL');
  assert.equal(pinned(), 2);
  assert.equal((await ping(host, address, { count: 20, interval: 0.01 })).loss, 0, 'without a daemon');
  const second = await uvxlanUp(host, ['--config', config]);
  await eventually('the second daemon carries on', async () => ((await stats(host))[0].tx.offloaded ?? 0) > 0);
  ended.abort();
  assert.equal((await meanwhile).loss, 0, 'of pings all the while');
  assert.equal(pinned(), 2, "the second daemon's in the place of the first one's");
  await second.stop();
  assert.equal((await ping(host, address, { count: 20, interval: 0.01 })).loss, 0);
  const { stdout } = await uvxlan(host, ['cleanup', 'offload-pin', directory]);
  assert.match(stdout, /removed .*uvxlan-/);
  assert.equal(pinned(), 0);
  assert.equal((await ping(host, address, { count: 3, interval: 0.01 })).loss, 1);
  host.ip('link del flannel.1');
});
