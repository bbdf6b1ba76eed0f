// Needs root (CAP_BPF): runs the programs on packets. Attaches nothing.

import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { fromNetwork, toNetwork } from '../../control/steering.ts';
import { TCX_INGRESS } from '../../system/bpf/abi.ts';
import type { Program } from '../../system/bpf/assembler.ts';
import { BpfMap, MAP_ARRAY } from '../../system/bpf/map.ts';
import { loadProgram, testRun } from '../../system/bpf/program.ts';
import { close } from '../../system/libc.ts';
import { lackingBpf } from '../system/bpf/requirement.ts';

const skip = lackingBpf();
const MACS = '000000000000 020000000001';
const TCP = '06';
const UDP = '11';
const ICMP = '01';
const ICMPV6 = '3a';

interface Flow {
  /** Last byte of the source and of the destination address. */
  source?: string;
  destination?: string;
  /** Source and destination port. */
  ports?: string;
  protocol?: string;
  fragment?: string;
  payload?: string;
}

function ipv4({
  source = '01',
  destination = '09',
  ports = '9c402118',
  protocol = UDP,
  fragment = '0000',
  payload = '00'.repeat(22),
}: Flow = {}): string {
  return `${MACS} 0800 45000032 0000${fragment} 40${protocol}0000 c00002${source} c00002${destination} ${ports} 001e0000 ${payload}`;
}

/** IP options in front of the same ports. */
function optioned({ ports = '9c402118' }: Flow = {}): string {
  return `${MACS} 0800 46000036 00000000 40110000 c0000201 c0000209 01010101 ${ports} 001e0000 ${'00'.repeat(22)}`;
}

function ipv6({
  source = '01',
  destination = '09',
  ports = '9c402118',
  protocol = UDP,
  payload = '00'.repeat(22),
}: Flow = {}): string {
  const prefix = '20010db8 00000000 00000000 000000';
  return `${MACS} 86dd 60000000 001e${protocol}40 ${prefix}${source} ${prefix}${destination} ${ports} 001e0000 ${payload}`;
}

/** The same flow the other way. */
function answer({ source = '01', destination = '09', ports = '9c402118', ...flow }: Flow): Flow {
  return { ...flow, source: destination, destination: source, ports: ports.slice(4) + ports.slice(0, 4) };
}

const ARP = `${MACS} 0806 ${'00'.repeat(46)}`;
const hex = (number: number, digits: number) => number.toString(16).padStart(digits, '0');

/** Loads programs that share a table; each is run on a packet for its result. */
function load(t: TestContext, build: (answered: number) => readonly Program[]): ((packet: string) => number)[] {
  const map = new BpfMap({ name: 'uvxlan_test', type: MAP_ARRAY, keySize: 4, valueSize: 4, maxEntries: 65536 });
  t.after(() => map.close());
  return build(map.fd).map((program) => {
    // As tc programs: a socket filter is tested from the IP header on.
    const fd = loadProgram(program, TCX_INGRESS);
    t.after(() => close(fd));
    return (packet) => testRun(fd, Buffer.from(packet.replaceAll(' ', ''), 'hex')).result >>> 0;
  });
}

test('a flow has one number, and flows have different ones', { skip }, (t) => {
  const [number] = load(t, (answered) => [toNetwork(answered)]);
  for (const build of [ipv4, ipv6]) {
    assert.equal(number(build()), number(build({ payload: 'ff'.repeat(22) })), 'any payload');
    for (const protocol of [TCP, UDP]) {
      assert.notEqual(number(build({ protocol })), number(build({ protocol, ports: '9c412118' })), 'another port');
      assert.equal(number(build({ protocol })), number(build(answer({ protocol }))), 'both ways');
    }
    assert.notEqual(number(build()), number(build({ source: '02' })), 'another address');
    const gre = { protocol: '2f' };
    assert.equal(number(build(gre)), number(build({ ...gre, ports: '9c412118' })), 'no ports');
    assert.notEqual(number(build(gre)), number(build({ ...gre, source: '02' })));
  }
  assert.equal(number(optioned()), number(ipv4()), 'the ports are behind the options');
  assert.notEqual(number(optioned()), number(optioned({ ports: '9c412118' })));
  for (const fragment of ['2000', '00b9', '20b9']) {
    assert.equal(number(ipv4({ fragment })), number(ipv4({ fragment, ports: '9c412118' })), `fragment ${fragment}`);
    assert.notEqual(number(ipv4({ fragment })), number(ipv4({ fragment, source: '02' })));
  }
  assert.notEqual(number(ipv4()), number(ipv4({ fragment: '2000' })));
  assert.equal(number(ipv4({ fragment: '4000' })), number(ipv4()), "don't fragment");
  assert.equal(number(ARP), number(ARP.replace(/00$/, 'ff')));
  assert.notEqual(number(ARP), number(ARP.replace('020000000001', '020000000002')));
});

test('flows that differ little spread over the queues', { skip }, (t) => {
  const [number] = load(t, (answered) => [toNetwork(answered)]);
  for (const queues of [2, 3, 4]) {
    for (const flow of [
      (i: number) => ipv4({ ports: `${hex(0x8000 + i, 4)}2118` }),
      (i: number) => ipv4({ source: hex(i % 250, 2), ports: `${hex(0x8000 + i, 4)}2118` }),
      (i: number) => ipv6({ ports: `${hex(0x8000 + 2 * i, 4)}2118` }),
      (i: number) => ipv6({ source: hex(i % 250, 2) }),
    ]) {
      const counts = new Array<number>(queues).fill(0);
      const flows = 240;
      for (let i = 0; i < flows; i++) counts[number(flow(i)) % queues]++;
      const fair = flows / queues;
      assert.ok(Math.max(...counts) < 1.5 * fair && Math.min(...counts) > 0.5 * fair, `${counts} on ${queues} queues`);
    }
  }
});

for (const [family, outer] of [
  [4, ipv4],
  [6, ipv6],
] as const) {
  for (const from of ['frame', 'socket'] as const) {
    test(`IPv${family}, ${from}: TCP and pings follow their answers, others stay`, { skip }, (t) => {
      const workers = 4;
      const [sent, received] = load(t, (answered) => [
        toNetwork(answered),
        fromNetwork(answered, family, workers, from),
      ]);
      const over = (port: number, inner: string) => {
        return outer({ ports: `${hex(port, 4)}2118`, payload: `08000000 00000100 ${inner}` });
      };
      for (const build of [ipv4, ipv6]) {
        const ping = build === ipv4 ? ICMP : ICMPV6;
        for (const protocol of [TCP, ping, UDP, '2f']) {
          const follows = protocol === TCP || protocol === ping;
          const own = sent(build({ protocol })) % workers;
          const seen = new Set<number>();
          for (let port = 40000; port < 40032; port++) {
            const worker = received(over(port, build(answer({ protocol }))));
            assert.ok(worker < workers);
            assert.equal(worker, received(over(port, build(answer({ protocol })))), 'by the outer flow');
            assert.equal(sent(build({ protocol })) % workers, follows ? worker : own, `protocol ${protocol}`);
            seen.add(worker);
          }
          assert.equal(seen.size, workers);
        }
        assert.equal(
          sent(build({ protocol: UDP, source: '77' })),
          sent(build(answer({ protocol: UDP, source: '77' }))),
        );
      }
      // What is too short, or no VXLAN, is steered all the same.
      for (const packet of [outer(), outer({ protocol: TCP }), ARP]) assert.ok(received(packet) < workers);
    });
  }
}
