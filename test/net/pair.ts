// Two hosts joined by a wire, an overlay between them, each end uvxlan with one uplink or the other, or the kernel's vxlan:
//
//   left                                             right
//   flannel.1 10.244.1.1 fd00:1::1                   flannel.1 10.244.2.1 fd00:1::2
//        | vxlan                                          |
//   eth0 192.0.2.1  ------------- veth -------------  eth0 192.0.2.2

import type { TestContext } from 'node:test';
import { type Host, type LinkOptions, Network } from '../../cli/lab/network.ts';
import { eventually } from '../../cli/lab/process.ts';
import { introduce, kernelVtep, links, type UvxlanVtep, uvxlanVtep, type Vtep } from '../../cli/lab/vtep.ts';

export const UPLINKS = ['redirect', 'udp'] as const;
export type Kind = (typeof UPLINKS)[number] | 'kernel';

export const LEFT = { local: '192.0.2.1', addresses: '10.244.1.1/16 fd00:1::1/64', mac: '02:00:00:00:00:01' };
export const RIGHT = { local: '192.0.2.2', addresses: '10.244.2.1/16 fd00:1::2/64', mac: '02:00:00:00:00:02' };

/** What uvxlan understands as the kernel does. */
const WORDS = 'id 1 dev eth0 dstport 8472 nolearning';

export interface PairOptions {
  /** Words of both devices. */
  words?: string;
  /** Words of the left, or of uvxlan on either side, that the kernel does not know. */
  own?: string;
  link?: LinkOptions;
}

/** Builds the two hosts with their VTEPs, which know each other and how to get there. */
export async function pair<Left extends Kind>(
  t: TestContext,
  left: Left,
  right: Kind,
  { words = WORDS, own = 'workers 2', link = {} }: PairOptions = {},
): Promise<{ network: Network; left: Left extends 'kernel' ? Vtep : UvxlanVtep; right: Vtep }> {
  const network = Network.build(t, {
    hosts: { left: {}, right: {} },
    links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24', link]],
  });
  const vteps = await Promise.all([
    vtep(network.host('left'), left, LEFT, words, own),
    vtep(network.host('right'), right, RIGHT, words, own),
  ]);
  await introduce(...vteps);
  await resolved(network.host('left'), left);
  await resolved(network.host('right'), right);
  return { network, left: vteps[0] as Left extends 'kernel' ? Vtep : UvxlanVtep, right: vteps[1] };
}

/** One end. `words` are those that both know, `own` those of uvxlan alone. */
export async function vtep(
  host: Host,
  kind: Kind,
  place: typeof LEFT,
  words = WORDS,
  own = 'workers 2',
): Promise<Vtep> {
  if (kind === 'kernel') return kernelVtep(host, { ...place, words });
  return uvxlanVtep(host, { ...place, words: `${words} uplink ${kind} ${own}` });
}

/** Resolves when uvxlan knows the way to every next hop: until then it drops, where the kernel holds the first packets back. */
export async function resolved(host: Host, kind: Kind): Promise<void> {
  if (kind === 'kernel') return;
  await eventually('every next hop resolved', async () => {
    return (await links(host)).every((link) => link.uvxlan.nexthops_unresolved === 0);
  });
}
