import { formatPrefix, type Prefix, parsePrefix } from '../../wire/prefix.ts';
import type { EtcdClient, KeyValue } from './etcd-client.ts';
import { formatLeaseValue, formatSubnetKey, parseLeaseValue, parseSubnetKey } from './etcd-lease.ts';
import type { Endpoint, PerFamily } from './lease.ts';
import type { NetConf } from './net-conf.ts';
import { chooseSubnet, inRange, type SubnetRange } from './subnet-range.ts';

/** flannel's: subnetTTL in pkg/subnet/etcd. */
const LEASE_SECONDS = 24 * 60 * 60;

/** This node's key in etcd. */
export interface Registration {
  /** The last part of the key. */
  readonly name: string;
  readonly subnets: PerFamily<string>;
  /** What we have written. */
  readonly value: string;
  /** The lease that the key ends with; undefined for a reservation, which stays. */
  readonly lease: { readonly id: string; readonly seconds: number } | undefined;
}

export interface Ranges extends PerFamily<SubnetRange> {
  readonly ipv4: SubnetRange;
}

export interface Wish {
  readonly own: PerFamily<Endpoint>;
  readonly conf: NetConf;
  readonly ranges: Ranges;
  /** Subnets to be taken again when they are free: those that we had until now, or before this start. */
  readonly previous: PerFamily<string>;
  readonly random: () => number;
}

/** No subnet is free. */
export class NoSubnetError extends Error {}

/**
 * Takes a subnet as flannel does: the key that has our public IP already, else the previous subnets, else free ones by chance. Every change
 * is a transaction on what was read, so that of two nodes that want one subnet one gets it. Undefined when somebody was faster, and all has to
 * be read again. `kvs` are all keys below `directory`.
 */
export async function registerNode(
  client: EtcdClient,
  directory: string,
  kvs: readonly KeyValue[],
  wish: Wish,
  signal: AbortSignal,
): Promise<Registration | undefined> {
  const value = formatLeaseValue(wish.own, wish.conf);
  const taken: KeyValue[] = [];
  let isRead = true;
  for (const kv of kvs) {
    const subnets = parseSubnetKey(kv.key.slice(directory.length));
    if (!isOurs(kv, wish.own)) taken.push(kv);
    else if (subnets && fits(subnets, wish)) return claim(client, kv, kv.key.slice(directory.length), value, signal);
    // Ours, but of another configuration. A reservation is the administrator's, and stays.
    else if (kv.lease === '0') taken.push(kv);
    else {
      await client.delete(kv.key, kv.modRevision, signal);
      isRead = false;
    }
  }
  if (!isRead) return undefined;
  const name = formatSubnetKey(chooseSubnets(directory, taken, wish));
  const nothing = { key: `${directory}${name}`, value: '', lease: 'new', modRevision: '0' };
  return claim(client, nothing, name, value, signal);
}

/** Known by the public IP as in flannel or, when that has changed, by the MAC address. */
function isOurs(kv: KeyValue, { ipv4 }: PerFamily<Endpoint>): boolean {
  const value = parseLeaseValue(kv);
  if (value === undefined || ipv4 === null) return false;
  const mac = (value.BackendData as { VtepMAC?: unknown } | undefined)?.VtepMAC;
  return value.PublicIP === ipv4.publicIp || (ipv4.vtepMac !== null && mac === ipv4.vtepMac);
}

async function claim(
  client: EtcdClient,
  was: KeyValue,
  name: string,
  value: string,
  signal: AbortSignal,
): Promise<Registration | undefined> {
  const subnets = textOf(parseSubnetKey(name)!);
  if (was.lease === '0') {
    const done = was.value === value || (await client.put({ ...was, value }, was.modRevision, signal));
    return done ? { name, subnets, value, lease: undefined } : undefined;
  }
  if (was.value === value) {
    // It is as it was before a restart: renewing what it has spares all nodes an event.
    const seconds = await client.keepAlive(was.lease, signal);
    if (seconds > 0) return { name, subnets, value, lease: { id: was.lease, seconds } };
  }
  const { id, ttl } = await client.grant(LEASE_SECONDS, signal);
  let done = false;
  try {
    done = await client.put({ key: was.key, value, lease: id }, was.modRevision, signal);
  } finally {
    // It may have been written although the answer was lost: then the key goes with the lease, and is written again.
    if (!done) await client.revoke(id, signal).catch(() => {});
  }
  return done ? { name, subnets, value, lease: { id, seconds: ttl } } : undefined;
}

function chooseSubnets(directory: string, kvs: readonly KeyValue[], wish: Wish): PerFamily<string> {
  const taken = kvs.flatMap((kv) => {
    const subnets = parseSubnetKey(kv.key.slice(directory.length));
    return subnets ? [subnets.ipv4, ...(subnets.ipv6 ? [subnets.ipv6] : [])] : [];
  });
  const { previous, ranges, own } = wish;
  const choose = (range: SubnetRange | null, before: string | null): string | null => {
    if (range === null) return null;
    const isFree = (subnet: Prefix) => chooseSubnet({ ...range, min: subnet.first, max: subnet.first }, taken, () => 0);
    const again = before === null ? undefined : parsePrefix(before);
    if (again && inRange(range, again) && isFree(again)) return formatPrefix(again);
    const subnet = chooseSubnet(range, taken, wish.random);
    if (subnet !== undefined) return subnet;
    throw new NoSubnetError(`all /${range.length} of the network's IPv${range.family} subnets are taken`);
  };
  return { ipv4: choose(ranges.ipv4, previous.ipv4), ipv6: choose(own.ipv6 && ranges.ipv6, previous.ipv6) };
}

/** Whether a key's subnets are what the configuration hands out, for the IP versions that this node has. */
function fits({ ipv4, ipv6 }: PerFamily<Prefix>, { ranges, own }: Wish): boolean {
  const wants6 = own.ipv6 !== null && ranges.ipv6 !== null;
  if (ipv4 === null || !inRange(ranges.ipv4, ipv4)) return false;
  return wants6 ? ipv6 !== null && inRange(ranges.ipv6!, ipv6) : ipv6 === null;
}

function textOf({ ipv4, ipv6 }: PerFamily<Prefix>): PerFamily<string> {
  return { ipv4: ipv4 && formatPrefix(ipv4), ipv6: ipv6 && formatPrefix(ipv6) };
}
