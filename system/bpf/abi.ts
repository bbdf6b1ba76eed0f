/** The kernel's numbers for tc programs. Linux: include/uapi/linux/bpf.h, pkt_cls.h, if_packet.h. */

// Fields of struct __sk_buff, 32 bits each, as the program's first argument (r1) has them.
/** Bytes from the Ethernet header on; of a super-frame all of them. */
export const SKB_LENGTH = 0;
export const SKB_PACKET_TYPE = 4;
/** The ethertype as the wire has it, behind accelerated VLAN tags: in the host's order, its bytes are swapped. */
export const SKB_PROTOCOL = 16;
/** 1: a VLAN tag was taken off the frame, and belongs to it still. */
export const SKB_VLAN_PRESENT = 20;
/** Payload of each segment that a super-frame is to be cut into; 0 for an ordinary packet. What kind it is, is not told. */
export const SKB_GSO_SIZE = 176;

/** Packet type of a frame that is for another host's MAC address: the host's stack drops it. */
export const PACKET_OTHERHOST = 3;

/** map_lookup_elem(map, key): a pointer to the value, or 0. */
export const HELPER_MAP_LOOKUP = 1;
/** get_prandom_u32(): 32 random bits. */
export const HELPER_RANDOM = 7;
/** skb_store_bytes(skb, offset, from, length, flags): 0, or negative when the packet ends before. */
export const HELPER_SKB_STORE_BYTES = 9;
/** redirect(ifindex, flags): leaves through that device's egress (flags 0), or arrives on it. Returns TC_ACT_REDIRECT, to be returned. */
export const HELPER_REDIRECT = 23;
/** Flag of redirect(): the packet arrives on the device. */
export const REDIRECT_INGRESS = 1;
/**
 * skb_adjust_room(skb, difference, mode, flags): makes room behind the Ethernet header (ROOM_MAC), or takes bytes away there: 0, or
 * negative, and the packet is as it was.
 */
export const HELPER_SKB_ADJUST_ROOM = 50;
/** ktime_get_coarse_ns(): CLOCK_MONOTONIC_COARSE in nanoseconds. Linux 5.11. */
export const HELPER_COARSE_NANOSECONDS = 160;

// skb_adjust_room(): mode, and bits of its flags.
export const ROOM_MAC = 1;
/** Segments keep their size; datagrams of a UDP super-frame must. */
export const ROOM_FIXED_GSO = 1n << 0n;
export const ROOM_ENCAP_IPV4 = 1n << 1n;
export const ROOM_ENCAP_IPV6 = 1n << 2n;
export const ROOM_ENCAP_UDP = 1n << 4n;
/** What is encapsulated begins with an Ethernet header of 14 bytes. */
export const ROOM_ENCAP_ETHERNET = (1n << 6n) | (14n << 56n);
/** skb_load_bytes(skb, offset, to, length): 0, or negative when the packet ends before. Finds bytes outside the linear area too. */
export const HELPER_SKB_LOAD_BYTES = 26;
/** The same with where the offset counts from: RELATIVE_TO_NETWORK, the IP header (Linux 4.18). */
export const HELPER_SKB_LOAD_BYTES_RELATIVE = 68;
export const RELATIVE_TO_NETWORK = 1;

/** Results: drop the packet; do as redirect() was told; let the next program on the hook decide, and after the last one tc and the stack. */
export const TC_ACT_SHOT = 2;
export const TC_ACT_REDIRECT = 7;
export const TCX_NEXT = -1;

export const PROGRAM_SOCKET_FILTER = 1;
export const PROGRAM_SCHED_CLS = 3;
/** Kinds of attachment. Linux 6.6. */
export const TCX_INGRESS = 46;
export const TCX_EGRESS = 47;
