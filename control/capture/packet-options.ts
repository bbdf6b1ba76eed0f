/** The options of recorded packets: direction and comments. Many packets in a row have the same, so those of the last few are kept. */
import {
  dataOf,
  RECORD_CAPTURED,
  RECORD_FLAGS,
  RECORD_NEXT_HOP,
  RECORD_RECEIVED,
  type RingReader,
} from '../../dataplane/record/ring.ts';
import { INBOUND, OUTBOUND, packetOptions } from '../../packets/pcapng.ts';
import { get16, get32 } from '../../wire/bytes.ts';
import { MAC_LENGTH } from '../../wire/ethernet.ts';
import { type CaptureNames, COMMENT_FLAGS, COMMENT_WORDS, commentsOf } from './comments.ts';

/** Flags and destination MAC go before COMMENT_WORDS. */
const KEY = COMMENT_WORDS.length + 3;
/** A power of two. */
const SLOTS = 256;

export class PacketOptions {
  readonly #names: CaptureNames;
  readonly #keys = new Int32Array(SLOTS * KEY);
  readonly #options: (Buffer | undefined)[] = new Array<undefined>(SLOTS).fill(undefined);
  readonly #key = new Int32Array(KEY);

  constructor(names: CaptureNames) {
    this.#names = names;
  }

  /** The tables may have changed since. */
  forget(): void {
    this.#options.fill(undefined);
  }

  /** `record`: its header's first word. */
  of(ring: RingReader, record: number): Buffer {
    const { words } = ring;
    const slot = this.#find(ring, record);
    const known = this.#options[slot];
    if (known && this.#isKey(slot)) return known;
    const comments = commentsOf(this.#names, words, record, ring.packet(record));
    const options = packetOptions({ comments, direction: directionOf(words, record) });
    this.#keys.set(this.#key, slot * KEY);
    this.#options[slot] = options;
    return options;
  }

  /** Writes the record's key, and returns the slot that is its. */
  #find({ words, bytes }: RingReader, record: number): number {
    const key = this.#key;
    const at = dataOf(words, record);
    let hash = (key[0] = words[record + RECORD_FLAGS] & COMMENT_FLAGS);
    const hasMac = words[record + RECORD_NEXT_HOP] > 0 && words[record + RECORD_CAPTURED] >= MAC_LENGTH;
    key[1] = hasMac ? get16(bytes, at) : 0;
    key[2] = hasMac ? get32(bytes, at + 2) : 0;
    for (let i = 0; i < COMMENT_WORDS.length; i++) key[i + 3] = words[record + COMMENT_WORDS[i]];
    for (let i = 1; i < KEY; i++) hash = Math.imul(hash ^ key[i], 0x9e3779b1);
    return (hash >>> 16) & (SLOTS - 1);
  }

  #isKey(slot: number): boolean {
    for (let i = 0; i < KEY; i++) if (this.#keys[slot * KEY + i] !== this.#key[i]) return false;
    return true;
  }
}

export function directionOf(words: Int32Array, record: number): typeof INBOUND | typeof OUTBOUND {
  return words[record + RECORD_FLAGS] & RECORD_RECEIVED ? INBOUND : OUTBOUND;
}
