/** What a record of the outer side tells of what it carries, for those who add up: a run is one record, and several packets. */
import { RECORD_GSO, RECORD_GSO_SIZE, RECORD_LENGTH } from '../../dataplane/record/ring.ts';
import { GSO_UDP_L4 } from '../../system/vnet.ts';
import { formatIpv4, formatIpv6 } from '../../wire/address.ts';
import { ETHER_HEADER } from '../../wire/ethernet.ts';
import { IPV4_DESTINATION, IPV4_SOURCE } from '../../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_SOURCE } from '../../wire/ipv6.ts';
import { OUTER_LENGTH_IPV4, OUTER_LENGTH_IPV6, VXLAN_HEADER, vxlanVni } from '../../wire/vxlan.ts';

export interface Outer {
  readonly vni: number;
  /** Of the other end. */
  readonly address: string;
  /** Where the first inner frame begins. */
  readonly length: number;
  /** VXLAN packets; a super-frame is one. */
  readonly packets: number;
  /** Of their inner frames together. */
  readonly bytes: number;
}

/** As uvxlan writes and takes them: without options. Undefined when the bytes end before the inner frame. */
export function outerOf(words: Int32Array, record: number, bytes: Uint8Array, isReceived: boolean): Outer | undefined {
  if (bytes.length < OUTER_LENGTH_IPV4) return undefined;
  const isIpv4 = bytes[ETHER_HEADER] >> 4 === 4;
  const length = isIpv4 ? OUTER_LENGTH_IPV4 : OUTER_LENGTH_IPV6;
  if (bytes.length < length) return undefined;
  const address = isIpv4
    ? formatIpv4(bytes, ETHER_HEADER + (isReceived ? IPV4_SOURCE : IPV4_DESTINATION))
    : formatIpv6(bytes, ETHER_HEADER + (isReceived ? IPV6_SOURCE : IPV6_DESTINATION));
  // The packets of a run share Ethernet, IP and UDP headers; each has a VXLAN header of its own.
  const behind = words[record + RECORD_LENGTH] - (length - VXLAN_HEADER);
  const isRun = words[record + RECORD_GSO] >> 8 === GSO_UDP_L4;
  const packets = isRun ? Math.max(1, Math.ceil(behind / words[record + RECORD_GSO_SIZE])) : 1;
  return {
    ...{ vni: vxlanVni(bytes, length - VXLAN_HEADER), address, length, packets },
    bytes: behind - packets * VXLAN_HEADER,
  };
}
