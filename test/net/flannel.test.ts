// uvxlan's agent in a flannel cluster; the nodes are drawn in cluster.ts.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { describe, it } from 'node:test';
import { Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { links, MAIN, tell, uvxlan } from '../../cli/lab/vtep.ts';
import { lackingBpf } from '../system/bpf/requirement.ts';
import { Cluster, EAST, introduceToKernel, MID, reaches, WEST, WORLD } from './cluster.ts';
import { Stream } from './live.ts';
import { ping } from './ping.ts';
import { lacking } from './requirements.ts';
import { drops, stats } from './stats.ts';

const options = { skip: lacking('tun', 'kernel-vxlan', 'iptables', 'cni'), timeout: 300_000 };

test(
  'pods of uvxlan and kernel nodes reach each other, services and the world, through faults and restarts',
  options,
  async (t) => {
    const cluster = new Cluster(t);
    const [east, mid] = [EAST, MID].map(({ name }) => cluster.host(name));
    cluster.kernelNode(MID);
    let [agent] = await Promise.all([
      cluster.agent(EAST, ['--ip-masq', '--healthz-ip', '127.0.0.1', '--healthz-port', '8081']),
      cluster.agent(WEST),
    ]);
    const [eastPod, midPod, westPod] = await Promise.all([
      cluster.addPod(EAST, 'east-pod'),
      cluster.addPod(MID, 'mid-pod'),
      cluster.addPod(WEST, 'west-pod'),
    ]);
    const pod = cluster.host('east-pod');

    await t.test('the plugin is given what flannel would write', () => {
      assert.equal(
        readFileSync(cluster.subnetFile(EAST), 'utf8'),
        'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
      );
      const scratch = join(cluster.directory(EAST), 'cni', 'east-pod');
      assert.equal(statSync(scratch).mode & 0o777, 0o600);
      assert.equal(pod.ipJson<{ mtu: number }[]>('link show eth0')[0]!.mtu, 1450);
      assert.equal(east!.ipJson('addr show cni0').length, 1);
    });

    await t.test('every pod reaches every other, with its own address', async () => {
      for (const [from, to] of [
        ['east-pod', midPod],
        ['mid-pod', eastPod],
        ['east-pod', westPod],
        ['west-pod', eastPod],
        ['mid-pod', westPod],
        ['west-pod', midPod],
      ] as const) {
        await reaches(cluster.host(from), to);
      }
      // Segments that fill the MTU, both ways.
      await (await Stream.start(pod, cluster.host('mid-pod'), midPod)).finish();
      await (await Stream.start(cluster.host('mid-pod'), pod, eastPod)).finish();
      await (await Stream.start(pod, cluster.host('west-pod'), westPod)).finish();
      const seen = cluster.host('mid-pod').exec('ip neigh show'); // its gateway only: nothing is bridged
      assert.doesNotMatch(seen, /10\.244\.1\./);
    });

    await t.test("the world is reached with the node's address, and answers", async () => {
      await reaches(pod, WORLD);
      const capture = cluster.host('world').spawn('tcpdump -nli eth0 -c 1 icmp');
      await capture.waitFor(/listening on/);
      await ping(pod, WORLD, { count: 2 });
      await capture.waitFor(new RegExp(`${EAST.publicIp} > ${WORLD}: ICMP echo request`));
    });

    await t.test('a service: DNAT to a pod of another node, and to itself (hairpin)', async () => {
      const service = '10.96.0.10';
      for (const [port, to] of [
        ['8001', midPod],
        ['8002', eastPod],
      ]) {
        east!.exec(
          `iptables -t nat -A PREROUTING -d ${service} -p tcp --dport ${port} -j DNAT --to-destination ${to}:80`,
        );
      }
      // As kube-proxy: what a pod sends to itself has to come from somewhere else.
      east!.exec(`iptables -t nat -A POSTROUTING -s ${eastPod} -d ${eastPod} -j MASQUERADE`);
      for (const [port, server] of [
        ['8001', 'mid-pod'],
        ['8002', 'east-pod'],
      ] as const) {
        const script = `require("net").createServer((s) => s.end("hello from ${server}")).listen(80, () => console.log("listens"))`;
        await cluster
          .host(server)
          .spawn([process.execPath, '-e', script])
          .waitFor(/listens/);
        const client = `require("net").connect(${port}, "${service}").on("data", (d) => console.log(String(d)))`;
        const { stdout } = await pod.run([process.execPath, '-e', client]);
        assert.equal(stdout, `hello from ${server}\n`);
      }
    });

    await t.test('what is deleted is back', async () => {
      const device = (await links(east!, 'flannel.1'))[0];
      for (const [what, remove, ...found] of [
        ['a route', () => east!.ip('route del 10.244.2.0/24'), /route 10\.244\.2\.0\/24/],
        ['a neighbour', () => east!.ip('neigh del 10.244.2.0 dev flannel.1'), /neigh 10\.244\.2\.0 dev flannel\.1/],
        [
          'the MAC of one',
          () => east!.ip('neigh replace 10.244.2.0 dev flannel.1 lladdr 02:00:00:00:66:66 nud permanent'),
          /neigh 10\.244\.2\.0 dev flannel\.1/,
        ],
        ['the address', () => east!.ip('addr del 10.244.1.0/32 dev flannel.1'), /address 10\.244\.1\.0\/32/],
        // Nothing tells of these: they wait for the next comparison, and may do so together.
        [
          'rules, the jump to others, and an FDB entry',
          async () => {
            east!.exec('iptables -t nat -F FLANNEL-POSTRTG');
            east!.exec('iptables -F FORWARD');
            await tell(east!, `fdb del ${MID.mac} dev flannel.1`);
          },
          ...[/nat: wrote FLANNEL-POSTRTG/, /filter: wrote FLANNEL-FWD/, /FDB entry 02:00:00:00:02:02/],
        ],
        ['the device is down', () => east!.ip('link set flannel.1 down'), /link flannel\.1 up/],
        ['its MAC', () => east!.ip('link set flannel.1 address 02:00:00:00:99:99'), /link flannel\.1 up address/],
        ['the TAP', () => east!.ip('link del flannel.1'), /device flannel\.1/],
      ] satisfies [string, () => unknown, ...RegExp[]][]) {
        const before = await state();
        const told = agent.output.length;
        await remove();
        const isTold = () =>
          /right again/.test(agent.output.slice(told)) && found.every((line) => line.test(agent.output.slice(told)));
        await eventually(`${what}: noticed`, isTold);
        await eventually(`${what}: as before`, async () => JSON.stringify(await state()) === JSON.stringify(before));
      }
      await reaches(pod, midPod);
      assert.equal((await links(east!, 'flannel.1'))[0].address, device.address);
      const metrics = await east!.run([process.execPath, '-e', FETCH_METRICS]);
      assert.match(metrics.stdout, /^uvxlan_flannel_repairs_total [1-9]/m);
    });

    /** Of the host, all that is the agent's. */
    async function state(): Promise<string[]> {
      const fdb = await uvxlan(east!, 'fdb show', { check: false });
      const texts = [
        east!.ip('route show proto 118'),
        east!.ip('neigh show proto 118 nud permanent'),
        ...['link', 'addr'].map((object) => {
          const stdout = east!.exec(['sh', '-c', `ip -o ${object} show dev flannel.1 2>&1 || true`]);
          return stdout.replace(/^\d+: /gm, '').replace(/ state \S+| qlen \d+| qdisc \S+/g, '');
        }),
        east!.exec('iptables -t nat -S'),
        east!.exec('iptables -S'),
        fdb.stdout.split('\n').sort().join('\n'),
      ];
      return texts.map((text) => text.split('\n').sort().join('\n'));
    }

    await t.test('a NIC that goes down and comes back', async () => {
      east!.ip('link set eth0 down');
      east!.ip('link set eth0 up');
      east!.ip('route replace default via 192.0.2.254');
      await reaches(pod, midPod);
      await reaches(pod, westPod);
    });

    await t.test('a node that is removed, and comes back with another MAC and another public IP', async () => {
      cluster.setNodes([EAST, WEST]);
      await eventually(
        'what it left is gone',
        () => !/10\.244\.2\.0/.test(east!.ip('route') + east!.ip('neigh show nud permanent')),
      );
      assert.doesNotMatch((await uvxlan(east!, 'fdb show')).stdout, new RegExp(MID.mac));
      const moved = { ...MID, mac: '02:00:00:00:02:77', publicIp: '192.0.2.22' };
      mid!.ip(`link set flannel.1 address ${moved.mac}`);
      mid!.ip(`addr add ${moved.publicIp}/24 dev eth0`);
      mid!.ip(`link set flannel.1 type vxlan id 1 local ${moved.publicIp}`);
      // The kernel forgets permanent neighbours with the device's MAC.
      for (const peer of [EAST, WEST]) introduceToKernel(mid!, peer);
      cluster.setNodes([EAST, moved, WEST]);
      await reaches(pod, midPod);
      await reaches(cluster.host('mid-pod'), westPod);
    });

    await t.test('TCP between pods outlives kill -9 and a pause of 5 seconds; nothing on the host goes', async () => {
      const stream = await Stream.start(pod, cluster.host('west-pod'), westPod);
      await agent.stop('SIGKILL');
      // Until somebody reads from it again the device has no carrier.
      const routesNow = () => east!.ip('route show proto 118').replaceAll(' linkdown', '');
      const routes = routesNow();
      assert.match(routes, /10\.244\.3\.0\/24/);
      const pause = new Promise((resolve) => setTimeout(resolve, 5_000)); // the pause is what is tested
      const pods = cluster.host('east-pod2');
      await cluster.addPod(EAST, 'east-pod2');
      await reaches(pods, eastPod);
      await pause;
      assert.equal(routesNow(), routes);
      assert.equal(east!.mac('flannel.1'), EAST.mac);
      // Nor does it take a file that is right.
      const mend = cluster.spoil();
      agent = await cluster.agent(EAST, ['--ip-masq'], /cluster\.yaml:1:10: network: .*: going on with what was known/);
      assert.match(agent.output, /goes on with what was known before, 2 peers/);
      await stream.goesOn('after the restart');
      mend();
      await agent.waitFor(/uvxlan: ready: /);
      await stream.finish();
    });

    await t.test('DEL and CHECK of the plugin', async () => {
      const prevResult = JSON.parse((await cluster.cni('ADD', WEST, 'east-pod', {}, false)).stdout);
      assert.ok(prevResult.code !== 0, 'a pod that has an eth0');
      await cluster.cni('DEL', EAST, 'east-pod2');
      assert.ok(!existsSync(join(cluster.directory(EAST), 'cni', 'east-pod2')));
      await cluster.cni('DEL', EAST, 'east-pod2'); // once more, as a runtime may
      const result = JSON.parse((await cluster.cni('ADD', EAST, 'east-pod2')).stdout);
      await cluster.cni('CHECK', EAST, 'east-pod2', { prevResult: result });
      cluster.host('east-pod2').ip('addr flush dev eth0');
      assert.notEqual((await cluster.cni('CHECK', EAST, 'east-pod2', { prevResult: result }, false)).status, 0);
    });

    await t.test('--cleanup removes all, and only when no agent runs', async () => {
      const cleanup = `flannel --cleanup --subnet-file ${cluster.subnetFile(EAST)}`;
      const refused = await uvxlan(east!, cleanup, { check: false });
      assert.match(refused.stderr, /a uvxlan daemon already runs/);
      await agent.stop('SIGTERM');
      assert.ok(east!.ip('link show flannel.1'), 'the end of the agent takes nothing away');
      const { stdout } = await uvxlan(east!, cleanup);
      assert.match(stdout, /device flannel\.1/);
      assert.match(stdout, /iptables -t nat FLANNEL-POSTRTG/);
      assert.equal(east!.ip('route show proto 118'), '');
      assert.doesNotMatch(east!.ip('link show'), /flannel/);
      assert.doesNotMatch(east!.exec('iptables -t nat -S') + east!.exec('iptables -S'), /FLANNEL/);
      assert.deepEqual(
        readdirSync(cluster.directory(EAST)).filter((name) => !['cni', 'ipam'].includes(name)),
        [],
      );
      assert.equal((await uvxlan(east!, cleanup)).stdout, '', 'nothing is left');
    });
  },
);

const FETCH_METRICS = 'fetch("http://127.0.0.1:8081/metrics").then((r) => r.text()).then((text) => console.log(text))';

test(
  'DirectRouting and nft: a peer on the link is sent packets as they are, one behind a router is not',
  options,
  async (t) => {
    const backend = '{ type: vxlan, directRouting: true, gbp: true, learning: true }';
    const cluster = new Cluster(t, backend, 'enableNFTables: true');
    cluster.kernelNode(MID);
    const agent = await cluster.agent(EAST);
    const east = cluster.host('east');
    await cluster.agent(WEST, ['--offload', 'off']);
    await cluster.addPod(EAST, 'east-pod');
    const midPod = await cluster.addPod(MID, 'mid-pod');
    const westPod = await cluster.addPod(WEST, 'west-pod');
    assert.match(east.ip('route show 10.244.2.0/24'), /via 192\.0\.2\.2 dev eth0 proto 118/);
    assert.match(east.ip('route show 10.244.3.0/24'), /via 10\.244\.3\.0 dev flannel\.1 proto 118 onlink/);
    const pod = cluster.host('east-pod');
    await reaches(pod, midPod);
    await reaches(pod, westPod);
    await reaches(pod, WORLD);
    // One side offloads what it can, the other one nothing.
    const said = lackingBpf()
      ? /not offloaded to the kernel: /
      : /flannel\.1: known flows are offloaded to the kernel$/m;
    assert.match(agent.output, said);
    if (!lackingBpf()) {
      const [device] = await stats(east);
      assert.ok((device!.tx.offloaded ?? 0) > 0, 'the ping to the third node');
    }

    const [{ linkinfo }] = await links(east, 'flannel.1');
    assert.deepEqual([linkinfo.info_data.gbp, linkinfo.info_data.learning], [true, true]);
    assert.match(agent.output, /GBP: other nodes' packets with a policy are taken; none is sent/);

    const table = east.exec('nft -s list table ip flannel-ipv4');
    assert.match(table, /ip saddr 10\.244\.0\.0\/16 ip daddr != 224\.0\.0\.0\/4 masquerade fully-random/);
    assert.doesNotMatch(east.exec('nft list ruleset'), /FLANNEL-POSTRTG/);
    assert.doesNotMatch(agent.output, /right again/, 'a rule reads back as it was written');
    east.exec('nft delete chain ip flannel-ipv4 postrtg');
    await eventually('the rules are back', () => east.exec('nft -s list table ip flannel-ipv4') === table);

    await agent.stop('SIGTERM');
    await uvxlan(east, `flannel --cleanup --subnet-file ${cluster.subnetFile(EAST)}`);
    assert.doesNotMatch(east.exec('nft list ruleset'), /flannel/);
  },
);

test('offload: checksums only where it cannot be, an end where it has to be, and no packet lost through a restart', {
  ...options,
  skip: options.skip || lackingBpf(),
}, async (t) => {
  const pins = mkdtempSync(join(tmpdir(), 'uvxlan-pin-'));
  execFileSync('mount', ['-t', 'bpf', 'bpf', pins]);
  t.after(() => {
    execFileSync('umount', [pins]);
    rmSync(pins, { recursive: true });
  });
  const cluster = new Cluster(t);
  const east = cluster.host('east');
  cluster.kernelNode(MID);
  const checksums = async () => (await links(east, 'flannel.1'))[0]!.linkinfo.info_data.udp_csum;

  await assert.rejects(
    cluster.agent(EAST, ['--uplink', 'udp', '--offload', 'require']),
    /status 1[\s\S]*uvxlan: --offload require: the uplink is udp/,
  );
  const flags = ['--offload', 'auto', '--offload-pin', pins];
  const plain = await cluster.agent(EAST, ['--uplink', 'udp', ...flags]);
  assert.equal(await checksums(), true);
  await plain.stop();

  const first = await cluster.agent(EAST, flags);
  assert.equal(await checksums(), false);
  await cluster.addPod(EAST, 'east-pod');
  const midPod = await cluster.addPod(MID, 'mid-pod');
  const pod = cluster.host('east-pod');
  await reaches(pod, midPod);
  const pinned = () => readdirSync(pins).filter((name) => name.startsWith('uvxlan-')).length;
  assert.equal(pinned(), 2);
  const ended = new AbortController();
  const meanwhile = ping(pod, midPod, { interval: 0.01, until: ended.signal });
  await first.stop('SIGKILL');
  assert.equal((await ping(pod, midPod, { count: 20, interval: 0.01 })).loss, 0, 'without an agent');
  const second = await cluster.agent(EAST, flags);
  await eventually('the second one has pins of its own alone', () => pinned() === 2);
  ended.abort();
  assert.equal((await meanwhile).loss, 0, 'of pings all the while');
  await reaches(pod, midPod);
  assert.ok(((await stats(east))[0]!.tx.offloaded ?? 0) > 0, 'the second one carries on');
  await second.stop();
  await uvxlan(east, ['flannel', '--cleanup', '--offload-pin', pins, '--subnet-file', cluster.subnetFile(EAST)]);
  assert.equal(pinned(), 0);
});

// Mostly waiting, each in a cluster of its own: so beside each other.
describe('backends and sources', { concurrency: 5 }, () => {
  it('vtep-filter: a node sends with its own MAC; strict: and with addresses of its own subnet', options, async (t) => {
    const cluster = new Cluster(t);
    cluster.kernelNode(MID);
    await Promise.all([cluster.agent(EAST, ['--vtep-filter', 'strict']), cluster.agent(WEST)]);
    const [east, mid, west] = [EAST, MID, WEST].map(({ name }) => cluster.host(name));
    await reaches(mid!, '10.244.1.0');
    mid!.ip('addr add 10.244.3.9/32 dev lo');
    const forge = async (count: number) =>
      (await mid!.run(`ping -n -c ${count} -i 0.2 -W 1 -I 10.244.3.9 10.244.1.0`, { check: false })).status;
    assert.equal(await forge(2), 1, 'no answer');
    await eventually('both are counted', async () => drops(await stats(east!), 'rx_wrong_subnet') === 2);
    const [link] = await links(east!, 'flannel.1');
    assert.deepEqual(
      link!.uvxlan.offenders!.map(({ src, mac, reason }) => [src, mac, reason]),
      [[MID.publicIp, MID.mac, 'rx_wrong_subnet']],
    );
    await reaches(mid!, '10.244.3.0');
    const setMac = (mac: string) => {
      mid!.ip(`link set flannel.1 address ${mac}`);
      for (const peer of [EAST, WEST]) introduceToKernel(mid!, peer); // the kernel forgets neighbours with the MAC
    };
    setMac(EAST.mac);
    assert.equal((await mid!.run('ping -n -c 2 -i 0.2 -W 1 10.244.3.0', { check: false })).status, 1, 'no answer');
    await eventually('both are counted', async () => drops(await stats(west!), 'rx_wrong_vtep') === 2);
    const { stdout } = await uvxlan(west!, 'link show -d flannel.1');
    assert.match(stdout, new RegExp(`kept out ${MID.publicIp} ${EAST.mac} \\(rx_wrong_vtep\\)`));
    setMac(MID.mac);

    // The file gives the node another subnet, with which the address is its own.
    cluster.setNodes([EAST, { ...MID, subnet: '10.244.3.0/24' }]);
    mid!.ip('addr add 10.244.3.0/32 dev flannel.1');
    await eventually('the address is let in', async () => (await forge(1)) === 0);
  });

  it('host-gw: routes alone; a peer behind a router is told of and left out', options, async (t) => {
    const cluster = new Cluster(t, '{ type: host-gw }');
    const [east, mid] = [cluster.host('east'), cluster.host('mid')];
    const agent = await cluster.agent(EAST, ['--ip-masq'], /uvxlan: ready: 10\.244\.1\.0\/24, 2 peers, host-gw/);
    await agent.waitFor(/not on the link of eth0, so that host-gw has no route to them: west \(203\.0\.113\.3\) /);
    await cluster.agent(MID, ['--ip-masq'], /ready/);
    await cluster.addPod(EAST, 'east-pod');
    const midPod = await cluster.addPod(MID, 'mid-pod');
    assert.equal(cluster.host('mid-pod').ipJson<{ mtu: number }[]>('link show eth0')[0]!.mtu, 1500);
    await reaches(cluster.host('east-pod'), midPod);
    assert.doesNotMatch(east.ip('link show') + mid.ip('link show'), /flannel/);
    assert.equal(east.ip('route show proto 118').trim(), '10.244.2.0/24 via 192.0.2.2 dev eth0', 'and none to west');
  });

  it('udp: IP packets in datagrams, and an answer where there is no peer', options, async (t) => {
    const cluster = new Cluster(t, '{ type: udp }');
    const east = cluster.host('east');
    await cluster.agent(EAST);
    const agent = await cluster.agent(WEST);
    await cluster.addPod(EAST, 'east-pod');
    const westPod = await cluster.addPod(WEST, 'west-pod');
    const pod = cluster.host('east-pod');
    assert.equal(pod.ipJson<{ mtu: number }[]>('link show eth0')[0]!.mtu, 1472);
    await reaches(pod, westPod);
    await (await Stream.start(pod, cluster.host('west-pod'), westPod)).finish();

    // Byte by byte: no header of its own between UDP's and the pod's IP packet, whose TTL is one less for each hop.
    const capture = cluster.host('router').spawn('tcpdump -nxli eth1 -c 1 udp and dst host 203.0.113.3');
    await capture.waitFor(/listening on/);
    await ping(pod, westPod, { count: 2 });
    await capture.waitFor(/192\.0\.2\.1\.8285 > 203\.0\.113\.3\.8285: UDP, length 84/);
    await capture.ended(20_000);
    const hex = [...capture.stdout.matchAll(/^\t0x\d+:(.*)$/gm)].map(([, words]) => words!.replace(/\s/g, '')).join('');
    // The pod's TTL is 64: the node forwards, and so does the agent.
    assert.match(hex.slice(56), /^45000054.{8}3e01.{4}0af401020af40302/);

    const connect = 'require("net").connect(9, "10.244.77.7").on("error", ({ code }) => console.log(code))';
    const { stdout } = await east.run([process.execPath, '-e', connect]);
    assert.equal(stdout, 'ENETUNREACH\n', 'nobody has that subnet');

    await agent.stop('SIGTERM');
    assert.match(agent.output, /flannel0: tx_packets [1-9]\d*, .*rx_packets [1-9]/);
    assert.match(cluster.host('west').ip('link show flannel0'), /mtu 1472/, 'the device stays');
  });

  it('etcd: nodes find each other, and forward on without it, also after a restart', {
    ...options,
    skip: options.skip || lacking('etcd'),
  }, async (t) => {
    const cluster = new Cluster(t);
    const etcd = await cluster.etcd({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } });
    let east = await cluster.agent(EAST);
    await cluster.agent(WEST);
    await cluster.addPod(EAST, 'east-pod');
    const westPod = await cluster.addPod(WEST, 'west-pod');
    await reaches(cluster.host('east-pod'), westPod);

    const [subnetEnv, mac] = [readFileSync(cluster.subnetFile(EAST), 'utf8'), cluster.host('east').mac('flannel.1')];
    await etcd.stop('SIGKILL');
    await east.stop('SIGKILL');
    east = await cluster.agent(EAST, [], /goes on with what was known before, 1 peers/);
    await east.waitFor(/flannel\.1 is up/);
    await reaches(cluster.host('east-pod'), westPod);

    // Back, it finds its lease: the same subnet, the same MAC.
    await cluster.etcd({ Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } });
    await east.waitFor(/uvxlan: ready: /);
    assert.equal(readFileSync(cluster.subnetFile(EAST), 'utf8'), subnetEnv.replace('IPMASQ=true', 'IPMASQ=false'));
    assert.equal(cluster.host('east').mac('flannel.1'), mac);
    await reaches(cluster.host('east-pod'), westPod);

    // Its NIC gets another address: the other node hears of it, and the node stays what it was.
    const host = cluster.host('east');
    host.ip('addr flush dev eth0');
    host.ip('addr add 192.0.2.7/24 dev eth0');
    host.ip('route add default via 192.0.2.254');
    await east.waitFor(/public IP is 192\.0\.2\.7 now/);
    await eventually('the other node knows', async () => {
      const { stdout } = await uvxlan(cluster.host('west'), 'fdb show');
      return stdout.includes(`${mac} dev flannel.1 dst 192.0.2.7 `) && !stdout.includes('192.0.2.1 ');
    });
    await reaches(cluster.host('east-pod'), westPod);
    assert.equal(host.mac('flannel.1'), mac);
  });

  it('dual stack: a device for each family, each with its MTU', options, async (t) => {
    const network = Network.build(t, {
      hosts: { left: {}, right: {} },
      links: [['left eth0 192.0.2.1/24 2001:db8::1/64', 'right eth0 192.0.2.2/24 2001:db8::2/64']],
    });
    const cluster = join(network.directory, 'cluster.yaml');
    const text = `network: 10.244.0.0/16
ipv6Network: fd00:10::/48
enableIPv6: true
backend: { type: vxlan }
nodes:
  - { name: left, public-ip: 192.0.2.1, subnet: 10.244.1.0/24, public-ipv6: "2001:db8::1", ipv6-subnet: "fd00:10:0:1::/64" }
  - { name: right, public-ip: 192.0.2.2, subnet: 10.244.2.0/24, public-ipv6: "2001:db8::2", ipv6-subnet: "fd00:10:0:2::/64" }
`;
    writeFileSync(cluster, text);
    const [left] = await Promise.all(
      ['left', 'right'].map(async (name) => {
        const files = ['--config', cluster, '--node-name', name, '--subnet-file', join(network.directory, name)];
        const agent = network
          .host(name)
          .spawn([process.execPath, MAIN, 'flannel', '--iface', 'eth0', '--ip-masq', ...files]);
        await agent.waitFor(/uvxlan: ready: /);
        return network.host(name);
      }),
    );
    await reaches(left!, '10.244.2.0');
    await reaches(left!, 'fd00:10:0:2::');
    const mtu = (device: string) => left!.ipJson<{ mtu: number }[]>(`link show ${device}`)[0]!.mtu;
    assert.deepEqual([mtu('flannel.1'), mtu('flannel-v6.1')], [1450, 1430]);
    assert.match(
      readFileSync(join(network.directory, 'left'), 'utf8'),
      /FLANNEL_IPV6_SUBNET=fd00:10:0:1::1\/64\nFLANNEL_MTU=1430\n/,
    );
    assert.match(left!.exec('ip6tables -t nat -S FLANNEL-POSTRTG'), /-s fd00:10::\/48 ! -d ff00::\/8 .*MASQUERADE/);
    left!.ip('-6 route del fd00:10:0:2::/64');
    left!.ip('neigh del fd00:10:0:2:: dev flannel-v6.1');
    await eventually('both are back', () => /fd00:10:0:2::\/64/.test(left!.ip('-6 route')));
    await reaches(left!, 'fd00:10:0:2::');
  });
});
