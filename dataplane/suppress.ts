/**
 * What keeps ARP and IPv6 neighbour discovery off the network: a worker answers for neighbours that it knows. In two manners:
 *
 * - `proxy`, the kernel's vxlan device's (Linux: arp_reduce and neigh_reduce in drivers/net/vxlan/vxlan_core.c). No ARP packet and no
 *   solicitation ever leaves; what is not known is not answered, and with
 *   `l3miss` reported.
 * - `neigh_suppress`, a bridge port's (net/bridge/br_arp_nd_proxy.c). What is known is answered, what is of no use to others is dropped, the
 *   rest goes out.
 *
 * Both see frames without VLAN tags only, as the kernel's device does; and `rsc`, route short-circuit, which is here as well: a
 * packet for a router whose destination is a neighbour goes straight there (Linux: route_shortcircuit).
 */

import { IS_OWN, IS_ROUTER, type NeighborReader, NUD_CONNECTED, NUD_VALID, OF_BRIDGE } from '../fdb/neighbors.ts';
import type { FdbReader } from '../fdb/table.ts';
import { putMac } from '../wire/address.ts';
import {
  ARP_ETHERNET,
  ARP_FRAME,
  ARP_HARDWARE,
  ARP_IEEE802,
  ARP_OPERATION,
  ARP_REQUEST,
  ARP_SENDER_IP,
  ARP_SENDER_MAC,
  ARP_TARGET_IP,
  arpIsIpv4,
  RARP_REPLY,
  RARP_REQUEST,
  writeArpReply,
} from '../wire/arp.ts';
import { get16, get32 } from '../wire/bytes.ts';
import {
  ETHER_DESTINATION,
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  MAC_LENGTH,
} from '../wire/ethernet.ts';
import { IPV4_DESTINATION, IPV4_HEADER } from '../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HEADER, IPV6_SOURCE } from '../wire/ipv6.ts';
import {
  ND_FLAGS,
  ND_FRAME,
  ND_SOLICITATION,
  ND_SOLICITED,
  ND_TARGET,
  ndType,
  solicitorMac,
  writeAdvertisement,
} from '../wire/nd.ts';
import { COUNTER } from './counters.ts';
import { type Device, L3MISS, NOARP, PROXY } from './device.ts';
import type { PacketMemory } from './memory.ts';
import type { Reply } from './reply.ts';
import { REPORT_L3MISS, type ReportWriter } from './reports.ts';

export class Suppressor {
  readonly #memory: PacketMemory;
  readonly #counters: Float64Array;
  readonly #fdb: FdbReader;
  readonly #neighbors: NeighborReader;
  readonly #reply: Reply;
  readonly #reports: ReportWriter;

  constructor(
    memory: PacketMemory,
    counters: Float64Array,
    fdb: FdbReader,
    neighbors: NeighborReader,
    reply: Reply,
    reports: ReportWriter,
  ) {
    this.#memory = memory;
    this.#counters = counters;
    this.#fdb = fdb;
    this.#neighbors = neighbors;
    this.#reply = reply;
    this.#reports = reports;
  }

  /**
   * Whether the frame (an Ethernet header at least) goes no further: it has been answered, or dropped and counted. `flags` are the device's,
   * with PROXY or NEIGH_SUPPRESS.
   */
  takes(frame: number, length: number, device: Device, flags: number): boolean {
    const { u8 } = this.#memory;
    const network = frame + ETHER_HEADER;
    const room = length - ETHER_HEADER;
    switch (etherType(u8, network)) {
      case ETHERTYPE_ARP:
        return (flags & PROXY) !== 0
          ? this.#proxyArp(network, room, device, flags)
          : arpIsIpv4(u8, network, room) && this.#suppressArp(frame, network, device);
      case ETHERTYPE_IPV6: {
        const type = ndType(u8, network, room);
        if (type === 0) return false;
        if ((flags & PROXY) === 0) return this.#suppressNd(frame, length, type, device);
        return type === ND_SOLICITATION && this.#proxyNd(frame, length, device, flags);
      }
      default:
        return false;
    }
  }

