// Needs root: TCX links, tc filters and TAPs in network namespaces of its own. A device's number means the namespace of the process
// that attaches to it, so that every redirection here is made by a process in the host.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { ping } from '../../cli/lab/measure.ts';
import { Network, type Host as NetworkHost } from '../../cli/lab/network.ts';
import { eventually, type Process } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, uvxlanVtep } from '../../cli/lab/vtep.ts';
import { Host } from '../../control/host.ts';
import { attachRedirect } from '../../control/redirect.ts';
import { lacking } from '../net/requirements.ts';
import { lackingBpf } from '../system/bpf/requirement.ts';

const skipTc = lacking('tun');
const skip = skipTc || lackingBpf();
const skipWithoutKernel = lacking('tun', 'kernel-vxlan') || skip;
const LOCAL = { IPv4: '192.0.2.1', IPv6: '2001:db8::1' };

function build(t: TestContext) {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24 2001:db8::1/64', 'right eth0 192.0.2.2/24 2001:db8::2/64']],
  });
  process.env.UVXLAN_RUNTIME_DIR = join(network.directory, 'run');
  return { network, left: network.host('left'), right: network.host('right') };
}

/** The address of one of this package's modules, for the scripts below. */
function module(path: string): string {
  return new URL(`../../${path}`, import.meta.url).href;
}

/** Runs a script in the host until it has printed 'ready'. `done` in it resolves when its standard input ends. */
async function script(host: NetworkHost, text: string): Promise<Process> {
  const process_ = host.spawn([
    process.execPath,
    '--input-type=module',
    '-e',
    `const done = new Promise((resolve) => process.stdin.resume().on('end', resolve));
    setInterval(() => {}, 1000);
    ${text}`,
  ]);
  await process_.waitFor(/ready/);
  return process_;
}

/** A process that has the TAP up0, redirected to and from a NIC until its standard input ends. */
function holder(
  host: NetworkHost,
  options: { tcx: boolean; local?: string; nic?: string },
  then = '',
): Promise<Process> {
  const redirect = { nic: 'eth0', uplink: 'up0', local: LOCAL.IPv4, port: 8472, ...options };
  return script(
    host,
    `import { writeSync } from 'node:fs';
    import { Host } from '${module('control/host.js')}';
    import { attachRedirect, detachRedirect } from '${module('control/redirect.js')}';
    import { createTap } from '${module('system/tun.js')}';
    const host = new Host();
    const [fd] = createTap('up0', 1, 24, 0).queues;
    const redirect = await attachRedirect(host, ${JSON.stringify(redirect)});
    console.log('ready');
    await done;
    ${then}
    await detachRedirect(host, redirect);
    await detachRedirect(host, redirect);
    console.log('detached');`,
  );
}

/** A process that has a program of somebody else on eth0's ingress: it drops UDP packets to a port. */
function dropper(host: NetworkHost, port: number): Promise<Process> {
  return script(
    host,
    `import { Assembler } from '${module('system/bpf/assembler.js')}';
    import { attachTcx } from '${module('system/bpf/link.js')}';
    import { ifIndex } from '${module('system/libc.js')}';
    const program = new Assembler('somebody_else');
    program.mov('r2', 36);
    program.mov('r3', 'r10');
    program.alu('add', 'r3', -2);
    program.mov('r4', 2);
    program.call(26);
    program.jumpIf('r0', '!=', 0, 'next');
    program.load(16, 'r0', 'r10', -2);
    program.jumpIf('r0', '!=', ${((port & 0xff) << 8) | (port >> 8)}, 'next');
    program.mov('r0', 2);
    program.exit();
    program.label('next');
    program.mov('r0', -1);
    program.exit();
    attachTcx(program.assemble(), ifIndex('eth0'), 46);
    console.log('ready');`,
  );
}

/** Packets that were sent to a TAP. Its own counters count what is read from it. */
function sent(host: NetworkHost, device: string): number {
  const rows = JSON.parse(host.exec(`tc -j -s qdisc show dev ${device} root`)) as { packets: number }[];
  return rows[0].packets;
}

