/** What a capture can say of a recorded packet beyond its bytes: where it was sent, why it was dropped, what is special about it. */
import { COUNTERS } from '../../dataplane/counters.ts';
import { DROPS } from '../../dataplane/drops.ts';
import {
  RECORD_COPIES,
  RECORD_DEVICE,
  RECORD_DROP,
  RECORD_DROPPED,
  RECORD_FLAGS,
  RECORD_GSO,
  RECORD_GSO_SIZE,
  RECORD_NEXT_HOP,
  RECORD_OUTER,
  RECORD_RECEIVED,
  RECORD_VIA_HOST,
} from '../../dataplane/record/ring.ts';
import { GSO_TYPE_MASK, GSO_UDP_L4, NEEDS_CSUM } from '../../system/vnet.ts';

/** What the numbers in records stand for. */
export interface CaptureNames {
  /** Of a device; undefined when it is gone. */
  device(index: number): string | undefined;
  /** Of an uplink: its NIC, and the address that its packets are sent from. */
  uplink(index: number): { readonly name: string; readonly kind: string; readonly local: string } | undefined;
  /** 'VTEP 192.0.2.2, port 8472, VNI 1 (FDB: 02:00:00:00:00:02 dst 192.0.2.2 static)'. `frame`: its beginning. */
  nextHop(index: number, device: number, frame: Uint8Array): string;
}

/** What comments depend on: words of a record, of its flags these, and where there is a next hop the destination MAC, which names an FDB entry. */
export const COMMENT_WORDS = [
  ...[RECORD_NEXT_HOP, RECORD_DEVICE, RECORD_COPIES, RECORD_DROP, RECORD_DROPPED, RECORD_GSO, RECORD_GSO_SIZE],
] as const;
export const COMMENT_FLAGS = RECORD_OUTER | RECORD_RECEIVED | RECORD_VIA_HOST;

/** `record`: its header's first word. `bytes`: of the packet. */
export function commentsOf(names: CaptureNames, words: Int32Array, record: number, bytes: Uint8Array): string[] {
  const flags = words[record + RECORD_FLAGS];
  const comments: string[] = [];
  const nextHop = words[record + RECORD_NEXT_HOP];
  if (nextHop > 0) {
    const copies = words[record + RECORD_COPIES];
    const to = names.nextHop(nextHop, words[record + RECORD_DEVICE], bytes);
    comments.push(copies > 1 ? `to ${copies} VTEPs, first ${to}` : `to ${to}`);
  }
  const drop = words[record + RECORD_DROP];
  if (drop > 0) comments.push(dropText(COUNTERS[drop - 1], words[record + RECORD_DROPPED]));
  const gso = words[record + RECORD_GSO];
  const type = (gso >> 8) & GSO_TYPE_MASK;
  const size = words[record + RECORD_GSO_SIZE];
  const isRun = (flags & RECORD_OUTER) !== 0 && gso >> 8 === GSO_UDP_L4;
  if (isRun) comments.push(`a run of VXLAN packets, one every ${size} bytes: sent and received at once (UDP GSO)`);
  else if (type !== 0) {
    const what = type === GSO_UDP_L4 ? 'datagrams' : 'a TCP segment';
    comments.push(`super-frame: ${what} to be cut every ${size} bytes of payload`);
  }
  if (gso & NEEDS_CSUM && type === 0)
    comments.push("checksum unfinished: the pseudo-header's sum, the rest is left to the NIC");
  if (flags & RECORD_VIA_HOST) {
    const done = flags & RECORD_RECEIVED ? 'has taken off' : 'writes';
    comments.push(
      `the host's stack ${done} the outer headers: MACs, identification, source port and TTL are not known here`,
    );
  }
  return comments;
}

function dropText(name: string, count: number): string {
  const drop = DROPS.find((each) => each.name === name);
  const dropped = count > 1 ? `dropped (${count} packets)` : 'dropped';
  return `${dropped}, ${name}: ${drop?.meaning ?? 'a reason without a name'} ${drop?.advice ?? ''}`.trimEnd();
}
