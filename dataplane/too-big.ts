/** Tells the senders of frames that do not fit the path: an ICMP error goes back to the device's TAP, in the name of the frame's destination. */
import { writeTooBig } from '../wire/too-big.ts';
import type { Device } from './device.ts';
import type { PacketMemory } from './memory.ts';
import type { Reply } from './reply.ts';

/** Errors a second and worker. Senders that are told need few; what asks for more is no sender that listens. */
const RATE = 1000;
const SECOND = 1000;

export class TooBig {
  readonly #memory: PacketMemory;
  readonly #reply: Reply;
  readonly #now: () => number;
  #left = 0;
  #until = 0;

  /** `now`: milliseconds of any clock that does not go back. */
  constructor(memory: PacketMemory, reply: Reply, now: () => number = () => performance.now()) {
    this.#memory = memory;
    this.#reply = reply;
    this.#now = now;
  }

  /**
   * Whether the sender of a frame has been told that its IP packets may have `mtu` bytes; see writeTooBig for whom one tells, and for
   * `wantsDf`.
   */
  tell(frame: number, length: number, device: Device, mtu: number, wantsDf: boolean): boolean {
    if (!this.#mayTell()) return false;
    const size = writeTooBig(this.#memory.u8, this.#reply.frame, frame, length, mtu, wantsDf);
    return size > 0 && this.#reply.send(device.tap, size);
  }

  #mayTell(): boolean {
    if (this.#left === 0) {
      const now = this.#now();
      if (now < this.#until) return false;
      this.#until = now + SECOND;
      this.#left = RATE;
    }
    this.#left--;
    return true;
  }
}
