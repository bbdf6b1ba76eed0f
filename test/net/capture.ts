// Packet captures and what tshark reads out of them.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../../cli/lab/network.ts';
import { eventually, type Process, run } from '../../cli/lab/process.ts';

/** Milliseconds without a packet after which no more are expected. */
const QUIET = 100;
/** pcap-savefile(5): the file's header, and each packet's, whose third word is the length of what follows. */
const FILE_HEADER = 24;
const PACKET_HEADER = 16;
const PACKET_LENGTH = 8;

let captures = 0;

/** A capture that is running on a device. */
export class Capture {
  /** The pcap file; complete once `stop` has resolved. */
  readonly file: string;
  readonly #process: Process;

  private constructor(file: string, process: Process) {
    this.file = file;
    this.#process = process;
  }

  /**
   * Starts tcpdump and resolves when it captures. `filter` is in pcap-filter(7)'s words. The buffer has room for 16 MB of packets
   * of `longest` bytes: the default, which takes super-frames whole, makes it 64 packets.
   */
  static async start(host: Host, device: string, filter = '', longest = 262_144): Promise<Capture> {
    const file = join(host.directory, `${host.name}-${device}-${++captures}.pcap`);
    // -Z root: Debian's tcpdump gives up root and could not write into a directory of ours.
    const process = host.spawn(
      `tcpdump -Z root --immediate-mode -U -B 16384 -s ${longest} -i ${device} -w ${file} ${filter}`,
    );
    await process.waitFor(/listening on/);
    return new Capture(file, process);
  }

  /** Ends the capture when `count` packets have come and then none for 100 ms, and returns the pcap file's path. */
  async stop(count = 1): Promise<string> {
    let packets = 0;
    let quietSince = Date.now();
    await eventually(`${count} packets in ${this.file}`, () => {
      const now = packetsIn(this.file);
      if (now !== packets) quietSince = Date.now();
      packets = now;
      return packets >= count && Date.now() - quietSince >= QUIET;
    });
    const exit = await this.#process.stop('SIGINT');
    const dropped = this.#process.stderr.match(/(\d+) packets? dropped by kernel/);
    if (exit.status !== 0 || !dropped || dropped[1] !== '0') throw this.#process.failure('capture incomplete');
    return this.file;
  }
}

/** Those that are whole. */
function packetsIn(file: string): number {
  const bytes = readFileSync(file);
  let count = 0;
  for (let at = FILE_HEADER; at + PACKET_HEADER <= bytes.length; ) {
    at += PACKET_HEADER + bytes.readUInt32LE(at + PACKET_LENGTH);
    if (at <= bytes.length) count++;
  }
  return count;
}

export interface TsharkOptions {
  /** A display filter, as in Wireshark. */
  filter?: string;
  /** Layers that tshark cannot know; default: UDP port 8472 is VXLAN (tshark takes it for OTV). */
  decodeAs?: readonly string[];
}

/**
 * Reads fields of every packet of a capture. A value is the list of all occurrences in the packet, outermost first:
 * `ip.src` of an encapsulated packet is [outer, inner]; a field that does not occur is []. Checksums are verified:
 * `ip.checksum.status` and the like are 1 when good, 0 when bad, 2 when not computed.
 */
export async function tsharkFields<const Field extends string>(
  file: string,
  fields: readonly Field[],
  { filter = '', decodeAs = ['udp.port==8472,vxlan'] }: TsharkOptions = {},
): Promise<Record<Field, string[]>[]> {
  const command = ['tshark', '-n', '-r', file, '-T', 'fields', '-E', 'separator=/t', '-E', 'aggregator=|'];
  for (const field of fields) command.push('-e', field);
  for (const rule of decodeAs) command.push('-d', rule);
  for (const protocol of ['ip', 'udp', 'tcp']) command.push('-o', `${protocol}.check_checksum:TRUE`);
  if (filter) command.push('-Y', filter);
  const { stdout } = await run(command, { timeout: 180_000 });
  return stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const values = line.split('\t').map((value) => (value === '' ? [] : value.split('|')));
      return Object.fromEntries(fields.map((field, index) => [field, values[index] ?? []])) as Record<Field, string[]>;
    });
}
