// What a network does, in numbers: ping, iperf3 and a checked bulk transfer between two hosts.

import { fileURLToPath } from 'node:url';
import type { BulkReport } from './bulk.ts';
import type { Host } from './network.ts';

export interface PingOptions {
  count?: number;
  /** Seconds between requests; default 0.1. */
  interval?: number;
  /** Bytes of ICMP payload; default 56. */
  size?: number;
  /** Send as fast as replies arrive (`ping -f`). */
  flood?: boolean;
  /** Forbid fragmentation (`ping -M do`). */
  dontFragment?: boolean;
}

export interface PingResult {
  sent: number;
  received: number;
  /** Replies that came more than once. */
  duplicates: number;
  /** Lost requests, 0 to 1. */
  loss: number;
  /** Round trip in milliseconds; undefined when nothing came back. */
  rtt: { min: number; mean: number; max: number; deviation: number } | undefined;
}

/** Total loss is a result and not an error: the caller asserts. */
export async function ping(from: Host, address: string, options: PingOptions = {}): Promise<PingResult> {
  const { count = 3, interval = 0.1, size = 56, flood = false, dontFragment = false } = options;
  const command = ['ping', '-n', '-q', '-c', `${count}`, '-s', `${size}`, '-W', '1'];
  command.push(...(flood ? ['-f'] : ['-i', `${interval}`]));
  if (dontFragment) command.push('-M', 'do');
  // A flood waits 10 ms for a reply that does not come.
  const seconds = 10 + count * (flood ? 0.02 : interval);
  // No -w: with it, ping would go on after `count` requests until that many replies have come.
  const result = await from.run([...command, address], { timeout: seconds * 1000, check: false });
  const counts = result.stdout.match(/(\d+) packets transmitted, (\d+) received/);
  if (!counts) throw new Error(`ping ${address} from ${from.name}: ${result.stdout}${result.stderr}`.trimEnd());
  const [sent, received] = [Number(counts[1]), Number(counts[2])];
  const rtt = result.stdout
    .match(/= ([\d.]+)\/([\d.]+)\/([\d.]+)\/([\d.]+) ms/)
    ?.slice(1)
    .map(Number);
  return {
    sent,
    received,
    duplicates: Number(result.stdout.match(/\+(\d+) duplicates/)?.[1] ?? 0),
    loss: sent === 0 ? 1 : (sent - received) / sent,
    rtt: rtt && { min: rtt[0]!, mean: rtt[1]!, max: rtt[2]!, deviation: rtt[3]! },
  };
}

export interface IperfOptions {
  /** Whole ones; default 2. */
  seconds?: number;
  /** Ends after so many writes instead. */
  writes?: number;
  /** Bits per second offered, as a number or in iperf3's form ("100M"); 0 is unlimited. Default: TCP unlimited, UDP 1M. */
  bitrate?: number | string;
  udp?: boolean;
  /** Bytes of one write, for UDP the datagram's payload. */
  length?: number;
  streams?: number;
  /** The server sends. */
  reverse?: boolean;
  /** Further arguments of the client. */
  extra?: readonly string[];
}

export interface IperfResult {
  /** What arrived, in bits of payload per second. */
  bitsPerSecond: number;
  /** What arrived. */
  bytes: number;
  seconds: number;
  /** UDP: datagrams sent and lost, and the lost share of them, 0 to 1. */
  packets: number;
  lost: number;
  loss: number;
  /** TCP: segments that the sender sent again. */
  retransmits: number;
  /** The client's whole JSON report. */
  report: Record<string, unknown>;
}

interface Sum {
  bits_per_second: number;
  bytes: number;
  seconds: number;
  packets?: number;
  lost_packets?: number;
  retransmits?: number;
}

/**
 * Each run has a port of its own: a datagram of a flood that comes late, when the next server waits, would be taken for that one's client,
 * and the client wait in vain.
 */
