/** Frames of a worker's own for a device's TAP, as if the network had sent them: answers of ARP/ND suppression, ICMP errors. */
import { VNET_PLAIN } from '../system/vnet.ts';
import { TOO_BIG_FRAME } from '../wire/too-big.ts';
import type { PacketMemory } from './memory.ts';
import type { Port } from './port.ts';

export class Reply {
  /** Where the frame is to be written, at most TOO_BIG_FRAME bytes. */
  readonly frame: number;
  readonly #vnet: number;

  constructor(memory: PacketMemory) {
    // Taken zeroed: a virtio header that says nothing.
    this.#vnet = memory.take(VNET_PLAIN + TOO_BIG_FRAME);
    this.frame = this.#vnet + VNET_PLAIN;
  }

  /** Gives the first `length` bytes to the TAP; whether it took them. */
  send(tap: Port, length: number): boolean {
    return tap.write(this.#vnet, VNET_PLAIN + length) >= 0;
  }
}
