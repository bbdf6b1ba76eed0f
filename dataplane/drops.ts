/**
 * Every reason for which a packet is not delivered: a counter a reason, and what an operator should know about it. A packet
 * that is not delivered adds to exactly one of them.
 */
export interface Drop {
  /** Name of the counter. */
  readonly name: string;
  /** tx: from the TAP to the network. rx: from the network to the TAP. */
  readonly direction: 'tx' | 'rx';
  readonly meaning: string;
  readonly advice: string;
}

export const DROPS = [
  {
    name: 'tx_runt',
    direction: 'tx',
    meaning: 'The frame is shorter than an Ethernet header.',
    advice: 'Look for the program that writes raw frames to the device.',
  },
  {
    name: 'tx_malformed',
    direction: 'tx',
    meaning: "A super-frame's offload metadata contradicts its headers.",
    advice: 'Look for the program that writes frames with a virtio header to the device.',
  },
  {
    name: 'tx_no_remote',
    direction: 'tx',
    meaning: "The FDB has no entry for the frame's destination, and no default (all-zeros) entry.",
    advice: "Add one: 'uvxlan fdb append 00:00:00:00:00:00 dev DEV dst VTEP', or an entry for the MAC.",
  },
  {
    name: 'tx_suppressed',
    direction: 'tx',
    meaning: 'ARP or neighbour discovery that proxy or neigh_suppress keeps off the network, and has no answer for.',
    advice:
      "See what the device answers for: 'uvxlan neigh show dev DEV nud all'; neigh_suppress floods what it does not know.",
  },
  {
    name: 'tx_unresolved',
    direction: 'tx',
    meaning:
      "The remote VTEP's next hop is not known: no route, or its neighbour does not answer; or it is this host, and no device takes the packets.",
    advice: "See 'uvxlan link show -d' for the reason, then 'ip route get VTEP' and 'ip neigh'.",
  },
  {
    name: 'tx_too_big',
    direction: 'tx',
    meaning:
      'The encapsulated packet does not fit the MTU of the path to the VTEP, and may not be fragmented. Where its sender can be told, it is, by ICMP.',
    advice: "Lower the device's MTU to the NIC's minus 50 (IPv6: 70), or raise the NIC's.",
  },
  {
    name: 'tx_uplink_full',
    direction: 'tx',
    meaning: 'The uplink took no more packets: its queue was full.',
    advice: 'The host sends faster than the NIC carries; look at the NIC and its queueing discipline.',
  },
  {
    name: 'tx_uplink_down',
    direction: 'tx',
    meaning: "The uplink's own TAP, or the NIC under it, is down or gone.",
    advice: "Bring the NIC up: 'ip link set NIC up'. uvxlan looks after its TAP by itself.",
  },
  {
    name: 'tx_refused',
    direction: 'tx',
    meaning: 'A firewall rule or an IPsec policy of this host refused the packet.',
    advice: "Look for a rule that drops UDP to the VXLAN port on its way out: 'nft list ruleset', 'ip xfrm policy'.",
  },
  {
    name: 'tx_uplink_error',
    direction: 'tx',
    meaning: 'The kernel refused the packet for another reason.',
    advice: 'The last error is named beside the counter; report it if its cause is not plain.',
  },
  {
    name: 'tx_tap_overflow',
    direction: 'tx',
    meaning:
      "The device's queue was full: frames were sent to it faster than the workers read them (counted by the kernel).",
    advice: "Give it more workers, or a longer queue: 'ip link set DEV txqueuelen N'.",
  },
  {
    name: 'tx_worker_lost',
    direction: 'tx',
    meaning: 'The worker that held the frame failed and was started again.',
    advice: "Report the error in the daemon's log.",
  },
  {
    name: 'tx_offload_lost',
    direction: 'tx',
    meaning: 'The kernel had no memory left to finish a frame that it carried by itself (counted by the kernel).',
    advice: "The machine is out of memory: 'free -m', 'dmesg'.",
  },
  {
    name: 'rx_outer_malformed',
    direction: 'rx',
    meaning: 'The outer headers are truncated, contradict each other, or are not UDP to our port.',
    advice: 'Capture on the NIC: something on the network sends broken packets to the VXLAN port.',
  },
  {
    name: 'rx_outer_checksum',
    direction: 'rx',
    meaning: 'The outer IPv4 or UDP checksum is wrong.',
    advice:
      'Packets are damaged on the way, or a NIC computes checksums wrongly: try ethtool -K NIC tx off on the sender.',
  },
  {
    name: 'rx_invalid_header',
    direction: 'rx',
    meaning: 'The VXLAN header is truncated, or its I flag is not set.',
    advice: 'Something else than VXLAN is sent to the port: capture on the NIC.',
  },
  {
    name: 'rx_unknown_vni',
    direction: 'rx',
    meaning: 'No device here has the VNI of the packet.',
    advice: "Compare the VNI ('id') on both sides.",
  },
  {
    name: 'rx_reserved_bits',
    direction: 'rx',
    meaning: 'The VXLAN header has a bit that is to be zero (reserved_bits).',
    advice: "The sender speaks an extension (GBP, GPE): give 'gbp', or let the bits pass with 'reserved_bits'.",
  },
  {
    name: 'rx_inner_truncated',
    direction: 'rx',
    meaning: 'The packet ends before the inner Ethernet header does.',
    advice: 'Capture on the NIC: the sender builds broken packets.',
  },
  {
    name: 'rx_invalid_source_mac',
    direction: 'rx',
    meaning: "The inner frame's source is a multicast or all-zeros MAC.",
    advice: 'A host in the overlay sends broken frames, or somebody forges them.',
  },
  {
    name: 'rx_own_mac',
    direction: 'rx',
    meaning: "The inner frame's source is this device's own MAC: the frame came back.",
    advice: 'Look for a loop between VTEPs, or two devices with one MAC.',
  },
  {
    name: 'rx_congestion',
    direction: 'rx',
    meaning:
      'A router marked the packet for congestion (CE), and the inner sender does not do ECN: loss tells it instead (RFC 6040).',
    advice:
      'The way between the VTEPs is congested. Many of them on an idle way: the sending VTEP sets ECN bits wrongly.',
  },
  {
    name: 'rx_unknown_vtep',
    direction: 'rx',
    meaning: 'The sender is not a VTEP of the FDB, and vtep-filter lets only these in.',
    advice:
      "See 'uvxlan link show -d' for the last ones. One that belongs here: 'uvxlan fdb append MAC dev DEV dst VTEP'.",
  },
  {
    name: 'rx_wrong_vtep',
    direction: 'rx',
    meaning: 'The inner source MAC is not configured for the VTEP that sent the packet (vtep-filter strict).',
    advice:
      "See 'uvxlan link show -d' for the last ones, and 'uvxlan fdb get MAC dev DEV' for where the MAC should be.",
  },
  {
    name: 'rx_wrong_subnet',
    direction: 'rx',
    meaning: "The inner source address is not of the sending node's pod subnet (vtep-filter strict of uvxlan flannel).",
    advice:
      "See 'uvxlan link show -d' for the last ones. Somebody forges addresses there, or the node sends for others on purpose: '--vtep-filter known'.",
  },
  {
    name: 'rx_static_mac',
    direction: 'rx',
    meaning: 'The inner source MAC has a static entry for another VTEP than the sender: it may not move.',
    advice: "If it has moved, change its entry: 'uvxlan fdb replace MAC dev DEV dst VTEP'. If not, somebody forges it.",
  },
  {
    name: 'rx_device_down',
    direction: 'rx',
    meaning: 'The device is down, so that the kernel takes no frames from us.',
    advice: "Bring it up: 'ip link set DEV up'.",
  },
  {
    name: 'rx_device_error',
    direction: 'rx',
    meaning: 'The kernel refused the frame for another reason.',
    advice: 'The last error is named beside the counter; report it if its cause is not plain.',
  },
  {
    name: 'rx_uplink_overflow',
    direction: 'rx',
    meaning:
      "The uplink's queue was full: packets came in faster than the workers read them (counted by the kernel, which counts " +
      'wrong outer checksums here too where the uplink is a socket).',
    advice: "Give the daemon more workers; for checksums see 'nstat UdpInCsumErrors'.",
  },
  {
    name: 'rx_worker_lost',
    direction: 'rx',
    meaning: 'The worker that held the packet failed and was started again.',
    advice: "Report the error in the daemon's log.",
  },
  {
    name: 'rx_offload_lost',
    direction: 'rx',
    meaning: 'The kernel had no memory left to finish a packet that it received by itself (counted by the kernel).',
    advice: "The machine is out of memory: 'free -m', 'dmesg'.",
  },
] as const satisfies readonly Drop[];

export type DropName = (typeof DROPS)[number]['name'];
