// The real-network test harness itself, with nothing but the kernel's own vxlan on both sides:
//
//   left                                  right
//   flannel.1 10.244.1.1                  flannel.1 10.244.2.1
//        | vxlan id 1                          |
//   eth0 192.0.2.1  ------- veth -------  eth0 192.0.2.2

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import test, { type TestContext } from 'node:test';
import { bulkTransfer, iperf3, ping } from '../../cli/lab/measure.ts';
import { namespacePath, namespaces, sweep } from '../../cli/lab/namespace.ts';
import { Network } from '../../cli/lab/network.ts';
import { eventually, Process, run } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, type Vtep } from '../../cli/lab/vtep.ts';
import { Capture, tsharkFields } from './capture.ts';
import { lacking } from './requirements.ts';

const PAIR = {
  hosts: { left: {}, right: {} },
  links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']],
} as const;
const ROOT = { skip: lacking(), timeout: 180_000 };

/** Two hosts whose kernels tunnel to each other. */
async function kernelPair(t: TestContext, checksumOffload = true): Promise<[Vtep, Vtep]> {
  const [[left, right]] = PAIR.links;
  const network = Network.build(t, { ...PAIR, links: [[left, right, { checksumOffload }]] });
  const vteps: [Vtep, Vtep] = [
    kernelVtep(network.host('left'), {
      local: '192.0.2.1',
      addresses: '10.244.1.1/16 fd00:1::1/64',
      mac: '02:00:00:00:00:01',
    }),
    kernelVtep(network.host('right'), {
      local: '192.0.2.2',
      addresses: '10.244.2.1/16 fd00:1::2/64',
      mac: '02:00:00:00:00:02',
    }),
  ];
  await introduce(...vteps);
  return vteps;
}

test('two kernel VTEPs ping each other over IPv4 and IPv6', { ...ROOT, skip: lacking('kernel-vxlan') }, async (t) => {
  const [left, right] = await kernelPair(t);
  for (const address of right.addresses) {
    const result = await ping(left.host, address, { count: 5, interval: 0.2 });
    assert.equal(result.received, 5);
    assert.equal(result.duplicates, 0);
    assert.ok(result.rtt!.min > 0 && result.rtt!.min <= result.rtt!.mean);
  }
  const lost = await ping(left.host, '10.244.9.9', { count: 2, interval: 0.01 });
  assert.equal(lost.loss, 1);
  assert.equal(lost.rtt, undefined);
  const tooLarge = await ping(left.host, '10.244.2.1', { count: 1, size: 1423, dontFragment: true });
  assert.equal(tooLarge.received, 0);
  const fits = await ping(left.host, '10.244.2.1', { count: 1, size: 1422, dontFragment: true });
  assert.equal(fits.received, 1);
});

test('iperf3 reports what arrived, TCP both ways and UDP', {
  ...ROOT,
  skip: lacking('kernel-vxlan', 'iperf3'),
}, async (t) => {
  const [left, right] = await kernelPair(t);
  for (const reverse of [false, true]) {
    const tcp = await iperf3(left.host, right.host, '10.244.2.1', { seconds: 1, streams: 2, reverse });
    assert.ok(tcp.bitsPerSecond > 1e8, `${tcp.bitsPerSecond}`);
  }
  const udp = await iperf3(left.host, right.host, '10.244.2.1', { seconds: 1, udp: true, bitrate: '8M', length: 100 });
  assert.ok(udp.packets > 1_000 && udp.packets < 11_000, `${udp.packets}`);
  assert.ok(udp.loss < 0.5, `${udp.loss}`);
  const arrived = (udp.packets - udp.lost) * 800;
  assert.ok(Math.abs(udp.bitsPerSecond * udp.seconds - arrived) < 0.01 * arrived, `${udp.bitsPerSecond}`);
  await assert.rejects(iperf3(left.host, right.host, '10.244.1.1', { seconds: 1 }), /refused/);
});

test('a bulk transfer is checked byte by byte', { ...ROOT, skip: lacking('kernel-vxlan') }, async (t) => {
  const [left, right] = await kernelPair(t);
  const result = await bulkTransfer(left.host, right.host, right.addresses[0]!, 5_000_001);
  assert.equal(result.bytes, 5_000_001);
  assert.ok(result.bitsPerSecond > 0);
  await bulkTransfer(right.host, left.host, left.addresses[1]!, 1);
});

test('tshark reads outer and inner headers of a capture, checksums verified', {
  ...ROOT,
  skip: lacking('kernel-vxlan', 'tshark', 'tcpdump', 'ethtool'),
}, async (t) => {
  const [left, right] = await kernelPair(t, false);
  const capture = await Capture.start(right.host, 'eth0', 'udp port 8472');
  await ping(left.host, '10.244.2.1', { count: 2, interval: 0.2 });
  const rows = await tsharkFields(
    await capture.stop(4),
    ['ip.src', 'udp.dstport', 'udp.checksum.status', 'vxlan.vni', 'icmp.type', 'tcp.port'],
    { filter: 'icmp' },
  );
  assert.deepEqual(
    rows.map((row) => row['icmp.type']),
    [['8'], ['0'], ['8'], ['0']],
  );
  assert.deepEqual(rows[0], {
    'ip.src': ['192.0.2.1', '10.244.1.1'],
    'udp.dstport': ['8472'],
    'udp.checksum.status': ['1'],
    'vxlan.vni': ['1'],
    'icmp.type': ['8'],
    'tcp.port': [],
  });
});

