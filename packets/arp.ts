/**
 * ARP for IPv4 over Ethernet. RFC 826.
 *
 *      0       2       4     5     6      8            14           18           24          28
 *      +-------+-------+-----+-----+------+------------+------------+------------+-----------+
 *      | htype | ptype |hlen |plen |  op  | sender MAC | sender IP  | target MAC | target IP |
 *      +-------+-------+-----+-----+------+------------+------------+------------+-----------+
 */
import { get16 } from '../wire/bytes.ts';
import { ETHERTYPE_IPV4, MAC_LENGTH } from '../wire/ethernet.ts';
import type { Dissection } from './dissection.ts';
import { etherTypeName } from './names.ts';

const FIXED = 8;
const WHOLE = 28;
const OPERATIONS = [
  '',
  'request: who has the target IP?',
  'reply: the sender has it',
  'reverse request',
  'reverse reply',
];

export function dissectArp(d: Dissection, arp: number, end: number): void {
  if (!d.holds('ARP', arp, end, FIXED)) return;
  const { bytes } = d;
  const protocol = get16(bytes, arp + 2);
  const isUsual = protocol === ETHERTYPE_IPV4 && bytes[arp + 4] === MAC_LENGTH && bytes[arp + 5] === 4;
  const length = FIXED + 2 * (bytes[arp + 4] + bytes[arp + 5]);
  if (!d.holds('ARP', arp, end, length)) return;
  const header = d.header('ARP', arp, isUsual ? WHOLE : length, 'RFC 826');
  header.number('hardware type', 0, 2, { meaning: get16(bytes, arp) === 1 ? 'Ethernet' : undefined });
  header.number('protocol type', 2, 2, { base: 16, meaning: etherTypeName(protocol) });
  header.number('hardware size', 4, 1, { meaning: 'bytes of a hardware address' });
  header.number('protocol size', 5, 1, { meaning: 'bytes of a protocol address' });
  header.number('operation', 6, 2, { meaning: OPERATIONS[get16(bytes, arp + 6)] || undefined });
  if (isUsual) {
    header.mac('sender MAC', 8);
    header.ipv4('sender IP', 14);
    header.mac('target MAC', 18);
    header.ipv4('target IP', 24);
  } else {
    header.hex('addresses', FIXED, length - FIXED);
  }
  d.data('padding', arp + length, end);
}
