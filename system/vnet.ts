/**
 * The virtio network header that TAP devices put in front of every frame when IFF_VNET_HDR is set: offload metadata.
 * Numbers are little-endian on the hosts that we support (tun uses the host's order). Linux: include/uapi/linux/virtio_net.h.
 *
 *      0      1        2        4        6          8           10          12
 *      +------+--------+--------+--------+----------+-----------+-----------+
 *      |flags |gso_type|hdr_len |gso_size|csum_start|csum_offset|num_buffers|        virtio_net_hdr_v1, 12 bytes
 *      +------+--------+--------+--------+----------+-----------+-----------+
 *      |  hash_value (4)   |hash_report|padding| outer_th_offset | inner_nh_offset |  to 24: ..._v1_hash_tunnel, Linux 6.17
 *      12                  16          18      20                22                24
 */
export const VNET_FLAGS = 0;
export const VNET_GSO_TYPE = 1;
export const VNET_HEADER_LENGTH = 2;
export const VNET_GSO_SIZE = 4;
export const VNET_CHECKSUM_START = 6;
export const VNET_CHECKSUM_OFFSET = 8;
export const VNET_OUTER_TRANSPORT = 20;
export const VNET_INNER_NETWORK = 22;

/** Header size on the overlay's TAP: without tunnel fields. */
export const VNET_PLAIN = 12;
/** Header size on the uplink's TAP: with tunnel fields. */
export const VNET_TUNNEL = 24;

/** Flag: the checksum at csum_start + csum_offset holds the pseudo-header's sum only; whoever sends has to finish it. */
export const NEEDS_CSUM = 1;
/** Flag: the kernel has verified the checksum. */
export const DATA_VALID = 2;
/** Flag: the outer UDP checksum of a tunnel super-frame has to be finished as well. */
export const UDP_TUNNEL_CSUM = 8;

export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
/** UDP segmentation: the payload is cut every gso_size bytes, each piece gets its own UDP header. */
export const GSO_UDP_L4 = 5;
export const GSO_TUNNEL_IPV4 = 0x20;
export const GSO_TUNNEL_IPV6 = 0x40;
export const GSO_TYPE_MASK = 0x1f;

/** TUNSETOFFLOAD bits: what the reader of a TAP can take. */
export const TUN_F_CSUM = 1;
export const TUN_F_TSO4 = 2;
export const TUN_F_TSO6 = 4;
export const TUN_F_USO4 = 0x20;
export const TUN_F_USO6 = 0x40;
export const TUN_F_UDP_TUNNEL_GSO = 0x80;
export const TUN_F_UDP_TUNNEL_GSO_CSUM = 0x100;
