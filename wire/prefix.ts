/** Prefixes (RFC 4632, RFC 4291 2.3) as numbers, for arithmetic on subnets. */
import { formatIp, parseIp } from './address.ts';

export interface Prefix {
  readonly family: 4 | 6;
  /** The lowest address, as an unsigned number of 32 or 128 bits: host bits are zero. */
  readonly first: bigint;
  /** 0..32 or 0..128. */
  readonly length: number;
}

/** `10.244.1.0/24` or `fd00::/64`; host bits are cleared. Undefined for what is not a prefix. */
export function parsePrefix(text: string): Prefix | undefined {
  const [address, length, ...more] = text.split('/');
  const bytes = parseIp(address);
  if (bytes === undefined || length === undefined || more.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(length))
    return undefined;
  return Number(length) > bytes.length * 8 ? undefined : prefixOf(bytes, Number(length));
}

/** The prefix of that length around an address in wire order. */
export function prefixOf(address: Uint8Array, length: number): Prefix {
  const family = address.length === 4 ? 4 : 6;
  const size = sizeOf({ family, length });
  return { family, first: (addressNumber(address) / size) * size, length };
}

/** Its lowest address in wire order. */
export function prefixBytes({ first, family }: Prefix): Uint8Array {
  return Buffer.from(first.toString(16).padStart(family === 4 ? 8 : 32, '0'), 'hex');
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatIp(prefixBytes(prefix))}/${prefix.length}`;
}

/** An address in wire order as an unsigned number. */
export function addressNumber(address: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(address).toString('hex')}`);
}

export function formatAddressNumber(address: bigint, family: 4 | 6): string {
  return formatIp(Buffer.from(address.toString(16).padStart(family === 4 ? 8 : 32, '0'), 'hex'));
}

/** How many addresses it has. */
export function sizeOf({ family, length }: Pick<Prefix, 'family' | 'length'>): bigint {
  return 1n << BigInt((family === 4 ? 32 : 128) - length);
}

/** Whether all of `inner` is in `outer`. */
export function contains(outer: Prefix, inner: Prefix): boolean {
  return outer.length <= inner.length && overlaps(outer, inner);
}

/** Whether an address is in both. */
export function overlaps(one: Prefix, other: Prefix): boolean {
  return (
    one.family === other.family && one.first < other.first + sizeOf(other) && other.first < one.first + sizeOf(one)
  );
}