test('pods, a router and a switch', ROOT, async (t) => {
  const network = Network.build(t, {
    hosts: {
      node: { bridge: 'cni0 10.244.1.1/24 fd00:1::1/64', pods: { web: '10.244.1.2/24 fd00:1::2/64' } },
      router: { forward: true },
      peer: {},
    },
    links: [['node eth0 192.0.2.1/24', 'router eth0 192.0.2.254/24', { mtu: 1400 }]],
    switches: { lan: ['router eth1 203.0.113.254/24', 'peer eth0 203.0.113.1/24'] },
    routes: {
      node: ['default via 192.0.2.254'],
      peer: ['default via 203.0.113.254'],
      router: ['10.244.1.0/24 via 192.0.2.1'],
    },
  });
  assert.equal((await ping(network.host('web'), '203.0.113.1')).loss, 0);
  assert.equal((await ping(network.host('web'), 'fd00:1::1')).loss, 0);
  assert.equal((await ping(network.host('web'), '203.0.113.1', { size: 1373, dontFragment: true })).loss, 1);
  assert.equal(network.host('node').ipJson<{ mtu: number }[]>('link show eth0')[0]!.mtu, 1400);
  assert.ok(network.host('node').counter('eth0', 'tx', 'packets') > 0);
  assert.throws(() => network.host('nobody'), /no host nobody/);
});

test('a failed wait shows what the process printed', async () => {
  const talker = new Process(['sh', '-c', 'echo hello; echo trouble >&2; exec sleep 20']);
  assert.equal((await talker.waitFor(/hel+o/))[0], 'hello');
  await assert.rejects(talker.waitFor(/never/, 100), /not within 100 ms, waiting for \/never\/.*trouble/s);
  assert.deepEqual(await talker.stop(), { status: null, signal: 'SIGTERM' });
  await assert.rejects(talker.waitFor(/never/), /ended by SIGTERM/);
  await assert.rejects(run('sleep 5', { timeout: 50 }), /not ended within 50 ms, killed/);
  await assert.rejects(run(['sh', '-c', 'echo no; exit 3']), /status 3\nno/);
  await assert.rejects(run('no-such-command'), /status 127.*ENOENT/s);
  assert.equal((await run('cat', { input: 'text' })).stdout, 'text');
});

test('the end of a test leaves no namespace, process or file behind', ROOT, async (t) => {
  const hooks: (() => void)[] = [];
  const network = Network.build({ after: (hook) => hooks.push(hook) }, PAIR);
  const host = network.host('left');
  const polite = host.spawn('sleep 60');
  const deaf = host.spawn(['sh', '-c', 'trap "" TERM; echo deaf; while :; do sleep 1; done']);
  await deaf.waitFor(/deaf/);
  hooks[0]!();
  assert.equal(existsSync(namespacePath(host.namespace)), false);
  assert.equal(existsSync(network.directory), false);
  await eventually('both processes ended', () => polite.exit !== undefined && deaf.exit !== undefined);
  assert.equal(polite.exit!.signal, 'SIGTERM');
  assert.equal(deaf.exit!.signal, 'SIGKILL');
  network.remove(); // again: nothing to do

  // A build that fails half-way removes what it had made.
  assert.throws(() => {
    Network.build({ after: (hook) => hooks.push(hook) }, { ...PAIR, links: [['left eth0', 'nowhere eth0']] });
  }, /no host nowhere/);
  hooks[1]!();
  assert.deepEqual(
    namespaces().filter((name) => name.startsWith(`uvx-${process.pid}-`)),
    [],
  );
  t.diagnostic(`other runs' namespaces, left alone: ${namespaces().length}`);
});

test('a run that dies cleans up: a thrown error, a signal, and kill -9 at the next run', ROOT, async (t) => {
  for (const [death, status] of [
    ['throw new Error("on purpose")', { status: 1, signal: null }],
    ['process.kill(process.pid, "SIGTERM")', { status: 143, signal: null }],
    ['process.kill(process.pid, "SIGKILL")', { status: null, signal: 'SIGKILL' }],
  ] as const) {
    const victim = new Process([
      process.execPath,
      '--input-type=module',
      '-e',
      `import { Network } from '${new URL('../../cli/lab/network.js', import.meta.url)}';
       const network = Network.build({ after() {} }, ${JSON.stringify(PAIR)});
       const child = network.host('left').spawn('sleep 60');
       console.log('built', network.host('left').namespace, network.directory, child.pid);
       setTimeout(() => { ${death} }, 100);
       setTimeout(() => {}, 20_000);`,
    ]);
    t.after(() => victim.signal('SIGKILL'));
    const [, namespace, directory, pid] = await victim.waitFor(/built (\S+) (\S+) (\d+)/);
    assert.equal(existsSync(namespacePath(namespace!)), true);
    sweep(); // a live run's namespaces stay
    assert.equal(existsSync(namespacePath(namespace!)), true);
    assert.deepEqual(await victim.ended(20_000), status);
    // A zombie that nobody has reaped yet has no open files any more.
    await eventually('the dead run’s child ended', () => !existsSync(`/proc/${pid}/fd/0`));
    if (status.signal) sweep();
    assert.equal(existsSync(namespacePath(namespace!)), false, death);
    assert.equal(existsSync(directory!), false, death);
  }
});