/** UDP packets that reached the stack and no socket. */
function noPorts(host: NetworkHost): number {
  return Number(host.exec('cat /proc/self/net/snmp').match(/^Udp: \d+ (\d+)/m)![1]);
}

/** How much `count` has grown once the right host has run a command: by `least`, or more. */
async function growth(count: () => number, right: NetworkHost, command: string, least = 0): Promise<number> {
  const before = count();
  await right.run(['bash', '-c', command]);
  await eventually(`${least} more`, () => count() - before >= least);
  await new Promise((resolve) => setTimeout(resolve, 50));
  return count() - before;
}

const send = (address: string, port: number, bytes = 100) => `head -c ${bytes} /dev/zero > /dev/udp/${address}/${port}`;

/** A datagram with an option (or, with IPv6, an extension header) that moves the UDP header. */
function sendWithOption(family: keyof typeof LOCAL): string {
  const [af, level, name, value] =
    family === 'IPv4'
      ? ['AF_INET', 0, 4, '[7, 7, 4, 0, 0, 0, 0, 0]']
      : ['AF_INET6', 41, 59, '[0, 0, 1, 4, 0, 0, 0, 0]'];
  return `python3 -c "import socket; s = socket.socket(socket.${af}, socket.SOCK_DGRAM); \
s.setsockopt(${level}, ${name}, bytes(${value})); s.sendto(b'x' * 100, ('${LOCAL[family]}', 8472))"`;
}

for (const tcx of [true, false]) {
  for (const family of ['IPv4', 'IPv6'] as const) {
    test(`${tcx ? 'TCX' : 'tc'} takes exactly the packets that the uplink can take, over ${family}`, {
      skip: tcx ? skip : skipTc,
    }, async (t) => {
      const { left, right } = build(t);
      left.ip(family === 'IPv4' ? 'address add 192.0.2.11/24 dev eth0' : 'address add 2001:db8::11/64 dev eth0 nodad');
      const local = LOCAL[family];
      await holder(left, { tcx, local });
      const taken = (command: string, least = 0) => growth(() => sent(left, 'up0'), right, command, least);
      assert.equal(await taken(send(local, 8472), 1), 1, 'our address and port');
      assert.equal(await taken(send(local, 4789)), 0, 'another port');
      assert.equal(await taken(send(`${local}1`, 8472)), 0, 'another address');
      assert.equal(await taken(send(local, 8472, 4000)), 0, 'fragments');
      assert.equal(await taken(`timeout 0.2 head -c 10 /dev/zero > /dev/tcp/${local}/8472 || true`), 0, 'TCP');
      assert.equal(await taken(`ping -c 1 ${local}`), 0, 'ICMP');
      assert.equal(await taken(sendWithOption(family)), 0, 'an option');
      assert.equal(await taken(send(family === 'IPv4' ? LOCAL.IPv6 : LOCAL.IPv4, 8472)), 0, 'the other family');
    });
  }
}

test("TCX leaves packets for another host's MAC address to the stack, which drops them", { skip }, async (t) => {
  const { left, right } = build(t);
  await holder(left, { tcx: true });
  right.ip('neigh replace 192.0.2.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent');
  assert.equal(await growth(() => sent(left, 'up0'), right, send(LOCAL.IPv4, 8472)), 0);
});

test("the uplink TAP's frames leave through the NIC; after detaching they do not, and the NIC's go up the stack", {
  skip,
}, async (t) => {
  const { left, right } = build(t);
  const process_ = await holder(
    left,
    { tcx: true },
    // Broadcast frames of a local experimental EtherType.
    `const frame = Buffer.alloc(24 + 60).fill(0xff, 24, 30);
    frame.writeUInt16BE(0x88b5, 24 + 12);
    for (let i = 0; i < 50; i++) writeSync(fd, frame);`,
  );
  assert.equal(await growth(() => noPorts(left), right, send(LOCAL.IPv4, 8472)), 0);
  const before = right.counter('eth0', 'rx', 'packets');
  process_.endInput();
  await process_.waitFor(/detached/);
  await eventually('frames on the other side', () => right.counter('eth0', 'rx', 'packets') >= before + 50);
  assert.equal(await growth(() => sent(left, 'up0'), right, send(LOCAL.IPv4, 8472)), 0);
  assert.equal(await growth(() => noPorts(left), right, send(LOCAL.IPv4, 8472), 1), 1);
});

