import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { FilterError } from '../../packets/filter/expression.ts';
import { compileFilter } from '../../packets/filter/filter.ts';
import { enhancedPacket, interfaceDescription, sectionHeader } from '../../packets/pcapng.ts';
import { lacking } from '../net/requirements.ts';
import { corpus } from './corpus.ts';

/** tcpdump's choice among the corpus is ours. */
const EXPRESSIONS = [
  'ip',
  'ip6',
  'arp',
  'tcp',
  'udp',
  'icmp',
  'icmp6',
  'not ip',
  'host 10.0.0.1',
  'src host 10.0.0.1',
  'dst 10.0.0.2 or src 10.0.0.11',
  'host 10.0.0.1 and 10.0.0.2',
  'src or dst host 10.0.0.9 or arp',
  'src and dst net 10.0.0',
  'net 10.0.0.0/30',
  'net 10',
  'dst net 10.0.1.0/24',
  'ip6 host fd00:1::',
  'host ff02::2',
  'net fe80::/10',
  'ip6 net ff02::/16 and not icmp6',
  'port 4789',
  'udp port 8472',
  'tcp dst port 5201',
  'src port 40000',
  'src and dst port 40000',
  'portrange 4000-4800',
  'udp and portrange 32768-32800',
  'tcp port 4789',
  'ip proto 17',
  'ip proto \\icmp',
  'ip6 proto 44',
  'proto 6',
  'ether proto 0x88b5',
  'ether proto \\arp',
  'ether host 02:00:00:00:00:01',
  'ether src 02:00:00:00:00:0b and less 200',
  'ether dst 33:33:00:00:00:02',
  'ether multicast',
  'ip6 multicast',
  'ip multicast',
  'broadcast',
  'vlan',
  'vlan 5',
  'vlan and ip',
  'vlan 5 and tcp',
  'vlan and vlan 2 and ip6',
  'not vlan and greater 300',
  'udp or tcp and port 5201',
  'udp or (tcp and port 5201)',
  '!(udp || tcp) && not arp',
  'not host 10.0.0.1 and 10.0.0.11',
];

test('tcpdump chooses the same packets', { skip: lacking('tcpdump'), timeout: 180_000 }, (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'uvxlan-filter-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'corpus.pcapng');
  // BPF refuses a packet that ends where it looks, even under "not": so no short ones.
  const packets = corpus().filter(({ bytes }) => bytes.length >= 74);
  // A time tells each packet: its number, in seconds.
  const blocks = packets.map(({ bytes }, i) =>
    enhancedPacket({ interface: 0, time: i * 1000, bytes, length: bytes.length }),
  );
  writeFileSync(file, Buffer.concat([sectionHeader('test'), interfaceDescription('corpus', ''), ...blocks]));
  for (const expression of EXPRESSIONS) {
    const output = execFileSync('tcpdump', ['-n', '-tt', '-q', '-r', file, expression], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const expected = [...output.toString().matchAll(/^ ?(\d+)\.\d{6} /gm)].map(([, seconds]) => Number(seconds));
    const filter = compileFilter(expression)!;
    const chosen = packets.flatMap(({ bytes }, i) => (filter(bytes, 0, bytes.length, bytes.length) ? [i] : []));
    assert.deepEqual(chosen, expected, expression);
    assert.ok(expected.length < packets.length, `${expression}: chooses ${expected.length}`);
  }
});

test('a filter looks at the frame that it is given, and at no byte behind it', () => {
  const filter = compileFilter('tcp port 5201 or arp host 10.0.0.1 or ip6 net fe80::/10 or vlan 5')!;
  for (const { bytes } of corpus()) {
    const room = new Uint8Array(bytes.length + 200).fill(0xa5);
    room.set(bytes, 77);
    assert.equal(filter(room, 77, bytes.length, bytes.length), filter(bytes, 0, bytes.length, bytes.length));
    for (let captured = 0; captured < Math.min(80, bytes.length); captured += 3) {
      const cut = Uint8Array.from(bytes.subarray(0, captured));
      assert.equal(filter(room, 77, captured, bytes.length), filter(cut, 0, captured, bytes.length));
    }
  }
});

test('no filter at all', () => {
  assert.equal(compileFilter(''), undefined);
  assert.equal(compileFilter('  '), undefined);
});

const REFUSED: Record<string, RegExp> = {
  'host example.org': /"example.org" at character 6 of the filter: an IPv4 or IPv6 address is wanted: names are not/,
  'tcp[13] & 2 != 0': /expressions over bytes are not known here/,
  'port http': /"http" at character 6.*a port is a number/,
  'port 65536': /a port is a number up to 65535/,
  'tcp host 10.0.0.1': /tcp has no addresses: tcp and host ADDRESS/,
  'host 02:00:00:00:00:01': /needs ether before it/,
  'ether host 10.0.0.1': /a MAC address is wanted/,
  'net 10.0.0.1/8': /bits behind the prefix of 8 are set/,
  'host 10.0.0.0/8': /write net/,
  'net 10.0.0.0/33': /a prefix length is 0 to 32/,
  'ip6 host 10.0.0.1': /not an address of ip6/,
  'icmp port 3': /icmp has no ports/,
  'tcp and': /the filter ends too early/,
  'tcp )': /nothing was opened/,
  '( tcp': /the filter ends too early: the closing parenthesis is missing/,
  'tcp udp': /"udp" at character 5 of the filter: and or or is missing before it/,
  'gateway 10.0.0.1': /not known here: give the MAC/,
  vxlan: /--outer/,
  frob: /"frob" at character 1 of the filter: not a word of a filter/,
  ether: /is missing behind it/,
  'vlan 4096': /a number up to 4095 is wanted/,
  [`${'('.repeat(200)}tcp`]: /nested too deeply/,
};

for (const [text, message] of Object.entries(REFUSED)) {
  test(`refused: ${text.slice(0, 40)}`, () => {
    assert.throws(
      () => compileFilter(text),
      (error: Error) => error instanceof FilterError && message.test(error.message),
    );
  });
}
