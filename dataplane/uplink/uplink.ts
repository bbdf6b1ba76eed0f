/** An uplink carries encapsulated packets to and from the network. It has a sending and a receiving half. */
import type { Batch } from '../batch.ts';

export interface Uplink {
  /** Descriptors to poll for reading. */
  readonly fds: readonly number[];
  /** Reads a round of packets; `batch.at` is the VXLAN header. Returns how many packets it took off the network. */
  receive(batch: Batch): number;
  /** What tells flows of this hash apart on the outer network: the UDP source port, or the number of the socket bound to one. */
  entropy(hash: number): number;
  /**
   * Takes frame `index` of the batch to a next hop. It may be held until `flush`, and its bytes are changed: its headers are
   * written in front of it, and its checksum may be finished. `scope` is the device's, for the counters.
   *
   * Returns 0. But where the outer packet would not fit the path, and has DF set or `mayFragment` is false, nothing happens and nothing is
   * counted, and it returns how long the inner IP packet may be, in bytes.
   */
  send(batch: Batch, index: number, nextHop: number, entropy: number, scope: number, mayFragment: boolean): number;
  /** Sends what is held. Frames' memory is free again afterwards. */
  flush(): void;
  /** Gives its packet memory back; its descriptors are the main thread's. */
  close(): void;
}

/** What the kernel under an uplink can do; see system/capabilities. */
export interface UplinkOffloads {
  /** Takes 64 kB super-frames with tunnel metadata. */
  readonly tunnelGso: boolean;
  /** Takes runs of equal-sized packets as one UDP super-packet. */
  readonly udpGso: boolean;
}
