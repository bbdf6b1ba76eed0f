// A daemon's life: it ends at once and leaves nothing, what a killed one leaves is removed, and its devices are the host's to
// change meanwhile. The pair is drawn in pair.ts.

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually, type Process } from '../../cli/lab/process.ts';
import { introduce, links, tell, type UvxlanVtep, uvxlan, uvxlanUp, type Vtep } from '../../cli/lab/vtep.ts';
import { bulkTransfer } from './bulk.ts';
import { LEFT, pair, resolved, UPLINKS, vtep } from './pair.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, restingStats } from './stats.ts';
import { runtimeFiles, type Traces, takesLess, traces } from './traces.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };
const UP = 'flannel.1 id 1 local 192.0.2.1 dev eth0 dstport 8472';
/** Uplink, and what else makes a difference to what it could leave. */
const KINDS = [
  ['redirect', 'workers 2'],
  ['redirect', 'workers 2 --without tcx'],
  ['udp', 'workers 2'],
] as const;

const UNTOUCHED: Traces = {
  links: ['lo', 'eth0'],
  qdiscs: ['noqueue lo', 'noqueue eth0'],
  ...{ filters: [], neighbours: [], sockets: [], files: [] },
};

/** Packets as fast as they go, until the host is gone. */
function load(from: Host, to: Vtep): Process {
  return from.spawn(`ping -n -q -f ${to.addresses[0]}`);
}

for (const [uplink, own] of KINDS) {
  test(`${uplink} ${own}: SIGTERM under load leaves nothing`, options, async (t) => {
    const { left, right } = await pair(t, uplink, 'kernel', { own });
    load(left.host, right);
    load(right.host, left);
    await carries(left);
    assert.deepEqual(await left.daemon.stop('SIGTERM'), { status: 0, signal: null });
    assert.deepEqual(traces(left.host), UNTOUCHED);
  });

  test(
    `${uplink} ${own}: what kill -9 under load leaves is removed by the next start, and by cleanup`,
    options,
    async (t) => {
      const { left, right } = await pair(t, uplink, 'kernel', { own });
      const loads = [load(right.host, left), load(left.host, right)];
      await carries(left);
      await left.daemon.stop('SIGKILL');
      const leftBehind = traces(left.host);
      assert.ok(leftBehind.files.some((name) => name.endsWith('.sock')));
      if (own.includes('tcx')) assert.notDeepEqual(leftBehind.filters, []);

      const next = (await vtep(left.host, uplink, LEFT, undefined, own)) as UvxlanVtep;
      if (own.includes('tcx')) assert.match(next.daemon.output, /removed tc filter .* left behind by an earlier run/);
      await introduce(next, right);
      await resolved(left.host, uplink);
      await carries(next);

      await next.daemon.stop('SIGKILL');
      const { stdout } = await uvxlan(left.host, 'cleanup');
      assert.match(stdout, /^uvxlan: removed .*\.sock$/m);
      assert.deepEqual(traces(left.host), UNTOUCHED);
      assert.equal((await uvxlan(left.host, 'cleanup')).stdout, '', 'nothing is left to remove');
      // The port is free for whoever is next, and nothing takes its packets away.
      // Nor has another ping's socket to hold the load's replies, of which it gets a copy each: that loses some by itself.
      for (const process of loads) await process.stop();
      const kernel = await vtep(left.host, 'kernel', LEFT);
      await introduce(kernel, right);
      assert.equal((await ping(left.host, right.addresses[0]!)).received, 3);
    },
  );
}

test('SIGTERM while the daemon starts ends it, and leaves nothing', options, async (t) => {
  const host = alone(t);
  const before = traces(host);
  const hasLink = (name: RegExp) =>
    host.ipJson<{ ifname: string }[]>('link show').some(({ ifname }) => name.test(ifname));
  // A stage that is over when it is looked for counts as well.
  const stages: Record<string, () => boolean> = {
    'has its socket': () => runtimeFiles(host).length > 0,
    'tries what the kernel can do': () => hasLink(/^uvx|flannel/),
    'has its uplink': () => hasLink(/^uvxup|flannel/),
    'has its device': () => hasLink(/flannel/),
  };
  for (const [stage, reached] of Object.entries(stages)) {
    const daemon = await uvxlanUp(host, `${UP} uplink redirect`, /^/);
    while (!reached() && daemon.exit === undefined) await new Promise(setImmediate);
    assert.deepEqual(await daemon.stop('SIGTERM'), { status: 0, signal: null }, `${stage}: ${daemon.output}`);
    assert.deepEqual(traces(host), before, stage);
  }
});

test('a second daemon in the namespace is refused, and cleanup too', options, async (t) => {
  const { left, right } = await pair(t, 'udp', 'kernel');
  for (const command of ['up other.1 id 2 local 192.0.2.1 dev eth0 dstport 4789', 'cleanup']) {
    const { status, stderr } = await uvxlan(left.host, command, { check: false });
    assert.equal(status, 1);
    assert.match(stderr, /^uvxlan: a uvxlan daemon already runs in this network namespace .*: stop it first\n$/);
  }
  assert.equal((await ping(left.host, right.addresses[0]!)).received, 3);
});

