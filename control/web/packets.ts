/** Packets for the microscope: captured for a moment, taken apart, as plain data. */
import { CaptureError, type ReadPacket, readCapture } from '../../packets/capture-reader.ts';
import { dissect, dissectAny, dissectOuter } from '../../packets/dissect.ts';
import { FilterError } from '../../packets/filter/expression.ts';
import { compileFilter, type Filter } from '../../packets/filter/filter.ts';
import { layerTitle, type Packet, valueText } from '../../packets/packet.ts';
import { CAPTURE_SNAP_LENGTH, CommandError, type LinkRecord, type SampleRecord } from '../protocol.ts';
import type { Node } from './nodes.ts';
import type { PacketList, PacketShape } from './shapes.ts';

const MOST_PACKETS = 40;
const MILLISECONDS = 3_000;
/** Bytes of a packet that are shown: a super-frame's payload tells nothing more after some hundred. */
const MOST_BYTES = 512;
/** Captures at a time, for all pages: each costs the workers something. */
const MOST_CAPTURES = 2;

/** Packets of a capture that are shown. */
const MOST_OPENED = 200;

let running = 0;
let opening = 0;

/** What passes in the next seconds, MOST_PACKETS at most. Throws CommandError, of a wrong filter too. */
export async function lookAtPackets(node: Node, dev: string | null, filter: string): Promise<PacketList> {
  if (running >= MOST_CAPTURES)
    throw new CommandError('other pages are looking at packets: try again in a moment', 'EBUSY');
  running++;
  try {
    const devices = await devicesOf(node);
    const capture = await node.capture({
      dev,
      filter,
      outerFilter: '',
      snapLength: CAPTURE_SNAP_LENGTH,
      segments: false,
    });
    const timer = setTimeout(() => capture.finish(), MILLISECONDS);
    const packets: PacketShape[] = [];
    try {
      for await (const packet of readCapture(capture.chunks)) {
        if (packets.length < MOST_PACKETS) packets.push(shapeOf(packet, devices));
        else capture.finish();
      }
    } finally {
      clearTimeout(timer);
      capture.finish();
    }
    return { packets: packets.map((packet) => withDecision(packet, packets)) };
  } catch (error) {
    if (error instanceof CaptureError)
      throw new CommandError(`the daemon has ended the capture: ${error.message}`, 'EIO');
    throw error;
  } finally {
    running--;
  }
}

/** The packet that was dropped last for a reason; undefined when none was seen. */
export async function sampleOf(node: Node, dev: string | null, reason: string): Promise<PacketShape | undefined> {
  const [{ drops }, devices] = await Promise.all([node.ask<SampleRecord>('samples'), devicesOf(node)]);
  const sample = drops.find((drop) => drop.dev === dev && drop.reason === reason);
  if (!sample) return undefined;
  return shapeOf({ ...sample, bytes: Buffer.from(sample.hex, 'hex'), linkType: 'ethernet' }, devices);
}

/** Their frames are inner ones; all else that the node records is an outer packet. */
async function devicesOf(node: Node): Promise<ReadonlySet<string>> {
  const links = await node.ask<LinkRecord[]>('link show', { name: null });
  return new Set(links.map(({ ifname }) => ifname));
}

/**
 * The packets of a capture, MOST_OPENED at most, that match a filter, or in which an inner frame does. What is broken is told in `note`,
 * behind what was whole; throws CommandError of a wrong filter, and when nothing could be read.
 */
export async function openCapture(chunks: AsyncIterable<Uint8Array>, filter: string): Promise<PacketList> {
  const wants = filterOf(filter);
  if (opening >= MOST_CAPTURES)
    throw new CommandError('other pages are opening captures: try again in a moment', 'EBUSY');
  opening++;
  const packets: PacketShape[] = [];
  try {
    for await (const read of readCapture(chunks)) {
      if (packets.length === MOST_OPENED) {
        return { packets, note: `these are the first ${MOST_OPENED}: a filter shows others` };
      }
      const shape = shapeOf(read);
      const inner = shape.layers.find(({ depth }) => depth === 1)?.offset ?? 0;
      const { bytes, length } = read;
      const matches = (from: number) => wants!(bytes, from, Math.max(0, bytes.length - from), length - from);
      if (!wants || matches(0) || (inner > 0 && matches(inner))) packets.push(shape);
    }
    return { packets, note: '' };
  } catch (error) {
    if (!(error instanceof CaptureError)) throw error;
    if (packets.length === 0) throw new CommandError(error.message, 'EINVAL');
    return { packets, note: error.message };
  } finally {
    opening--;
  }
}

