/**
 * ARP for IPv4 over Ethernet. RFC 826.
 *
 *      0             2               4          5          6
 *      +-------------+---------------+----------+----------+-----------+
 *   0  |hardware type| protocol type | 6 (MAC)  | 4 (IPv4) | operation |
 *      +-------------+---------------+----------+----------+-----------+
 *   8  |        sender MAC (6)       |           sender IP (4)         |
 *  18  |        target MAC (6)       |           target IP (4)         |
 *      +-----------------------------+---------------------------------+
 */
import { putMac } from './address.ts';
import { get16, put16 } from './bytes.ts';
import {
  ETHER_DESTINATION,
  ETHER_HEADER,
  ETHER_SOURCE,
  ETHER_TYPE,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
} from './ethernet.ts';

export const ARP_HARDWARE = 0;
const ARP_PROTOCOL = 2;
const ARP_LENGTHS = 4;
export const ARP_OPERATION = 6;
export const ARP_SENDER_MAC = 8;
export const ARP_SENDER_IP = 14;
export const ARP_TARGET_MAC = 18;
export const ARP_TARGET_IP = 24;
export const ARP_PACKET = 28;

/** Hardware types (https://www.iana.org/assignments/arp-parameters): both have 6-byte addresses, and answer each other. */
export const ARP_ETHERNET = 1;
export const ARP_IEEE802 = 6;

export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;
/** Reverse ARP (RFC 903). */
export const RARP_REQUEST = 3;
export const RARP_REPLY = 4;

/** Length of the frame that `writeArpReply` makes. */
export const ARP_FRAME = ETHER_HEADER + ARP_PACKET;

/** Whether `length` bytes hold a whole ARP packet for IPv4 over 6-byte MAC addresses, of whatever hardware type. */
export function arpIsIpv4(bytes: Uint8Array, arp: number, length: number): boolean {
  return (
    length >= ARP_PACKET &&
    get16(bytes, arp + ARP_PROTOCOL) === ETHERTYPE_IPV4 &&
    get16(bytes, arp + ARP_LENGTHS) === 0x0604
  );
}

/**
 * Writes the frame of ARP_FRAME bytes that answers the request whose ARP packet is at `arp`: the target IP is at the MAC given as
 * u16 and int32. It goes to the request's sender MAC, which need not be the Ethernet source. The two must not overlap.
 */
export function writeArpReply(bytes: Uint8Array, frame: number, arp: number, macHigh: number, macLow: number): void {
  const reply = frame + ETHER_HEADER;
  bytes.copyWithin(frame + ETHER_DESTINATION, arp + ARP_SENDER_MAC, arp + ARP_SENDER_IP);
  putMac(bytes, frame + ETHER_SOURCE, macHigh, macLow);
  put16(bytes, frame + ETHER_TYPE, ETHERTYPE_ARP);
  put16(bytes, reply + ARP_HARDWARE, ARP_ETHERNET);
  put16(bytes, reply + ARP_PROTOCOL, ETHERTYPE_IPV4);
  put16(bytes, reply + ARP_LENGTHS, 0x0604);
  put16(bytes, reply + ARP_OPERATION, ARP_REPLY);
  putMac(bytes, reply + ARP_SENDER_MAC, macHigh, macLow);
  bytes.copyWithin(reply + ARP_SENDER_IP, arp + ARP_TARGET_IP, arp + ARP_PACKET);
  bytes.copyWithin(reply + ARP_TARGET_MAC, arp + ARP_SENDER_MAC, arp + ARP_TARGET_MAC);
}
