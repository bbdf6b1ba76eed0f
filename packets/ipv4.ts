/** IPv4 with its options. */
import { get16 } from '../wire/bytes.ts';
import { sum } from '../wire/checksum.ts';
import {
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER,
  IPV4_ID,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV4_VERSION_IHL,
  ipv4HeaderLength,
} from '../wire/ipv4.ts';
import type { Dissection, Extra, Header } from './dissection.ts';
import { dissectTransport } from './ip.ts';
import { dscpName, ecnName, protocolName } from './names.ts';

const RFC = 'RFC 791, 3.1';
const OPTION_NAMES = new Map([
  [7, 'record route'],
  [68, 'timestamp'],
  [130, 'security'],
  [131, 'loose source route'],
  [137, 'strict source route'],
  [148, 'router alert'],
]);
const OPTION_END = 0;
const OPTION_NOP = 1;

export function dissectIpv4(d: Dissection, ip: number, end: number): void {
  const { bytes } = d;
  if (!d.holds('IPv4', ip, end, IPV4_HEADER)) return;
  const version = bytes[ip + IPV4_VERSION_IHL] >> 4;
  if (version !== 4) {
    d.fail(ip, end, `the type says IPv4, but the header's version is ${version}`);
    return;
  }
  const length = ipv4HeaderLength(bytes, ip);
  if (length < IPV4_HEADER) {
    d.fail(ip, end, `the IPv4 header's length, ${length} bytes, is below 20`);
    return;
  }
  if (!d.holds('IPv4', ip, end, length)) return;
  const total = get16(bytes, ip + IPV4_TOTAL_LENGTH);
  const header = d.header('IPv4', ip, length, RFC);
  addFields(d, header, ip, length, end);
  if (total < length) {
    d.fail(ip + length, end, `the IPv4 total length, ${total}, is less than the header's`);
    return;
  }
  const fragment = get16(bytes, ip + IPV4_FRAGMENT);
  const packetEnd = Math.min(end, ip + total);
  if ((fragment & IPV4_FRAGMENT_OFFSET) !== 0) {
    d.data('data of a fragment', ip + length, packetEnd);
  } else {
    const isFragment = (fragment & IPV4_MORE_FRAGMENTS) !== 0;
    dissectTransport(d, { version: 4, ip, isFragment }, bytes[ip + IPV4_PROTOCOL], ip + length, packetEnd);
  }
  d.data('padding', packetEnd, end);
}

function addFields(d: Dissection, header: Header, ip: number, length: number, end: number): void {
  const { bytes } = d;
  header.bits('version', IPV4_VERSION_IHL, 0, 4);
  header.bits('header length', IPV4_VERSION_IHL, 4, 4, { meaning: `in words of 4 bytes: ${length} bytes` });
  header.bits('DSCP', IPV4_TOS, 0, 6, { meaning: dscpName(bytes[ip + IPV4_TOS] >> 2), reference: 'RFC 2474, 3' });
  header.bits('ECN', IPV4_TOS, 6, 2, { meaning: ecnName(bytes[ip + IPV4_TOS] & 3), reference: 'RFC 3168, 5' });
  const total = get16(bytes, ip + IPV4_TOTAL_LENGTH);
  header.number('total length', IPV4_TOTAL_LENGTH, 2, lengthExtra(d, total, end - ip));
  header.number('identification', IPV4_ID, 2, { base: 16, reference: 'RFC 6864, 4' });
  const flags = get16(bytes, ip + IPV4_FRAGMENT);
  header.bits('reserved flag', IPV4_FRAGMENT, 0, 1, flags & 0x8000 ? { problem: 'has to be 0' } : {});
  header.bits('DF', IPV4_FRAGMENT, 1, 1, { meaning: flags & 0x4000 ? "don't fragment" : 'may be fragmented' });
  header.bits('MF', IPV4_FRAGMENT, 2, 1, {
    meaning: flags & 0x2000 ? 'more fragments follow' : 'the last, or the only',
  });
  const offset = (flags & IPV4_FRAGMENT_OFFSET) * 8;
  header.bits('fragment offset', IPV4_FRAGMENT, 3, 13, { meaning: `in units of 8 bytes: ${offset} bytes` });
  const ttl = bytes[ip + IPV4_TTL];
  header.number('TTL', IPV4_TTL, 1, { meaning: `${ttl} more hop${ttl === 1 ? '' : 's'}` });
  const protocol = bytes[ip + IPV4_PROTOCOL];
  header.number('protocol', IPV4_PROTOCOL, 1, { meaning: protocolName(protocol) ?? 'not known here' });
  const isRight = sum(bytes, ip, length) === 0xffff;
  header.number('header checksum', IPV4_CHECKSUM, 2, {
    base: 16,
    ...(isRight ? { meaning: 'correct' } : { problem: 'wrong' }),
  });
  header.ipv4('source', IPV4_SOURCE, { meaning: rangeName(bytes, ip + IPV4_SOURCE) });
  header.ipv4('destination', IPV4_DESTINATION, { meaning: rangeName(bytes, ip + IPV4_DESTINATION) });
  addOptions(bytes, header, ip, length);
}

/** For a length field that counts `length` bytes where there are `there`. */
export function lengthExtra(d: Dissection, length: number, there: number): Extra {
  if (length <= there) return {};
  if (d.quoted || d.cut) return { meaning: `${there} of them are here` };
  return { problem: `only ${there} bytes are there` };
}

function addOptions(bytes: Uint8Array, header: Header, ip: number, length: number): void {
  for (let at = IPV4_HEADER; at < length; ) {
    const type = bytes[ip + at];
    if (type === OPTION_END) {
      header.number('end of options', at, 1);
      if (length > at + 1) header.hex('padding of options', at + 1, length - at - 1);
      return;
    }
    if (type === OPTION_NOP) {
      header.number('no operation', at++, 1);
      continue;
    }
    const size = at + 1 < length ? bytes[ip + at + 1] : 0;
    if (size < 2 || at + size > length) {
      header.hex('broken option', at, length - at, { problem: 'its length does not fit the header' });
      return;
    }
    const name = OPTION_NAMES.get(type);
    header.number('option type', at, 1, { meaning: name ?? 'not known here' });
    header.number('option length', at + 1, 1);
    if (size > 2) header.hex('option data', at + 2, size - 2);
    at += size;
  }
}

/** RFC 6890; RFC 5771. */
function rangeName(bytes: Uint8Array, at: number): string | undefined {
  const [a, b] = [bytes[at], bytes[at + 1]];
  if (a === 10 || (a === 172 && b >> 4 === 1) || (a === 192 && b === 168)) return 'private';
  if (a === 127) return 'loopback';
  if (a === 169 && b === 254) return 'link-local';
  if (a >= 224 && a < 240) return 'multicast';
  if (bytes.subarray(at, at + 4).every((byte) => byte === 0xff)) return 'broadcast';
  return undefined;
}
