import assert from 'node:assert/strict';
import test from 'node:test';
import { flowOf } from '../../../control/traffic/flow.ts';
import { frame } from '../../dataplane/packet.ts';

const of = (bytes: Uint8Array, length = bytes.length) => Object.values(flowOf(bytes, 0, length)).join(' ');

test('the ends of a flow, with ports where there are some', () => {
  assert.equal(of(frame({ sourcePort: 1234, destinationPort: 80 })), 'TCP 10.0.0.1:1234 10.0.0.2:80');
  assert.equal(
    of(frame({ version: 6, protocol: 'udp', sourcePort: 5, destinationPort: 53 })),
    'UDP [fd00:1::]:5 [fd00:2::]:53',
  );
  const arp = Buffer.concat([Buffer.from('ffffffffffff0200000000010806', 'hex'), Buffer.alloc(28)]);
  assert.equal(of(arp), 'ARP 02:00:00:00:00:01 ff:ff:ff:ff:ff:ff');
  assert.equal(of(Buffer.from('ffffffffffff02000000000188b5', 'hex')), '0x88b5 02:00:00:00:00:01 ff:ff:ff:ff:ff:ff');
});

test('at every length something is said, and nothing beyond it is read', () => {
  const bytes = frame({ sourcePort: 1234, destinationPort: 80 });
  for (let length = 0; length < bytes.length; length++) {
    const short = Uint8Array.from(bytes).fill(0xa5, length);
    const exact = bytes.slice(0, length);
    assert.equal(of(short, length), of(exact), `${length} bytes`);
  }
});
