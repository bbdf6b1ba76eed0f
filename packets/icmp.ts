/** ICMP. */
import {
  ICMP_CHECKSUM,
  ICMP_CODE,
  ICMP_ECHO_ID,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_ECHO_SEQUENCE,
  ICMP_HEADER,
  ICMP_TYPE,
  icmpName,
} from '../wire/icmp.ts';
import type { Dissection, Header } from './dissection.ts';
import { type Network, plainChecksum } from './ip.ts';
import { dissectIpv4 } from './ipv4.ts';

const RFC = 'RFC 792';
const UNREACHABLE = 3;
const FRAGMENTATION_NEEDED = 4;
const REDIRECT = 5;
const TIME_EXCEEDED = 11;
const PARAMETER_PROBLEM = 12;
const QUOTES: readonly number[] = [UNREACHABLE, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM];

export function dissectIcmp(d: Dissection, network: Network, icmp: number, end: number): void {
  if (!d.holds('ICMP', icmp, end, ICMP_HEADER)) return;
  const { bytes } = d;
  const type = bytes[icmp + ICMP_TYPE];
  const code = bytes[icmp + ICMP_CODE];
  const header = d.header('ICMP', icmp, ICMP_HEADER, RFC);
  header.number('type', ICMP_TYPE, 1, { meaning: icmpName(type, code) });
  header.number('code', ICMP_CODE, 1);
  header.number('checksum', ICMP_CHECKSUM, 2, { base: 16, ...plainChecksum(d, network, icmp, end) });
  addRest(header, type, code);
  if (QUOTES.includes(type) && !d.quoted) {
    d.quote(() => dissectIpv4(d, icmp + ICMP_HEADER, end));
  } else {
    d.data('data', icmp + ICMP_HEADER, end);
  }
}

function addRest(header: Header, type: number, code: number): void {
  if (type === ICMP_ECHO_REQUEST || type === ICMP_ECHO_REPLY) {
    header.number('identifier', ICMP_ECHO_ID, 2);
    header.number('sequence number', ICMP_ECHO_SEQUENCE, 2);
  } else if (type === UNREACHABLE && code === FRAGMENTATION_NEEDED) {
    header.number('unused', 4, 2);
    header.number('next-hop MTU', 6, 2, { reference: 'RFC 1191, 4' });
  } else if (type === REDIRECT) {
    header.ipv4('gateway', 4);
  } else {
    header.hex('rest of the header', 4, 4);
  }
}
