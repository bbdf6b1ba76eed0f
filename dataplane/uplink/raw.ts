/** The `raw` uplink: whole packets, of which it is known only after the event loop's next turn whether the kernel took them. */
import type { Sum } from '../checksum.ts';
import { COUNTER } from '../counters.ts';
import type { PacketMemory } from '../memory.ts';
import { FrameUplink, type FrameUplinkOptions } from './frame.ts';
import type { RawPort } from './raw-port.ts';

export class RawUplink extends FrameUplink {
  readonly #raw: RawPort;

  constructor(
    port: RawPort,
    memory: PacketMemory,
    sum: Sum,
    counters: Float64Array,
    nextHops: Int32Array,
    options: FrameUplinkOptions,
  ) {
    super(port, memory, sum, counters, nextHops, options);
    this.#raw = port;
    port.onRefused = (scope, errno) => this.#recount(scope, errno);
  }

  protected override transmitRun(): void {
    this.#raw.scope = this.scope;
    super.transmitRun();
  }

  /** A packet that was counted as sent was not. */
  #recount(scope: number, errno: number): void {
    this.scope = scope;
    this.counters[scope + COUNTER.tx_packets]--;
    this.counters[scope + this.reason(errno)]++;
  }
}
