/** Names of the numbers that say what follows. https://www.iana.org/assignments/ieee-802-numbers, .../protocol-numbers */

const ETHERTYPES = new Map([
  [0x0800, 'IPv4'],
  [0x0806, 'ARP'],
  [0x8100, 'VLAN tag'],
  [0x86dd, 'IPv6'],
  [0x8808, 'Ethernet flow control'],
  [0x8847, 'MPLS'],
  [0x8863, 'PPPoE discovery'],
  [0x8864, 'PPPoE session'],
  [0x88a8, 'service VLAN tag'],
  [0x88cc, 'LLDP'],
  [0x894f, 'NSH'],
]);

const PROTOCOLS = new Map([
  [0, 'hop-by-hop options'],
  [1, 'ICMP'],
  [2, 'IGMP'],
  [4, 'IPv4 in IP'],
  [6, 'TCP'],
  [17, 'UDP'],
  [41, 'IPv6 in IP'],
  [43, 'routing header'],
  [44, 'fragment header'],
  [47, 'GRE'],
  [50, 'ESP'],
  [51, 'AH'],
  [58, 'ICMPv6'],
  [59, 'no next header'],
  [60, 'destination options'],
  [89, 'OSPF'],
  [112, 'VRRP'],
  [132, 'SCTP'],
]);

const PORTS = new Map([
  [22, 'SSH'],
  [53, 'DNS'],
  [67, 'DHCP server'],
  [68, 'DHCP client'],
  [80, 'HTTP'],
  [123, 'NTP'],
  [179, 'BGP'],
  [443, 'HTTPS'],
  [546, 'DHCPv6 client'],
  [547, 'DHCPv6 server'],
  [4789, "VXLAN, IANA's port"],
  [4790, 'VXLAN-GPE'],
  [6081, 'Geneve'],
  [8472, "VXLAN, Linux's default port"],
]);

const ECN = ['not ECN-capable', 'ECT(1)', 'ECT(0)', 'congestion experienced'];

export function etherTypeName(type: number): string | undefined {
  return ETHERTYPES.get(type);
}

export function protocolName(protocol: number): string | undefined {
  return PROTOCOLS.get(protocol);
}

export function portName(port: number): string | undefined {
  return PORTS.get(port);
}

/** RFC 3168, 5. */
export function ecnName(codepoint: number): string {
  return ECN[codepoint];
}

/** RFC 2474; RFC 2597; RFC 3246; RFC 8622. */
export function dscpName(dscp: number): string {
  if (dscp === 0) return 'default, CS0';
  if (dscp === 46) return 'expedited forwarding, EF';
  if (dscp === 1) return 'lower effort, LE';
  if ((dscp & 7) === 0) return `class selector CS${dscp >> 3}`;
  const group = dscp >> 3;
  if (group >= 1 && group <= 4 && (dscp & 1) === 0) return `assured forwarding AF${group}${(dscp & 7) >> 1}`;
  return 'no standard meaning';
}
