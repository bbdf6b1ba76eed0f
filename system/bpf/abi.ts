/** The kernel's numbers for tc programs. Linux: include/uapi/linux/bpf.h, pkt_cls.h, if_packet.h. */

// Fields of struct __sk_buff, 32 bits each, as the program's first argument (r1) has them.
export const SKB_PACKET_TYPE = 4;
/** The ethertype as the wire has it, behind accelerated VLAN tags: in the host's order, its bytes are swapped. */
export const SKB_PROTOCOL = 16;
/** 1: a VLAN tag was taken off the frame, and belongs to it still. */
export const SKB_VLAN_PRESENT = 20;

/** Packet type of a frame that is for another host's MAC address: the host's stack drops it. */
export const PACKET_OTHERHOST = 3;

/** redirect(ifindex, flags): leaves through that device's egress (flags 0). Returns TC_ACT_REDIRECT, to be returned. */
export const HELPER_REDIRECT = 23;
/** skb_load_bytes(skb, offset, to, length): 0, or negative when the packet ends before. Finds bytes outside the linear area too. */
export const HELPER_SKB_LOAD_BYTES = 26;

/** Results: do as redirect() was told; let the next program on the hook decide, and after the last one tc and the stack. */
export const TC_ACT_REDIRECT = 7;
export const TCX_NEXT = -1;

export const PROGRAM_SCHED_CLS = 3;
/** Kinds of attachment. Linux 6.6. */
export const TCX_INGRESS = 46;
