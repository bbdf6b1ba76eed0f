// A host that changes under a running daemon, TCP in both directions all the while. The left host's NIC and routes are changed,
// its TAP, and the gateways:
//
//   left                                                            right
//   flannel.1 10.244.1.1                                            flannel.1 10.244.2.1
//        |                    +-- 192.0.2.254 one 203.0.113.254 --+      |
//   eth0 192.0.2.1 -- near ---+                                   +-- far -- eth0 203.0.113.1
//                             +-- 192.0.2.253 two 203.0.113.253 --+

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually, runSync } from '../../cli/lab/process.ts';
import {
  introduce,
  kernelVtep,
  links,
  tell,
  type UvxlanVtep,
  uvxlan,
  uvxlanVtep,
  type Vtep,
} from '../../cli/lab/vtep.ts';
import { Pings, Stream } from './live.ts';
import { LEFT, RIGHT, resolved, UPLINKS } from './pair.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { assertAddsUp, drops, restingStats, stats } from './stats.ts';
import { takesLess } from './traces.ts';

const options = { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 };
const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
/** Milliseconds: what is followed within a second, on a machine that does other things as well. */
const LIMIT = 5_000;
const ROUTE = '203.0.113.0/24 via 192.0.2.254';

class Scene {
  readonly near: Host;
  readonly one: Host;
  readonly two: Host;
  readonly left: UvxlanVtep;
  readonly right: Vtep;
  pings!: Pings;
  #streams!: Stream[];
  readonly #t: TestContext;

  private constructor(t: TestContext, network: Network, left: UvxlanVtep, right: Vtep) {
    this.#t = t;
    [this.near, this.one, this.two] = ['near', 'one', 'two'].map((name) => network.host(name)) as [Host, Host, Host];
    this.left = left;
    this.right = right;
  }

