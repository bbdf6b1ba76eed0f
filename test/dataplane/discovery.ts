/** Frames of ARP and IPv6 neighbour discovery for tests, built byte by byte; see packet.ts. */
import { mac } from './packet.ts';

/** Last byte of the addresses of whoever asks. */
export const ASKER = 0x13;
export const ip4 = (last: number): number[] => [10, 0, 0, last];
export const ip6 = (last: number): number[] => [0xfd, ...Array(14).fill(0), last];
export const BROADCAST = Array(6).fill(0xff);

export interface Asked {
  to?: readonly number[];
  from?: readonly number[];
  operation?: number;
  sender?: readonly number[];
  senderMac?: readonly number[];
}

/** From 10.0.0.19 at the MAC 02:00:00:00:00:13, unless told otherwise. */
export function arp(target: readonly number[], asked: Asked = {}): Uint8Array {
  const { to = BROADCAST, from = mac(ASKER), operation = 1, sender = ip4(ASKER), senderMac = from } = asked;
  const body = [0, 1, 8, 0, 6, 4, 0, operation, ...senderMac, ...sender, 0, 0, 0, 0, 0, 0, ...target];
  return Uint8Array.from([...to, ...from, 0x08, 0x06, ...body]);
}

/** A solicitation, or with its type and flags an advertisement; the checksum is not looked at. */
export function nd(
  target: readonly number[],
  asked: Asked & { type?: number; flags?: number; option?: string } = {},
): Uint8Array {
  const { to = [0x33, 0x33, 0xff, 0, 0, 1], from = mac(ASKER), sender = ip6(ASKER), type = 135, flags = 0 } = asked;
  const { option = `0101${Buffer.from(from).toString('hex')}` } = asked;
  const body = [type, 0, 0, 0, flags, 0, 0, 0, ...target, ...Buffer.from(option.replaceAll(' ', ''), 'hex')];
  const header = [0x60, 0, 0, 0, 0, body.length, 58, 255, ...sender, ...ip6(0xff)];
  return Uint8Array.from([...to, ...from, 0x86, 0xdd, ...header, ...body]);
}
