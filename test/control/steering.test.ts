// Needs root (CAP_BPF): runs the program on packets, and sees which queue of a TAP they come to.

import assert from 'node:assert/strict';
import test from 'node:test';
import { steeringProgram } from '../../control/steering.ts';
import { TCX_INGRESS } from '../../system/bpf/abi.ts';
import { loadProgram, testRun } from '../../system/bpf/program.ts';
import { close } from '../../system/libc.ts';
import { lackingBpf } from '../system/bpf/requirement.ts';

const skip = lackingBpf();
const MACS = '000000000000 020000000001';

interface Flow {
  /** Last byte of the source address. */
  source?: string;
  /** Source port. */
  port?: string;
  protocol?: string;
  fragment?: string;
  payload?: string;
}

function ipv4({ source = '01', port = '9c40', protocol = '11', fragment = '0000', payload = '00' }: Flow = {}): string {
  return `${MACS} 0800 45000032 0000${fragment} 40${protocol}0000 c00002${source} c0000209 ${port}2118 001e0000 ${payload.repeat(22)}`;
}

/** IP options in front of the same ports. */
function optioned({ source = '01', port = '9c40' }: Flow = {}): string {
  return `${MACS} 0800 46000036 00000000 40110000 c00002${source} c0000209 01010101 ${port}2118 001e0000 ${'00'.repeat(22)}`;
}

function ipv6({ source = '01', port = '9c40', protocol = '11', payload = '00' }: Flow = {}): string {
  const prefix = '20010db8 00000000 00000000 000000';
  return `${MACS} 86dd 60000000 001e${protocol}40 ${prefix}${source} ${prefix}09 ${port}2118 001e0000 ${payload.repeat(22)}`;
}

const ARP = `${MACS} 0806 ${'00'.repeat(46)}`;
const hex = (number: number, digits: number) => number.toString(16).padStart(digits, '0');

test('a flow has one number, and flows have different ones', { skip }, () => {
  // As a tc program: a socket filter is tested from the IP header on.
  const program = loadProgram(steeringProgram(), TCX_INGRESS);
  const number = (packet: string) => testRun(program, Buffer.from(packet.replaceAll(' ', ''), 'hex')).result >>> 0;
  try {
    for (const build of [ipv4, ipv6]) {
      assert.equal(number(build()), number(build({ payload: 'ff' })), 'any payload');
      for (const protocol of ['06', '11']) {
        assert.notEqual(number(build({ protocol })), number(build({ protocol, port: '9c41' })), 'another port');
      }
      assert.notEqual(number(build()), number(build({ source: '02' })), 'another address');
      assert.equal(
        number(build({ protocol: '01' })),
        number(build({ protocol: '01', port: '9c41' })),
        'ICMP: no ports',
      );
      assert.notEqual(number(build({ protocol: '01' })), number(build({ protocol: '01', source: '02' })));
    }
    assert.equal(number(optioned()), number(ipv4()), 'the ports are behind the options');
    assert.notEqual(number(optioned()), number(optioned({ port: '9c41' })));
    for (const fragment of ['2000', '00b9', '20b9']) {
      assert.equal(
        number(ipv4({ fragment })),
        number(ipv4({ fragment, port: '9c41' })),
        `fragment ${fragment}: no ports`,
      );
      assert.notEqual(number(ipv4({ fragment })), number(ipv4({ fragment, source: '02' })));
    }
    assert.notEqual(number(ipv4()), number(ipv4({ fragment: '2000' })));
    assert.equal(number(ipv4({ fragment: '4000' })), number(ipv4()), "don't fragment");
    assert.equal(number(ARP), number(ARP.replace(/00$/, 'ff')));
    assert.notEqual(number(ARP), number(ARP.replace('020000000001', '020000000002')));
  } finally {
    close(program);
  }
});

test('flows that differ little spread over the queues', { skip }, () => {
  const program = loadProgram(steeringProgram(), TCX_INGRESS);
  try {
    for (const queues of [2, 3, 4]) {
      for (const flow of [
        (i: number) => ipv4({ port: hex(0x8000 + i, 4) }),
        (i: number) => ipv4({ source: hex(i % 250, 2), port: hex(0x8000 + i, 4) }),
        (i: number) => ipv6({ port: hex(0x8000 + 2 * i, 4) }),
        (i: number) => ipv6({ source: hex(i % 250, 2) }),
      ]) {
        const counts = new Array<number>(queues).fill(0);
        const flows = 240;
        for (let i = 0; i < flows; i++) {
          const { result } = testRun(program, Buffer.from(flow(i).replaceAll(' ', ''), 'hex'));
          counts[(result >>> 0) % queues]!++;
        }
        const fair = flows / queues;
        assert.ok(
          Math.max(...counts) < 1.5 * fair && Math.min(...counts) > 0.5 * fair,
          `${counts} on ${queues} queues`,
        );
      }
    }
  } finally {
    close(program);
  }
});
