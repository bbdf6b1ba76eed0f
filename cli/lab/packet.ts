/**
 * A captured packet, layer by layer: every field of every header with its name, its place and its meaning. Knows what a ping
 * through VXLAN is made of: Ethernet, IPv4, UDP, VXLAN, ICMP; whatever else there is becomes a last layer of plain bytes.
 */
import { formatIpv4, formatMac } from '../../wire/address.ts';
import { get16, get24 } from '../../wire/bytes.ts';
import { pseudoSum4, sum } from '../../wire/checksum.ts';
import {
  ETHER_DESTINATION,
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHER_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  MAC_LENGTH,
} from '../../wire/ethernet.ts';
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
} from '../../wire/icmp.ts';
import {
  IPV4_CHECKSUM,
  IPV4_DESTINATION,
  IPV4_DONT_FRAGMENT,
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
  ipv4IsFragment,
  ipv4IsWhole,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ipv4.ts';
import { UDP_CHECKSUM, UDP_DESTINATION, UDP_HEADER, UDP_LENGTH, UDP_SOURCE } from '../../wire/udp.ts';
import {
  VXLAN_FLAGS,
  VXLAN_HEADER,
  VXLAN_I,
  VXLAN_PORT_IANA,
  VXLAN_PORT_LINUX,
  VXLAN_VNI,
  vxlanVni,
} from '../../wire/vxlan.ts';

export interface Field {
  readonly name: string;
  /** Of its first byte, from the beginning of the packet. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  readonly meaning: string;
}

export interface Layer {
  /** "outer IPv4", "VXLAN", "ICMP". */
  readonly name: string;
  readonly offset: number;
  /** Of the header, in bytes. */
  readonly length: number;
  readonly fields: readonly Field[];
}

const ETHERTYPES = new Map([
  [ETHERTYPE_IPV4, 'IPv4'],
  [ETHERTYPE_IPV6, 'IPv6'],
  [ETHERTYPE_ARP, 'ARP'],
]);

const PROTOCOLS = new Map([
  [PROTOCOL_ICMP, 'ICMP'],
  [PROTOCOL_TCP, 'TCP'],
  [PROTOCOL_UDP, 'UDP'],
]);

/** The layers of an Ethernet frame, outermost first; together they hold every byte of it once. */
export function decodePacket(bytes: Uint8Array): Layer[] {
  const layers: Layer[] = [];
  decodeFrame(bytes, 0, 'outer ', layers);
  const [last] = layers.slice(-1);
  const offset = last === undefined ? 0 : last.offset + last.length;
  const length = bytes.length - offset;
  if (length > 0) {
    layers.push({ name: 'data', offset, length, fields: [field(offset, 'data', 0, length, `${length} bytes`)] });
  }
  return layers;
}

/** A field at an offset from its header's beginning. */
function field(header: number, name: string, offset: number, length: number, meaning: string | number): Field {
  return { name, offset: header + offset, length, meaning: `${meaning}` };
}

function decodeFrame(bytes: Uint8Array, frame: number, prefix: string, layers: Layer[]): void {
  if (bytes.length - frame < ETHER_HEADER) return;
  const type = get16(bytes, frame + ETHER_TYPE);
  layers.push({
    name: `${prefix}Ethernet`,
    offset: frame,
    length: ETHER_HEADER,
    fields: [
      field(frame, 'destination', ETHER_DESTINATION, MAC_LENGTH, formatMac(bytes, frame + ETHER_DESTINATION)),
      field(frame, 'source', ETHER_SOURCE, MAC_LENGTH, formatMac(bytes, frame + ETHER_SOURCE)),
      field(frame, 'type', ETHER_TYPE, 2, named(hex16(type), ETHERTYPES.get(type))),
    ],
  });
  if (type === ETHERTYPE_IPV4) decodeIpv4(bytes, frame + ETHER_HEADER, prefix, layers);
}

function decodeIpv4(bytes: Uint8Array, ip: number, prefix: string, layers: Layer[]): void {
  if (!ipv4IsWhole(bytes, ip, bytes.length - ip)) return;
  const length = ipv4HeaderLength(bytes, ip);
  const tos = bytes[ip + IPV4_TOS];
  const protocol = bytes[ip + IPV4_PROTOCOL];
  const options = length - IPV4_HEADER;
  layers.push({
    name: `${prefix}IPv4`,
    offset: ip,
    length,
    fields: [
      field(ip, 'version, IHL', IPV4_VERSION_IHL, 1, `4, ${length / 4} words of 4 bytes`),
      field(ip, 'DSCP, ECN', IPV4_TOS, 1, `${tos >>> 2}, ${tos & 3}`),
      field(ip, 'total length', IPV4_TOTAL_LENGTH, 2, get16(bytes, ip + IPV4_TOTAL_LENGTH)),
      field(ip, 'identification', IPV4_ID, 2, get16(bytes, ip + IPV4_ID)),
      field(ip, 'flags, offset', IPV4_FRAGMENT, 2, fragmentMeaning(get16(bytes, ip + IPV4_FRAGMENT))),
      field(ip, 'TTL', IPV4_TTL, 1, bytes[ip + IPV4_TTL]),
      field(ip, 'protocol', IPV4_PROTOCOL, 1, named(`${protocol}`, PROTOCOLS.get(protocol))),
      field(ip, 'header checksum', IPV4_CHECKSUM, 2, verdict(sum(bytes, ip, length) === 0xffff)),
      field(ip, 'source', IPV4_SOURCE, 4, formatIpv4(bytes, ip + IPV4_SOURCE)),
      field(ip, 'destination', IPV4_DESTINATION, 4, formatIpv4(bytes, ip + IPV4_DESTINATION)),
      ...(options > 0 ? [field(ip, 'options', IPV4_HEADER, options, `${options} bytes`)] : []),
    ],
  });
  if (ipv4IsFragment(bytes, ip)) return;
  if (protocol === PROTOCOL_UDP) decodeUdp(bytes, ip, ip + length, prefix, layers);
  if (protocol === PROTOCOL_ICMP) decodeIcmp(bytes, ip, ip + length, layers);
}

function fragmentMeaning(word: number): string {
  const flags = [word & IPV4_DONT_FRAGMENT ? ['DF'] : [], word & IPV4_MORE_FRAGMENTS ? ['MF'] : []].flat();
  return `${flags.join('+') || 'none'}, ${(word & IPV4_FRAGMENT_OFFSET) * 8}`;
}

function decodeUdp(bytes: Uint8Array, ip: number, udp: number, prefix: string, layers: Layer[]): void {
  if (bytes.length - udp < UDP_HEADER) return;
  const port = get16(bytes, udp + UDP_DESTINATION);
  const isVxlan = port === VXLAN_PORT_LINUX || port === VXLAN_PORT_IANA;
  const source = get16(bytes, udp + UDP_SOURCE);
  layers.push({
    name: `${prefix}UDP`,
    offset: udp,
    length: UDP_HEADER,
    fields: [
      field(udp, 'source port', UDP_SOURCE, 2, named(`${source}`, isVxlan ? 'hash of the inner flow' : undefined)),
      field(udp, 'destination port', UDP_DESTINATION, 2, named(`${port}`, isVxlan ? 'VXLAN' : undefined)),
      field(udp, 'length', UDP_LENGTH, 2, get16(bytes, udp + UDP_LENGTH)),
      field(udp, 'checksum', UDP_CHECKSUM, 2, udpChecksumMeaning(bytes, ip, udp)),
    ],
  });
  if (isVxlan) decodeVxlan(bytes, udp + UDP_HEADER, layers);
}

/** A sender may leave the checksum to the NIC: then the field has no more than the sum of the pseudo-header. */
function udpChecksumMeaning(bytes: Uint8Array, ip: number, udp: number): string {
  const length = get16(bytes, udp + UDP_LENGTH);
  if (get16(bytes, udp + UDP_CHECKSUM) === 0) return 'none';
  if (length > bytes.length - udp) return 'not to be verified: cut off';
  const pseudo = pseudoSum4(bytes, ip, PROTOCOL_UDP, length);
  if (sum(bytes, udp + UDP_CHECKSUM, 2) === pseudo) return "unfinished: the pseudo-header's sum, the NIC adds the rest";
  return verdict(sum(bytes, udp, length, pseudo) === 0xffff);
}

function decodeVxlan(bytes: Uint8Array, vxlan: number, layers: Layer[]): void {
  if (bytes.length - vxlan < VXLAN_HEADER) return;
  const valid = (bytes[vxlan + VXLAN_FLAGS] & VXLAN_I) !== 0;
  layers.push({
    name: 'VXLAN',
    offset: vxlan,
    length: VXLAN_HEADER,
    fields: [
      field(vxlan, 'flags', VXLAN_FLAGS, 1, valid ? 'I: the VNI is valid' : 'I is not set: the VNI is not valid'),
      field(vxlan, 'reserved', VXLAN_FLAGS + 1, 3, get24(bytes, vxlan + VXLAN_FLAGS + 1)),
      field(vxlan, 'VNI', VXLAN_VNI, 3, vxlanVni(bytes, vxlan)),
      field(vxlan, 'reserved', VXLAN_VNI + 3, 1, bytes[vxlan + VXLAN_VNI + 3]),
    ],
  });
  decodeFrame(bytes, vxlan + VXLAN_HEADER, 'inner ', layers);
}

function decodeIcmp(bytes: Uint8Array, ip: number, icmp: number, layers: Layer[]): void {
  const length = get16(bytes, ip + IPV4_TOTAL_LENGTH) - (icmp - ip);
  if (length < ICMP_HEADER || bytes.length - icmp < length) return;
  const type = bytes[icmp + ICMP_TYPE];
  const code = bytes[icmp + ICMP_CODE];
  const isEcho = type === ICMP_ECHO_REQUEST || type === ICMP_ECHO_REPLY;
  layers.push({
    name: 'ICMP',
    offset: icmp,
    length: ICMP_HEADER,
    fields: [
      field(icmp, 'type', ICMP_TYPE, 1, named(`${type}`, icmpName(type, code))),
      field(icmp, 'code', ICMP_CODE, 1, code),
      field(icmp, 'checksum', ICMP_CHECKSUM, 2, verdict(sum(bytes, icmp, length) === 0xffff)),
      ...(isEcho
        ? [
            field(icmp, 'identifier', ICMP_ECHO_ID, 2, get16(bytes, icmp + ICMP_ECHO_ID)),
            field(icmp, 'sequence number', ICMP_ECHO_SEQUENCE, 2, get16(bytes, icmp + ICMP_ECHO_SEQUENCE)),
          ]
        : [field(icmp, 'rest of the header', ICMP_ECHO_ID, ICMP_HEADER - ICMP_ECHO_ID, '')]),
    ],
  });
}

function verdict(right: boolean): string {
  return right ? 'correct' : 'wrong';
}

function named(value: string, name: string | undefined): string {
  return name === undefined ? value : `${value} (${name})`;
}

function hex16(value: number): string {
  return `0x${value.toString(16).padStart(4, '0')}`;
}
