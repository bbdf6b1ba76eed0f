/** What a device's options amount to: the defaults of each profile, and the words that the workers read. */
import {
  DF_INHERIT,
  ECN_RFC6040,
  GBP,
  L2MISS,
  L3MISS,
  LEARNING,
  NEIGH_SUPPRESS,
  NOARP,
  PROXY,
  RSC,
  TOS_INHERIT,
  TTL_INHERIT,
  VTEP_KNOWN,
  VTEP_STRICT,
} from '../dataplane/device.ts';
import { VXLAN_PORT_IANA, VXLAN_PORT_LINUX } from '../wire/vxlan.ts';
import type { DeviceConfig } from './fields.ts';

/** The I flag and the VNI; with GBP its flags and policy id as well (Linux: vxlan_nl2conf). */
const USED_BITS = 0x08000000_ffffff00n;
const GBP_BITS = 0x80ffffff_00000000n;

/** All bits that mean nothing without an extension: the kernel drops packets that have one. */
export const DEFAULT_RESERVED_BITS = bitsText(~USED_BITS);

type ProfileDefaults = Pick<DeviceConfig, 'dstport' | 'srcport' | 'reserved_bits' | 'ecn'>;

/** Defaults that differ between the kernel and the RFCs, given the other fields. */
export const PROFILES: Record<DeviceConfig['profile'], (fields: Partial<DeviceConfig>) => ProfileDefaults> = {
  linux: (fields) => ({
    dstport: VXLAN_PORT_LINUX,
    srcport: [0, 0],
    reserved_bits: bitsText(~usedBits(fields)),
    ecn: 'linux',
  }),
  // RFC 7348, 5: reserved bits are ignored on receipt, the source port is of the dynamic range; RFC 6040, 4.1: normal mode.
  rfc7348: () => ({
    dstport: VXLAN_PORT_IANA,
    srcport: [49152, 65535],
    reserved_bits: bitsText(0n),
    ecn: 'rfc6040',
  }),
};

/** The bits in use, as text, when some of them are to be reserved. */
export function overlap(fields: Partial<DeviceConfig>): string | undefined {
  const used = usedBits(fields);
  return fields.reserved_bits !== undefined && (BigInt(fields.reserved_bits) & used) !== 0n
    ? bitsText(used)
    : undefined;
}

/** Fields of the outer header that are the same in each packet of a device; those that frames decide are 0. */
export interface OuterOptions {
  /** 0: each frame's own, or the host's default. */
  readonly ttl: number;
  readonly tos: number;
  readonly df: DeviceConfig['df'];
  readonly flowLabel: number;
  readonly udpChecksum: boolean;
  /** Take packets without a UDP checksum on IPv6 (RFC 6935, RFC 6936). */
  readonly zeroChecksum6: boolean;
}

/** What a device's options say of the outer header in packets of a family. DF is IPv4's, the flow label IPv6's. */
export function outerOptions(config: DeviceConfig, family: 4 | 6): OuterOptions {
  const { ttl, tos, df, flowlabel, udpcsum, udp6zerocsumtx, udp6zerocsumrx } = config;
  return {
    ttl: ttl === 'inherit' ? 0 : ttl,
    tos: tos === 'inherit' ? 0 : tos,
    df: family === 4 ? df : 'unset',
    flowLabel: family === 6 ? flowlabel : 0,
    udpChecksum: family === 4 ? udpcsum : !udp6zerocsumtx,
    zeroChecksum6: family === 6 && udp6zerocsumrx,
  };
}

/** Where frames go that have no entry of their own: `remote` and `group` are one thing, as in the kernel. */
export function defaultDestination({ remote, group }: DeviceConfig): string | null {
  return remote ?? group;
}

/** A device's record from DEVICE_FLAGS on; `defaultTtl` is the host's, `noArp` the TAP's `arp off`. */
export function optionWords(config: DeviceConfig, defaultTtl: number, noArp = false): number[] {
  const filter = config['vtep-filter'];
  const options: [boolean, number][] = [
    [config.ttl === 'inherit', TTL_INHERIT],
    [config.tos === 'inherit', TOS_INHERIT],
    [config.df === 'inherit', DF_INHERIT],
    [config.ecn === 'rfc6040', ECN_RFC6040],
    [config.learning, LEARNING],
    [config.proxy, PROXY],
    [config.neigh_suppress, NEIGH_SUPPRESS],
    [config.rsc, RSC],
    [config.l2miss, L2MISS],
    [config.l3miss, L3MISS],
    [filter !== 'off', VTEP_KNOWN],
    [filter === 'strict', VTEP_STRICT],
    [config.gbp, GBP],
    [noArp, NOARP],
  ];
  const flags = options.reduce((bits, [isOn, bit]) => (isOn ? bits | bit : bits), 0);
  const reserved = BigInt(config.reserved_bits);
  return [flags, Number(reserved >> 32n) | 0, Number(reserved & 0xffffffffn) | 0, defaultTtl];
}

function usedBits({ gbp }: Partial<DeviceConfig>): bigint {
  return gbp ? USED_BITS | GBP_BITS : USED_BITS;
}

function bitsText(bits: bigint): string {
  return `0x${BigInt.asUintN(64, bits).toString(16).padStart(16, '0')}`;
}
