/**
 * ICMP: what it takes to print it. RFC 792.
 *
 *      0      1      2          4
 *      +------+------+----------+
 *      | type | code | checksum |  depends on the type ...
 *      +------+------+----------+
 *
 * An echo goes on with id and sequence number, 2 bytes each.
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
/** Codes of ICMP_UNREACHABLE. */
export const ICMP_NET_UNREACHABLE = 0;
export const ICMP_FRAGMENTATION_NEEDED = 4;
export const ICMP_ECHO_REQUEST = 8;

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

/** 'echo request' for type 8; 'type 42 code 0' for what has no name here. */
export function icmpName(type: number, code: number): string {
  const name = type === ICMP_UNREACHABLE ? (UNREACHABLE[code] ?? NAMES.get(type)) : NAMES.get(type);
  return name ?? `type ${type} code ${code}`;
}
