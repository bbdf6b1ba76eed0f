/**
 * The rules that flannel gives a node (its pkg/trafficmngr), under the names that it gives them: pods talk to each other with their own
 * addresses, to the outside with the node's, and the FORWARD chain lets them.
 */
import type { Family } from './lease.ts';

export interface MasqueradeWish {
  /** The cluster's network, and this node's share of it. */
  readonly network: string;
  readonly subnet: string;
  /** --ip-masq. */
  readonly masquerade: boolean;
  /** A port of its own for each connection, whoever else is at it (--ip-masq-fully-random-disable). */
  readonly randomFully: boolean;
  /** --iptables-forward-rules. */
  readonly forward: boolean;
}

/** A chain of ours, and how packets get into it. Rules are as `iptables -S` prints them, without the `-A CHAIN` in front. */
export interface Chain {
  readonly table: 'nat' | 'filter';
  readonly name: string;
  readonly parent: string;
  readonly jump: string;
  readonly rules: readonly string[];
}

/** kube-proxy marks what it masquerades itself. */
const KUBE_PROXY_MARK = '0x4000/0x4000';
export const MULTICAST = { ipv4: '224.0.0.0/4', ipv6: 'ff00::/8' } as const;

/** Chains of the names of ours, whether wanted or not: those without rules are to be gone. */
export function iptablesChains(family: Family, wish: MasqueradeWish | null): Chain[] {
  const chain = (table: Chain['table'], name: string, parent: string, about: string, rules: string[]): Chain => {
    const comment = `-m comment --comment "flanneld ${about}"`;
    const complete = rules.map((rule) => rule.replace('//', comment));
    return { table, name, parent, jump: `${comment} -j ${name}`, rules: complete };
  };
  return [
    chain('nat', 'FLANNEL-POSTRTG', 'POSTROUTING', 'masq', wish?.masquerade ? masqueradeRules(family, wish) : []),
    chain(
      ...(['filter', 'FLANNEL-FWD', 'FORWARD', 'forward'] as const),
      wish?.forward ? [`-s ${wish.network} // -j ACCEPT`, `-d ${wish.network} // -j ACCEPT`] : [],
    ),
  ];
}

/** `//` stands for the comment. */
function masqueradeRules(family: Family, { network, subnet, randomFully }: MasqueradeWish): string[] {
  const masquerade = `MASQUERADE${randomFully ? ' --random-fully' : ''}`;
  return [
    `-m mark --mark ${KUBE_PROXY_MARK} // -j RETURN`,
    // Between pods nothing changes.
    `-s ${subnet} -d ${network} // -j RETURN`,
    `-s ${network} -d ${subnet} // -j RETURN`,
    // What another node sends on to a pod of ours keeps the address that it came from.
    `! -s ${network} -d ${subnet} // -j RETURN`,
    `-s ${network} ! -d ${MULTICAST[family]} // -j ${masquerade}`,
    // From the host's own address to a pod elsewhere: the answer has to find back through the overlay.
    `! -s ${network} -d ${network} // -j ${masquerade}`,
  ];
}

/** What each family's table is called in nftables. */
export const NFT_TABLES = { ipv4: 'ip flannel-ipv4', ipv6: 'ip6 flannel-ipv6' } as const;

/** The table as `nft -s list table` prints it; '' where nothing is wanted. */
export function nftTable(family: Family, wish: MasqueradeWish | null): string {
  if (!wish || (!wish.masquerade && !wish.forward)) return '';
  const { network, subnet, randomFully } = wish;
  const ip = family === 'ipv4' ? 'ip' : 'ip6';
  const masquerade = `masquerade${randomFully ? ' fully-random' : ''}`;
  const chains: [string, string, string[]][] = [];
  if (wish.forward) {
    chains.push([
      'forward',
      'type filter hook forward priority filter; policy accept;',
      [`${ip} saddr ${network} accept`, `${ip} daddr ${network} accept`],
    ]);
  }
  if (wish.masquerade) {
    chains.push([
      'postrtg',
      'type nat hook postrouting priority srcnat; policy accept;',
      [
        'meta mark 0x00004000 return',
        `${ip} saddr ${subnet} ${ip} daddr ${network} return`,
        `${ip} saddr ${network} ${ip} daddr ${subnet} return`,
        `${ip} saddr != ${network} ${ip} daddr ${subnet} return`,
        `${ip} saddr ${network} ${ip} daddr != ${MULTICAST[family]} ${masquerade}`,
        `${ip} saddr != ${network} ${ip} daddr ${network} ${masquerade}`,
      ],
    ]);
  }
  const text = chains.map(([name, hook, rules]) =>
    [`\tchain ${name} {`, `\t\t${hook}`, ...rules.map((rule) => `\t\t${rule}`), '\t}'].join('\n'),
  );
  return [`table ${NFT_TABLES[family]} {`, text.join('\n\n'), '}', ''].join('\n');
}
