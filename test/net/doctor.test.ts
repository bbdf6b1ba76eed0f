// What the doctor says of a host where one thing after the other is wrong. The pair is drawn in pair.ts; `eth1` leads nowhere.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { MAIN, tell, uvxlan, uvxlanUp } from '../../cli/lab/vtep.ts';
import type { Finding } from '../../control/doctor/finding.ts';
import { offloadObstacle } from '../../control/offload/probe.ts';
import { lacking } from './requirements.ts';

const skip = lacking('tun', 'kernel-vxlan', 'ethtool', 'iptables');

test('the doctor names what is wrong, and what to do about it', { skip, timeout: 180_000 }, async (t) => {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [
      ['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24'],
      ['left eth1 198.51.100.1/24', 'right eth1 198.51.100.2/24'],
    ],
  });
  const left = network.host('left');

  async function doctor(words = '', status = 0): Promise<Finding[]> {
    const result = await uvxlan(left, `doctor -j ${words}`, { check: false });
    assert.equal(result.status, status, result.stdout + result.stderr);
    return JSON.parse(result.stdout) as Finding[];
  }
  /** The only finding of a check, on a subject if several have it; fails unless its message and advice match. */
  function find(findings: readonly Finding[], check: string, status: string, message: RegExp, advice?: RegExp): void {
    const found = findings.filter((finding) => finding.check === check && finding.status === status);
    const hit = found.find(
      (finding) => message.test(finding.message) && (!advice || advice.test(finding.advice ?? '')),
    );
    assert.ok(hit, `no ${status} of ${check} like ${message} in ${JSON.stringify(findings, undefined, 1)}`);
  }

  await t.test('no daemon: what a device would find', async () => {
    const findings = await doctor('dev eth0');
    find(findings, 'daemon', 'ok', /none runs/);
    find(findings, 'port', 'ok', /UDP port 8472 is free/);
    find(findings, 'policy', 'ok', /in the way of UDP 8472/);
    find(findings, 'uplink', 'ok', /auto takes redirect on eth0 over IPv4 \(its probe passed/);
    find(findings, 'offload', 'ok', /veth with tx on/);
    const carries = offloadObstacle() === undefined;
    find(findings, 'offload', carries ? 'ok' : 'warn', carries ? /can carry known flows/ : /cannot carry known flows/);
    assert.deepEqual(
      left
        .ipJson<{ ifname: string }[]>('link show')
        .map(({ ifname }) => ifname)
        .sort(),
      ['eth0', 'eth1', 'lo'],
    );
  });

  await t.test('the port is taken', async () => {
    left.ip('link add vx9 type vxlan id 9 dstport 8472 dev eth0');
    left.ip('link set vx9 up');
    find(await doctor('dev eth0', 1), 'port', 'fail', /kernel's own vxlan device vx9 \(VNI 9\)/, /ip link del vx9/);
    left.ip('link del vx9');
    const holder = left.spawn([
      process.execPath,
      '-e',
      "require('node:dgram').createSocket('udp4').bind(8472, () => console.log('bound'))",
    ]);
    await holder.waitFor(/bound/);
    find(await doctor('dev eth0', 1), 'port', 'fail', new RegExp(`held by .*\\(pid ${holder.pid}\\)`), /stop it/);
    await holder.stop();
  });

  await t.test('a firewall, and a NIC that is down', async () => {
    left.exec('iptables -A INPUT -p udp --dport 8472 -j DROP');
    left.ip('link set eth0 down');
    const findings = await doctor('dev eth0 local 192.0.2.1', 1);
    find(findings, 'policy', 'fail', /drops incoming UDP 8472.*nothing gets through/, /allow UDP port 8472, in/);
    find(findings, 'link', 'fail', /eth0 is down/, /ip link set eth0 up/);
    find(findings, 'uplink', 'ok', /auto takes udp .*would get past a policy/);
    left.ip('link set eth0 up');
    left.exec('iptables -F INPUT');
  });

  await t.test('a daemon with a device that has everything wrong', async () => {
    await uvxlanUp(left, 'vx1 id 1 local 192.0.2.1 dev eth0 dstport 8472 uplink redirect');
    find(await doctor(), 'reach', 'warn', /no VTEP is known/, /fdb append/);
    await tell(left, 'fdb append 00:00:00:00:00:00 dev vx1 dst 198.51.100.2');
    await tell(left, 'fdb append 00:00:00:00:00:00 dev vx1 dst 192.0.2.255');
    await eventually('the reason is known', async () => {
      return (await uvxlan(left, 'link show -d')).stdout.includes('192.0.2.255 is a broadcast');
    });
    left.ip('link set vx1 mtu 1500');
    left.exec(['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter']);
    left.exec('ethtool -K eth0 gro off');
    left.exec('iptables -A OUTPUT -p udp --dport 8472 -j DROP');
    const findings = await doctor('', 1);
    find(findings, 'daemon', 'ok', /it answers, and has vx1/);
    find(findings, 'port', 'ok', /UDP port 8472 is this daemon's/);
    find(findings, 'uplink', 'ok', /redirect \(asked for/);
    find(
      findings,
      'reach',
      'fail',
      /VTEP 192\.0\.2\.255 cannot be reached: 192\.0\.2\.255 is a broadcast address on eth0/,
    );
    find(findings, 'mtu', 'warn', /1500 bytes and 50 of headers do not fit the MTU of eth0, 1500/, /mtu 1450/);
    find(
      findings,
      'rp_filter',
      'warn',
      /strict, and the route back to 198\.51\.100\.2 \(eth1\).* is another one/,
      /rp_filter=2/,
    );
    find(findings, 'offload', 'warn', /gro is off/, /gro on/);
    find(findings, 'policy', 'warn', /drops outgoing UDP 8472.*redirect gets past it/, /uplink auto/);
  });

  await t.test('IPv6 outside', async () => {
    left.ip('address add 2001:db8::1/64 dev eth0 nodad');
    await tell(left, 'link add vx6 type vxlan id 6 local 2001:db8::1 remote 2001:db8::2 dev eth0 dstport 8472');
    const findings = await doctor('', 1);
    find(findings, 'device', 'ok', /vx6 is up, VNI 6, MTU 1430/);
    find(findings, 'mtu', 'ok', /1430 bytes and 70 of headers fit the MTU of eth0, 1500/);
    await tell(left, 'link del vx6');
  });

  await t.test('text, and words that are wrong', async () => {
    const { stdout, status } = await uvxlan(left, 'doctor', { check: false });
    assert.equal(status, 1);
    assert.match(stdout, /^this machine\n {2}ok {4}daemon/);
    assert.match(stdout, /\nvx1\n/);
    assert.match(stdout, /\n {2}warn {2}mtu .*\n {20}-> ip link set vx1 mtu 1450/);
    for (const words of ['dev', 'via eth0', 'dstport 0', 'local here']) {
      assert.equal((await uvxlan(left, `doctor ${words}`, { check: false })).status, 2, words);
    }
    find(await doctor('dev nope', 1), 'nic', 'fail', /there is no device nope/);
  });

  await t.test('without privileges it says what it cannot see', async () => {
    const unprivileged = 'setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all';
    const command = [...unprivileged.split(' '), process.execPath, MAIN, 'doctor', '-j', 'dev', 'eth0'];
    const { stdout, stderr, status } = await left.run(command, { check: false });
    assert.equal(status, 1, stderr);
    const findings = JSON.parse(stdout) as Finding[];
    find(findings, 'privileges', 'fail', /CAP_NET_ADMIN is missing/, /run as root/);
    find(findings, 'offloads', 'warn', /not to be seen/);
    find(findings, 'policy', 'warn', /cannot be inspected/);
    find(findings, 'daemon', 'warn', /no permission for the control socket/);
  });
});
