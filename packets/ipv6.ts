/** IPv6 with the extension headers that lead to the transport header. */
import { get16, get32 } from '../wire/bytes.ts';
import {
  IPV6_DESTINATION,
  IPV6_HEADER,
  IPV6_HOP_LIMIT,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  IPV6_VERSION,
  PROTOCOL_DESTINATION_OPTIONS,
  PROTOCOL_FRAGMENT,
  PROTOCOL_HOP_BY_HOP,
  PROTOCOL_ROUTING,
} from '../wire/ipv6.ts';
import type { Dissection, Header } from './dissection.ts';
import { dissectTransport } from './ip.ts';
import { lengthExtra } from './ipv4.ts';
import { dscpName, ecnName, protocolName } from './names.ts';

const RFC = 'RFC 8200, 3';
const NO_NEXT_HEADER = 59;
const OPTION_PAD1 = 0;
const OPTION_NAMES = new Map([
  [1, 'PadN'],
  [5, 'router alert'],
  [194, 'jumbo payload'],
]);

export function dissectIpv6(d: Dissection, ip: number, end: number): void {
  const { bytes } = d;
  if (!d.holds('IPv6', ip, end, IPV6_HEADER)) return;
  const version = bytes[ip + IPV6_VERSION] >> 4;
  if (version !== 6) {
    d.fail(ip, end, `the type says IPv6, but the header's version is ${version}`);
    return;
  }
  const header = d.header('IPv6', ip, IPV6_HEADER, RFC);
  const trafficClass = (get16(bytes, ip) >> 4) & 0xff;
  header.bits('version', IPV6_VERSION, 0, 4);
  header.bits('DSCP', 0, 4, 6, { meaning: dscpName(trafficClass >> 2), reference: 'RFC 2474, 3' });
  header.bits('ECN', 1, 2, 2, { meaning: ecnName(trafficClass & 3), reference: 'RFC 3168, 5' });
  header.bits('flow label', 1, 4, 20, { base: 16, reference: 'RFC 6437, 2' });
  const payload = get16(bytes, ip + IPV6_PAYLOAD_LENGTH);
  header.number('payload length', IPV6_PAYLOAD_LENGTH, 2, lengthExtra(d, payload, end - ip - IPV6_HEADER));
  header.number('next header', IPV6_NEXT_HEADER, 1, { meaning: nextName(bytes[ip + IPV6_NEXT_HEADER]) });
  header.number('hop limit', IPV6_HOP_LIMIT, 1);
  header.ipv6('source', IPV6_SOURCE, { meaning: rangeName(bytes, ip + IPV6_SOURCE) });
  header.ipv6('destination', IPV6_DESTINATION, { meaning: rangeName(bytes, ip + IPV6_DESTINATION) });
  const packetEnd = Math.min(end, ip + IPV6_HEADER + payload);
  dissectNext(d, ip, bytes[ip + IPV6_NEXT_HEADER], ip + IPV6_HEADER, packetEnd);
  d.data('padding', packetEnd, end);
}

/** Extension headers one after the other (RFC 8200, 4), then the transport header. */
function dissectNext(d: Dissection, ip: number, first: number, start: number, end: number): void {
  const { bytes } = d;
  let protocol = first;
  let offset = start;
  let isFragment = false;
  for (;;) {
    const name = EXTENSIONS.get(protocol);
    if (name === undefined) break;
    if (!d.holds(name, offset, end, 8)) return;
    if (protocol === PROTOCOL_FRAGMENT) {
      const word = addFragment(d, offset);
      protocol = bytes[offset];
      offset += 8;
      if (word >> 3 !== 0) {
        d.data('data of a fragment', offset, end);
        return;
      }
      isFragment ||= (word & 1) !== 0; // offset 0 and no more: whole (RFC 6946)
      continue;
    }
    const length = (bytes[offset + 1] + 1) * 8;
    if (!d.holds(name, offset, end, length)) return;
    const header = d.header(name, offset, length, protocol === PROTOCOL_ROUTING ? 'RFC 8200, 4.4' : 'RFC 8200, 4.2');
    header.number('next header', 0, 1, { meaning: nextName(bytes[offset]) });
    header.number('length', 1, 1, { meaning: `in units of 8 bytes beyond the first: ${length} bytes` });
    if (protocol === PROTOCOL_ROUTING) {
      header.number('routing type', 2, 1);
      header.number('segments left', 3, 1);
      header.hex('routing data', 4, length - 4);
    } else {
      addOptions(bytes, header, offset, length);
    }
    protocol = bytes[offset];
    offset += length;
  }
  if (protocol === NO_NEXT_HEADER) d.data('data', offset, end);
  else dissectTransport(d, { version: 6, ip, isFragment }, protocol, offset, end);
}

const EXTENSIONS = new Map([
  [PROTOCOL_HOP_BY_HOP, 'hop-by-hop options'],
  [PROTOCOL_ROUTING, 'routing header'],
  [PROTOCOL_FRAGMENT, 'fragment header'],
  [PROTOCOL_DESTINATION_OPTIONS, 'destination options'],
]);

/** RFC 8200, 4.5. Returns the word of offset and flags. */
function addFragment(d: Dissection, at: number): number {
  const word = get16(d.bytes, at + 2);
  const header = d.header('fragment header', at, 8, 'RFC 8200, 4.5');
  header.number('next header', 0, 1, { meaning: nextName(d.bytes[at]) });
  header.number('reserved byte', 1, 1);
  header.bits('fragment offset', 2, 0, 13, { meaning: `in units of 8 bytes: ${(word >> 3) * 8} bytes` });
  header.bits('reserved bits', 3, 5, 2);
  header.bits('M', 3, 7, 1, { meaning: word & 1 ? 'more fragments follow' : 'the last fragment' });
  header.number('identification', 4, 4, { base: 16 });
  return word;
}

function addOptions(bytes: Uint8Array, header: Header, offset: number, length: number): void {
  for (let at = 2; at < length; ) {
    const type = bytes[offset + at];
    if (type === OPTION_PAD1) {
      header.number('Pad1', at++, 1);
      continue;
    }
    const size = at + 1 < length ? bytes[offset + at + 1] + 2 : 0;
    if (size < 2 || at + size > length) {
      header.hex('broken option', at, length - at, { problem: 'its length does not fit the header' });
      return;
    }
    header.number('option type', at, 1, { meaning: OPTION_NAMES.get(type) ?? 'not known here' });
    header.number('option length', at + 1, 1);
    if (size > 2) header.hex('option data', at + 2, size - 2);
    at += size;
  }
}

function nextName(protocol: number): string {
  return protocolName(protocol) ?? 'not known here';
}

/** RFC 4291, 2.4; RFC 4193. */
function rangeName(bytes: Uint8Array, at: number): string | undefined {
  const head = get16(bytes, at);
  if (head >> 8 === 0xff) return 'multicast';
  if (head >> 6 === 0xfe80 >> 6) return 'link-local';
  if (head >> 9 === 0xfc00 >> 9) return 'unique local';
  if (bytes.subarray(at, at + 12).every((byte) => byte === 0)) {
    const last = get32(bytes, at + 12);
    return last === 0 ? 'unspecified' : last === 1 ? 'loopback' : undefined;
  }
  return undefined;
}
