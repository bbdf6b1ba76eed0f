/**
 * The multicast database as the workers read it: (device, group, source) -> a list of next hops. A table of doubled.ts:
 *
 *     cell: | device << 8 | family (4 or 6) | group: 4 words | source: 4 words, 0 for any | FDB destination |
 *
 * A group of 0.0.0.0 or :: stands for all groups of its family that have no entry of their own.
 */
import { get16, get32 } from '../wire/bytes.ts';
import { ETHER_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, etherType } from '../wire/ethernet.ts';
import { IPV4_DESTINATION, IPV4_HEADER, IPV4_SOURCE } from '../wire/ipv4.ts';
import { IPV6_DESTINATION, IPV6_HEADER, IPV6_SOURCE } from '../wire/ipv6.ts';
import { DoubledReader } from './doubled.ts';
import { putAddress } from './neighbors.ts';

export const MDB_SHAPE = { key: 9, value: 1 };

const GROUP = 1;
const SOURCE = 5;

/** An entry, without its destination. `group`, `source`: 4 or 16 bytes of one family; source undefined: any. */
export function mdbKey(device: number, group: Uint8Array, source?: Uint8Array): Int32Array {
  const key = new Int32Array(MDB_SHAPE.key);
  const family = group.length === 4 ? 4 : 6;
  key[0] = (device << 8) | family;
  putAddress(key, GROUP, group, 0, family);
  if (source) putAddress(key, SOURCE, source, 0, family);
  return key;
}

export class MdbReader {
  readonly #reader: DoubledReader;

  constructor(buffer: SharedArrayBuffer) {
    this.#reader = new DoubledReader(buffer, MDB_SHAPE);
  }

  /**
   * The FDB destination (see table.ts) of a frame to a multicast or broadcast MAC; 0 when the FDB decides. As vxlan_mdb_entry_skb_get: (S, G), (*, G),
   * then the entry for all groups, but for link-local ones, which go where broadcast goes. What is tagged has no group.
   */
  find(device: number, bytes: Uint8Array, frame: number, length: number): number {
    if (get16(bytes, frame) === 0xffff && get32(bytes, frame + 2) === -1) return 0;
    const ip = frame + ETHER_HEADER;
    const type = etherType(bytes, ip);
    const family = type === ETHERTYPE_IPV4 ? 4 : type === ETHERTYPE_IPV6 ? 6 : 0;
    if (family === 0 || length < ETHER_HEADER + (family === 4 ? IPV4_HEADER : IPV6_HEADER)) return 0;
    const { key, value } = this.#reader;
    key[0] = (device << 8) | family;
    putAddress(key, GROUP, bytes, ip + (family === 4 ? IPV4_DESTINATION : IPV6_DESTINATION), family);
    putAddress(key, SOURCE, bytes, ip + (family === 4 ? IPV4_SOURCE : IPV6_SOURCE), family);
    if (this.#reader.find()) return value[0];
    key[SOURCE] = key[SOURCE + 1] = key[SOURCE + 2] = key[SOURCE + 3] = 0;
    if (this.#reader.find()) return value[0];
    if (isLinkLocal(key[GROUP], family)) return 0;
    key[GROUP] = key[GROUP + 1] = key[GROUP + 2] = key[GROUP + 3] = 0;
    return this.#reader.find() ? value[0] : 0;
  }
}

/** By an address's first word: 224.0.0.0/24 (RFC 5771), ff02::/16 with any flags and fe80::/10 (RFC 4291). */
function isLinkLocal(word: number, family: number): boolean {
  if (family === 4) return word >>> 8 === 0xe00000;
  return (word & 0xff0f0000) === (0xff020000 | 0) || word >>> 22 === 0xfe80 >>> 6;
}
