// The multicast database beside the kernel's: the same words to both, the same answers, and then the same copies of the same frames.
//
//   self  uvxlan          192.0.2.1 ---+
//                                      +--- lan (bridge) --- sink  192.0.2.11, .12, .13, .14: VTEPs, as far as addresses go
//   twin  kernel vxlan    192.0.2.2 ---+

import assert from 'node:assert/strict';
import test from 'node:test';
import { type Host, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { uvxlan } from '../../cli/lab/vtep.ts';
import { parseMdbEntry } from '../../control/mdb-words.ts';
import type { MdbRecord } from '../../fdb/mdb.ts';
import { parseIp } from '../../wire/address.ts';
import { Capture, tsharkFields } from './capture.ts';
import { changeKernelMdb, type MdbChange } from './kernel-mdb.ts';
import { resolved, vtep } from './pair.ts';
import { frame, sendFrames, udpPacket } from './raw.ts';
import { lacking } from './requirements.ts';
import { assertBalanced, drops, restingStats, stats } from './stats.ts';

const skip = lacking('tun', 'kernel-vxlan', 'tcpdump', 'tshark', 'python3');
const [A, B, C, FLOOD] = ['192.0.2.11', '192.0.2.12', '192.0.2.13', '192.0.2.14'];
const [S, T] = ['10.0.0.1', '10.0.0.2'];
const MAC = '02:00:00:00:00:01';

/** What an operator might type, and what is refused; `dev flannel.1 port flannel.1` is in each. */
const LINES = [
  `add grp 239.1.1.1 permanent dst ${A}`,
  `add grp 239.1.1.1 permanent dst ${B}`,
  `add grp 239.1.1.1 permanent dst ${B}`,
  `add grp 239.1.1.1 dst ${C}`,
  `add grp 239.1.1.1 temp dst ${C}`,
  'add grp 239.1.1.1 permanent',
  `add grp 239.1.1.1 src ${S} permanent dst ${C}`,
  `add grp 239.2.2.2 permanent filter_mode include source_list ${S} dst ${A}`,
  `add grp 239.3.3.3 permanent filter_mode exclude source_list ${S} dst ${B}`,
  `add grp 239.3.3.3 permanent dst ${C}`,
  `add grp 239.4.4.4 permanent dst ${A} vni 77`,
  `replace grp 239.4.4.4 permanent dst ${A} vni 78 dst_port 4790`,
  `replace grp 239.5.5.5 permanent dst ${A}`,
  `replace grp 239.2.2.2 permanent filter_mode include source_list ${T} dst ${A}`,
  `add grp 0.0.0.0 permanent dst ${C}`,
  `add grp 0.0.0.0 src ${S} permanent dst ${C}`,
  `add grp 0.0.0.0 permanent filter_mode exclude dst ${C}`,
  `add grp :: permanent dst ${B}`,
  `add grp ff05::1 permanent dst ${A}`,
  `add grp ff05::1 src fd00::1 permanent dst ${C}`,
  `add grp ff05::1 src ${S} permanent dst ${C}`,
  `add grp ff05::1 src ff05::2 permanent dst ${C}`,
  `add grp ff02::1 permanent dst ${A}`,
  `add grp fd00::1 permanent dst ${A}`,
  `add grp 224.0.0.5 permanent dst ${A}`,
  `add grp 192.0.2.1 permanent dst ${A}`,
  `add grp 0.0.0.7 permanent dst ${A}`,
  `add grp 239.6.6.6 src 239.0.0.1 permanent dst ${A}`,
  `add grp 239.6.6.6 src fd00::1 permanent dst ${A}`,
  `add grp 239.6.6.6 permanent filter_mode include dst ${A}`,
  `add grp 239.6.6.6 permanent source_list ${S} dst ${A}`,
  `add grp 239.6.6.6 src ${S} permanent filter_mode include dst ${A}`,
  `add grp 239.6.6.6 permanent filter_mode include source_list ${S},${S} dst ${A}`,
  `add grp 239.6.6.6 permanent filter_mode include source_list fd00::1 dst ${A}`,
  `del grp 239.6.6.6 dst ${A}`,
  `del grp 239.1.1.1 dst ${FLOOD}`,
  'del grp 239.1.1.1',
  `del grp 239.5.5.5 dst ${A}`,
];

/** Groups and sources of the frames, among them broadcast, link-local groups and a group that nobody has. */
const FRAMES: [string, string][] = [
  '239.1.1.1',
  '239.2.2.2',
  '239.3.3.3',
  '239.4.4.4',
  '239.5.5.5',
  '224.0.0.251',
].flatMap((group) => [S, T].map((source): [string, string] => [group, source]));
FRAMES.push(['ff05::1', 'fd00::1'], ['ff05::1', 'fd00::2'], ['ff05::9', 'fd00::1'], ['ff02::fb', 'fe80::1']);
FRAMES.push(['255.255.255.255', S]);

/** An empty IP packet (protocol 253, RFC 3692) behind the MAC of its group. */
function toGroup([group, source]: [string, string]): Buffer {
  const [to, from] = [parseIp(group)!, parseIp(source)!];
  if (to.length === 16) {
    const header = Buffer.concat([Buffer.from('60000000000afd40', 'hex'), from, to, Buffer.alloc(10)]);
    return frame(`3333${Buffer.from(to.subarray(12)).toString('hex')}`, MAC, '86dd', header);
  }
  const last = Buffer.of(to[1]! & 0x7f, to[2]!, to[3]!).toString('hex');
  const mac = group === '255.255.255.255' ? 'ffffffffffff' : `01005e${last}`;
  return frame(mac, MAC, '0800', udpPacket({ source, destination: group, ports: [7, 7], payload: Buffer.alloc(8) }));
}

const withDevice = (line: string) => line.replace(' ', ' dev flannel.1 port flannel.1 ');

/** What uvxlan answers to each line, as changeKernelMdb() has it. */
async function changeOurs(host: Host): Promise<string[]> {
  const input = LINES.map((line) => `${withDevice(line)}\n`).join('');
  const { stderr } = await uvxlan(host, 'mdb -force -batch -', { input, check: false });
  const failures = [...stderr.matchAll(/^uvxlan: (.+)\nuvxlan: Command failed -:(\d+)$/gm)];
  return LINES.map((_, i) => failures.find(([, , line]) => Number(line) === i + 1)?.[1] ?? '');
}

function changeOf(line: string): MdbChange {
  const [verb, ...words] = withDevice(line).split(' ');
  return { verb: verb as MdbChange['verb'], entry: parseMdbEntry(words) };
}

test('answers and sends as the kernel does', { skip, timeout: 180_000 }, async (t) => {
  const network = Network.build(t, {
    hosts: { self: {}, twin: {}, sink: {} },
    switches: { lan: ['self eth0 192.0.2.1/24', 'twin eth0 192.0.2.2/24', `sink eth0 ${A}/24`] },
  });
  const sink = network.host('sink');
  for (const address of [B, C, FLOOD]) sink.ip(`address add ${address}/24 dev eth0`);
  const place = { addresses: '10.0.0.1/8', mac: MAC };
  for (const name of ['self', 'twin'])
    network.host(name).exec('sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1');
  const self = await vtep(network.host('self'), 'redirect', { ...place, local: '192.0.2.1' });
  const twin = await vtep(network.host('twin'), 'kernel', { ...place, local: '192.0.2.2' });
  for (const each of [self, twin]) await each.fdb(`append 00:00:00:00:00:00 dev flannel.1 dst ${FLOOD}`);

  const expected = await changeKernelMdb(twin.host, LINES.map(changeOf));
  if (/not support/.test(expected[0]!)) return t.skip(`the kernel has no MDB for vxlan devices: ${expected[0]}`);
  const said = (answers: readonly string[]) => LINES.map((line, i) => `${line} -> ${answers[i]}`);
  assert.deepEqual(said(await changeOurs(self.host)), said(expected));
  await resolved(self.host, 'redirect');

  // Whoever is sent to for the first time would be looked for first, and the kernel keeps few packets for so long.
  for (const vtep of [A, B, C, FLOOD])
    twin.host.ip(`neigh replace ${vtep} lladdr ${sink.mac('eth0')} dev eth0 nud permanent`);
  const capture = await Capture.start(sink, 'eth0', 'udp and (dst port 8472 or dst port 4790)', 200);
  for (const { host, device } of [self, twin]) sendFrames(host, device, FRAMES.map(toGroup));
  await eventually('all frames taken', async () => (await stats(self.host))[0]!.tx.in >= FRAMES.length);
  const fields = ['ip.src', 'ip.dst', 'ipv6.src', 'ipv6.dst', 'udp.dstport', 'vxlan.vni'] as const;
  const decodeAs = ['udp.port==8472,vxlan', 'udp.port==4790,vxlan'];
  const packets = await tsharkFields(await capture.stop(), fields, { decodeAs });
  const copiesOf = (local: string) =>
    packets
      .filter((packet) => packet['ip.src'][0] === local)
      .map((packet) => {
        const [source, group] = [
          packet['ip.src'][1] ?? packet['ipv6.src'][0],
          packet['ip.dst'][1] ?? packet['ipv6.dst'][0],
        ];
        return `${source} ${group} to ${packet['ip.dst'][0]} port ${packet['udp.dstport'][0]} vni ${packet['vxlan.vni'][0]}`;
      })
      .sort();
  const ours = copiesOf('192.0.2.1');
  assert.deepEqual(ours, copiesOf('192.0.2.2'));
  for (const packet of [
    `${S} 239.1.1.1 to ${C} port 8472 vni 1`,
    `${T} 239.1.1.1 to ${B} port 8472 vni 1`,
    `${S} 239.4.4.4 to ${A} port 4790 vni 78`,
    `${S} 239.5.5.5 to ${C} port 8472 vni 1`,
    `${S} 224.0.0.251 to ${FLOOD} port 8472 vni 1`,
    `${S} 255.255.255.255 to ${FLOOD} port 8472 vni 1`,
    `fd00::1 ff05::9 to ${B} port 8472 vni 1`,
  ])
    assert.ok(ours.includes(packet), packet);
  const records = await restingStats(self.host);
  assertBalanced(records);
  assert.ok(drops(records, 'tx_no_remote') > 0, 'of a source that no remote wants');

  await t.test('shown, explained and flushed', async () => {
    const shown = JSON.parse((await uvxlan(self.host, 'mdb -j show dev flannel.1')).stdout) as [{ mdb: MdbRecord[] }];
    const { grp, dst, vni, dst_port } = shown[0].mdb.find((record) => record.grp === '239.4.4.4')!;
    assert.deepEqual({ grp, dst, vni, dst_port }, { grp: '239.4.4.4', dst: A, vni: 78, dst_port: 4790 });
    const explained = (await uvxlan(self.host, `explain from ${T} to 239.1.1.1 dev flannel.1`)).stdout;
    const remotes = `dst ${B} port 8472 vni 1; dst ${A} port 8472 vni 1`;
    assert.match(explained, new RegExp(`MDB of flannel.1: grp 239.1.1.1\\s+2 remotes, a copy to each: ${remotes}`));
    assert.match(explained, new RegExp(`sent as 2 packets to ${B}, ${A}`));
    const input = 'get dev flannel.1 grp 239.3.3.3\nflush dev flannel.1\nshow dev flannel.1\n';
    const { stdout } = await uvxlan(self.host, 'mdb -d -batch -', { input });
    assert.deepEqual(stdout.split('\n'), [
      `dev flannel.1 port flannel.1 grp 239.3.3.3 permanent filter_mode exclude proto static dst ${C}`,
      `dev flannel.1 port flannel.1 grp 239.3.3.3 permanent filter_mode exclude source_list ${S}/0.00 proto static dst ${B}`,
      '',
    ]);
  });
});
