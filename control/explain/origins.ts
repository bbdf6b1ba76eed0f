/** Where each field of an outer header came from: this entry, this neighbour, this option, the inner packet, or arithmetic. */
import { familyOf } from '../../wire/address.ts';
import type { VxlanDevice } from '../device.ts';
import type { Path } from '../path.ts';

/** By 'LAYER.FIELD', as packets/ names them. */
export type Origins = Readonly<Record<string, string>>;

export interface OriginFacts {
  readonly device: Pick<VxlanDevice, 'config' | 'place' | 'uplink' | 'name'>;
  /** 'the FDB entry 02:00:00:00:00:02, permanent'. */
  readonly entry: string;
  readonly remote: { readonly ip: string; readonly port: number; readonly vni: number };
  /** undefined: the host's stack finds the way. */
  readonly path: Path | undefined;
  /** The range that the host has for source ports, where the device has none. */
  readonly hasOwnPorts: boolean;
}

export function originsOf({ device, entry, remote, path, hasOwnPorts }: OriginFacts): Origins {
  const { config, name } = device;
  const option = (text: string): string => `option "${text}" of ${name}`;
  const ttl =
    config.ttl === 'inherit'
      ? 'the inner packet (option "ttl inherit")'
      : config.ttl > 0
        ? option(`ttl ${config.ttl}`)
        : 'the host\'s default (option "ttl auto")';
  const dscp = config.tos === 'inherit' ? 'the inner packet (option "tos inherit")' : option(`tos ${config.tos}`);
  const network = familyOf(remote.ip) === 4 ? 'IPv4' : 'IPv6';
  const isOwnPort = remote.port === config.dstport;
  const isOwnVni = remote.vni === config.id;
  return {
    ...ethernetOrigins(path, device.uplink.kind),
    [`${network}.source`]: config.local === null ? `the route to ${remote.ip}` : option(`local ${config.local}`),
    [`${network}.destination`]: `${entry}: its dst`,
    [`${network}.DSCP`]: dscp,
    [`${network}.ECN`]: `the inner packet's ECN, as ${config.ecn === 'rfc6040' ? 'RFC 6040, 4.1' : 'Linux'} has it (option "ecn ${config.ecn}")`,
    [`${network}.${network === 'IPv4' ? 'TTL' : 'hop limit'}`]: ttl,
    'IPv4.DF': config.df === 'inherit' ? 'the inner packet (option "df inherit")' : option(`df ${config.df}`),
    'IPv4.total length': "the inner frame's length and 36 bytes of headers",
    'IPv4.identification': 'a counter of the worker, which begins anywhere',
    'IPv4.header checksum': 'the sum of this header',
    'IPv4.protocol': 'VXLAN is carried in UDP',
    'IPv6.payload length': "the inner frame's length and 16 bytes of headers",
    'IPv6.flow label': option(`flowlabel ${config.flowlabel}`),
    'UDP.source port': `a hash of the inner addresses, protocol and ports, within ${hasOwnPorts ? option(`srcport ${config.srcport.join(' ')}`) : "the host's ip_local_port_range"}`,
    'UDP.destination port': isOwnPort ? option(`dstport ${config.dstport}`) : `${entry}: its port`,
    'UDP.length': "the inner frame's length and 16 bytes of headers",
    'UDP.checksum': checksumOrigin(device, network),
    'VXLAN.I': 'always set: the VNI is valid',
    'VXLAN.VNI': isOwnVni ? option(`id ${config.id}`) : `${entry}: its vni`,
  };
}

function ethernetOrigins(path: Path | undefined, uplink: string): Origins {
  if (!path) {
    const stack = `the host's stack (uplink ${uplink})`;
    return { 'Ethernet.destination': stack, 'Ethernet.source': stack };
  }
  const who = path.gateway === undefined ? path.destination : `gateway ${path.gateway}`;
  return {
    'Ethernet.destination': `the neighbour entry of ${who} on ${path.dev}`,
    'Ethernet.source': `the MAC of ${path.dev}, which the route goes through`,
    'Ethernet.type': `the family of the VTEP's address`,
  };
}

function checksumOrigin({ config, name }: OriginFacts['device'], network: string): string {
  if (network === 'IPv6')
    return config.udp6zerocsumtx ? `option "udp6zerocsumtx" of ${name}` : 'a must over IPv6: the NIC finishes it';
  return config.udpcsum ? `option "udpcsum" of ${name}: the NIC finishes it` : `option "noudpcsum" of ${name}`;
}
