/** "What would happen to a frame from a to b?": the frame that stands for the question, and how the host would come to send it. */
import { familyOf, formatMac, isMulticast, parseIp, parseMac } from '../../wire/address.ts';
import { put16 } from '../../wire/bytes.ts';
import { fillIpv4Checksum, pseudoSum6, putChecksum, sum } from '../../wire/checksum.ts';
import {
  ETHER_HEADER,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  writeEthernetHeader,
} from '../../wire/ethernet.ts';
import { ICMP_CHECKSUM, ICMP_ECHO_REQUEST, ICMP_HEADER } from '../../wire/icmp.ts';
import { IPV4_HEADER, PROTOCOL_ICMP, PROTOCOL_ICMPV6, writeIpv4Header } from '../../wire/ipv4.ts';
import { IPV6_HEADER, writeIpv6Header } from '../../wire/ipv6.ts';
import { type Host, neighbourKey, type Snapshot } from '../host.ts';
import { CommandFailed } from '../iproute.ts';
import { CommandError, type ExplainLookup } from '../protocol.ts';

const TTL = 64;
const ICMPV6_ECHO_REQUEST = 128;
/** For experiments (IEEE 802, 9.2.4): a frame of which no more than the MACs is asked. */
const ETHERTYPE_EXPERIMENTAL = 0x88b5;
const BROADCAST = new Uint8Array(6).fill(0xff);

export interface Question {
  readonly from: string;
  readonly to: string;
}

export interface Posed {
  readonly frame: Uint8Array;
  readonly lookups: readonly ExplainLookup[];
}

/** `mac` and `name`: of the device. `host` sees the network namespace that the device is in. Throws CommandError. */
export async function pose({ from, to }: Question, name: string, mac: Uint8Array, host: Host): Promise<Posed> {
  const [source, destination] = [addressOf(from, 'from'), addressOf(to, 'to')];
  if (source.length === 6 && destination.length === 6) {
    const frame = new Uint8Array(60);
    writeEthernetHeader(frame, 0, destination, source, ETHERTYPE_EXPERIMENTAL);
    return { frame, lookups: [] };
  }
  if (destination.length === 6) throw new CommandError('from an IP to a MAC address: give two of one kind', 'EINVAL');
  const sender = source.length === 6 ? source : mac;
  const address = source.length === 6 ? await ownAddress(host, name, to) : from;
  if (familyOf(address) !== familyOf(to)) throw new CommandError(`${address} and ${to} are of two families`, 'EINVAL');
  const { lookups, next, found } = isMulticast(to) ? groupMac(to) : await findMac(to, name, host);
  if (found) return { frame: echo(sender, found, address, to), lookups };
  if (familyOf(to) === 6) {
    throw new CommandError(
      `${name} has no neighbour entry for ${next}: the host would ask by Neighbor Discovery first`,
      'EHOSTUNREACH',
    );
  }
  return { frame: arpRequest(sender, address, next), lookups };
}

interface NextMac {
  readonly lookups: readonly ExplainLookup[];
  /** The gateway, or the address itself. */
  readonly next: string;
  readonly found?: Uint8Array;
}

/** A group's MAC follows from its address: RFC 1112, 6.4; RFC 2464, 7. */
function groupMac(to: string): NextMac {
  const group = parseIp(to)!;
  const found =
    group.length === 4
      ? Uint8Array.of(0x01, 0x00, 0x5e, group[1] & 0x7f, group[2], group[3])
      : Uint8Array.of(0x33, 0x33, ...group.subarray(12));
  return { lookups: [{ question: `MAC of the group ${to}`, answer: formatMac(found) }], next: to, found };
}

