// The page in a real browser, of a daemon that carries traffic.
//
//   left                                          right
//   flannel.1 10.244.1.1   <----- ping ----->     flannel.1 10.244.2.1
//        | uvxlan, --web                               | kernel vxlan
//   eth0 192.0.2.1  ------------ veth ----------  eth0 192.0.2.2

import assert from 'node:assert/strict';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { ping } from '../../cli/lab/measure.ts';
import { Network } from '../../cli/lab/network.ts';
import { introduce, kernelVtep, tell, uvxlanVtep } from '../../cli/lab/vtep.ts';
import type { Seen } from './page-browser.ts';
import { LEFT, RIGHT } from './pair.ts';
import { lacking } from './requirements.ts';

const BROWSER = fileURLToPath(new URL('./page-browser.js', import.meta.url));
const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';
const SCRIPT = '<script>alert(1)</script><img src=x>';

test('the page shows what happens, packet by packet', {
  skip: lacking('tun', 'kernel-vxlan', 'chromium'),
  timeout: 180_000,
}, async (t) => {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24']],
  });
  const [host, other] = [network.host('left'), network.host('right')];
  const left = await uvxlanVtep(host, { ...LEFT, words: `${WORDS} --web 127.0.0.1:0` }, /the page is at (\S+)/);
  const [, url] = left.daemon.output.match(/the page is at (\S+)/)!;
  const right = kernelVtep(other, { ...RIGHT, words: WORDS });
  await introduce(left, right);
  await tell(host, 'fdb append 02:00:00:00:00:99 dev flannel.1 dst 192.0.2.99');
  const [address] = right.addresses;
  // A MAC that no VTEP is known for.
  host.ip('neigh replace 10.244.2.77 lladdr 02:00:00:00:00:77 dev flannel.1 nud permanent');
  const lost = ping(host, '10.244.2.77', { count: 1200, interval: 0.2 });
  lost.catch(() => {});
  const pings = ping(host, address, { count: 1200, interval: 0.1 });
  pings.catch(() => {}); // it ends with its namespace
  // Datagrams to the discard port, whose payload would be a script.
  const flood = `while :; do echo '${SCRIPT}' > /dev/udp/${address}/9; sleep 0.2; done`;
  const sender = host.spawn(['bash', '-c', flood]);
  t.after(() => sender.stop('SIGKILL'));

  const { stdout } = await host.run([process.execPath, BROWSER, url], { timeout: 100_000 });
  const seen = JSON.parse(stdout) as Seen;
  // The browser's own, of the file that is no capture.
  assert.deepEqual(seen.complaints, [
    'Failed to load resource: the server responded with a status of 400 (Bad Request)',
  ]);
  assert.equal(seen.status, '1 of 1 node, 1 device');
  assert.ok(seen.points[1] > seen.points[0], `${seen.points} points`);
  assert.match(seen.drops, /tx_no_remote \d/);
  assert.match(seen.dropped.packet, / flannel\.1 out 10\.244\.1\.1 > 10\.244\.2\.77 ICMP/);
  assert.match(seen.dropped.notes, /^dropped, tx_no_remote: /);
  assert.match(seen.topology, /192\.0\.2\.2 · 1 MAC→ [\d.]+ k?bit\/s {2}← [\d.]+ k?bit\/s/);
  assert.match(seen.fdb.all, /1 to 2 of 2/);
  assert.match(seen.fdb.found, /02:00:00:00:00:02flannel\.1192\.0\.2\.2permanent/);
  assert.ok(
    seen.packets.some((packet) => / flannel\.1 out 10\.244\.1\.1 > 10\.244\.2\.1 ICMP/.test(packet)),
    seen.packets[0],
  );
  assert.ok(seen.packets.some((packet) => / eth0 in VXLAN \| 10\.244\.2\.1 > 10\.244\.1\.1 ICMP/.test(packet)));
  assert.equal(seen.steps.length, 13);
  assert.match(
    seen.steps[1],
    /^2 of 13: Its destination MAC is looked up in the FDB: to VTEP 192\.0\.2\.2, port 8472, VNI 1/,
  );
  assert.match(seen.steps[6], /^7 of 13: Sent on the NIC/);
  assert.match(seen.steps[7], /^8 of 13: On the other node, 192\.0\.2\.2: the packet arrives/);
  assert.match(seen.steps[12], /the inner frame goes to the device of this VNI/);
  assert.match(seen.history, /^Changes of 02:00:00:00:00:02 on flannel\.1.*: added 192\.0\.2\.2/);
  const [whole, opened, cut, nonsense] = seen.opened;
  assert.equal(whole, '1 packet; pick one.');
  assert.match(opened, /<i>x<\/i> out .* ARP/);
  assert.match(cut, /^1 packet \(the capture ends within a block: 40 of \d+ bytes are there/);
  assert.match(nonsense, /^this is no capture: it begins with 3c68746d/);
  const mac = (JSON.parse(host.ip('-j link show eth0')) as { address: string }[])[0].address;
  assert.deepEqual(seen.lit, ['source', mac.replaceAll(':', ' ')], "the outer Ethernet header's source");
  assert.ok(seen.payload.includes(Buffer.from(SCRIPT).toString('hex').slice(0, 40)), seen.payload);
  assert.equal(seen.injected, 0);
  assert.ok(seen.narrow <= 360, `${seen.narrow} wide on a screen of 360`);
});
