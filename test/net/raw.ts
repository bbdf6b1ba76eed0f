// Frames and datagrams of any content, sent and received in a host.

import { fileURLToPath } from 'node:url';
import type { Host } from '../../cli/lab/network.ts';
import { eventually, type Process } from '../../cli/lab/process.ts';
import { parseIpv4 } from '../../wire/address.ts';
import { fillIpv4Checksum, fold, pseudoSum4, putSum, putUdpChecksum, sum } from '../../wire/checksum.ts';
import { IPV4_HEADER, PROTOCOL_UDP, writeIpv4Header } from '../../wire/ipv4.ts';
import { UDP_CHECKSUM, UDP_HEADER, writeUdpHeader } from '../../wire/udp.ts';

const FRAMES = fileURLToPath(new URL('./frames.js', import.meta.url));
const DATAGRAMS = fileURLToPath(new URL('./datagrams.js', import.meta.url));

export interface Datagram {
  /** Source port; default any. */
  from?: number;
  /** Destination port. */
  to: number;
  /** Bytes: send the payload as one super-frame, cut every so many bytes (UDP_SEGMENT). */
  segment?: number;
  payload: Uint8Array;
}

/** Sends each frame `count` times on a device, or on one after the other, the Ethernet header included. Without pause: more may be sent than fits. */
export async function sendFrames(
  host: Host,
  devices: string | readonly string[],
  frames: readonly Uint8Array[],
  count = 1,
): Promise<void> {
  const input = frames.map((frame) => `${Buffer.from(frame).toString('hex')} ${count}\n`).join('');
  await host.run([process.execPath, FRAMES, 'send', ...[devices].flat().map((device) => ifindex(host, device))], {
    input,
  });
}

/** Sends datagrams to an IPv4 address, in order; waits for room rather than to drop one. */
export async function sendDatagrams(host: Host, address: string, datagrams: readonly Datagram[]): Promise<void> {
  const input = datagrams.map(({ from = 0, to, segment = 0, payload }) => {
    return `${from} ${to} ${segment} ${Buffer.from(payload).toString('hex')}\n`;
  });
  await host.run([process.execPath, DATAGRAMS, 'send', address], { input: input.join('') });
}

/** What has arrived at one place, in order. */
export class Listener {
  readonly #process: Process;

  private constructor(process: Process) {
    this.#process = process;
  }

  /** Frames of one ethertype that a device receives. */
  static frames(host: Host, device: string, etherType: string): Promise<Listener> {
    return Listener.#start(host, [FRAMES, 'receive', ifindex(host, device), `0x${etherType}`]);
  }

  /** Payloads of datagrams for a UDP port. */
  static datagrams(host: Host, port: number): Promise<Listener> {
    return Listener.#start(host, [DATAGRAMS, 'receive', `${port}`]);
  }

  static async #start(host: Host, args: readonly string[]): Promise<Listener> {
    const process_ = host.spawn([process.execPath, ...args]);
    await process_.waitFor(/^listening$/m);
    return new Listener(process_);
  }

  /** As hex. */
  get received(): string[] {
    return this.#process.stdout.split('\n').slice(1, -1);
  }

  /** Resolves with all that has arrived when it is `count` or more. */
  async atLeast(count: number): Promise<string[]> {
    await eventually(`${count} packets received`, () => this.received.length >= count);
    return this.received;
  }

  async stop(): Promise<void> {
    await this.#process.stop('SIGKILL');
  }
}

/** An Ethernet frame; MAC addresses as text, the ethertype, tags in front of it included, as hex. */
export function frame(destination: string, source: string, etherType: string, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`${destination}${source}${etherType}`.replaceAll(':', ''), 'hex'), payload]);
}

export interface UdpPacket {
  source: string;
  destination: string;
  /** Source and destination port. */
  ports: readonly [number, number];
  payload: Uint8Array;
}

/** An IPv4 packet with its UDP datagram, checksums included. */
export function udpPacket({ source, destination, ports, payload }: UdpPacket): Buffer {
  const length = UDP_HEADER + payload.length;
  const bytes = Buffer.alloc(IPV4_HEADER + length);
  writeIpv4Header(bytes, 0, {
    totalLength: bytes.length,
    protocol: PROTOCOL_UDP,
    tos: 0,
    id: 1,
    dontFragment: false,
    ttl: 64,
    source: parseIpv4(source)!,
    destination: parseIpv4(destination)!,
  });
  fillIpv4Checksum(bytes, 0);
  writeUdpHeader(bytes, IPV4_HEADER, ports[0], ports[1], length);
  bytes.set(payload, IPV4_HEADER + UDP_HEADER);
  putSum(bytes, IPV4_HEADER + UDP_CHECKSUM, fold(pseudoSum4(bytes, 0, PROTOCOL_UDP, length)));
  putUdpChecksum(bytes, IPV4_HEADER + UDP_CHECKSUM, fold(sum(bytes, IPV4_HEADER, length)));
  return bytes;
}

/** Bytes that look random and are the same every time: a linear congruential generator (Numerical Recipes). */
export function noise(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

function ifindex(host: Host, device: string): string {
  return `${host.ipJson<{ ifindex: number }[]>(`link show dev ${device}`)[0]!.ifindex}`;
}
