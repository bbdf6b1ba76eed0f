import { formatPrefix, type Prefix, parsePrefix } from '../../wire/prefix.ts';
import type { KeyValue } from './etcd-client.ts';
import { isMap } from './keys.ts';
import type { Endpoint, PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';
import { backendData, type Reading, readClaim } from './reading.ts';

/** How flannel writes a lease in etcd (pkg/subnet/subnet.go, pkg/lease/lease.go): the subnets are the key, the rest is the value. */

const KEY = /^(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([\da-f:]+)-(\d+))?$/i;

/** `10.5.52.0-24`, dual stack `10.5.52.0-24&fc00::-64`: the last part of the key. */
export function formatSubnetKey({ ipv4, ipv6 }: PerFamily<string>): string {
  return [ipv4, ipv6].flatMap((subnet) => subnet?.replace('/', '-') ?? []).join('&');
}

/** Undefined for what is no such key. flannel's pattern wants an IPv4 subnet in all of them. */
export function parseSubnetKey(name: string): (PerFamily<Prefix> & { ipv4: Prefix }) | undefined {
  const [, address4, length4, address6, length6] = KEY.exec(name) ?? [];
  const ipv4 = parsePrefix(`${address4}/${length4}`);
  const ipv6 = address6 === undefined ? null : parsePrefix(`${address6}/${length6}`);
  return ipv4 === undefined || ipv6 === undefined ? undefined : { ipv4, ipv6 };
}

/** The value: this order, PublicIPv6 always there, data only where there is any. */
export function formatLeaseValue(own: PerFamily<Endpoint>, conf: NetConf): string {
  const data4 = own.ipv4 && backendData(own.ipv4, conf);
  const data6 = own.ipv6 && backendData(own.ipv6, conf);
  return JSON.stringify({
    PublicIP: own.ipv4?.publicIp,
    PublicIPv6: own.ipv6?.publicIp ?? null,
    BackendType: conf.backend.type,
    ...(data4 && { BackendData: data4 }),
    ...(data6 && { BackendV6Data: data6 }),
  });
}

/**
 * A key of the directory of subnets as a lease. Undefined for a mere reservation, that is, a key without a lease of etcd's whose node
 * has not come yet. `name` is the last part of the key.
 */
export function readLease(name: string, kv: KeyValue, conf: NetConf): Reading | undefined {
  const subnets = parseSubnetKey(name);
  if (subnets === undefined) return { kind: 'lease', message: 'is a key that is no subnet such as 10.5.52.0-24' };
  const value = parseLeaseValue(kv);
  if (value === undefined) {
    if (kv.lease === '0' && kv.value.trim() === '') return undefined;
    return {
      kind: 'lease',
      message: `has the value ${JSON.stringify(kv.value.slice(0, 80))}, which is no JSON object`,
    };
  }
  if (kv.lease === '0' && !value.BackendType) return undefined;
  const { ipv4, ipv6 } = subnets;
  const claim = {
    backendType: value.BackendType,
    ipv4: { subnet: formatPrefix(ipv4), publicIp: value.PublicIP, data: value.BackendData },
    ipv6: ipv6 && { subnet: formatPrefix(ipv6), publicIp: value.PublicIPv6, data: value.BackendV6Data },
  };
  return readClaim(name, claim, conf);
}

export function parseLeaseValue(kv: KeyValue): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(kv.value);
    return isMap(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
