/**
 * ARP for IPv4 over Ethernet. RFC 826.
 *
 *      0          2          4      5      6           8       14     18      24     28
 *      +----------+----------+------+------+-----------+-------+------+-------+------+
 *      | hardware | protocol | hlen | plen | operation | sender MAC,IP| target MAC,IP|
 *      +----------+----------+------+------+-----------+-------+------+-------+------+
 */
import { get16 } from './bytes.ts';
import { ETHERTYPE_IPV4 } from './ethernet.ts';

export const ARP_HARDWARE = 0;
export const ARP_PROTOCOL = 2;
export const ARP_HARDWARE_LENGTH = 4;
export const ARP_PROTOCOL_LENGTH = 5;
export const ARP_OPERATION = 6;
export const ARP_SENDER_MAC = 8;
export const ARP_SENDER_IP = 14;
export const ARP_TARGET_MAC = 18;
export const ARP_TARGET_IP = 24;
/** Length of the whole packet. */
export const ARP_PACKET = 28;

export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;

const HARDWARE_ETHERNET = 1;

/** Whether a whole packet for IPv4 over Ethernet is there: only then do the address offsets hold. */
export function arpIsIpv4(bytes: Uint8Array, arp: number, length: number): boolean {
  return (
    length >= ARP_PACKET &&
    get16(bytes, arp + ARP_HARDWARE) === HARDWARE_ETHERNET &&
    get16(bytes, arp + ARP_PROTOCOL) === ETHERTYPE_IPV4 &&
    bytes[arp + ARP_HARDWARE_LENGTH] === 6 &&
    bytes[arp + ARP_PROTOCOL_LENGTH] === 4
  );
}
