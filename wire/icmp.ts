/**
 * ICMP and ICMPv6: what it takes to print them. RFC 792; RFC 4443, 2.1; RFC 4861, 4.
 *
 *      0      1      2          4
 *      +------+------+----------+
 *      | type | code | checksum |  depends on the type ...
 *      +------+------+----------+
 *
 * An echo goes on with id and sequence number, 2 bytes each. ICMPv6's checksum covers a pseudo-header too.
 */

export const ICMP_TYPE = 0;
export const ICMP_CODE = 1;
export const ICMP_CHECKSUM = 2;
/** Echo messages only. */
export const ICMP_ECHO_ID = 4;
export const ICMP_ECHO_SEQUENCE = 6;
/** Length up to where the types differ in layout. */
export const ICMP_HEADER = 8;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_UNREACHABLE = 3;
export const ICMP_ECHO_REQUEST = 8;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;

const UNREACHABLE = [
  'network unreachable',
  'host unreachable',
  'protocol unreachable',
  'port unreachable',
  'fragmentation needed',
];

const NAMES = new Map([
  [ICMP_ECHO_REPLY, 'echo reply'],
  [ICMP_UNREACHABLE, 'destination unreachable'],
  [5, 'redirect'],
  [ICMP_ECHO_REQUEST, 'echo request'],
  [11, 'time exceeded'],
  [12, 'parameter problem'],
]);

const V6_NAMES = new Map([
  [1, 'destination unreachable'],
  [2, 'packet too big'],
  [3, 'time exceeded'],
  [4, 'parameter problem'],
  [ICMPV6_ECHO_REQUEST, 'echo request'],
  [ICMPV6_ECHO_REPLY, 'echo reply'],
  [133, 'router solicitation'],
  [134, 'router advertisement'],
  [135, 'neighbor solicitation'],
  [136, 'neighbor advertisement'],
  [143, 'multicast listener report v2'],
]);

/** 'echo request' for type 8; 'type 42 code 0' for what has no name here. */
export function icmpName(type: number, code: number): string {
  const name = type === ICMP_UNREACHABLE ? (UNREACHABLE[code] ?? NAMES.get(type)) : NAMES.get(type);
  return name ?? `type ${type} code ${code}`;
}

/** As `icmpName`, for ICMPv6. */
export function icmpv6Name(type: number, code: number): string {
  return V6_NAMES.get(type) ?? `type ${type} code ${code}`;
}