for (const [family, ipHeader] of Object.entries({
  IPv4: '45001f72 00004000 40110000 c0000202 c0000201',
  IPv6: `60000000 1f5e1140 20010db8${'0'.repeat(23)}2 20010db8${'0'.repeat(23)}1`,
})) {
  test(`TCX takes packets whose headers are not in the linear area, and none of a VLAN, over ${family}`, {
    skip,
  }, async (t) => {
    const { left } = build(t);
    const ethertype = family === 'IPv4' ? '0800' : '86dd';
    const headers = (tag: string) => `${tag}${ethertype}${ipHeader}9c4021181f5e0000`.replaceAll(' ', '');
    // A TAP in the NIC's place. Of a packet larger than a page, the kernel puts into fragments what lies behind hdr_len. A tag is
    // taken off the frame, whether or not the kernel has VLAN devices.
    await script(
      left,
      `import { readSync, writeSync } from 'node:fs';
      import { setTimeout as sleep } from 'node:timers/promises';
      import { Host } from '${module('control/host.js')}';
      import { attachRedirect } from '${module('control/redirect.js')}';
      import { createTap } from '${module('system/tun.js')}';
      const host = new Host();
      const [nic] = createTap('nic0', 1, 24, 0).queues;
      const [uplink] = createTap('up0', 1, 24, 0).queues;
      await host.setLink('nic0', { up: true });
      await attachRedirect(host, {
        nic: 'nic0', uplink: 'up0', local: '${LOCAL[family as keyof typeof LOCAL]}', port: 8472, tcx: true
      });
      const mac = (await host.link('nic0')).mac.replaceAll(':', '') + '020000000001';
      function packet(headers, fill) {
        const bytes = Buffer.alloc(24 + 8064, fill);
        bytes.fill(0, 0, 24).writeUInt16LE(14, 2);
        bytes.write(mac + headers, 24, 'hex');
        return bytes;
      }
      const first = packet('${headers('')}', 1);
      const last = packet('${headers('')}', 2);
      for (const bytes of [first, packet('${headers('81000005')}', 3), last]) writeSync(nic, bytes);
      const received = Buffer.alloc(10000);
      for (const expected of [first, last]) {
        for (let length = 0; length === 0; await sleep(5)) {
          try {
            length = readSync(uplink, received);
            if (received.compare(expected, 24, expected.length, 24, length) !== 0) throw new Error('another packet');
          } catch (error) {
            if (error.code !== 'EAGAIN') throw error;
          }
        }
      }
      console.log('ready');`,
    );
  });
}

test("somebody else's programs and filters on the NIC go on working", { skip }, async (t) => {
  const { left, right } = build(t);
  await dropper(left, 9);
  await holder(left, { tcx: true });
  await dropper(left, 10);
  left.ip('link add sink0 type veth peer name sink1');
  left.exec('tc qdisc add dev eth0 clsact');
  left.exec(
    'tc filter add dev eth0 ingress protocol ip u32 match ip dport 11 0xffff action mirred egress redirect dev sink0',
  );
  const arriving = (port: number) => growth(() => noPorts(left), right, send(LOCAL.IPv4, port));
  for (const port of [9, 10, 11]) assert.equal(await arriving(port), 0, `port ${port} is taken`);
  assert.equal(await arriving(12), 1, 'another port');
  assert.equal(await growth(() => sent(left, 'up0'), right, send(LOCAL.IPv4, 8472), 1), 1, 'ours');
});

