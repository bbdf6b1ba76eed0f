/** A reader of the FDB beside the workers, which cannot look into their shared memory: it is told of each change, in order. */
export interface FdbMirror {
  /** Frames to a MAC go to `destination`, as FdbTable has it, from now on; 0: the entry is gone. */
  setEntry(device: number, macHigh: number, macLow: number, destination: number): void;
  /** A next hop was published, is not to be sent to for the time being, or was released: NextHops.resolved() tells. */
  setNextHop(index: number): void;
  /** When packets that only this reader has seen came last from a MAC, in milliseconds as the writer's times; 0: never. */
  heard(device: number, macHigh: number, macLow: number): number;
}
