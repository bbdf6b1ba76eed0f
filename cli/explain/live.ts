/** Packets of a running daemon: as they pass, and as they would. */
import type { ExplainLookup, Explanation, LinkRecord } from '../../control/protocol.ts';
import { type ReadPacket, readCapture } from '../../packets/capture-reader.ts';
import { dissect } from '../../packets/dissect.ts';
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
  const shown = (title: string, hex: string, more: Partial<Explained> = {}): Explained => {
    return { title, packet: dissect(Buffer.from(hex, 'hex')), comments: [], lookups: [], ...more };
  };
  const all = [
    shown(`A frame on ${dev}`, frame, { lookups }),
    ...answers.map((hex) => shown(`What ${dev} answers`, hex)),
    ...packets.map((hex, i) => {
      const of = packets.length > 1 ? ` ${i + 1} of ${packets.length}` : '';
      const explained = shown(`Packet${of} to the network`, hex);
      // The others go to other VTEPs.
      if (i === 0) annotate(explained.packet, origins);
      return explained;
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
  show: (read: ReadPacket, more: Partial<Explained>) => Promise<void>,
): Promise<void> {
  const { dev, filter, outerFilter, count } = wish;
  const client = await connectToDaemon();
  const capture = await openCapture({ dev, filter, outerFilter });
  complain('waiting for packets, Ctrl-C ends it');
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => capture.finish());
  try {
    const links = await client.ask<LinkRecord[]>('link show', { name: dev });
    const names = new Map(links.map((link) => [link.linkinfo.info_data.id, link.ifname]));
    let shown = 0;
    for await (const read of readCapture(capture.chunks)) {
      if (shown >= count) continue;
      await show(read, read.direction === 'out' ? await askAbout(client, read, names) : {});
      if (++shown >= count) capture.finish();
    }
  } finally {
    client.close();
  }
}

async function askAbout(
  client: Client,
  read: ReadPacket,
  names: ReadonlyMap<number, string>,
): Promise<Partial<Explained>> {
  const packet = dissect(read.bytes, { length: read.length });
  const vxlan = packet.layers.find(({ name, depth }) => name === 'VXLAN' && depth === 0);
  const vni = vxlan?.fields.find(({ name }) => name === 'VNI')?.value as number | undefined;
  // A packet that the inner side sends may be VXLAN as well: its interface tells which side it is.
  const isInner = [...names.values()].includes(read.interface ?? '');
  const dev = isInner ? read.interface : vni === undefined ? undefined : names.get(vni);
  if (dev === undefined) return {};
  const start = isInner ? 0 : vxlan!.offset + vxlan!.length;
  const frame = Buffer.from(read.bytes.subarray(start, start + ASKED_BYTES)).toString('hex');
  let answer: Explanation;
  try {
    answer = await client.ask<Explanation>('explain', { dev, frame });
  } catch {
    return {}; // a frame that is too short, or a device that has just gone
  }
  if (isInner) {
    const lookups: readonly ExplainLookup[] = answer.lookups;
    return { packet, lookups };
  }
  annotate(packet, answer.origins);
  return { packet };
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
