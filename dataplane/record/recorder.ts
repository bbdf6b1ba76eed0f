/**
 * Shows a worker's packets to those who listen: inner frames and outer packets, with where they were sent and why they were dropped.
 *
 * While somebody listens, stand-ins take the places of TAPs, uplinks' ports, Encap and Decap: they hand on what they are given, one packet
 * after the other as soon as one is wanted. So all is known without a word in the code that decides: the next hop is the one that the uplink is
 * given, and the reason for a drop is the counter that rises. When nobody listens none of this is there.
 */
import type { PacketMemory } from '../memory.ts';
import { Pieces } from './pieces.ts';
import type { PortWitness } from './stand-ins.ts';
import { Tap, type TapSpec } from './tap.ts';

/** Listeners at a time: each copies what it wants to see. */
export const MOST_TAPS = 8;
/** Failed writes that one packet may cause: a super-frame that is cut up may take several. */
const MOST_FAILED = 64;

/** When the thread's clock began. Never changes, and takes a while to ask for. */
const ORIGIN = performance.timeOrigin;

/** The records that a packet has in the rings: MOST_TAPS words each, -1 where a listener has none. */
export class Handles {
  readonly words: Int32Array;

  constructor(packets: number) {
    this.words = new Int32Array(packets * MOST_TAPS).fill(-1);
  }
}

export class Recorder {
  readonly memory: PacketMemory;
  /** Filled by whoever calls record(). */
  readonly pieces = new Pieces();
  /** Packets that a port did not take, since settle() was called last. */
  failed = 0;
  /** Whether somebody may want an inner frame, and not the outer packet that it came in. */
  isDivided = false;
  readonly #failed = new Handles(MOST_FAILED);
  readonly #taps: Tap[] = [];
  /** Of the batch, in milliseconds since 1970; in an array, since a double that is handed on would be allocated. */
  readonly #time = new Float64Array(1);

  constructor(memory: PacketMemory) {
    this.memory = memory;
  }

  /** Throws FilterError. */
  add(spec: TapSpec): void {
    this.#taps.push(new Tap(spec, this.memory, this.#time));
    this.#look();
  }

  /** Returns how many are left. */
  remove(id: number): number {
    const at = this.#taps.findIndex((tap) => tap.id === id);
    if (at >= 0) this.#taps.splice(at, 1);
    this.#look();
    return this.#taps.length;
  }

  #look(): void {
    this.isDivided = this.#taps.some(({ isDivided }) => isDivided);
  }

  /** A batch begins: all of its packets have this time. */
  begin(): void {
    this.#time[0] = ORIGIN + performance.now();
  }

  /** A batch ends: its records show from now on. */
  end(): void {
    for (let i = 0; i < this.#taps.length; i++) this.#taps[i].publish();
  }

  /** Records `pieces` for all who want it, and tells whether there are any; `index` is the packet's place in `handles`. */
  record(flags: number, device: number, uplink: number, handles: Handles, index: number): boolean {
    const taps = this.#taps;
    let isWanted = false;
    for (let i = 0; i < taps.length; i++) {
      const record = taps[i].record(this.pieces, flags, device, uplink);
      handles.words[index * MOST_TAPS + i] = record;
      if (record >= 0) isWanted = true;
    }
    return isWanted;
  }

  /** Whether anybody has a record of a packet. */
  isWanted(handles: Handles, index: number): boolean {
    for (let i = 0; i < this.#taps.length; i++) if (handles.words[index * MOST_TAPS + i] >= 0) return true;
    return false;
  }

  /** Sets a word of a packet's records. */
  set(handles: Handles, index: number, word: number, value: number): void {
    for (let i = 0; i < this.#taps.length; i++) this.#taps[i].set(handles.words[index * MOST_TAPS + i], word, value);
  }

  drop(handles: Handles, index: number, counter: number, count: number): void {
    for (let i = 0; i < this.#taps.length; i++)
      this.#taps[i].drop(handles.words[index * MOST_TAPS + i], counter, count);
  }

  /** What a port was given: `pieces`, taken when `result` is not negative. */
  wrote(flags: number, device: number, uplink: number, result: number): void {
    this.record(flags, device, uplink, this.#failed, Math.min(this.failed, MOST_FAILED - 1));
    if (result < 0) this.failed++;
  }

  /** The counter that rose when a port took no packets. */
  dropFailed(counter: number, count: number): void {
    const failed = Math.min(this.failed, MOST_FAILED);
    for (let i = 0; i < failed; i++) this.drop(this.#failed, i, counter, failed === 1 ? count : 1);
    this.failed = 0;
  }

  /** What stands in front of a port: `vnet` is the length of its virtio header. */
  witness(flags: number, vnet: number, device: number, uplink: number, arrived: PortWitness['arrived']): PortWitness {
    return {
      arrived,
      wrote: (at, length, result) => {
        this.pieces.behindVnet(this.memory, at, length, vnet);
        this.wrote(flags, device, uplink, result);
      },
      wroteIovecs: (iovecs, count, result) => {
        this.pieces.ofIovecs(this.memory, iovecs, count, vnet);
        this.wrote(flags, device, uplink, result);
      },
    };
  }
}
