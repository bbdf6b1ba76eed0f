/** The peers by name. */
import { Network } from '../../cli/lab/network.ts';
import { introduce } from '../../cli/lab/vtep.ts';
import { kernel } from './kernel.ts';
import type { End, Kind } from './kind.ts';
import { openVswitch } from './open-vswitch.ts';
import { UVXLAN_KINDS, uvxlanKind } from './uvxlan.ts';
import { veth } from './veth.ts';

/** Two ends; the left one sends, where nothing else is said. */
export interface Peer {
  readonly name: string;
  readonly about: string;
  readonly left: Kind;
  readonly right: Kind;
}

/** A peer that is there: two hosts, and an address of the right one that is reached through the overlay. */
export interface Pair {
  readonly left: End;
  readonly right: End;
  remove(): void;
}

const KINDS: readonly Kind[] = [veth, kernel, openVswitch];

/** What --peers may name instead of peers. */
const GROUPS: Readonly<Record<string, string>> = {
  quick: 'kernel,redirect,offload,ovs',
  full: 'veth,kernel,redirect,offload,redirect:kernel,kernel:redirect,udp,raw,ovs',
  tiers:
    'kernel,redirect,redirect/tcx,redirect/gro,redirect/uso,redirect/tunnel-gso,redirect/tunnel-gso+uso,' +
    'redirect/tunnel-gso+uso+udp-gso+gro+tcx,udp,udp/uso,udp/gro,udp/udp-gso,udp/uso+udp-gso+gro',
};

/** The peers that --peers names, each once. Throws an Error that says what is wrong. */
export function parsePeers(list: string): Peer[] {
  const names = list.split(',').flatMap((word) => (Object.hasOwn(GROUPS, word) ? GROUPS[word]!.split(',') : [word]));
  return [...new Map(names.map(parsePeer).map((peer) => [peer.name, peer])).values()];
}

/** KIND, or LEFT:RIGHT. */
function parsePeer(name: string): Peer {
  const [left, right = left, more] = name.split(':') as [string, string?, string?];
  if (more !== undefined) throw new Error(`peer "${name}" has more than two ends`);
  const ends = [findKind(left), findKind(right)] as const;
  if (left === right) return { name: left, about: ends[0].about, left: ends[0], right: ends[1] };
  const lone = ends.find((kind) => kind === veth || kind === openVswitch);
  if (lone) throw new Error(`peer "${name}": ${lone.name} is measured with itself only`);
  return { name, about: `left: ${ends[0].about}; right: ${ends[1].about}`, left: ends[0], right: ends[1] };
}

function findKind(name: string): Kind {
  const kind = KINDS.find((each) => each.name === name);
  if (kind) return kind;
  try {
    return uvxlanKind(name);
  } catch (error) {
    const known = [...KINDS.map((each) => each.name), ...UVXLAN_KINDS, ...Object.keys(GROUPS)].join(', ');
    throw new Error(`${(error as Error).message}; --peers takes ${known}, and LEFT:RIGHT`);
  }
}

/** Builds two hosts with a veth of that MTU between them, and the peer on top. Throws, and leaves nothing behind, when it does not come up. */
export async function build(peer: Peer, mtu: number): Promise<Pair> {
  const ends: (() => void)[] = [];
  const remove = () => {
    for (const end of ends.splice(0)) end();
  };
  try {
    const network = Network.build(
      { after: (end) => ends.push(end) },
      {
        hosts: { left: {}, right: {} },
        links: [['left eth0 192.0.2.1/24', 'right eth0 192.0.2.2/24', { ...peer.left.link, ...peer.right.link, mtu }]],
      },
    );
    const open = (name: 'left' | 'right', i: number) =>
      peer[name].open(network.host(name), {
        ...{ local: `192.0.2.${i}`, addresses: `198.51.100.${i}/24`, mac: `02:00:00:00:00:0${i}` },
      });
    const [left, right] = await Promise.all([open('left', 1), open('right', 2)]);
    await introduce(left, right);
    return { left, right, remove };
  } catch (error) {
    remove();
    throw error;
  }
}