for (const uplink of UPLINKS) {
  test(`${uplink}: the device in a bridge, with other addresses and another MAC`, options, async (t) => {
    const { left, right } = await pair(t, uplink, 'kernel');
    left.host.ip('link add br0 type bridge');
    left.host.ip(`link set br0 address ${left.mac} up`);
    left.host.ip('address flush dev flannel.1');
    left.host.ip('link set flannel.1 master br0');
    left.host.ip('address add 10.244.1.1/16 dev br0');
    left.host.ip(`neigh replace ${right.addresses[0]} lladdr ${right.mac} dev br0`);
    await eventually(
      'the bridge forwards',
      async () => (await ping(left.host, right.addresses[0]!, { count: 1 })).loss === 0,
    );
    await bulkTransfer(left.host, right.host, right.addresses[0]!, 8 * 1024 * 1024);
    await bulkTransfer(right.host, left.host, '10.244.1.1', 8 * 1024 * 1024);

    left.host.ip('link del br0');
    const mac = '02:00:00:00:00:99';
    left.host.ip(`link set flannel.1 address ${mac} mtu 1300`);
    left.host.ip('address add 10.244.1.9/16 dev flannel.1');
    left.host.ip(`neigh replace ${right.addresses[0]} lladdr ${right.mac} dev flannel.1`);
    await right.fdb(`append ${mac} dev flannel.1 dst ${left.local}`);
    right.host.ip(`neigh replace 10.244.1.9 lladdr ${mac} dev flannel.1`);
    assert.equal((await ping(left.host, right.addresses[0]!)).received, 3);
    await bulkTransfer(right.host, left.host, '10.244.1.9', 8 * 1024 * 1024);
  });

  test(`${uplink}: the device deleted by hand`, options, async (t) => {
    const { left } = await pair(t, uplink, 'kernel');
    left.host.ip('link del flannel.1');
    await left.daemon.waitFor(/flannel.1 was deleted by somebody/);
    await takesLess(left.daemon.pid!, 0.2);
    assert.deepEqual(await links(left.host), []);
    assert.deepEqual(await left.daemon.stop('SIGTERM'), { status: 0, signal: null });
    assert.deepEqual(traces(left.host), UNTOUCHED);
  });
}

test('without TCX, filters and qdiscs that somebody removes are put back', options, async (t) => {
  const { left } = await pair(t, 'redirect', 'kernel', { own: 'workers 2 --without tcx' });
  const tap = left.host.ipJson<{ ifname: string }[]>('link show').find(({ ifname }) => ifname.startsWith('uvxup'))!;
  const before = traces(left.host).filters.length;
  for (const removed of [
    'filter del dev eth0 ingress',
    'qdisc del dev eth0 clsact',
    `qdisc del dev ${tap.ifname} clsact`,
  ]) {
    left.host.exec(`tc ${removed}`);
    await eventually(`filters are there again: ${removed}`, () => traces(left.host).filters.length === before);
    await carries(left);
  }
  assert.match(
    left.daemon.output,
    /tc filters of uplink redirect on eth0 were removed by somebody, and are there again/,
  );
  assertBalanced(await restingStats(left.host));
  // Another uplink, which shares the NIC's qdisc.
  await tell(left.host, 'link add vx2 type vxlan id 2 local 192.0.2.1 dev eth0 dstport 8473 uplink redirect');
  assert.deepEqual(await left.daemon.stop('SIGTERM'), { status: 0, signal: null });
  assert.deepEqual(traces(left.host), UNTOUCHED);
});

test('the NIC down and up again, and deleted', options, async (t) => {
  for (const uplink of UPLINKS) {
    await t.test(uplink, async (t) => {
      const { left, right } = await pair(t, uplink, 'kernel');
      left.host.ip('link set eth0 down');
      const lost = await ping(left.host, right.addresses[0]!, { count: 1 });
      assert.equal(lost.received, 0);
      left.host.ip('link set eth0 up');
      await carries(left);
      left.host.ip('link del eth0');
      await takesLess(left.daemon.pid!, 0.2);
      await eventually('the reason is known', async () => {
        const { unresolved = [] } = (await links(left.host))[0]!.uvxlan;
        return unresolved.length === 1 && unresolved[0]!.reason === 'there is no device eth0';
      });
      assert.deepEqual(await left.daemon.stop('SIGTERM'), { status: 0, signal: null });
    });
  }
});

/** Resolves when a ping gets through. */
async function carries({ host }: Vtep): Promise<void> {
  await eventually('traffic', async () => (await ping(host, '10.244.2.1', { count: 1 })).received === 1);
}

/** A host with a NIC. */
function alone(t: TestContext): Host {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0']],
  });
  return network.host('left');
}