const FIRST_PORT = 5201;
const PORTS = 1000;
let runs = 0;

/** Runs an iperf3 server on `server` and a client on `client` that connects to `address`. */
export async function iperf3(
  client: Host,
  server: Host,
  address: string,
  options: IperfOptions = {},
): Promise<IperfResult> {
  const { seconds = 2, writes, udp = false, streams = 1 } = options;
  const end = writes === undefined ? ['-t', `${seconds}`] : ['-k', `${writes}`];
  const port = `${FIRST_PORT + (runs++ % PORTS)}`;
  const command = ['iperf3', '-J', '-c', address, '-p', port, ...end, '-P', `${streams}`];
  if (udp) command.push('-u');
  if (options.bitrate !== undefined) command.push('-b', `${options.bitrate}`);
  if (options.length !== undefined) command.push('-l', `${options.length}`);
  if (options.reverse) command.push('-R');
  const listener = server.spawn(`iperf3 -s -1 -p ${port} --forceflush`);
  try {
    await listener.waitFor(/Server listening/);
    const result = await client.run([...command, ...(options.extra ?? [])], {
      timeout: (seconds + 15) * 1000,
      check: false,
    });
    const report = parseReport(result.stdout);
    if (result.status !== 0 || 'error' in report) {
      const reason = report.error ?? `${result.stdout}${result.stderr}`;
      throw new Error(`${command.join(' ')} from ${client.name} to ${server.name}: ${reason}\n${listener.output}`);
    }
    const sums = report.end as Record<'sum' | 'sum_received' | 'sum_sent', Sum>;
    const { packets = 0, lost_packets: lost = 0 } = udp ? sums.sum : {};
    const bytes = udp ? (sums.sum.bytes / Math.max(packets, 1)) * (packets - lost) : sums.sum_received.bytes;
    const duration = (udp ? sums.sum : sums.sum_received).seconds;
    return {
      bitsPerSecond: (bytes * 8) / duration,
      bytes,
      seconds: duration,
      packets,
      lost,
      loss: packets === 0 ? 0 : lost / packets,
      retransmits: sums.sum_sent?.retransmits ?? 0,
      report,
    };
  } finally {
    await listener.stop();
  }
}

function parseReport(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return { error: `no JSON report: ${text}` };
  }
}

export interface BulkResult {
  bytes: number;
  seconds: number;
  bitsPerSecond: number;
}

/** Sends `bytes` over one TCP connection and throws unless exactly the same bytes arrived (SHA-256). */
export async function bulkTransfer(
  from: Host,
  to: Host,
  address: string,
  bytes = 32 * 1024 * 1024,
  timeout = 60_000,
): Promise<BulkResult> {
  const script = [process.execPath, fileURLToPath(new URL('./bulk.js', import.meta.url))];
  const receiver = to.spawn([...script, 'receive']);
  try {
    const [, port] = await receiver.waitFor(/listening (\d+)/);
    const { stdout } = await from.run([...script, 'send', address, port!, `${bytes}`], { timeout });
    const sent = JSON.parse(stdout) as BulkReport;
    const received = JSON.parse((await receiver.waitFor(/^\{.*\}$/m))[0]) as BulkReport;
    return bulkResult(from, to, bytes, sent, received);
  } finally {
    await receiver.stop();
  }
}

/** Throws unless the two ends have seen the same. */
export function bulkResult(from: Host, to: Host, bytes: number, sent: BulkReport, received: BulkReport): BulkResult {
  if (received.sha256 !== sent.sha256 || received.bytes !== bytes) {
    throw new Error(
      `bulk transfer from ${from.name} to ${to.name} damaged: sent ${sent.bytes} bytes ${sent.sha256}, ` +
        `received ${received.bytes} bytes ${received.sha256}`,
    );
  }
  const seconds = sent.seconds!;
  return { bytes, seconds, bitsPerSecond: (bytes * 8) / seconds };
}
