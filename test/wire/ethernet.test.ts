import assert from 'node:assert/strict';
import test from 'node:test';
import {
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_VLAN,
  etherType,
  networkOffset,
  writeEthernetHeader,
} from '../../wire/ethernet.ts';
import { guarded, hex, placed, written } from './canvas.ts';

const MACS = '020000000002 020000000001';

test('writes a header', () => {
  const bytes = written(14, (b, at) =>
    writeEthernetHeader(b, at, hex('020000000002'), hex('020000000001'), ETHERTYPE_ARP),
  );
  assert.equal(bytes, '0200000000020200000000010806');
});

test('finds the network header and its type behind up to two tags', () => {
  const cases: [string, number, number][] = [
    ['0800 45', 14, ETHERTYPE_IPV4],
    ['8100 0064 0800 45', 18, ETHERTYPE_IPV4],
    ['88a8 0001 8100 0064 0806 00', 22, ETHERTYPE_ARP],
    ['8100 0001 8100 0002 8100 0003 0800 45', 22, ETHERTYPE_VLAN],
    ['8100', 14, ETHERTYPE_VLAN],
    ['8100 0064 08', 14, ETHERTYPE_VLAN],
    ['8100 0064 0800', 18, ETHERTYPE_IPV4],
  ];
  for (const [rest, offset, type] of cases) {
    const frame = hex(MACS + rest);
    const bytes = placed(frame, 3);
    assert.equal(networkOffset(guarded(bytes, 3, frame.length), 3, frame.length), offset, rest);
    assert.equal(etherType(bytes, 3 + offset), type, rest);
  }
});

test('a frame shorter than its header has no network header', () => {
  for (let length = 0; length < 14; length++) assert.equal(networkOffset(hex(`${MACS}0800`), 0, length), 0);
});
