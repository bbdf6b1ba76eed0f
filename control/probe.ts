/**
 * Proves, on this kernel, that what the redirect uplink rests on works: two throw-away TAPs, one in the NIC's place, and packets of
 * each kind sent both ways.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Capabilities, uplinkOffloads } from '../system/capabilities.ts';
import * as libc from '../system/libc.ts';
import { createTap, type TapDevice, tapMac } from '../system/tun.ts';
import {
  GSO_TCPV4,
  GSO_TUNNEL_IPV4,
  NEEDS_CSUM,
  UDP_TUNNEL_CSUM,
  VNET_CHECKSUM_OFFSET,
  VNET_CHECKSUM_START,
  VNET_FLAGS,
  VNET_GSO_SIZE,
  VNET_GSO_TYPE,
  VNET_HEADER_LENGTH,
  VNET_INNER_NETWORK,
  VNET_OUTER_TRANSPORT,
  VNET_TUNNEL,
} from '../system/vnet.ts';
import { formatIpv4, formatMac } from '../wire/address.ts';
import { fillIpv4Checksum, fold, pseudoSum4, putSum } from '../wire/checksum.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, writeEthernetHeader } from '../wire/ethernet.ts';
import { IPV4_HEADER, PROTOCOL_TCP, PROTOCOL_UDP, writeIpv4Header } from '../wire/ipv4.ts';
import { TCP_CHECKSUM, TCP_DATA_OFFSET, TCP_FLAG_ACK, TCP_FLAGS, TCP_HEADER } from '../wire/tcp.ts';
import { UDP_CHECKSUM, UDP_HEADER, writeUdpHeader } from '../wire/udp.ts';
import { OUTER_LENGTH_IPV4, VXLAN_HEADER, VXLAN_PORT_LINUX, writeVxlanHeader } from '../wire/vxlan.ts';
import type { Host } from './host.ts';
import { attachRedirect, detachRedirect, type Redirect } from './redirect.ts';

const TRIES = 50;
/** A new TAP's, in bytes. */
const MTU = 1500;
const PAYLOAD = 3000;
const MSS = 1400;
const MACS = [Buffer.from([2, 0, 0, 0, 0, 1]), Buffer.from([2, 0, 0, 0, 0, 2])] as const;
// Documentation addresses (RFC 5737); the packets never leave the two TAPs.
const ADDRESSES = [Buffer.from([192, 0, 2, 1]), Buffer.from([192, 0, 2, 2])] as const;

/** What the probe found: undefined when redirection works, else one clause that says what does not. */
export async function probeRedirect(host: Host, capabilities: Capabilities): Promise<string | undefined> {
  const taps: TapDevice[] = [];
  let redirect: Redirect | undefined;
  try {
    for (let i = 0; i < 2; i++) taps.push(createTap('uvxprobe%d', 1, VNET_TUNNEL, uplinkOffloads(capabilities)));
    const [uplink, nic] = taps;
    const mac = tapMac(nic)!;
    await host.setLink(nic.name, { ipv6Address: false, arp: false, multicast: false, up: true });
    redirect = await attachRedirect(host, {
      nic: nic.name,
      link: { name: nic.name, ifindex: libc.ifIndex(nic.name), mac: formatMac(mac), mtu: MTU },
      uplink: uplink.name,
      local: formatIpv4(ADDRESSES[1]),
      port: VXLAN_PORT_LINUX,
      tcx: capabilities.tcx,
    });
    for (const [what, superFrame] of [
      ['a single packet', false],
      ...(capabilities.tunnelGso ? ([['a super-frame', true]] as const) : []),
    ] as const) {
      const packet = probePacket(mac, superFrame);
      if (!(await passes(uplink, nic, packet))) return `${what} did not pass from the uplink TAP to the NIC`;
      if (!(await passes(nic, uplink, packet))) return `${what} did not pass from the NIC to the uplink TAP`;
    }
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    if (redirect) await detachRedirect(host, redirect).catch(() => {});
    await Promise.all(taps.flatMap(({ queues }) => queues.map(libc.closeAside)));
  }
}

