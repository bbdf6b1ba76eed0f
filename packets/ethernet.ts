/** Ethernet II and IEEE 802.3 frames with their VLAN tags. */
import { get16 } from '../wire/bytes.ts';
import {
  ETHER_DESTINATION,
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHER_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  VLAN_TAG,
} from '../wire/ethernet.ts';
import { dissectArp } from './arp.ts';
import type { Dissection, Header } from './dissection.ts';
import { dissectIpv4 } from './ipv4.ts';
import { dissectIpv6 } from './ipv6.ts';
import { etherTypeName } from './names.ts';

const ETHERNET = 'IEEE 802.3, 3.2';
const VLAN = 'IEEE 802.1Q, 9.6';
/** A smaller number in the type's place is a length (IEEE 802.3, 3.2.6). */
const SMALLEST_TYPE = 0x600;

export function dissectEthernet(d: Dissection, frame: number, end: number): void {
  if (!d.holds('Ethernet', frame, end, ETHER_HEADER)) return;
  const header = d.header('Ethernet', frame, ETHER_HEADER, ETHERNET);
  header.mac('destination', ETHER_DESTINATION);
  header.mac('source', ETHER_SOURCE);
  followType(d, header, ETHER_TYPE, frame + ETHER_HEADER, end);
}

function dissectVlan(d: Dissection, tag: number, end: number, name: string): void {
  if (!d.holds(name, tag, end, VLAN_TAG)) return;
  const header = d.header(name, tag, VLAN_TAG, VLAN);
  header.bits('priority', 0, 0, 3);
  const dei = (d.bytes[tag] >> 4) & 1;
  header.bits('drop eligible', 0, 3, 1, { meaning: dei ? 'to be dropped first' : undefined });
  const id = get16(d.bytes, tag) & 0xfff;
  header.bits('VLAN id', 0, 4, 12, { meaning: id === 0 ? 'priority only' : id === 0xfff ? 'reserved' : undefined });
  followType(d, header, 2, tag + VLAN_TAG, end);
}

/** The type field at `at` of the header, and what it says follows at `next`. */
function followType(d: Dissection, header: Header, at: number, next: number, end: number): void {
  const type = get16(d.bytes, next - 2);
  if (type < SMALLEST_TYPE) {
    const there = end - next;
    const problem = type > there && !d.cut ? `${there} bytes follow` : undefined;
    header.number('length', at, 2, { problem });
    d.data('LLC data', next, Math.min(end, next + type));
    d.data('padding', Math.min(end, next + type), end);
    return;
  }
  header.number('type', at, 2, { base: 16, meaning: etherTypeName(type) ?? 'not known here' });
  switch (type) {
    case ETHERTYPE_IPV4:
      dissectIpv4(d, next, end);
      break;
    case ETHERTYPE_IPV6:
      dissectIpv6(d, next, end);
      break;
    case ETHERTYPE_ARP:
      dissectArp(d, next, end);
      break;
    case ETHERTYPE_VLAN:
      dissectVlan(d, next, end, 'VLAN');
      break;
    case ETHERTYPE_QINQ:
      dissectVlan(d, next, end, 'service VLAN');
      break;
    default:
      d.data('data', next, end);
  }
}
