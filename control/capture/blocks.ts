/** Recorded packets as blocks of a capture: with direction, next hop and drop reason as comments. */
import {
  RECORD_CAPTURED,
  RECORD_CHECKSUM,
  RECORD_DEVICE,
  RECORD_FLAGS,
  RECORD_GSO,
  RECORD_GSO_SIZE,
  RECORD_LENGTH,
  RECORD_OUTER,
  RECORD_RECEIVED,
  RECORD_UPLINK,
  RECORD_VIA_HOST,
  type RingReader,
} from '../../dataplane/record/ring.ts';
import { interfaceDescription, packetOptions } from '../../packets/pcapng.ts';
import { type Offload, segmentsOf } from '../../packets/segments.ts';
import { GSO_TUNNEL_IPV4, GSO_TUNNEL_IPV6, GSO_TYPE_MASK, GSO_UDP_L4, NEEDS_CSUM } from '../../system/vnet.ts';
import type { BlockBuffer } from './block-buffer.ts';
import type { CaptureRequest } from './capture.ts';
import { type CaptureNames, commentsOf } from './comments.ts';
import { fillHostHeaders } from './host-headers.ts';
import { directionOf, PacketOptions } from './packet-options.ts';

export class BlockWriter {
  readonly #names: CaptureNames;
  readonly #request: CaptureRequest;
  readonly #options: PacketOptions;
  /** Numbers of the interfaces by device and by uplink, in the order of their blocks. */
  readonly #inner: (number | undefined)[] = [];
  readonly #outer: (number | undefined)[] = [];
  #interfaces = 0;

  constructor(names: CaptureNames, request: CaptureRequest) {
    this.#names = names;
    this.#request = request;
    this.#options = new PacketOptions(names);
  }

  /** Interfaces described so far. */
  get interfaces(): number {
    return this.#interfaces;
  }

  /** Some time has passed, in which the tables may have changed. */
  begin(): void {
    this.#options.forget();
  }

  /** The number of an interface. One that has no description yet gets one. */
  interface(into: BlockBuffer, outer: boolean, index: number): number {
    const numbers = outer ? this.#outer : this.#inner;
    const known = numbers[index];
    if (known !== undefined) return known;
    const { snapLength, filter } = this.#request;
    into.block(interfaceDescription(...this.#describe(outer, index), { snapLength, filter }));
    numbers[index] = this.#interfaces;
    return this.#interfaces++;
  }

  #describe(outer: boolean, index: number): [name: string, description: string] {
    if (!outer) {
      return [this.#names.device(index) ?? `device ${index}`, 'inner frames, as the host and its pods see them'];
    }
    const { name, kind } = this.#names.uplink(index) ?? { name: `uplink ${index}`, kind: 'uplink' };
    return [name, `outer packets, as uvxlan gives them to the ${kind} uplink`];
  }

  /** The block of one record, or those of its segments. `lost`: records before it that found no room. */
  write(into: BlockBuffer, ring: RingReader, record: number, lost: number): void {
    const { words } = ring;
    const flags = words[record + RECORD_FLAGS];
    const outer = (flags & RECORD_OUTER) !== 0;
    const uplink = words[record + RECORD_UPLINK];
    const number = this.interface(into, outer, outer ? uplink : words[record + RECORD_DEVICE]);
    const length = words[record + RECORD_LENGTH];
    const captured = words[record + RECORD_CAPTURED];
    // One that is cut off cannot be cut up.
    if (this.#request.segments && captured === length) {
      const bytes = ring.packet(record);
      if (flags & RECORD_VIA_HOST) this.#fillHostHeaders(bytes, length, flags, uplink);
      this.#writeSegments(into, number, ring.time(record), bytes, words, record, lost);
      return;
    }
    const options =
      lost > 0 ? this.#optionsOf(words, record, ring.packet(record), [], lost) : this.#options.of(ring, record);
    const written = into.record(number, ring, record, options);
    if (flags & RECORD_VIA_HOST) this.#fillHostHeaders(into.view(written, captured), length, flags, uplink);
  }

  #writeSegments(
    into: BlockBuffer,
    number: number,
    time: number,
    bytes: Uint8Array,
    words: Int32Array,
    record: number,
    lost: number,
  ): void {
    const segments = segmentsOf(bytes, offloadOf(words, record));
    for (const [i, segment] of segments.entries()) {
      const part = segments.length > 1 ? [`${i + 1} of ${segments.length}, cut up for this capture`] : [];
      const options =
        i === 0
          ? this.#optionsOf(words, record, bytes, part, lost)
          : packetOptions({ comments: part, direction: directionOf(words, record) });
      into.packet(number, time, segment, options);
    }
  }

  #optionsOf(words: Int32Array, record: number, bytes: Uint8Array, more: readonly string[], lost: number): Buffer {
    const comments = [...more, ...commentsOf(this.#names, words, record, bytes)];
    return packetOptions({ comments, direction: directionOf(words, record), lost });
  }

  #fillHostHeaders(bytes: Uint8Array, length: number, flags: number, uplink: number): void {
    const local = flags & RECORD_RECEIVED ? this.#names.uplink(uplink)?.local : undefined;
    fillHostHeaders(bytes, length, local);
  }
}

function offloadOf(words: Int32Array, record: number): Offload {
  const gso = words[record + RECORD_GSO];
  const type = (gso >> 8) & GSO_TYPE_MASK;
  const checksum = words[record + RECORD_CHECKSUM];
  return {
    isUnfinished: (gso & NEEDS_CSUM) !== 0,
    segments: type === 0 ? 'none' : type === GSO_UDP_L4 ? 'udp' : 'tcp',
    isTunnel: ((gso >> 8) & (GSO_TUNNEL_IPV4 | GSO_TUNNEL_IPV6)) !== 0,
    size: words[record + RECORD_GSO_SIZE],
    checksumStart: checksum & 0xffff,
    checksumOffset: checksum >>> 16,
  };
}
