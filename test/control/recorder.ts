// Records packets as a worker does.

import { COUNTER } from '../../dataplane/counters.ts';
import type { Pieces } from '../../dataplane/record/pieces.ts';
import { RECORD_COPIES } from '../../dataplane/record/ring.ts';
import { Tap, type TapSpec } from '../../dataplane/record/tap.ts';
import { Rig } from '../dataplane/rig.ts';

export interface Recorded {
  /** The counter of its drop. */
  readonly drop?: string;
  /** How many packets were. */
  readonly dropped?: number;
  /** To how many next hops it went. */
  readonly copies?: number;
  /** Of a run: the bytes from one VXLAN header to the next. */
  readonly gsoSize?: number;
  readonly device?: number;
  /** Milliseconds since 1970. */
  readonly time?: number;
}

export function recorder(spec: TapSpec): (bytes: Uint8Array, flags: number, recorded?: Recorded) => void {
  const { memory } = new Rig();
  const now = new Float64Array(1);
  const tap = new Tap(spec, memory, now);
  const at = memory.take(4096);
  return (bytes, flags, { drop = '', dropped = 1, copies = 0, gsoSize = 0, device = -1, time = 1000 } = {}) => {
    memory.u8.set(bytes, at);
    const pieces = {
      ...{ at: [at], length: [bytes.length], total: bytes.length, flags: 0 },
      ...{ gsoType: gsoSize > 0 ? 5 : 0, gsoSize, headerLength: gsoSize > 0 ? 42 : 0 },
    };
    now[0] = time;
    const index = tap.record(pieces as unknown as Pieces, flags, device, 0);
    tap.set(index, RECORD_COPIES, copies);
    if (drop) tap.drop(index, COUNTER[drop as keyof typeof COUNTER], dropped);
    tap.publish();
  };
}