async function findMac(to: string, name: string, host: Host): Promise<NextMac> {
  const snapshot: Snapshot = await host.snapshot([{ destination: to }]);
  const [route] = snapshot.routes;
  const lookups: ExplainLookup[] = [];
  const ask = (question: string, answer: string): void => void lookups.push({ question, answer });
  let next = to;
  if (route instanceof CommandFailed)
    ask(`route to ${to}`, `none (${route.reason}): taken to be on the link of ${name}`);
  else if (route.dev !== name)
    ask(`route to ${to}`, `through ${route.dev}, not ${name}: a frame that comes to ${name} from elsewhere`);
  else {
    next = route.gateway ?? to;
    ask(`route to ${to}`, `on ${name}${route.gateway ? `, by the gateway ${route.gateway}` : ', on its link'}`);
  }
  const neighbour = snapshot.neighbours.get(neighbourKey(name, next));
  const found = neighbour?.mac === undefined ? undefined : parseMac(neighbour.mac);
  if (found) ask(`neighbour ${next} on ${name}`, `${formatMac(found)} (${neighbour!.state.toLowerCase()})`);
  else ask(`neighbour ${next} on ${name}`, 'none: the host asks by ARP first, and that request is followed here');
  return { lookups, next, ...(found ? { found } : {}) };
}

async function ownAddress(host: Host, name: string, to: string): Promise<string> {
  const own = (await host.addresses()).find(({ dev, address }) => dev === name && familyOf(address) === familyOf(to));
  if (own) return own.address;
  throw new CommandError(`${name} has no address of the family of ${to}: give from as an address`, 'EADDRNOTAVAIL');
}

function addressOf(text: string, word: string): Uint8Array {
  const address = parseMac(text) ?? parseIp(text);
  if (address) return address;
  throw new CommandError(`${word} wants a MAC or IP address, not "${text}"`, 'EINVAL');
}

function echo(sender: Uint8Array, receiver: Uint8Array, from: string, to: string): Uint8Array {
  const source = parseIp(from)!;
  const destination = parseIp(to)!;
  const isIpv4 = source.length === 4;
  const ip = ETHER_HEADER;
  const icmp = ip + (isIpv4 ? IPV4_HEADER : IPV6_HEADER);
  const frame = new Uint8Array(icmp + ICMP_HEADER);
  writeEthernetHeader(frame, 0, receiver, sender, isIpv4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
  frame[icmp] = isIpv4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
  if (isIpv4) {
    const header = {
      tos: 0,
      totalLength: frame.length - ip,
      id: 0,
      dontFragment: true,
      ttl: TTL,
      protocol: PROTOCOL_ICMP,
    };
    writeIpv4Header(frame, ip, { ...header, source, destination });
    fillIpv4Checksum(frame, ip);
    putChecksum(frame, icmp + ICMP_CHECKSUM, sum(frame, icmp, ICMP_HEADER));
  } else {
    const header = {
      trafficClass: 0,
      flowLabel: 0,
      payloadLength: ICMP_HEADER,
      nextHeader: PROTOCOL_ICMPV6,
      hopLimit: TTL,
    };
    writeIpv6Header(frame, ip, { ...header, source, destination });
    const pseudo = pseudoSum6(frame, ip, PROTOCOL_ICMPV6, ICMP_HEADER);
    putChecksum(frame, icmp + ICMP_CHECKSUM, sum(frame, icmp, ICMP_HEADER, pseudo));
  }
  return frame;
}

/** RFC 826. */
function arpRequest(sender: Uint8Array, from: string, to: string): Uint8Array {
  const frame = new Uint8Array(ETHER_HEADER + 28);
  writeEthernetHeader(frame, 0, BROADCAST, sender, ETHERTYPE_ARP);
  const arp = ETHER_HEADER;
  put16(frame, arp, 1);
  put16(frame, arp + 2, ETHERTYPE_IPV4);
  frame.set([6, 4], arp + 4);
  put16(frame, arp + 6, 1);
  frame.set(sender, arp + 8);
  frame.set(parseIp(from)!, arp + 14);
  frame.set(parseIp(to)!, arp + 24);
  return frame;
}
