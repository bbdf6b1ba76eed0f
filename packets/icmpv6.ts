/** ICMPv6 with Neighbor Discovery and its options. RFC 4443; RFC 4861. */
import { get32 } from '../wire/bytes.ts';
import { PROTOCOL_ICMPV6 } from '../wire/ipv4.ts';
import type { Dissection, Header } from './dissection.ts';
import { type Network, transportChecksum } from './ip.ts';
import { dissectIpv6 } from './ipv6.ts';

const HEADER = 8;
const PACKET_TOO_BIG = 2;
const ECHO_REQUEST = 128;
const ECHO_REPLY = 129;
const ROUTER_SOLICITATION = 133;
const ROUTER_ADVERTISEMENT = 134;
const NEIGHBOR_SOLICITATION = 135;
const NEIGHBOR_ADVERTISEMENT = 136;
const REDIRECT = 137;

const NAMES = new Map([
  [1, 'destination unreachable'],
  [PACKET_TOO_BIG, 'packet too big'],
  [3, 'time exceeded'],
  [4, 'parameter problem'],
  [ECHO_REQUEST, 'echo request'],
  [ECHO_REPLY, 'echo reply'],
  [130, 'multicast listener query'],
  [131, 'multicast listener report'],
  [132, 'multicast listener done'],
  [ROUTER_SOLICITATION, 'router solicitation'],
  [ROUTER_ADVERTISEMENT, 'router advertisement'],
  [NEIGHBOR_SOLICITATION, 'neighbor solicitation: who has the target?'],
  [NEIGHBOR_ADVERTISEMENT, 'neighbor advertisement: here is the target'],
  [REDIRECT, 'redirect'],
  [143, 'multicast listener report, version 2'],
]);

/** Length of the fixed part of the messages that options follow. */
const FIXED = new Map([
  [ROUTER_SOLICITATION, 8],
  [ROUTER_ADVERTISEMENT, 16],
  [NEIGHBOR_SOLICITATION, 24],
  [NEIGHBOR_ADVERTISEMENT, 24],
  [REDIRECT, 40],
]);

const OPTION_NAMES = new Map([
  [1, 'source link-layer address'],
  [2, 'target link-layer address'],
  [3, 'prefix information'],
  [4, 'redirected header'],
  [5, 'MTU'],
  [14, 'nonce'],
  [25, 'recursive DNS server'],
]);

export function dissectIcmpv6(d: Dissection, network: Network, icmp: number, end: number): void {
  const { bytes } = d;
  if (!d.holds('ICMPv6', icmp, end, HEADER)) return;
  const type = bytes[icmp];
  const length = FIXED.get(type) ?? HEADER;
  if (!d.holds('ICMPv6', icmp, end, length)) return;
  const reference = FIXED.has(type) ? `RFC 4861, 4.${type - ROUTER_SOLICITATION + 1}` : 'RFC 4443, 2.1';
  const header = d.header('ICMPv6', icmp, length, reference);
  header.number('type', 0, 1, { meaning: NAMES.get(type) ?? 'not known here' });
  header.number('code', 1, 1);
  header.number('checksum', 2, 2, {
    base: 16,
    ...transportChecksum(d, network, PROTOCOL_ICMPV6, icmp, end, icmp + 2),
    reference: 'RFC 4443, 2.3',
  });
  addRest(bytes, header, icmp, type);
  if (FIXED.has(type)) dissectOptions(d, icmp + length, end);
  else if (type > 0 && type < ECHO_REQUEST && !d.quoted) d.quote(() => dissectIpv6(d, icmp + HEADER, end));
  else d.data('data', icmp + HEADER, end);
}

function addRest(bytes: Uint8Array, header: Header, icmp: number, type: number): void {
  switch (type) {
    case ECHO_REQUEST:
    case ECHO_REPLY:
      header.number('identifier', 4, 2, { reference: 'RFC 4443, 4.1' });
      header.number('sequence number', 6, 2, { reference: 'RFC 4443, 4.1' });
      break;
    case PACKET_TOO_BIG:
      header.number('MTU', 4, 4, { reference: 'RFC 4443, 3.2' });
      break;
    case ROUTER_ADVERTISEMENT:
      header.number('hop limit', 4, 1);
      header.number('flags', 5, 1, { base: 16 });
      header.number('router lifetime', 6, 2, { meaning: 'seconds' });
      header.number('reachable time', 8, 4, { meaning: 'milliseconds' });
      header.number('retransmission timer', 12, 4, { meaning: 'milliseconds' });
      break;
    case NEIGHBOR_ADVERTISEMENT: {
      const flags = bytes[icmp + 4];
      header.bits('R', 4, 0, 1, { meaning: flags & 0x80 ? 'the sender is a router' : undefined });
      header.bits('S', 4, 1, 1, { meaning: flags & 0x40 ? 'was asked' : 'unsolicited' });
      header.bits('O', 4, 2, 1, { meaning: flags & 0x20 ? 'replaces what the receiver knows' : undefined });
      header.bits('reserved', 4, 3, 29);
      header.ipv6('target', 8);
      break;
    }
    case NEIGHBOR_SOLICITATION:
    case REDIRECT:
      header.number('reserved', 4, 4);
      header.ipv6('target', 8);
      if (type === REDIRECT) header.ipv6('destination', 24);
      break;
    default:
      header.hex('rest of the header', 4, 4);
  }
}

/** RFC 4861, 4.6: type, length in units of 8 bytes, data. */
function dissectOptions(d: Dissection, start: number, end: number): void {
  const { bytes } = d;
  for (let at = start; at < end; ) {
    const length = at + 1 < end ? bytes[at + 1] * 8 : 0;
    if (length === 0) {
      d.fail(at, end, 'an option of Neighbor Discovery has no length');
      return;
    }
    if (!d.holds('ND option', at, end, length)) return;
    const type = bytes[at];
    const header = d.header(
      'ND option',
      at,
      length,
      `RFC 4861, 4.6${type >= 1 && type <= 5 ? `.${SECTIONS[type]}` : ''}`,
    );
    header.number('option type', 0, 1, { meaning: OPTION_NAMES.get(type) ?? 'not known here' });
    header.number('option length', 1, 1, { meaning: `in units of 8 bytes: ${length} bytes` });
    if ((type === 1 || type === 2) && length === 8) header.mac('link-layer address', 2);
    else if (type === 3 && length === 32) addPrefix(header);
    else if (type === 5 && length === 8) addMtu(header, get32(bytes, at + 4));
    else header.hex('option data', 2, length - 2);
    at += length;
  }
}

/** Of RFC 4861, 4.6, by option type. */
const SECTIONS = [0, 1, 1, 2, 3, 4];

function addPrefix(header: Header): void {
  header.number('prefix length', 2, 1);
  header.number('flags', 3, 1, { base: 16 });
  header.number('valid lifetime', 4, 4, { meaning: 'seconds' });
  header.number('preferred lifetime', 8, 4, { meaning: 'seconds' });
  header.number('reserved', 12, 4);
  header.ipv6('prefix', 16);
}

function addMtu(header: Header, mtu: number): void {
  header.number('reserved', 2, 2);
  header.number('MTU', 4, 4, { problem: mtu >>> 0 < 1280 ? 'below the smallest of IPv6, 1280' : undefined });
}
