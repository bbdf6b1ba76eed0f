/** Packets of a running daemon: as they pass, and as they would. */
import type { Explanation, LinkRecord } from '../../control/protocol.ts';
import { type ReadPacket, readCapture } from '../../packets/capture-reader.ts';
import { dissect, dissectOuter } from '../../packets/dissect.ts';
import type { Packet } from '../../packets/packet.ts';
import { type Client, connectToDaemon, openCapture } from '../client.ts';
import { complain } from '../output.ts';
import type { Explained } from './explained.ts';

/** Where a frame goes does not depend on more of it than that. */
const ASKED_BYTES = 1400;

/** The answer to "from A to B dev DEV": the frame, then each packet that it becomes. */
export async function askQuestion(question: { from: string; to: string; dev: string }): Promise<Explained[]> {
  const client = await connectToDaemon();
  try {
    return answerOf(await client.ask<Explanation>('explain', question));
  } finally {
    client.close();
  }
}

function answerOf({ dev, frame, lookups, packets, answers, origins, verdict }: Explanation): Explained[] {
  const shown = (title: string, packet: Packet, more: Partial<Explained> = {}): Explained => {
    return { title, packet, comments: [], lookups: [], ...more };
  };
  const frameOf = (hex: string): Packet => dissect(Buffer.from(hex, 'hex'));
  const all = [
    shown(`A frame on ${dev}`, frameOf(frame), { lookups }),
    ...answers.map((hex) => shown(`What ${dev} answers`, frameOf(hex))),
    ...packets.map((hex, i) => {
      const of = packets.length > 1 ? ` ${i + 1} of ${packets.length}` : '';
      const packet = dissectOuter(Buffer.from(hex, 'hex'));
      // The others go to other VTEPs.
      if (i === 0) annotate(packet, origins);
      return shown(`Packet${of} to the network`, packet);
    }),
  ];
  return all.map((each, i) => (i === all.length - 1 ? { ...each, verdict } : each));
}

export interface LiveWish {
  readonly dev: string | null;
  readonly filter: string;
  readonly outerFilter: string;
  readonly count: number;
}

/** Packets as they pass, with what the daemon's tables say of them a moment later. */
export async function explainLive(
  wish: LiveWish,
  show: (read: ReadPacket, packet: Packet, more: Partial<Explained>) => Promise<void>,
): Promise<void> {
  const { dev, filter, outerFilter, count } = wish;
  const capture = await openCapture({ dev, filter, outerFilter });
  const client = await connectToDaemon();
  complain('waiting for packets, Ctrl-C ends it');
  let isOver = false;
  // What waits to be shown may be more than anybody wants to see.
  const end = (): void => {
    isOver = true;
    capture.finish();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, end);
  try {
    const links = await client.ask<LinkRecord[]>('link show', { name: dev });
    let shown = 0;
    for await (const read of readCapture(capture.chunks)) {
      if (isOver) continue;
      // A packet that the inner side sends may be VXLAN as well: its interface tells which side it is.
      const isInner = links.some(({ ifname }) => ifname === read.interface);
      const packet = isInner ? dissect(read.bytes, { length: read.length }) : dissectOuter(read.bytes, read.length);
      const answer = read.direction === 'out' ? await askAbout(client, read, packet, isInner, links) : undefined;
      if (answer && !isInner) annotate(packet, answer.origins);
      await show(read, packet, { lookups: (isInner && answer?.lookups) || [], ...verdictOf(read, isInner) });
      if (++shown >= count) end();
    }
  } finally {
    client.close();
    capture.close();
  }
}

/** Undefined where there is nothing to ask, or nobody who knows. */
async function askAbout(
  client: Client,
  read: ReadPacket,
  packet: Packet,
  isInner: boolean,
  links: readonly LinkRecord[],
): Promise<Explanation | undefined> {
  const vxlan = packet.layers.find(({ name, depth }) => name === 'VXLAN' && depth === 0);
  const dev = isInner ? read.interface : senderOf(packet, links);
  if (dev === undefined) return undefined;
  const start = isInner ? 0 : vxlan!.offset + vxlan!.length;
  const frame = Buffer.from(read.bytes.subarray(start, start + ASKED_BYTES)).toString('hex');
  try {
    return await client.ask<Explanation>('explain', { dev, frame });
  } catch {
    return undefined; // a frame that is too short, or a device that has just gone
  }
}

/** The device that has sent an outer packet. Of several with its VNI the one that has its source address, then the one that has its port. */
function senderOf(packet: Packet, links: readonly LinkRecord[]): string | undefined {
  const outer = (layers: readonly string[], field: string): number | string | undefined =>
    packet.layers
      .find(({ name, depth }) => depth === 0 && layers.includes(name))
      ?.fields.find(({ name }) => name === field)?.value;
  const vni = outer(['VXLAN'], 'VNI');
  const port = outer(['UDP'], 'destination port');
  const source = outer(['IPv4', 'IPv6'], 'source');
  const own = links.map(({ ifname, linkinfo }) => ({ ifname, ...linkinfo.info_data })).filter(({ id }) => id === vni);
  const near = own.filter(({ local, local6 }) => source === (local ?? local6));
  const candidates = near.length > 0 ? near : own;
  return (candidates.find((each) => each.port === port) ?? candidates[0])?.ifname;
}

/** What has become of it: the daemon noted that with the packet, when it passed. */
function verdictOf({ comments, direction, interface: name }: ReadPacket, isInner: boolean): Partial<Explained> {
  const noted = (start: string): string | undefined => comments.find((comment) => comment.startsWith(start));
  const dropped = noted('dropped');
  const to = noted('to ');
  if (dropped ?? to) {
    return { verdict: dropped ?? `sent ${to}`, comments: comments.filter((comment) => comment !== (dropped ?? to)) };
  }
  if (direction === 'in') return { verdict: isInner ? `given to the host on ${name}` : `received on ${name}` };
  return isInner ? {} : { verdict: `sent on ${name}` };
}

/** Says of the outer fields where their values came from. */
function annotate(packet: Packet, origins: Explanation['origins']): void {
  for (const layer of packet.layers) {
    if (layer.depth > 0) break;
    for (const field of layer.fields) {
      const origin = origins[`${layer.name}.${field.name}`];
      if (origin !== undefined) field.origin = origin;
    }
  }
}
