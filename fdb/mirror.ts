/** A reader of the FDB beside the workers, which cannot look into their shared memory: it is told of each change, in order. */
export interface FdbMirror {
  /** Frames to a MAC go to `destination` from now on; 0: the entry is gone. This and `state` are as FdbTable has them. */
  setEntry(device: number, macHigh: number, macLow: number, destination: number, state: number): void;
  /** A next hop was published, is not to be sent to for the time being, or was released: NextHops.resolved() tells. */
  setNextHop(index: number): void;
  /** When packets that only this reader has seen went last to a MAC, and came last from it. */
  stamps(device: number, macHigh: number, macLow: number): MirrorStamps;
}

/** Milliseconds as the writer's times; 0: never. */
export interface MirrorStamps {
  readonly used: number;
  readonly heard: number;
}