async function passes(from: TapDevice, to: TapDevice, packet: Uint8Array): Promise<boolean> {
  if (libc.write(from.queues[0], libc.addressOf(packet), packet.length) < 0) return false;
  const received = new Uint8Array(65536);
  for (let i = 0; i < TRIES; i++) {
    const length = libc.read(to.queues[0], libc.addressOf(received), received.length);
    // Other packets may appear on a TAP that was just set up; ours comes out as it went in, metadata included.
    if (length === packet.length && same(received, packet)) return true;
    if (length < 0) await sleep(2);
  }
  return false;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return (
    a[VNET_GSO_TYPE] === b[VNET_GSO_TYPE] &&
    Buffer.compare(a.subarray(VNET_TUNNEL, b.length), b.subarray(VNET_TUNNEL)) === 0
  );
}

/** A VXLAN packet, to that MAC address, with an inner TCP segment: one whose outer checksum is unfinished, or a super-frame with tunnel metadata. */
function probePacket(destination: Uint8Array, superFrame: boolean): Uint8Array {
  const payload = superFrame ? PAYLOAD : 64;
  const inner = OUTER_LENGTH_IPV4 + ETHER_HEADER + IPV4_HEADER;
  const length = inner + TCP_HEADER + payload;
  const packet = new Uint8Array(VNET_TUNNEL + length);
  const frame = packet.subarray(VNET_TUNNEL);
  const udp = ETHER_HEADER + IPV4_HEADER;
  const innerIp = OUTER_LENGTH_IPV4 + ETHER_HEADER;
  writeEthernetHeader(frame, 0, destination, MACS[0], ETHERTYPE_IPV4);
  writeIpv4Header(frame, ETHER_HEADER, ip(length - ETHER_HEADER, PROTOCOL_UDP));
  fillIpv4Checksum(frame, ETHER_HEADER);
  writeUdpHeader(frame, udp, 40000, VXLAN_PORT_LINUX, length - udp);
  writeVxlanHeader(frame, udp + UDP_HEADER, 1);
  putSum(frame, udp + UDP_CHECKSUM, fold(pseudoSum4(frame, ETHER_HEADER, PROTOCOL_UDP, length - udp)));
  writeEthernetHeader(frame, udp + UDP_HEADER + VXLAN_HEADER, MACS[1], MACS[0], ETHERTYPE_IPV4);
  writeIpv4Header(frame, innerIp, ip(length - innerIp, PROTOCOL_TCP));
  fillIpv4Checksum(frame, innerIp);
  frame[inner + TCP_DATA_OFFSET] = (TCP_HEADER / 4) << 4;
  frame[inner + TCP_FLAGS] = TCP_FLAG_ACK;
  putSum(frame, inner + TCP_CHECKSUM, fold(pseudoSum4(frame, innerIp, PROTOCOL_TCP, length - inner)));
  const view = new DataView(packet.buffer);
  packet[VNET_FLAGS] = superFrame ? NEEDS_CSUM | UDP_TUNNEL_CSUM : NEEDS_CSUM;
  view.setUint16(VNET_CHECKSUM_START, superFrame ? inner : udp, true);
  view.setUint16(VNET_CHECKSUM_OFFSET, superFrame ? TCP_CHECKSUM : UDP_CHECKSUM, true);
  if (superFrame) {
    packet[VNET_GSO_TYPE] = GSO_TCPV4 | GSO_TUNNEL_IPV4;
    view.setUint16(VNET_GSO_SIZE, MSS, true);
    view.setUint16(VNET_HEADER_LENGTH, inner + TCP_HEADER, true);
    view.setUint16(VNET_OUTER_TRANSPORT, udp, true);
    view.setUint16(VNET_INNER_NETWORK, innerIp, true);
  }
  return packet;
}

function ip(totalLength: number, protocol: number) {
  return {
    totalLength,
    protocol,
    tos: 0,
    id: 0,
    dontFragment: true,
    ttl: 64,
    source: ADDRESSES[0],
    destination: ADDRESSES[1],
  };
}