function filterOf(text: string): Filter | undefined {
  try {
    return compileFilter(text);
  } catch (error) {
    throw error instanceof FilterError ? new CommandError(error.message, 'EINVAL') : error;
  }
}

/** `devices`: of the node that has recorded it; undefined of a capture. */
function shapeOf(read: Omit<ReadPacket, 'number'>, devices?: ReadonlySet<string>): PacketShape {
  const { length, linkType, time, direction, comments } = read;
  const bytes = read.bytes.slice(0, MOST_BYTES);
  const isOuter = devices !== undefined && !devices.has(read.interface ?? '');
  const options = { length, linkType };
  const ofDaemon = (): Packet => (isOuter ? dissectOuter(bytes, length) : dissect(bytes, options));
  const packet = devices === undefined ? dissectAny(bytes, options) : ofDaemon();
  return {
    time: time === undefined ? '' : timeText(time),
    interface: read.interface ?? '',
    direction: direction ?? '',
    summary: summaryOf(packet),
    length,
    hex: Buffer.from(packet.bytes).toString('hex'),
    comments,
    layers: packet.layers.map((layer) => ({
      title: layerTitle(packet, layer),
      depth: layer.depth,
      offset: layer.offset,
      length: layer.length,
      reference: layer.reference,
      fields: layer.fields.map((field) => ({
        ...{
          name: field.name,
          offset: field.offset,
          bit: field.bit,
          bits: field.bits,
          value: shortened(valueText(field)),
        },
        ...{
          meaning: field.meaning ?? '',
          problem: field.problem ?? '',
          reference: field.reference,
          origin: field.origin ?? '',
        },
      })),
    })),
    fault: packet.fault,
  };
}

/** An outer packet, with what was decided about the frame inside: that was noted with the frame, when it was looked up. */
function withDecision(packet: PacketShape, packets: readonly PacketShape[]): PacketShape {
  const inner = packet.layers.find(({ depth }) => depth === 1);
  if (!inner || packet.direction !== 'out') return packet;
  const shown = packet.hex.slice(2 * inner.offset);
  const frame = packets.find((other) => other.direction === 'out' && other.hex.startsWith(shown));
  const decided = frame?.comments.filter((comment) => comment.startsWith('to ')) ?? [];
  return { ...packet, comments: [...decided, ...packet.comments] };
}

/** Payload is to be seen among the bytes. */
function shortened(value: string): string {
  return value.length > 64 ? `${value.slice(0, 64)}…` : value;
}

function timeText(milliseconds: number): string {
  const fraction = Math.floor((milliseconds % 1) * 1000);
  return `${new Date(milliseconds).toISOString().slice(11, 23)}${fraction.toString().padStart(3, '0')}`;
}

/** Who speaks to whom, inside, and how. */
function summaryOf(packet: Packet): string {
  const innermost = Math.max(0, ...packet.layers.map(({ depth }) => depth));
  const inner = packet.layers.filter(({ depth, quoted }) => depth === innermost && !quoted);
  const addressed = inner.findLast(({ fields }) => fields.some(({ name }) => name === 'source'));
  const value = (name: string): string => `${addressed?.fields.find((field) => field.name === name)?.value ?? '?'}`;
  const protocol = inner.findLast(({ name, reference }) => reference !== '' && name !== 'data')?.name ?? '';
  const depth = innermost > 0 ? 'VXLAN | ' : '';
  return `${depth}${value('source')} > ${value('destination')} ${protocol}`;
}
