import { parseIp } from '../../wire/address.ts';
import {
  addressNumber,
  formatAddressNumber,
  formatPrefix,
  type Prefix,
  parsePrefix,
  sizeOf,
} from '../../wire/prefix.ts';
import type { PodNetwork } from './net-conf.ts';
import { SubnetIndex } from './subnet-index.ts';

/** Subnets that nodes may get where the nodes choose themselves, as in etcd: all of one length, between two of them. */
export interface SubnetRange {
  readonly family: 4 | 6;
  readonly length: number;
  /** First addresses of the first and the last subnet. */
  readonly min: bigint;
  readonly max: bigint;
}

/** As many free ones as flannel draws from (pkg/subnet/etcd/local_manager.go: allocateSubnet). */
const CANDIDATES = 100;

/**
 * flannel's defaults and rules (pkg/subnet/config.go: CheckNetworkConfig): four subnets fit at least, and the first is left alone, since
 * its first address is that of the network. A string says what is wrong, beginning with the key.
 */
export function subnetRange({ network, subnetLen, subnetMin, subnetMax }: PodNetwork): SubnetRange | string {
  const all = parsePrefix(network)!;
  const [prefix, usual, longest] = all.family === 4 ? ['', 24, 30] : ['IPv6', 64, 126];
  if (all.length > longest - 2) return `${prefix}Network: ${network} is too small: /${longest - 2} is the least`;
  const length = subnetLen ?? Math.max(usual, all.length + 2);
  if (length < all.length + 2)
    return `${prefix}SubnetLen: ${length} is too short: four subnets have to fit in ${network}`;
  const size = sizeOf({ family: all.family, length });
  const end = all.first + sizeOf(all);
  const min = subnetMin === null ? all.first + size : addressNumber(parseIp(subnetMin)!);
  const max = subnetMax === null ? end - size : addressNumber(parseIp(subnetMax)!);
  for (const [key, first] of [
    ['SubnetMin', min],
    ['SubnetMax', max],
  ] as const) {
    const text = `${prefix}${key}: ${formatAddressNumber(first, all.family)}`;
    if (first < all.first || first >= end) return `${text} is outside ${network}`;
    if (first % size !== 0n) return `${text} is not the first address of a /${length}`;
  }
  if (min > max) return `${prefix}SubnetMin: ${subnetMin} is above ${prefix}SubnetMax`;
  return { family: all.family, length, min, max };
}

/** Whether a node may have this subnet. */
export function inRange(range: SubnetRange, subnet: Prefix): boolean {
  return (
    subnet.family === range.family &&
    subnet.length === range.length &&
    range.min <= subnet.first &&
    subnet.first <= range.max
  );
}

/** One of the first free subnets, by chance, so that nodes that start together seldom meet; undefined when all are taken. */
export function chooseSubnet(range: SubnetRange, taken: Iterable<Prefix>, random: () => number): string | undefined {
  const index = new SubnetIndex();
  for (const subnet of taken) if (index.overlapping(subnet) === undefined) index.add(subnet, '');
  const { family, length } = range;
  const free: Prefix[] = [];
  const size = sizeOf(range);
  for (let first = range.min; first <= range.max && free.length < CANDIDATES; first += size) {
    const subnet = { family, first, length };
    if (index.overlapping(subnet) === undefined) free.push(subnet);
  }
  return free.length > 0 ? formatPrefix(free[Math.floor(random() * free.length)]) : undefined;
}
