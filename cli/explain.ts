/** `uvxlan explain`: packets from a file, from standard input, or live from the daemon, byte by byte. */
import { createReadStream } from 'node:fs';
import { UsageError } from '../control/words.ts';
import { ByteQueue } from '../packets/byte-queue.ts';
import { CaptureError, type ReadPacket, readCapture } from '../packets/capture-reader.ts';
import { dissect } from '../packets/dissect.ts';
import { FilterError } from '../packets/filter/expression.ts';
import { compileFilter, type Filter } from '../packets/filter/filter.ts';
import type { Packet } from '../packets/packet.ts';
import { type Explained, explainedJson } from './explain/explained.ts';
import { parseHex } from './explain/hex.ts';
import { explainedHtml, htmlHead, htmlTail } from './explain/html.ts';
import { explainedText } from './explain/text.ts';
import { type Options, takeOptions } from './options.ts';
import { complain } from './output.ts';

export const HELP = `Usage: uvxlan explain [ FILE | - ] [ count N ] [ FILTER ]
       uvxlan explain --live [ dev DEV ] [ count N ] [ FILTER ]
       uvxlan explain from { MAC | IP } to { MAC | IP } dev DEV
Shows packets byte by byte and layer by layer: every field with its bits, value, meaning and RFC section. Of a malformed
packet all that stands before the fault, and the fault.
  FILE       a capture, pcap or pcapng, of any length: it is read as it is shown
  -          standard input, also when there is no FILE: a capture, or packets as hex digits, one a paragraph (white
             space, colons, the offsets of "tcpdump -x" and "xxd", and 0x are skipped)
  --live     packets of the running daemon as they pass, inner frames and outer packets, until Ctrl-C or count; of what is sent each outer
             field says where its value came from: FDB entry, neighbour, option, inner packet, hash
  from, to   what would happen to a frame from one to the other that is sent on DEV, now: the lookups in order, the packet, and the
             verdict. Nothing is sent, learned or counted for it. Of IP addresses the host's route and neighbour come first
  count N    no more than N packets
  FILTER     only packets that match, in tcpdump's words: "icmp and host 10.244.2.2" (live of the inner frame; in a file of packets as they
             are there: of an outer packet the outer headers)
Options:
  -outer FILTER    live, only packets whose outer headers match
  --vxlan-port N   of a file, where VXLAN has another UDP port than 4789 and 8472
  -j, -json        one JSON object a packet, one a line      -html    a page of its own
Exit status: 0, 1 after a failure or a broken capture, 2 when the words are wrong.`;

export async function run(args: string[]): Promise<number> {
  const { options, words } = takeOptions(args, ['json', 'html', 'live', 'outer', 'vxlan-port']);
  const [first, ...rest] = words;
  if (options.live) return runLive(options, words);
  if (options.outer !== undefined)
    throw new UsageError('-outer is for -live: in a file FILTER is about packets as they are there');
  if (first === 'from' || first === 'to') return runQuestion(options, words);
  const vxlanPorts = portsOf(options);
  const { count, filter } = parseChoice(first === undefined ? [] : rest);
  const show = shower(options, first === undefined || first === '-' ? 'standard input' : first);
  try {
    await explainStream(first, vxlanPorts, count, filter, show);
    return 0;
  } catch (error) {
    if (!(error instanceof CaptureError)) throw error;
    complain(error.message);
    return 1;
  } finally {
    await show.end();
  }
}

/** Throws UsageError. */
function portsOf({ 'vxlan-port': text }: Options): number[] {
  if (text === undefined) return [];
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65535)) throw new UsageError(`-vxlan-port wants a UDP port, 1 to 65535, not "${text}"`);
  return [port];
}

async function runLive(options: Options, words: readonly string[]): Promise<number> {
  if (options['vxlan-port'] !== undefined) throw new UsageError('-vxlan-port is for a file: the daemon knows its own');
  const hasDevice = words[0] === 'dev';
  if (hasDevice && words[1] === undefined) throw new UsageError('dev wants a name');
  const { count, text } = parseChoice(hasDevice ? words.slice(2) : words);
  const { outer = '' } = options;
  compiled(outer);
  const { explainLive } = await import('./explain/live.ts');
  const show = shower(options, 'live');
  const wish = { dev: hasDevice ? words[1] : null, filter: text, outerFilter: outer, count };
  try {
    await explainLive(wish, (read, packet, more) => show.packet({ ...explainRead(read, packet), ...more }));
  } finally {
    await show.end();
  }
  return 0;
}

/** `from A to B dev DEV`, in any order. */
async function runQuestion(options: Options, words: readonly string[]): Promise<number> {
  const question = { from: '', to: '', dev: '' };
  for (let next = 0; next < words.length; next += 2) {
    const [word, value] = words.slice(next, next + 2);
    if (!Object.hasOwn(question, word)) throw new UsageError(`"${word}" is unknown here: from A to B dev DEV`);
    if (value === undefined) throw new UsageError(`${word} wants a value`);
    question[word as keyof typeof question] = value;
  }
  for (const [word, value] of Object.entries(question)) if (value === '') throw new UsageError(`${word} is missing`);
  const { askQuestion } = await import('./explain/live.ts');
  const explained = await askQuestion(question);
  const show = shower(options, `from ${question.from} to ${question.to}`);
  for (const each of explained) await show.packet(each);
  await show.end();
  return 0;
}

/** `[count N] [FILTER]`. Throws UsageError. */
function parseChoice(words: readonly string[]): { count: number; filter: Filter | undefined; text: string } {
  let rest = words;
  let count = Number.POSITIVE_INFINITY;
  if (rest[0] === 'count') {
    count = /^[1-9]\d*$/.test(rest[1] ?? '') ? Number(rest[1]) : Number.NaN;
    if (Number.isNaN(count)) throw new UsageError(`count wants a number from 1 on, not "${rest[1] ?? ''}"`);
    rest = rest.slice(2);
  }
  const text = rest.join(' ');
  return { count, filter: compiled(text), text };
}

function compiled(text: string): Filter | undefined {
  try {
    return compileFilter(text);
  } catch (error) {
    throw error instanceof FilterError ? new UsageError(error.message) : error;
  }
}

async function explainStream(
  name: string | undefined,
  vxlanPorts: readonly number[],
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
    await show.packet(explainRead(packet, dissect(bytes, { length, linkType: packet.linkType, vxlanPorts })));
    if (++shown >= count) break;
  }
  stream.destroy();
}

/** A capture, or hex digits: these are text. */
async function* readPackets(stream: AsyncIterable<Uint8Array>): AsyncGenerator<ReadPacket, void> {
  const input = new ByteQueue(stream);
  await input.fill(4);
  const head = input.length === 0 ? '' : input.peek(Math.min(4, input.length)).toString('latin1');
  // A section of pcapng begins with line feeds, too.
  const isText = /^[\s\x20-\x7e]/.test(head) && head !== '\n\r\r\n';
  yield* (isText ? parseHex : readCapture)(input.rest());
}

function explainRead(read: ReadPacket, packet: Packet): Explained {
  const { number, bytes, length, time, direction, comments } = read;
  const parts = [
    `Packet ${number}`,
    ...(time === undefined ? [] : [new Date(time).toISOString().replace('T', ' ')]),
    ...(read.interface === undefined ? [] : [read.interface]),
    ...(direction === undefined ? [] : [direction]),
    bytes.length < length ? `${bytes.length} of ${length} bytes` : `${length} bytes`,
  ];
  return { title: parts.join(', '), packet, comments, lookups: [] };
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
