/**
 * What one read round brought, as parallel arrays: a packet is an index, never an object. Offsets are into the worker's
 * packet memory. Checksum and header offsets count from the inner frame's first byte, on either side.
 */
export class Batch {
  count = 0;
  /** From a TAP: the frame. From an uplink: the VXLAN header. */
  readonly at: Int32Array;
  /** Bytes from `at`. */
  readonly length: Int32Array;
  /** NEEDS_CSUM, or 0. */
  readonly flags: Int32Array;
  /** GSO_* of the inner frame, or GSO_NONE. */
  readonly gsoType: Int32Array;
  readonly gsoSize: Int32Array;
  readonly headerLength: Int32Array;
  readonly checksumStart: Int32Array;
  readonly checksumOffset: Int32Array;
  /** From an uplink: several VXLAN packets, one every `train` bytes (the last may be shorter); 0 for one packet. */
  readonly train: Int32Array;
  /** From an uplink: the outer TOS or traffic class. */
  readonly tos: Int32Array;
  /** From a TAP: what the frame gives its outer header, see marks.ts. Encap finds it. */
  readonly marks: Int32Array;
  /** From an uplink: where the packet's outer source address lies, 4 or 16 bytes. */
  readonly source: Int32Array;

  constructor(capacity: number) {
    this.at = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
    this.flags = new Int32Array(capacity);
    this.gsoType = new Int32Array(capacity);
    this.gsoSize = new Int32Array(capacity);
    this.headerLength = new Int32Array(capacity);
    this.checksumStart = new Int32Array(capacity);
    this.checksumOffset = new Int32Array(capacity);
    this.train = new Int32Array(capacity);
    this.tos = new Int32Array(capacity);
    this.marks = new Int32Array(capacity);
    this.source = new Int32Array(capacity);
  }

  get capacity(): number {
    return this.at.length;
  }

  /** Appends a packet without offload metadata; returns its index. */
  add(at: number, length: number): number {
    const i = this.count++;
    this.at[i] = at;
    this.length[i] = length;
    this.flags[i] = 0;
    this.gsoType[i] = 0;
    this.gsoSize[i] = 0;
    this.headerLength[i] = 0;
    this.checksumStart[i] = 0;
    this.checksumOffset[i] = 0;
    this.train[i] = 0;
    this.tos[i] = 0;
    return i;
  }
}
