/** eBPF maps: tables that programs read and that we write. */
import * as libc from '../libc.ts';
import {
  Attributes,
  BPF_MAP_CREATE,
  BPF_MAP_DELETE_ELEM,
  BPF_MAP_LOOKUP_ELEM,
  BPF_MAP_UPDATE_ELEM,
  failure,
} from './call.ts';

export const MAP_HASH = 1;
export const MAP_ARRAY = 2;
/** An array of which each processor has its own. */
export const MAP_PERCPU_ARRAY = 6;
/** Flag: memory is taken when an entry comes, not for all of them at once. */
export const MAP_NO_PREALLOC = 1;

export interface MapOptions {
  /** What bpftool shows: up to 15 letters, digits, '_' and '.'. */
  readonly name: string;
  readonly type: number;
  /** Bytes; 4 for an array, whose keys are numbers in the host's byte order. */
  readonly keySize: number;
  /** Bytes. */
  readonly valueSize: number;
  readonly maxEntries: number;
  /** BPF_F_*: what `type` needs or can do besides. */
  readonly flags?: number;
  /** Of a value, one for each processor that may come: a per-processor map's, whose values are multiples of 8 bytes. */
  readonly copies?: number;
}

// Offsets in union bpf_attr, BPF_MAP_CREATE.
const MAP_TYPE = 0;
const MAP_KEY_SIZE = 4;
const MAP_VALUE_SIZE = 8;
const MAP_ENTRIES = 12;
const MAP_FLAGS = 16;
const MAP_NAME = 28;
// BPF_MAP_*_ELEM.
const ELEMENT_MAP = 0;
const ELEMENT_KEY = 8;
const ELEMENT_VALUE = 16;

/**
 * A map, and the key and value that the next call is about: the caller fills `key` (and `value`), so that a call allocates
 * nothing. Bytes are in whatever order the program reads them.
 */
export class BpfMap {
  readonly fd: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly #subject: string;
  readonly #element: Attributes;
  readonly #keyOnly: Attributes;

  /** Throws a SystemError: EPERM without CAP_BPF, ENOMEM, E2BIG and EINVAL for sizes that the kernel does not take. */
  constructor({ name, type, keySize, valueSize, maxEntries, flags = 0, copies = 1 }: MapOptions) {
    this.#subject = `eBPF map ${name}`;
    this.fd = new Attributes()
      .set(MAP_TYPE, type)
      .set(MAP_KEY_SIZE, keySize)
      .set(MAP_VALUE_SIZE, valueSize)
      .set(MAP_ENTRIES, maxEntries)
      .set(MAP_FLAGS, flags)
      .setText(MAP_NAME, name)
      .call(BPF_MAP_CREATE, this.#subject);
    this.key = new Uint8Array(keySize);
    this.value = new Uint8Array(valueSize * copies);
    const keyOnly = () => new Attributes().set(ELEMENT_MAP, this.fd).point(ELEMENT_KEY, this.key);
    this.#element = keyOnly().point(ELEMENT_VALUE, this.value);
    this.#keyOnly = keyOnly(); // the kernel refuses a value where it takes none
  }

  /** Sets `key` to `value`. Throws a SystemError: E2BIG when the map is full. */
  update(): void {
    this.#element.call(BPF_MAP_UPDATE_ELEM, this.#subject);
  }

  /** Fills `value` with that of `key`; false when there is none. */
  lookup(): boolean {
    return this.#found(BPF_MAP_LOOKUP_ELEM, this.#element);
  }

  /** Removes `key`; false when it was not there. */
  delete(): boolean {
    return this.#found(BPF_MAP_DELETE_ELEM, this.#keyOnly);
  }

  /** Programs that use the map keep it. */
  close(): void {
    libc.close(this.fd);
  }

  #found(command: number, attributes: Attributes): boolean {
    if (attributes.try(command) >= 0) return true;
    if (libc.errno() === libc.ENOENT) return false;
    throw failure(command, this.#subject);
  }
}
