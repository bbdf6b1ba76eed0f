/** `uvxlan explain`: packets from a file, from standard input, or live from the daemon, byte by byte. */
import { createReadStream } from 'node:fs';
import { UsageError } from '../control/words.ts';
import { CaptureError, type ReadPacket, readCapture } from '../packets/capture-reader.ts';
import { dissect } from '../packets/dissect.ts';
import { FilterError } from '../packets/filter/expression.ts';
import { compileFilter, type Filter } from '../packets/filter/filter.ts';
import { type Explained, explainedJson } from './explain/explained.ts';
import { parseHex } from './explain/hex.ts';
import { explainedHtml, htmlHead, htmlTail } from './explain/html.ts';
import { explainedText } from './explain/text.ts';
import { type Options, takeOptions } from './options.ts';
import { complain } from './output.ts';

export const HELP = `Usage: uvxlan explain [ FILE | - ] [ count N ] [ FILTER ]
Shows packets byte by byte and layer by layer: every field with its bits, value, meaning and RFC section. Of a malformed
packet all that stands before the fault, and the fault.
  FILE       a capture, pcap or pcapng, of any length: it is read as it is shown
  -          standard input, also when there is no FILE: a capture, or packets as hex digits, one a paragraph (white
             space, colons, the offsets of "tcpdump -x" and "xxd", and 0x are skipped)
  count N    no more than N packets
  FILTER     only packets that match, in tcpdump's words: "icmp and host 10.244.2.2" (of whole packets as they are in the
             file: of an outer packet the outer headers)
Options:
  -j, -json        one JSON object a packet, one a line      -html    a page of its own
Exit status: 0, 1 after a failure or a broken capture, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json', 'html']);
  const [first, ...rest] = words;
  const { count, filter } = parseChoice(first === undefined ? [] : rest);
  const show = shower(options, first === undefined || first === '-' ? 'standard input' : first);
  try {
    await explainStream(first, count, filter, show);
    return 0;
  } catch (error) {
    if (!(error instanceof CaptureError)) throw error;
    complain(error.message);
    return 1;
  } finally {
    await show.end();
  }
}

/** `[count N] [FILTER]`. Throws UsageError. */
function parseChoice(words: readonly string[]): { count: number; filter: Filter | undefined } {
  let rest = words;
  let count = Number.POSITIVE_INFINITY;
  if (rest[0] === 'count') {
    count = /^[1-9]\d*$/.test(rest[1] ?? '') ? Number(rest[1]) : Number.NaN;
    if (Number.isNaN(count)) throw new UsageError(`count wants a number from 1 on, not "${rest[1] ?? ''}"`);
    rest = rest.slice(2);
  }
  try {
    return { count, filter: compileFilter(rest.join(' ')) };
  } catch (error) {
    throw error instanceof FilterError ? new UsageError(error.message) : error;
  }
}

async function explainStream(
  name: string | undefined,
  count: number,
  filter: Filter | undefined,
  show: Shower,
): Promise<void> {
  const isInput = name === undefined || name === '-';
  const stream = isInput ? process.stdin : createReadStream(name);
  let shown = 0;
  for await (const packet of readPackets(stream)) {
    const { bytes, length } = packet;
    if (filter && !filter(bytes, 0, bytes.length, length)) continue;
    await show.packet(explainRead(packet));
    if (++shown >= count) break;
  }
  stream.destroy();
}

/** A capture, or hex digits. */
async function* readPackets(stream: AsyncIterable<Uint8Array>): AsyncGenerator<ReadPacket, void> {
  const chunks = stream[Symbol.asyncIterator]();
  const first = await chunks.next();
  const all = async function* (): AsyncGenerator<Uint8Array, void> {
    if (!first.done) yield first.value;
    for (let next = await chunks.next(); !next.done; next = await chunks.next()) yield next.value;
  };
  // Hex digits are printable; the first byte of a capture is not.
  if (!first.done && first.value[0] >= 0x20 && first.value[0] < 0x7f) yield* parseHex(all());
  else yield* readCapture(all());
}

function explainRead(read: ReadPacket): Explained {
  const { number, bytes, length, time, linkType, direction, comments } = read;
  const parts = [
    `Packet ${number}`,
    ...(time === undefined ? [] : [new Date(time).toISOString().replace('T', ' ')]),
    ...(read.interface === undefined ? [] : [read.interface]),
    ...(direction === undefined ? [] : [direction]),
    bytes.length < length ? `${bytes.length} of ${length} bytes` : `${length} bytes`,
  ];
  return { title: parts.join(', '), packet: dissect(bytes, { length, linkType }), comments, lookups: [] };
}

/** Prints packets in the form asked for, and waits when the reader is slow. */
interface Shower {
  packet(explained: Explained): Promise<void>;
  end(): Promise<void>;
}

function shower({ json, html }: Options, title: string): Shower {
  if (html) {
    let begun: Promise<void> | undefined;
    const begin = (): Promise<void> => (begun ??= write(htmlHead(`uvxlan explain ${title}`)));
    return {
      packet: async (explained) => {
        await begin();
        await write(explainedHtml(explained));
      },
      end: async () => {
        await begin();
        await write(htmlTail());
      },
    };
  }
  return {
    packet: (explained) => write(json ? JSON.stringify(explainedJson(explained)) : `${explainedText(explained)}\n`),
    end: async () => {},
  };
}

function write(text: string): Promise<void> {
  return new Promise((resolve) => {
    if (process.stdout.write(`${text}\n`)) resolve();
    else process.stdout.once('drain', resolve);
  });
}
