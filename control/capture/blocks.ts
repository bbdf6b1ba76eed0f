/** Recorded packets as blocks of a capture: with direction, next hop and drop reason as comments. */
import {
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
import { enhancedPacket, INBOUND, interfaceDescription, OUTBOUND } from '../../packets/pcapng.ts';
import { type Offload, segmentsOf } from '../../packets/segments.ts';
import { GSO_TUNNEL_IPV4, GSO_TUNNEL_IPV6, GSO_TYPE_MASK, GSO_UDP_L4, NEEDS_CSUM } from '../../system/vnet.ts';
import type { CaptureRequest } from './capture.ts';
import { type CaptureNames, commentsOf } from './comments.ts';
import { fillHostHeaders } from './host-headers.ts';

export class BlockWriter {
  readonly #names: CaptureNames;
  readonly #snapLength: number;
  readonly #filter: string;
  /** Numbers of the interfaces, in the order of their blocks. */
  readonly #interfaces = new Map<string, number>();

  readonly #segments: boolean;

  constructor(names: CaptureNames, { snapLength, filter, segments }: CaptureRequest) {
    this.#names = names;
    this.#snapLength = snapLength;
    this.#filter = filter;
    this.#segments = segments;
  }

  /** Interfaces described so far. */
  get interfaces(): number {
    return this.#interfaces.size;
  }

  /** The description of an interface that has none yet. */
  describe(outer: boolean, index: number): Buffer[] {
    const key = `${outer} ${index}`;
    if (this.#interfaces.has(key)) return [];
    this.#interfaces.set(key, this.#interfaces.size);
    const options = { snapLength: this.#snapLength, filter: this.#filter };
    if (!outer) {
      const name = this.#names.device(index) ?? `device ${index}`;
      return [interfaceDescription(name, 'inner frames, as the host and its pods see them', options)];
    }
    const { name, kind } = this.#names.uplink(index) ?? { name: `uplink ${index}`, kind: 'uplink' };
    return [interfaceDescription(name, `outer packets, as uvxlan gives them to the ${kind} uplink`, options)];
  }

  /** The blocks of one record. `lost`: records before it that found no room. */
  blocks(ring: RingReader, record: number, lost: number): Buffer[] {
    const { words } = ring;
    const flags = words[record + RECORD_FLAGS];
    const outer = (flags & RECORD_OUTER) !== 0;
    const index = words[record + (outer ? RECORD_UPLINK : RECORD_DEVICE)];
    const described = this.describe(outer, index);
    const length = words[record + RECORD_LENGTH];
    const bytes = ring.packet(record);
    if (flags & RECORD_VIA_HOST) {
      const local = flags & RECORD_RECEIVED ? this.#names.uplink(index)?.local : undefined;
      fillHostHeaders(bytes, length, local);
    }
    const comments = commentsOf(this.#names, words, record, bytes);
    const packet = {
      interface: this.#interfaces.get(`${outer} ${index}`)!,
      time: ring.time(record),
      direction: flags & RECORD_RECEIVED ? INBOUND : OUTBOUND,
    } as const;
    // One that is cut off cannot be cut up.
    if (!this.#segments || bytes.length < length) {
      return [...described, enhancedPacket({ ...packet, bytes, length, comments, lost })];
    }
    const segments = segmentsOf(bytes, offloadOf(words, record));
    const parts = segments.map((segment, i) => {
      const part = segments.length > 1 ? [`${i + 1} of ${segments.length}, cut up for this capture`] : [];
      const own = i === 0 ? { comments: [...part, ...comments], lost } : { comments: part };
      return enhancedPacket({ ...packet, bytes: segment, length: segment.length, ...own });
    });
    return [...described, ...parts];
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