  #proxyArp(arp: number, room: number, device: Device, flags: number): boolean {
    const { u8 } = this.#memory;
    if ((flags & NOARP) !== 0) return this.#drop(device);
    if (!arpIsIpv4(u8, arp, room) || get16(u8, arp + ARP_OPERATION) !== ARP_REQUEST) return this.#drop(device);
    const hardware = get16(u8, arp + ARP_HARDWARE);
    if ((hardware !== ARP_ETHERNET && hardware !== ARP_IEEE802) || isNoHost(u8[arp + ARP_TARGET_IP])) {
      return this.#drop(device);
    }
    const state = this.#find(device, 4, arp + ARP_TARGET_IP, flags);
    return (state & NUD_CONNECTED) !== 0 ? this.#answerArp(arp, device) : this.#drop(device);
  }

  #proxyNd(frame: number, length: number, device: Device, flags: number): boolean {
    const { u8 } = this.#memory;
    const ip = frame + ETHER_HEADER;
    const target = ip + IPV6_HEADER + ND_TARGET;
    if (isLoopback6(u8, ip + IPV6_DESTINATION) || u8[target] === 0xff) return this.#drop(device);
    const state = this.#find(device, 6, target, flags);
    if ((state & NUD_CONNECTED) === 0) return this.#drop(device);
    const { macHigh, macLow } = this.#neighbors;
    return this.#answerNd(frame, length, device, this.#fdb.isRouter(device.index, macHigh, macLow));
  }

  /** A neighbour as the kernel's device would look for one: its own, not its bridge's. That there is none is reported with `l3miss`. */
  #find(device: Device, family: 4 | 6, at: number, flags: number): number {
    const state = this.#neighbors.find(device.index, family, this.#memory.u8, at);
    if (state !== 0 && (state & (OF_BRIDGE | IS_OWN)) === 0) return state;
    if ((flags & L3MISS) !== 0) this.#reports.report(REPORT_L3MISS, device.index, 0, 0, family, at, 0, 0);
    return 0;
  }

  #suppressArp(frame: number, arp: number, device: Device): boolean {
    const { u8 } = this.#memory;
    const operation = get16(u8, arp + ARP_OPERATION);
    const target = arp + ARP_TARGET_IP;
    const sender = get32(u8, arp + ARP_SENDER_IP);
    if (isNoHost(u8[target]) || !this.#isFlooded(frame, device)) return false;
    const isUnicast = (u8[frame + ETHER_DESTINATION] & 1) === 0;
    if (isUnicast && operation === ARP_REQUEST) return false;
    const isReverse = operation === RARP_REQUEST || operation === RARP_REPLY;
    // Probes and announcements (RFC 5227) are of use to those only who share the segment.
    if (!isReverse && (sender === 0 || sender === get32(u8, target))) return this.#drop(device);
    if (operation !== ARP_REQUEST) return false;
    const state = this.#neighbors.find(device.index, 4, u8, target);
    if ((state & IS_OWN) !== 0) return this.#drop(device);
    if ((state & NUD_VALID) === 0) return false;
    if (this.#foundIsAt(frame + ETHER_SOURCE)) return this.#drop(device);
    const { macHigh, macLow } = this.#neighbors;
    if (this.#fdb.lookup(device.index, macHigh, macLow) === 0) return false;
    return this.#foundIsAt(arp + ARP_SENDER_MAC) ? this.#drop(device) : this.#answerArp(arp, device);
  }

  #suppressNd(frame: number, length: number, type: number, device: Device): boolean {
    const { u8 } = this.#memory;
    const ip = frame + ETHER_HEADER;
    const message = ip + IPV6_HEADER;
    if (!this.#isFlooded(frame, device)) return false;
    if (type !== ND_SOLICITATION) {
      // Unsolicited ones are announcements, too.
      return (u8[message + ND_FLAGS] & ND_SOLICITED) === 0 && this.#drop(device);
    }
    if ((u8[frame + ETHER_DESTINATION] & 1) === 0) return false;
    // Duplicate address detection (RFC 4862, 5.4.2).
    if (isUnspecified(u8, ip + IPV6_SOURCE) || isEqual(u8, ip + IPV6_SOURCE, ip + IPV6_DESTINATION)) {
      return this.#drop(device);
    }
    const state = this.#neighbors.find(device.index, 6, u8, message + ND_TARGET);
    if ((state & IS_OWN) !== 0) return this.#drop(device);
    if ((state & NUD_VALID) === 0) return false;
    if (this.#foundIsAt(frame + ETHER_SOURCE)) return this.#drop(device);
    const { macHigh, macLow } = this.#neighbors;
    if (this.#fdb.lookup(device.index, macHigh, macLow) === 0) return false;
    return this.#answerNd(frame, length, device, (state & IS_ROUTER) !== 0);
  }

  /** Whether the neighbour that was found last has the MAC at `at`: a bridge knows that whoever asks is not behind the device. */
  #foundIsAt(at: number): boolean {
    const { u8 } = this.#memory;
    return get16(u8, at) === this.#neighbors.macHigh && get32(u8, at + 2) === this.#neighbors.macLow;
  }

  /** A bridge suppresses what it floods, not what it forwards. */
  #isFlooded(frame: number, device: Device): boolean {
    const { u8 } = this.#memory;
    if ((u8[frame + ETHER_DESTINATION] & 1) !== 0) return true;
    return this.#fdb.lookup(device.index, get16(u8, frame), get32(u8, frame + 2)) === 0;
  }

  /** In the name of the neighbour that was found last. */
  #answerArp(arp: number, device: Device): boolean {
    const { macHigh, macLow } = this.#neighbors;
    writeArpReply(this.#memory.u8, this.#reply.frame, arp, macHigh, macLow);
    return this.#send(device, ARP_FRAME);
  }

  /** As above. */
  #answerNd(frame: number, length: number, device: Device, isRouter: boolean): boolean {
    const { u8 } = this.#memory;
    const { macHigh, macLow } = this.#neighbors;
    const mac = solicitorMac(u8, frame, length);
    if (mac < 0) return this.#drop(device);
    writeAdvertisement(u8, this.#reply.frame, frame, mac, macHigh, macLow, isRouter);
    return this.#send(device, ND_FRAME);
  }

  #send(device: Device, length: number): boolean {
    if (!this.#reply.send(device.tap, length)) return this.#drop(device);
    this.#counters[device.scope + COUNTER.tx_answered]++;
    return true;
  }

  #drop(device: Device): boolean {
    this.#counters[device.scope + COUNTER.tx_suppressed]++;
    return true;
  }

  /**
   * Route short-circuit: if the frame is for a router's MAC, and its IP destination is a neighbour, it goes to that neighbour's MAC, and
   * from the router's. Whoever calls looks the destination up afterwards.
   */
  shortCircuit(frame: number, length: number, device: Device, flags: number): void {
    const { u8 } = this.#memory;
    if (!this.#fdb.isRouter(device.index, get16(u8, frame), get32(u8, frame + 2))) return;
    const ip = frame + ETHER_HEADER;
    const type = etherType(u8, ip);
    const family = type === ETHERTYPE_IPV4 ? 4 : type === ETHERTYPE_IPV6 ? 6 : 0;
    if (family === 0 || (u8[frame] & 1) !== 0) return;
    if (length < ETHER_HEADER + (family === 4 ? IPV4_HEADER : IPV6_HEADER)) return;
    const destination = ip + (family === 4 ? IPV4_DESTINATION : IPV6_DESTINATION);
    if (this.#find(device, family, destination, flags) === 0) return;
    const { macHigh, macLow } = this.#neighbors;
    if (get16(u8, frame) === macHigh && get32(u8, frame + 2) === macLow) return;
    u8.copyWithin(frame + ETHER_SOURCE, frame, frame + MAC_LENGTH);
    putMac(u8, frame, macHigh, macLow);
  }
}

/** 127.0.0.0/8 and 224.0.0.0/4, by the first byte. */
function isNoHost(first: number): boolean {
  return first === 127 || (first & 0xf0) === 0xe0;
}

function isUnspecified(bytes: Uint8Array, at: number): boolean {
  return (get32(bytes, at) | get32(bytes, at + 4) | get32(bytes, at + 8) | get32(bytes, at + 12)) === 0;
}

function isLoopback6(bytes: Uint8Array, at: number): boolean {
  return (get32(bytes, at) | get32(bytes, at + 4) | get32(bytes, at + 8)) === 0 && get32(bytes, at + 12) === 1;
}

function isEqual(bytes: Uint8Array, a: number, b: number): boolean {
  for (let i = 0; i < 16; i += 4) if (get32(bytes, a + i) !== get32(bytes, b + i)) return false;
  return true;
}