  static async build(t: TestContext, uplink: string): Promise<Scene> {
    const network = Network.build(t, {
      hosts: { left: {}, right: {}, one: { forward: true }, two: { forward: true } },
      switches: {
        near: ['left eth0 192.0.2.1/24', 'one eth0 192.0.2.254/24', 'two eth0 192.0.2.253/24'],
        far: ['right eth0 203.0.113.1/24', 'one eth1 203.0.113.254/24', 'two eth1 203.0.113.253/24'],
      },
      routes: { left: [ROUTE], right: ['192.0.2.0/24 via 203.0.113.254'] },
    });
    const own = `${WORDS} workers 2 uplink ${uplink}`;
    const left = await uvxlanVtep(network.host('left'), { ...LEFT, words: own });
    const right = kernelVtep(network.host('right'), { ...RIGHT, local: '203.0.113.1', words: WORDS });
    await introduce(left, right);
    await resolved(left.host, uplink as 'udp');
    const scene = new Scene(t, network, left, right);
    scene.pings = await Pings.start(left.host, right.addresses[0]!);
    scene.#streams = await Promise.all([
      Stream.start(left.host, right.host, right.addresses[0]!),
      Stream.start(right.host, left.host, left.addresses[0]!),
    ]);
    return scene;
  }

  get host(): Host {
    return this.left.host;
  }

  /** Makes a change, and fails unless it is followed in time and the connections go on. */
  async change(what: string, change: () => unknown): Promise<void> {
    const milliseconds = await this.pings.through(what, change);
    this.#t.diagnostic(`${what}: longest time without an answer ${milliseconds} ms`);
    assert.ok(milliseconds < LIMIT, `${what}: ${milliseconds} ms`);
    await Promise.all(this.#streams.map((stream) => stream.goesOn(what)));
  }

  async finish(): Promise<void> {
    await this.pings.stop();
    for (const stream of this.#streams) await stream.finish();
    assertAddsUp(await restingStats(this.host));
    assert.ok(!/worker \d+ failed/.test(this.left.daemon.output), this.left.daemon.output);
  }

  /** eth0 made anew, with another MAC address and number. */
  newNic(): void {
    runSync(`ip link add eth0 netns ${this.host.namespace} type veth peer name port0 netns ${this.near.namespace}`);
    this.near.ip('link set port0 master br0 up');
    this.host.ip('link set eth0 up');
    this.host.ip('address add 192.0.2.1/24 dev eth0');
    this.host.ip(`route add ${ROUTE}`);
  }
}

function mtu(host: Host, device: string): number {
  return host.ipJson<{ mtu: number }[]>(`link show dev ${device}`)[0]!.mtu;
}

for (const uplink of UPLINKS) {
  test(`${uplink}: the NIC changes`, options, async (t) => {
    const scene = await Scene.build(t, uplink);
    const { host } = scene;
    await scene.change('down and up', async () => {
      host.ip('link set eth0 down');
      await sleep(200);
      host.ip('link set eth0 up');
      host.ip(`route add ${ROUTE}`);
    });
    await scene.change('renamed', () => host.ip('link set eth0 name nic7'));
    await eventually('link show names it', async () => (await links(host))[0]!.linkinfo.info_data.link === 'nic7');
    await scene.change('renamed back', () => host.ip('link set nic7 name eth0'));
    await scene.change('another MAC', () => host.ip('link set eth0 address 02:00:00:00:ee:01'));
    await scene.change('no address for a while', async () => {
      host.ip('address del 192.0.2.1/24 dev eth0');
      await sleep(200);
      host.ip('address add 192.0.2.1/24 dev eth0');
      host.ip(`route add ${ROUTE}`);
    });
    await scene.change('MTU 1400', () => host.ip('link set eth0 mtu 1400'));
    await eventually('the TAP follows', () => mtu(host, 'flannel.1') === 1350);
    await scene.change('MTU 1500', () => host.ip('link set eth0 mtu 1500'));
    await eventually('the TAP follows', () => mtu(host, 'flannel.1') === 1450);
    await scene.change('deleted and made anew', async () => {
      host.ip('link del eth0');
      await sleep(200);
      scene.newNic();
    });
    await scene.finish();
  });

  test(`${uplink}: the way changes`, options, async (t) => {
    const scene = await Scene.build(t, uplink);
    const { host, one, two } = scene;
    // As a router does that takes over from another: it tells its neighbours.
    one.exec('sysctl -qw net.ipv4.conf.eth0.arp_notify=1');
    await scene.change("the gateway's MAC", () => one.ip('link set eth0 address 02:00:00:00:fe:fe'));
    const before = two.counter('eth0', 'rx', 'packets');
    await scene.change('another gateway', () => host.ip('route replace 203.0.113.0/24 via 192.0.2.253'));
    await eventually('packets take it', () => two.counter('eth0', 'rx', 'packets') > before + 100);
    await scene.finish();
  });

  test(`${uplink}: the TAP changes`, options, async (t) => {
    const scene = await Scene.build(t, uplink);
    const { host, right } = scene;
    const neighbour = `neigh replace ${right.addresses[0]} lladdr ${right.mac} nud permanent dev`;
    await scene.change('renamed', () => host.ip('link set flannel.1 name vx0'));
    await eventually('link show names it', async () => (await links(host))[0]!.ifname === 'vx0');
    await tell(host, `fdb append 02:00:00:00:00:77 dev vx0 dst 203.0.113.1`);
    await scene.change('renamed back', () => host.ip('link set vx0 name flannel.1'));
    const mac = '02:00:00:00:00:99';
    await right.fdb(`append ${mac} dev flannel.1 dst 192.0.2.1`);
    await scene.change('another MAC', () => {
      host.ip(`link set flannel.1 address ${mac}`);
      right.host.ip(`neigh replace 10.244.1.1 lladdr ${mac} dev flannel.1 nud permanent`);
      host.ip(`${neighbour} flannel.1`);
    });
    await scene.change('into a bridge', () => {
      host.ip('link add br0 type bridge');
      host.ip(`link set br0 address ${mac} up`);
      host.ip('link set flannel.1 master br0');
      host.ip('address del 10.244.1.1/16 dev flannel.1');
      host.ip('address add 10.244.1.1/16 dev br0');
      host.ip(`${neighbour} br0`);
    });
    await scene.change('out of the bridge', () => {
      host.ip('link del br0');
      host.ip('address add 10.244.1.1/16 dev flannel.1');
      host.ip(`${neighbour} flannel.1`);
    });
    await scene.change('down and up', () => {
      host.ip('link set flannel.1 down');
      host.ip('link set flannel.1 up');
      host.ip(`${neighbour} flannel.1`);
    });
    await scene.finish();
    await movedAway(scene, neighbour);
    await deleted(scene);
  });
}

/** A connection cannot move along: its addresses stay behind. */
async function movedAway({ host, near: other, right }: Scene, neighbour: string): Promise<void> {
  host.ip(`link set flannel.1 netns ${other.namespace}`);
  other.ip('link set flannel.1 up');
  other.ip('address add 10.244.1.1/16 dev flannel.1');
  other.ip(`${neighbour} flannel.1`);
  assert.equal((await ping(other, right.addresses[0]!, { count: 20, interval: 0.01 })).received, 20);
  const stream = await Stream.start(other, right.host, right.addresses[0]!);
  await stream.finish();
  // What is left here can be looked at.
  const { stdout } = await uvxlan(host, 'link show -d');
  assert.match(stdout, /flannel\.1/);
  assertAddsUp(await restingStats(host));
  other.ip(`link set flannel.1 netns ${host.namespace}`);
  host.ip('link set flannel.1 up');
  host.ip('address add 10.244.1.1/16 dev flannel.1');
  host.ip(`${neighbour} flannel.1`);
  assert.equal((await ping(host, right.addresses[0]!, { count: 20, interval: 0.01 })).received, 20);
}

/** The device goes, the daemon stays, and another of the name can come. */
async function deleted({ host, left, right }: Scene): Promise<void> {
  host.ip('link del flannel.1');
  await left.daemon.waitFor(/flannel\.1 was deleted by somebody/);
  await takesLess(left.daemon.pid!, 0.2);
  const kind = left.daemon.argv.at(-1)!;
  await tell(host, `link add flannel.1 type vxlan local 192.0.2.1 ${WORDS} address ${left.mac} uplink ${kind}`);
  host.ip('address add 10.244.1.1/16 dev flannel.1');
  await introduce(left, right);
  await resolved(host, kind as 'udp');
  assert.equal((await ping(host, right.addresses[0]!, { count: 20, interval: 0.01 })).received, 20);
}

test('auto: a policy comes and goes', { ...options, skip: options.skip || lacking('nft') }, async (t) => {
  const scene = await Scene.build(t, 'auto');
  const { host, left } = scene;
  const rule = 'ip daddr 203.0.113.1 udp dport 8472 limit rate over 1000000/second drop';
  await scene.change('it comes', async () => {
    host.exec(['nft', `table ip t { chain o { type filter hook output priority 0; ${rule}; }; }`]);
    await left.daemon.waitFor(/uplink udp from now on/);
  });
  await scene.change('it goes', async () => {
    host.exec('nft delete table ip t');
    await left.daemon.waitFor(/uplink redirect from now on/);
  });
  assert.equal(drops(await stats(host), 'rx_uplink_overflow'), 0, 'the uplink was ready before packets came');
  await scene.finish();
});

test("redirect: the uplink's TAP changes", options, async (t) => {
  const scene = await Scene.build(t, 'redirect');
  const { host } = scene;
  const name = () => host.ipJson<{ ifname: string }[]>('link show').find(({ ifname }) => /^uvx/.test(ifname))?.ifname;
  await scene.change('deleted', () => host.ip(`link del ${name()}`));
  await scene.change('set down', () => host.ip(`link set ${name()} down`));
  await scene.change('renamed', () => host.ip(`link set ${name()} name uvxother`));
  await scene.change('moved to another namespace', () => host.ip(`link set ${name()} netns ${scene.near.namespace}`));
  await takesLess(scene.left.daemon.pid!, 0.6);
  await scene.finish();
});
