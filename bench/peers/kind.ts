/** A kind of overlay: what one end of the network under test runs. Two ends of one kind, or of two that understand each other, are a peer. */
import type { Host, LinkOptions } from '../../cli/lab/network.ts';
import type { Process } from '../../cli/lab/process.ts';
import type { Vtep, VtepOptions } from '../../cli/lab/vtep.ts';

export interface End extends Vtep {
  /** The processes that carry the packets; none for what the kernel does. */
  readonly daemons: readonly Process[];
}

export interface Kind {
  /** As in --peers. */
  readonly name: string;
  /** What it is, in one line. */
  readonly about: string;
  /** What the veth between the hosts has to be like. */
  readonly link?: LinkOptions;
  /** Why it cannot run on this machine; undefined when it can. */
  lacks(): string | undefined;
  /** Opens this end on a host whose eth0 has the underlay's address. */
  open(host: Host, options: VtepOptions): Promise<End> | End;
}

/** For overlays that find each other by themselves. */
export const NO_FDB: Vtep['fdb'] = async () => '';