test('nothing is left after kill -9: a kernel vxlan device in our place works at once', {
  skip: skipWithoutKernel,
}, async (t) => {
  const { left, right } = build(t);
  const LEFT = { local: LOCAL.IPv4, addresses: '10.244.1.1/16', mac: '02:00:00:00:00:01' };
  const ours = await uvxlanVtep(left, LEFT);
  assert.match(ours.daemon.output, /uplink redirect \(.* TCX\)/);
  const theirs = kernelVtep(right, { local: '192.0.2.2', addresses: '10.244.2.1/16', mac: '02:00:00:00:00:02' });
  await introduce(ours, theirs);
  assert.equal((await ping(left, '10.244.2.1', { count: 3, interval: 0.01 })).received, 3);
  await ours.daemon.stop('SIGKILL');
  const inOurPlace = kernelVtep(left, LEFT);
  await introduce(inOurPlace, theirs);
  assert.equal((await ping(left, '10.244.2.1', { count: 3, interval: 0.01 })).received, 3);
  assert.equal(left.exec('tc filter show dev eth0 ingress'), '');
  assert.doesNotMatch(left.exec('tc qdisc show dev eth0'), /clsact/);
});

test('the daemon takes tc filters when it is to do without TCX', { skip }, async (t) => {
  const { left } = build(t);
  const words = 'id 1 dev eth0 dstport 8472 nolearning --without tcx';
  const ours = await uvxlanVtep(left, {
    local: LOCAL.IPv4,
    addresses: '10.244.1.1/16',
    mac: '02:00:00:00:00:01',
    words,
  });
  assert.match(ours.daemon.output, /uplink redirect \(.* without (tunnel GSO and )?TCX\)/);
  assert.match(left.exec('tc filter show dev eth0 ingress'), /device uvxup0/);
  await ours.daemon.stop();
  assert.equal(left.exec('tc filter show dev eth0 ingress'), '');
});

test('a failed attempt is undone and says which step failed', { skip }, async (t) => {
  const { left, right } = build(t);
  const attempt = (options: object) =>
    left.run([
      process.execPath,
      '--input-type=module',
      '-e',
      `import { Host } from '${module('control/host.js')}';
      import { attachRedirect } from '${module('control/redirect.js')}';
      import { createTap } from '${module('system/tun.js')}';
      createTap('up0', 1, 24, 0);
      const options = { nic: 'eth0', uplink: 'up0', local: '192.0.2.1', port: 8472, tcx: true, ...${JSON.stringify(options)} };
      await attachRedirect(new Host(), options).catch(({ message }) => console.log(message));`,
    ]);
  assert.equal((await attempt({ nic: 'eth7' })).stdout, 'cannot redirect to eth7: there is no such device\n');
  assert.match(
    (await attempt({ uplink: 'up7' })).stdout,
    /^cannot redirect eth0 to up7: ip link set dev up7 .*up7"\n$/,
  );
  assert.match((await attempt({ local: '192.0.2' })).stdout, /: 192.0.2 is not an IP address\n$/);
  assert.equal(await growth(() => noPorts(left), right, send(LOCAL.IPv4, 8472), 1), 1);
});

test("a TCX link is not made in this process's namespace for a host in another", { skip }, async (t) => {
  const { left } = build(t);
  left.ip('tuntap add up0 mode tap');
  const options = { nic: 'eth0', uplink: 'up0', local: LOCAL.IPv4, port: 8472, tcx: true };
  await assert.rejects(attachRedirect(new Host(left.inside([])), options), {
    message: "cannot redirect eth0 to up0: TCX links cannot be made in another process's network namespace",
  });
});

test('without CAP_BPF the error says what to do', { skip }, async (t) => {
  const { left } = build(t);
  const { stdout } = await left.run([
    'setpriv',
    '--bounding-set=-all,+net_admin',
    '--',
    process.execPath,
    '--input-type=module',
    '-e',
    `import { Host } from '${module('control/host.js')}';
    import { attachRedirect } from '${module('control/redirect.js')}';
    import { probeCapabilities } from '${module('system/capabilities.js')}';
    import { createTap } from '${module('system/tun.js')}';
    console.log(probeCapabilities().tcx);
    createTap('up0', 1, 24, 0);
    const options = { nic: 'eth0', uplink: 'up0', local: '192.0.2.1', port: 8472, tcx: true };
    await attachRedirect(new Host(), options).catch(({ message }) => console.log(message));`,
  ]);
  assert.match(stdout, /^false\n/);
  assert.match(
    stdout,
    /^cannot redirect eth0 to up0: eBPF program uvxlan_send: BPF_PROG_LOAD: EPERM; eBPF needs CAP_BPF and CAP_NET_ADMIN/m,
  );
});
