// What is not for another host: an entry whose VTEP is this host, one that leads nowhere, and a device that is taken down; all held against the
// kernel's device. Each host has two devices, and the first has entries for the second.
//
//   kernel    192.0.2.1   vx1 (VNI 1)  vx2 (VNI 2) ---+
//   redirect  192.0.2.2   vx1          vx2         ---+--- lan
//   udp       192.0.2.3   vx1          vx2         ---+

import assert from 'node:assert/strict';
import test from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { ask, kernelVtep, links, tell, uvxlan, uvxlanVtep, type Vtep } from '../../cli/lab/vtep.ts';
import type { FdbRecord } from '../../control/protocol.ts';
import { UPLINKS } from './pair.ts';
import { frame, Listener, sendFrames } from './raw.ts';
import { lacking } from './requirements.ts';
import { allDrops, restingStats } from './stats.ts';

const KINDS = ['kernel', ...UPLINKS] as const;
const TYPE = '88b5';
/** Of no device, but of a program that listens. */
const PORT = 9999;
const mac = (last: number) => `02:00:00:00:00:0${last}`;
const [SECOND, STRANGER, NOWHERE, DYNAMIC, STATIC] = [1, 2, 3, 4, 5].map(mac);
const marked = (destination: string, mark: number) => frame(destination, mac(9), TYPE, Buffer.alloc(50, mark));

async function build(kind: (typeof KINDS)[number], host: Host, local: string): Promise<Vtep> {
  const words = (id: number) => `id ${id} dev eth0 dstport 8472 nolearning`;
  const places = [1, 2].map((n) => ({ local, name: `vx${n}`, mac: mac(n + 6), addresses: `10.244.${n}.1/24` }));
  if (kind === 'kernel') {
    const [first] = places.map((place, i) => kernelVtep(host, { ...place, words: words(i + 1) }));
    return first!;
  }
  const first = await uvxlanVtep(host, { ...places[0]!, words: `${words(1)} uplink ${kind} workers 1` });
  await tell(host, `link add vx2 type vxlan local ${local} ${words(2)} uplink ${kind}`);
  return first;
}

test('this host, nowhere, and down', { skip: lacking('tun', 'kernel-vxlan'), timeout: 180_000 }, async (t) => {
  const network = Network.build(t, {
    hosts: Object.fromEntries(KINDS.map((kind) => [kind, {}])),
    switches: { lan: KINDS.map((kind, i) => `${kind} eth0 192.0.2.${i + 1}/24`) },
  });
  for (const [i, kind] of KINDS.entries()) {
    const host = network.host(kind);
    const local = `192.0.2.${i + 1}`;
    host.exec('sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1');
    const vtep = await build(kind, host, local);
    const reasons = async () => (await links(host, 'vx1'))[0]!.uvxlan.unresolved!;

    await t.test(`${kind}: frames for a device of this host, and for none`, async (t) => {
      await vtep.fdb(`add ${SECOND} dev vx1 dst ${local} vni 2`);
      await vtep.fdb(`add ${STRANGER} dev vx1 dst ${local} port ${PORT} vni 3`);
      await vtep.fdb(`add ${NOWHERE} dev vx1 dst 0.0.0.0`);
      if (kind !== 'kernel') {
        await eventually('all looked up', async () => {
          const all = await reasons();
          return all.length === 1 && all[0]!.reason.endsWith('(localbypass)');
        });
      }
      const second = Listener.frames(host, 'vx2', TYPE);
      const program = Listener.datagrams(host, PORT);
      t.after(() => {
        second.stop();
        program.stop();
      });
      sendFrames(host, 'vx1', [marked(STRANGER!, 1), marked(NOWHERE!, 2), marked(SECOND!, 3)]);
      assert.deepEqual(
        (await second.atLeast(1)).map((hex) => hex.slice(-2)),
        ['03'],
      );
      assert.deepEqual(program.received, []);
      if (kind === 'kernel') return; // iproute2 knows nolocalbypass from 6.5 on only
      assert.deepEqual(
        (await reasons()).map(({ reason }) => reason),
        [`${local} is an address of this machine, where no device has VNI 3 and dstport ${PORT} (localbypass)`],
      );
      assert.deepEqual(allDrops(await restingStats(host)), { tx_unresolved: 2 });
      await tell(host, 'link set vx1 type vxlan nolocalbypass');
      await eventually('no reason any more', async () => (await reasons()).length === 0);
      sendFrames(host, 'vx1', [marked(STRANGER!, 4)]);
      assert.match((await program.atLeast(1))[0]!, /^0800000000000300.*04$/);
      assert.match((await uvxlan(host, 'link show -d vx1')).stdout, / nolocalbypass/);
    });

    await t.test(`${kind}: a device that is taken down forgets what is dynamic`, async () => {
      await vtep.fdb(`add ${DYNAMIC} dev vx1 dst 192.0.2.9 dynamic`);
      await vtep.fdb(`add ${STATIC} dev vx1 dst 192.0.2.9 static`);
      host.ip('link set vx1 down');
      const show = (): Promise<FdbRecord[]> | FdbRecord[] =>
        kind === 'kernel' ? JSON.parse(host.bridge('-j fdb show dev vx1')) : ask(host, 'fdb show', { dev: 'vx1' });
      const left = async () => (await show()).map((entry) => entry.mac);
      await eventually('it forgets', async () => !(await left()).includes(DYNAMIC!));
      for (const kept of [SECOND, STRANGER, NOWHERE, STATIC]) assert.ok((await left()).includes(kept!), kept);
    });
  }
});
